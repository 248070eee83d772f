"""A fault: something that can happen to an installation, and how it ends."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from scoring.errors import LedgerUnreachable
from scoring.ledger import RunRecord
from tests.chaos.actor import Actor
from tests.chaos.installation import Installation


@dataclass(slots=True, kw_only=True)
class Target:
    """What a fault is given: the installation, the run that goes on, and a seeded chance."""

    installation: Installation
    actor: Actor
    run_id: str
    chance: random.Random

    def record(self) -> RunRecord | None:
        """The run, or None while the ledger does not answer."""
        try:
            return self.installation.run(self.run_id)
        except LedgerUnreachable:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A fault that happened."""

    lasts: float = 0.0
    """Seconds until it is to be healed."""
    heal: Callable[[], None] | None = None
    """None: it is over already, or heals by itself."""


def anywhere(_: Installation) -> str:
    """Of a fault that can always be caused."""
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind of fault."""

    name: str
    weight: float
    """How often it comes, against the others."""
    strike: Callable[[Target], Hit | None]
    """Cause it; None if there was nothing to hit."""
    possible: Callable[[Installation], str] = anywhere
    """Why it cannot be caused in an installation; empty: it can."""
