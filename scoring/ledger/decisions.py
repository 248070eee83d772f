"""What people decide about a held run, once: release it, or reject it for good.

Both are one conditional statement on a run that is held, so of people who decide at once one does
and the others are told. Who and why stay with the run and in its history.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, select, update

from scoring.errors import RunNotFound, RunNotInState
from scoring.ledger import history
from scoring.ledger.database import Database
from scoring.ledger.records import Decision
from scoring.ledger.tables import database_now, runs


class Decisions:
    """Release and reject held runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def release(self, run_id: str, who: str, reason: str = "") -> None:
        """Let a held run be published; its finisher does the rest.

        Finishing is granted as many attempts as the job gave it at first.

        Raises:
            RunNotFound, RunNotInState: the run is not held.
        """
        with self._database.reading() as connection:
            job = connection.scalar(select(runs.c.job_json).where(runs.c.id == run_id))
        if job is None:
            raise RunNotFound(run_id)
        attempts = int(json.loads(job)["execution"]["max_attempts"])
        self._decide(
            run_id,
            "released",
            who,
            reason,
            state="finishing",
            released=1,
            max_attempts=runs.c.finish_attempt + attempts,
            finished_at=None,
            finish_lease_until=None,
        )

    def reject(self, run_id: str, who: str, reason: str = "") -> None:
        """Give a held run up for good: it is cancelled, and can be neither released nor retried.

        Its parts may be removed from then on; `parts_removed` is told when they are.

        Raises:
            RunNotFound, RunNotInState: the run is not held.
        """
        why = f"rejected by {who}: {reason}" if reason else f"rejected by {who}"
        self._decide(
            run_id,
            "rejected",
            who,
            reason,
            state="cancelled",
            error=why,
            finished_at=database_now(),
        )

    def with_parts(self) -> list[str]:
        """Rejected runs whose parts are not known to be removed yet."""
        left = select(runs.c.id).where(
            runs.c.state == "cancelled",
            runs.c.decision == "rejected",
            runs.c.staging.is_not(None),
        )
        with self._database.reading() as connection:
            return list(connection.execute(left).scalars())

    def parts_removed(self, run_id: str) -> bool:
        """Remember that a rejected run has no staging folder any more. False if it is none."""
        removed = (
            update(runs)
            .where(runs.c.id == run_id, runs.c.decision == "rejected")
            .values(staging=None)
        )
        with self._database.transaction() as connection:
            return connection.execute(removed).rowcount == 1

    def _decide(
        self, run_id: str, decision: Decision, who: str, reason: str, **change: Any
    ) -> None:
        decided = (
            update(runs)
            .where(runs.c.id == run_id, runs.c.state == "held")
            .values(decision=decision, decided_by=who, decision_reason=reason or None, **change)
        )
        with self._database.transaction() as connection:
            if connection.execute(decided).rowcount != 1:
                raise RunNotInState(run_id, state_of(connection, run_id), "held")
            history.append(connection, run_id, decision, {"who": who, "reason": reason})


def state_of(connection: Connection, run_id: str) -> str:
    """A run's state, in words that also tell of a rejection. Raises: RunNotFound."""
    found = connection.execute(
        select(runs.c.state, runs.c.decision, runs.c.error).where(runs.c.id == run_id)
    ).one_or_none()
    if found is None:
        raise RunNotFound(run_id)
    return f"{found.state}, {found.error}" if found.decision == "rejected" else str(found.state)
