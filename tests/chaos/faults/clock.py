"""A worker whose clock is off by up to ten minutes, forwards or backwards."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.faults.fault import Fault, Hit, Target

MOST_SECONDS = 600.0
SHIFTED = Path(__file__).parents[1] / "clock"
"""A folder whose ``sitecustomize`` sets a process's clock off."""


def set_off(target: Target) -> Hit | None:
    """One worker starts again with a wrong clock, and keeps it until this comes again."""
    worker = target.chance.choice(target.installation.workers)
    off = MOST_SECONDS * target.chance.choice((-1.0, 1.0, target.chance.uniform(-1.0, 1.0)))
    worker.environment |= {"PYTHONPATH": str(SHIFTED), "CHAOS_CLOCK_SECONDS": str(off)}
    worker.kill()
    return Hit(lasts=30.0, heal=lambda: _mend(worker.environment))


def _mend(environment: dict[str, str]) -> None:
    """From its next start on, its clock is right."""
    environment.pop("CHAOS_CLOCK_SECONDS", None)


FAULTS = (Fault(name="clock of a worker off", weight=0.6, strike=set_off),)
