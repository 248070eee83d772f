"""The history of runs: what happened to each, and when, for people to read; nothing acts on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select

from scoring.ledger.records import EventRecord
from scoring.ledger.tables import database_now, events


def append(
    connection: Connection, run_id: str | None, event: str, detail: Mapping[str, Any]
) -> None:
    """Add an event in the transaction of the change that it tells of."""
    connection.execute(
        insert(events).values(
            run_id=run_id, at=database_now(), event=event, detail=json.dumps(detail)
        )
    )


def of(connection: Connection, run_id: str) -> list[EventRecord]:
    """The events of a run, oldest first."""
    rows = connection.execute(
        select(events.c.at, events.c.event, events.c.detail)
        .where(events.c.run_id == run_id)
        .order_by(events.c.id)
    )
    return [EventRecord(at=row.at, event=row.event, detail=json.loads(row.detail)) for row in rows]
