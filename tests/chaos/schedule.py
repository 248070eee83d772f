"""What happens when: every run's table, model and faults, drawn from one seed.

A plan is a value: the same seed gives the same plans. What a fault finds when it strikes is up to
the processes, so what is counted is what was hit.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.chaos.faults import Fault

PAUSE_SECONDS = (0.05, 0.9)
"""Between two faults, least and most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run of chaos."""

    table: int
    """Place in the material's tables."""
    model: int
    """Place in its models."""
    variant: str
    max_attempts: int
    submitter_dies_before: int
    """Step of the submission at which its process is killed; 0: it is not."""
    strikes: Sequence[tuple[float, Fault]]
    """Faults in order, each with the seconds to wait before it."""


def plans(
    chance: random.Random,
    faults: Sequence[Fault],
    *,
    tables: int,
    models: int,
    most_faults: int = 9,
) -> Iterator[Plan]:
    """Plans without end; no two runs in a row score the same table."""
    number = 0
    while True:
        number += 1
        searches = chance.random() < 0.15
        yield Plan(
            table=number % tables,
            model=chance.randrange(models),
            variant="auto" if searches else "native",
            max_attempts=3 if chance.random() < 0.08 else 100,
            submitter_dies_before=chance.randint(1, 14) if chance.random() < 0.35 else 0,
            strikes=_strikes(chance, faults, chance.randint(most_faults // 2, most_faults)),
        )


def _strikes(
    chance: random.Random, faults: Sequence[Fault], count: int
) -> tuple[tuple[float, Fault], ...]:
    weights = [fault.weight for fault in faults]
    drawn = chance.choices(faults, weights, k=count)
    return tuple((chance.uniform(*PAUSE_SECONDS), fault) for fault in drawn)
