"""The audit: walks the whole chain of events, and lists it for people.

The walk reads the log in pages, each a short read of its own, so that it takes bounded memory and
keeps nobody from appending: what is appended meanwhile is walked too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from scoring.ledger.chain import GENESIS, End, Event, Fault, Walk
from scoring.ledger.database import Database
from scoring.ledger.tables import event_chain, events

PAGE = 500
"""Events that are read at once."""
_EVENTS = select(
    *(events.c[name] for name in ("id", "position", "run_id", "at", "event", "detail", "hash"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a walk along the whole chain found."""

    events: int
    first_at: float | None
    """Seconds since the epoch; ``None``: there is no event yet."""
    last_at: float | None
    head: str
    """Hash of the last event: kept elsewhere, it proves later that all of this is still there."""
    since_position: int | None
    """The event whose hash was looked for, 0 for the beginning; ``None``: none was, or not met."""
    faults: tuple[Fault, ...]
    faults_found: int
    """Of which ``faults`` holds the first hundred."""

    @property
    def intact(self) -> bool:
        return self.faults_found == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEvent:
    """One event of the log."""

    position: int
    run_id: str | None
    at: float
    event: str
    detail: dict[str, Any]
    hash: str


class Audit:
    """Verify the log, and read it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def verify(self, since: str | None = None) -> Verdict:
        """Walk the chain; ``since`` is the hash of an event that must still be in it."""
        walk = Walk(since)
        ends, page = self._page(None)
        while page:
            for event in page:
                walk.see(event)
            ends, page = self._page(page[-1].position)
        walk.finish(ends)
        return Verdict(
            events=walk.events,
            first_at=walk.first.at if walk.first else None,
            last_at=walk.last.at if walk.last else None,
            head=walk.last.hash if walk.last else GENESIS,
            since_position=walk.since_position,
            faults=tuple(walk.faults),
            faults_found=walk.faults_found,
        )

    def log(self, *, run_id: str | None = None, limit: int = 50) -> list[LoggedEvent]:
        """The newest events (of one run), oldest first."""
        query = _EVENTS.order_by(events.c.position.desc()).limit(limit)
        if run_id is not None:
            query = query.where(events.c.run_id == run_id)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [
            LoggedEvent(
                position=row.position,
                run_id=row.run_id,
                at=row.at,
                event=row.event,
                detail=json.loads(row.detail),
                hash=row.hash,
            )
            for row in reversed(rows)
        ]

    def _page(self, after: int | None) -> tuple[list[End], list[Event]]:
        """The end as it is, then the events behind a position: an event of that end is among them,
        or was on an earlier page."""
        query = _EVENTS.order_by(events.c.position).limit(PAGE)
        if after is not None:
            query = query.where(events.c.position > after)
        with self._database.reading() as connection:
            ends = connection.execute(select(event_chain.c.length, event_chain.c.hash)).all()
            rows = connection.execute(query).all()
        return (
            [End(length=row.length, hash=row.hash) for row in ends],
            [Event(**row._mapping) for row in rows],
        )
