"""A promotion, as runs see it: a run of a job is pinned to another version than the one before."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from scoring.ledger.records import NewRun
from scoring.ledger.tables import runs


def promotion(connection: Connection, run: NewRun) -> dict[str, Any] | None:
    """From which version to which, if a new run has another than the job's run before it.

    Replays neither see a promotion nor count as the run before: they may be of any version.
    """
    if run.model_version is None or run.replay_of is not None:
        return None
    before = connection.execute(
        select(runs.c.id, runs.c.model_name, runs.c.model_version, runs.c.model_digest)
        .where(
            runs.c.job == run.job,
            runs.c.id != run.id,
            runs.c.replay_of.is_(None),
            runs.c.model_version.is_not(None),
        )
        .order_by(runs.c.created_at.desc(), runs.c.id.desc())
        .limit(1)
    ).one_or_none()
    if before is None:
        return None
    earlier = f"models:/{before.model_name}/{before.model_version}"
    now = f"models:/{run.model_name}/{run.model_version}"
    if (earlier, before.model_digest) == (now, run.model_digest):
        return None
    return {
        "from": earlier,
        "to": now,
        "from_digest": before.model_digest,
        "to_digest": run.model_digest,
        "before": before.id,
    }
