"""Clean: remove what runs left behind and nobody needs, or list it.

Safe while everything runs, twice at once, and killed at any point: each leftover is removed by
itself, when it is still one, and what an earlier clean-up did not get to is found again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from scoring import telemetry
from scoring.errors import StoreRefused, StoreUnreachable
from scoring.runs.context import Context
from scoring.runs.leftover import Leftover, Policy
from scoring.runs.leftover_artifacts import leftover_frames, leftover_variants
from scoring.runs.leftover_models import leftover_models
from scoring.runs.leftover_objects import leftover_objects, prefixes
from scoring.runs.leftover_parts import leftover_parts, places

UNREACHABLE = (OSError, StoreRefused, StoreUnreachable)
"""What keeps one place from being cleaned, and no other."""

log = telemetry.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """What a clean-up found and, unless it only looked, has removed."""

    leftovers: tuple[Leftover, ...]
    problems: tuple[str, ...]
    """What could not be looked at or removed, and why."""

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.leftovers)


def clean(context: Context, policy: Policy, *, dry_run: bool = False) -> Cleaned:
    """Remove every leftover, or with ``dry_run`` only list them.

    Raises: LedgerUnreachable.
    """
    now = time.time()
    looks: list[Callable[[], Iterator[Leftover]]] = [
        *(partial(leftover_parts, context, policy, place, now) for place in places(context)),
        *(partial(leftover_objects, context, policy, place, now) for place in prefixes(context)),
        partial(leftover_frames, context, policy, now),
        partial(leftover_variants, context, now),
        partial(leftover_models, context, policy, now),
    ]
    found: list[Leftover] = []
    problems: list[str] = []
    for look in looks:
        try:
            for leftover in look():
                if dry_run or _removed(leftover, problems):
                    found.append(leftover)
        except UNREACHABLE as error:
            problems.append(str(error))
    cleaned = Cleaned(leftovers=tuple(found), problems=tuple(problems))
    if found and not dry_run:
        count = len(found)
        context.ledger.runs.note(
            None, "cleaned", leftovers=count, bytes=cleaned.bytes, who=policy.who
        )
        log.info("cleaned", leftovers=count, bytes=cleaned.bytes)
    return cleaned


def _removed(leftover: Leftover, problems: list[str]) -> bool:
    try:
        return leftover.remove()
    except UNREACHABLE as error:
        problems.append(str(error))
        return False
