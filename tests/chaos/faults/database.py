"""A PostgreSQL that stops at once, and is back at once or after a while."""

from __future__ import annotations

from tests.chaos.faults.fault import Fault, Hit, Target
from tests.chaos.installation import Installation

LONGEST_SECONDS = 30.0
"""The longest that it refuses; one of ten times it is near that."""


def restart(target: Target) -> Hit | None:
    postgres = target.installation.postgres
    if postgres is None or not postgres.running:
        return None
    postgres.stop()
    postgres.start()
    return Hit()


def refuse(target: Target) -> Hit | None:
    """It is down for seconds."""
    postgres = target.installation.postgres
    if postgres is None or not postgres.running:
        return None
    postgres.stop()
    long = target.chance.random() < 0.1
    seconds = LONGEST_SECONDS if long else target.chance.uniform(1.0, 8.0)
    return Hit(lasts=seconds, heal=postgres.start)


def _has_a_server(installation: Installation) -> str:
    return "" if installation.postgres is not None else "SQLite has no server"


FAULTS = (
    Fault(name="PostgreSQL restarted", weight=1.5, strike=restart, possible=_has_a_server),
    Fault(name="PostgreSQL down for seconds", weight=1.0, strike=refuse, possible=_has_a_server),
)
