"""Replays of a run: runs of their own that score again what the run left in quarantine.

A replay that is published adds to the run: the rows it scored are the run's from then on, and what
is left in quarantine is what it could not score either. Invariant: rows scored and rows
quarantined of a run add up to its rows, whatever is replayed, and each quarantined row is added
once, because a replay counts only for the quarantine that it was planned from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, select, update

from scoring.errors import ReplayOvertaken, RunNotInState
from scoring.ledger import history
from scoring.ledger.database import Database, in_statements
from scoring.ledger.records import RunRecord
from scoring.ledger.runs import Finishing, finishing_by
from scoring.ledger.tables import database_now, runs

CLOCK_STEP = 0.001
"""Seconds by which a replay ends at least after the one before it, should the clock go back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What a published replay added to its run."""

    replay_of: str
    base: str
    """The run or replay whose quarantine it scored."""
    rows_in: int
    """Rows of that quarantine."""
    rows_scored: int
    rows_quarantined: int


class Replays:
    """Read the replays of runs, and publish one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, run_id: str) -> list[RunRecord]:
        """The published replays of a run, in the order in which they were added."""
        with self._database.reading() as connection:
            return [RunRecord(**row._mapping) for row in connection.execute(_published(run_id))]

    def by_run(self, run_ids: Collection[str]) -> Mapping[str, list[str]]:
        """Ids of the published replays of each of these runs that has any, in order."""
        found: dict[str, list[str]] = {}
        with self._database.reading() as connection:
            for ids in in_statements(list(run_ids)):
                replays = select(runs.c.id, runs.c.replay_of).where(
                    runs.c.replay_of.in_(ids), runs.c.state == "published"
                )
                for row in connection.execute(_in_order(replays)):
                    found.setdefault(row.replay_of, []).append(row.id)
        return found

    def publish(
        self, hold: Finishing, added: Added, *, drift_severity: str | None, report: str | None
    ) -> bool:
        """End a finishing replay as published, and count for its run what it scored.

        False if another finisher has the replay; nothing was changed then.

        Raises:
            RunNotInState: the run is not published.
            ReplayOvertaken: another replay was published since this one was planned. Nothing was
                changed.
        """
        with self._database.transaction() as connection:
            _lock(connection, added.replay_of)
            earlier = connection.execute(_published(added.replay_of)).all()
            last = earlier[-1] if earlier else None
            ended = (
                update(runs)
                .where(finishing_by(hold))
                .values(
                    state="published",
                    drift_severity=drift_severity,
                    report=report,
                    finish_lease_until=None,
                    finished_at=_after(connection, last.finished_at if last else 0.0),
                )
            )
            if connection.execute(ended).rowcount != 1:
                return False
            base = last.id if last else added.replay_of
            if base != added.base:
                raise ReplayOvertaken(added.replay_of, hold.run_id, base)
            _count(connection, hold.run_id, added)
            counts = {"rows_scored": added.rows_scored, "rows_quarantined": added.rows_quarantined}
            history.append(connection, hold.run_id, "published", counts)
            history.append(connection, added.replay_of, "replayed", {"run": hold.run_id, **counts})
            return True


def _lock(connection: Connection, run_id: str) -> None:
    """Let no other replay of the run end until this transaction does."""
    connection.execute(select(runs.c.id).where(runs.c.id == run_id).with_for_update())


def _after(connection: Connection, before: float) -> float:
    """Now, but after the replay before: replays are in the order of their ends."""
    now = float(connection.scalar(select(database_now())) or 0.0)
    return max(now, before + CLOCK_STEP)


def _count(connection: Connection, replay: str, added: Added) -> None:
    """Count for the run what its replay scored."""
    counted = (
        update(runs)
        .where(
            runs.c.id == added.replay_of,
            runs.c.state == "published",
            runs.c.rows_quarantined == added.rows_in,
        )
        .values(
            rows_scored=runs.c.rows_scored + added.rows_scored,
            rows_quarantined=added.rows_quarantined,
        )
    )
    if connection.execute(counted).rowcount == 1:
        return
    run = connection.execute(
        select(runs.c.state, runs.c.rows_quarantined).where(runs.c.id == added.replay_of)
    ).one()
    state = f"{run.state} with {run.rows_quarantined} rows in quarantine"
    wanted = f"published with the {added.rows_in} rows that {replay} scored again"
    raise RunNotInState(added.replay_of, state, wanted)


def _published(run_id: str) -> Select[Any]:
    published = select(runs).where(runs.c.replay_of == run_id, runs.c.state == "published")
    return _in_order(published)


def _in_order(query: Select[Any]) -> Select[Any]:
    return query.order_by(runs.c.finished_at, runs.c.id)
