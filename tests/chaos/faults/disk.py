"""A disk that is full for seconds: under the parts, the ledger or the models."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path

from tests.chaos.faults.fault import Fault, Hit, Target
from tests.chaos.installation import Installation

FILLER = "filler"


def fill(target: Target, *, what: str) -> Hit | None:
    """Write until nothing more fits, and take it away again after some seconds."""
    volume = target.installation.volumes[what]
    filler = volume / FILLER
    if filler.exists():
        return None
    fill_up(filler)
    return Hit(lasts=target.chance.uniform(0.5, 5.0), heal=lambda: filler.unlink(missing_ok=True))


def fill_up(filler: Path) -> None:
    """A file as large as there is room for."""
    with filler.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    os.write(file.fileno(), b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def _mounted(installation: Installation, what: str) -> str:
    if what == "ledger" and installation.kind != "sqlite":
        return "the server has its own disk"
    return "" if what in installation.volumes else "needs the right to mount a small filesystem"


FAULTS = tuple(
    Fault(
        name=f"disk full under the {what}",
        weight=weight,
        strike=partial(fill, what=what),
        possible=partial(_mounted, what=what),
    )
    for what, weight in (("parts", 1.5), ("ledger", 2.0), ("cache", 0.7))
)
