"""The history of runs: what happened to each, and when, for people to read; nothing acts on it.

Events are only ever added, each chained to the one before (see `chain`). The chain's end is one
row that every appending transaction locks until its own end, so appends queue: an append is the
last statement of its transaction, or two of them may wait for each other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select, update

from scoring.errors import LedgerUnreachable
from scoring.ledger import chain
from scoring.ledger.records import EventRecord
from scoring.ledger.tables import database_now, event_chain, events

_END = select(
    event_chain.c.length, event_chain.c.hash, database_now().label("now")
).with_for_update()


def append(
    connection: Connection, run_id: str | None, event: str, detail: Mapping[str, Any]
) -> None:
    """Add an event in the transaction of the change that it tells of, as its last statement.

    Raises:
        LedgerUnreachable: the chain has lost its end, so nothing can be added to it.
    """
    end = connection.execute(_END).one_or_none()
    if end is None:
        shown = connection.engine.url.render_as_string(hide_password=True)
        raise LedgerUnreachable(
            shown, "its chain of events has lost its end, see `scoring audit verify`"
        )
    position, text = end.length + 1, as_json(detail)
    fresh = chain.link(end.hash, position, run_id, end.now, event, text)
    connection.execute(
        insert(events).values(
            position=position, run_id=run_id, at=end.now, event=event, detail=text, hash=fresh
        )
    )
    connection.execute(update(event_chain).values(length=position, hash=fresh))


def of(connection: Connection, run_id: str) -> list[EventRecord]:
    """The events of a run, oldest first."""
    rows = connection.execute(
        select(events.c.at, events.c.event, events.c.detail)
        .where(events.c.run_id == run_id)
        .order_by(events.c.position)
    )
    return [EventRecord(at=row.at, event=row.event, detail=json.loads(row.detail)) for row in rows]


def as_json(detail: Mapping[str, Any]) -> str:
    """JSON that every reader takes, in ASCII: a figure that is no finite number is null."""
    try:
        return json.dumps(detail, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(detail), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
