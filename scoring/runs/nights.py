"""Which runs are of the same night: a slot that is scored again is still one night.

A schedule names a slot by its due time, a person by its date alone, which stands for every slot of
that day. Invariant: of each night the newest run counts, and no night counts twice; a run without
a slot is a night of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from scoring.ledger import RunRecord

__all__ = ["other_nights"]

DATE = len("2026-11-23")


def other_nights(runs: Iterable[RunRecord], than: str | None) -> Iterator[RunRecord]:
    """The runs, newest first, of other nights than the slot or date `than`: of each its newest."""
    seen = _Seen()
    seen.add(than)
    for run in runs:
        if run.slot not in seen:
            seen.add(run.slot)
            yield run


class _Seen:
    """Slots and dates; a date is in it with any slot of its day, and a slot with its date."""

    def __init__(self) -> None:
        self._slots: set[str] = set()
        self._days: set[str] = set()

    def add(self, slot: str | None) -> None:
        if slot is not None:
            self._slots.add(slot)
            self._days.add(slot[:DATE])

    def __contains__(self, slot: str | None) -> bool:
        if slot is None:
            return False
        day = slot[:DATE]
        return slot in self._slots or day in (self._days if slot == day else self._slots)
