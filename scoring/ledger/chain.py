"""The chain of events: each event's hash covers the event and the hash of the one before.

Whoever changes, removes, inserts or moves an event breaks the chain at that place, and `Walk` says
where. Hashes are SHA-256; the scheme is that of a hash-linked log (Haber and Stornetta, "How to
time-stamp a digital document", 1991). Nothing in it is secret: who can write to the database can
write the whole chain anew, and only a hash that was kept elsewhere shows that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

GENESIS = "0" * 64
"""What the first event's hash covers in place of one before."""
MOST_FAULTS = 100
"""Faults that are kept; the others are counted, so that any damage is told in bounded memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event as it is stored."""

    id: int
    """In the order in which rows were written."""
    position: int
    """In the chain, from 1, without gaps."""
    run_id: str | None
    at: float
    """Seconds since the epoch, by the database's clock."""
    event: str
    detail: str
    """JSON, as it was hashed."""
    hash: str

    def __str__(self) -> str:
        return f"{self.position} ({self.event} of run {self.run_id or 'none'})"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Where the ledger says that the chain ends."""

    length: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong with the chain."""

    position: int | None
    """Of the event at fault; ``None``: it is not about one event."""
    run_id: str | None
    event: str | None
    what: str


def link(
    previous: str, position: int, run_id: str | None, at: float, event: str, detail: str
) -> str:
    """The hash of an event at a position of the chain; ``detail`` is the JSON text as stored."""
    told = json.dumps([position, run_id, at, event, detail], separators=(",", ":"))
    return hashlib.sha256(f"{previous}\n{told}".encode()).hexdigest()


class Walk:
    """A walk along the chain, shown one event after the other in the order of their positions."""

    def __init__(self, since: str | None = None) -> None:
        self._since = since
        self.first: Event | None = None
        self.last: Event | None = None
        self.events = 0
        self.since_position = 0 if since == GENESIS else None
        """Where the hash that was looked for stands; ``None``: it was not met."""
        self.faults: list[Fault] = []
        self.faults_found = 0

    def see(self, event: Event) -> None:
        """Check the next event against the one before."""
        if not isinstance(event.position, int) or event.position < 1:
            self._fault(event, "was put into the log from outside: positions are numbers from 1")
            return
        before = self.last
        expected = before.position + 1 if before else 1
        if event.position > expected:
            self._missing(expected, event)
        elif not _fits(event, before):
            self._fault(event, _misfit(event, before))
        elif event.hash == self._since:
            self.since_position = event.position
        self.first = self.first or event
        self.last = event
        self.events += 1

    def finish(self, ends: Sequence[End]) -> None:
        """Check the end of the chain, of which there is one, and what was looked for."""
        if len(ends) != 1:
            self._fault(None, f"event_chain has {len(ends)} rows, and must have one")
        else:
            self._check_end(ends[0])
        if self._since is not None and self.since_position is None:
            self._fault(
                None,
                f"no event has the hash {self._since}: the log was cut off before it, or written "
                "anew since",
            )

    def _check_end(self, end: End) -> None:
        length = self.last.position if self.last else 0
        if end.length > length:
            lost = _numbered(length + 1, end.length)
            self._fault(None, f"{lost} removed from the end: event_chain counts {end.length}")
        elif end.length < length:
            self._fault(
                self.last,
                f"is beyond the end: event_chain counts {end.length}. That row was changed, or "
                "what follows it was added from outside",
            )
        elif end.hash != (self.last.hash if self.last else GENESIS):
            self._fault(
                self.last,
                "does not have the hash that event_chain has for it: the event or that row was "
                "changed",
            )

    def _missing(self, expected: int, event: Event) -> None:
        lost = _numbered(expected, event.position - 1)
        self._fault(event, f"follows a gap: {lost} removed, so it cannot be checked itself")

    def _fault(self, event: Event | None, what: str) -> None:
        self.faults_found += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(
                Fault(
                    position=event.position if event else None,
                    run_id=event.run_id if event else None,
                    event=event.event if event else None,
                    what=what,
                )
            )


def _fits(event: Event, before: Event | None) -> bool:
    previous = before.hash if before else GENESIS
    try:
        expected = link(previous, event.position, event.run_id, event.at, event.event, event.detail)
    except (TypeError, ValueError):  # a column holds what we never write there
        return False
    return event.hash == expected


def _misfit(event: Event, before: Event | None) -> str:
    if before is None:
        return "is not what its hash says: it was changed, or events before it were removed"
    if event.id < before.id:
        return f"was written before {before}, which stands ahead of it: moved or inserted"
    return f"does not follow from {before}: this event was changed, or that one and its hash"


def _numbered(first: int, last: int) -> str:
    return f"event {first} was" if first == last else f"events {first} to {last} were"
