"""The history of runs: what happened to each, and when, for people to read; nothing acts on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert

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
