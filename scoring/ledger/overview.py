"""The ledger at a glance, for whoever watches the fleet: counts, and the newest run of each job.

A few statements in one read, however many runs there are; nothing acts on what it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, case, func, select, tuple_

from scoring.ledger.database import Database
from scoring.ledger.records import ENDED, RunRecord
from scoring.ledger.tables import chunks, deliveries, runs, schedules

MOST_JOBS = 100
"""Jobs that are looked at, those of the newest runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What the ledger holds now. Times are seconds since the epoch."""

    jobs: int
    """Jobs that ever ran; what follows is about `MOST_JOBS` of them at most."""
    runs: Mapping[tuple[str, str], int]
    """Runs by job and state."""
    chunks: Mapping[tuple[str, str], int]
    """Chunks of running runs, by job and state."""
    last: Mapping[str, RunRecord]
    """The newest run that has ended, by job; replays are counted above, and are no runs here."""
    measured: Mapping[str, RunRecord]
    """The newest run that has a drift report, by job."""
    published_at: Mapping[str, float]
    """When a run was last published, by job."""
    deadlines: Mapping[str, float]
    """The first deadline of the runs that have not ended, by job."""
    considered_until: float | None
    """When somebody last looked whether a schedule is due; ``None``: nobody ever did."""
    deliveries: Mapping[str, int]
    """Messages to receivers, by state."""


def look(database: Database) -> Overview:
    """Raises: LedgerUnreachable, LedgerOutdated."""
    database.check()
    with database.reading() as connection:
        tallies = connection.execute(_TALLIES).all()
        newest: dict[str, float] = {}
        for row in tallies:
            newest[row.job] = max(newest.get(row.job, 0.0), row.created_at or 0.0)
        kept = set(sorted(newest, key=lambda job: -newest[job])[:MOST_JOBS])
        tallies = [row for row in tallies if row.job in kept]
        ended = [row for row in tallies if row.state in ENDED]
        open_ = [row for row in tallies if row.state not in ENDED]
        published = [row for row in ended if row.state == "published"]
        return Overview(
            jobs=len(newest),
            runs={(row.job, row.state): row.number for row in tallies},
            chunks={
                (row.job, row.state): row.number
                for row in connection.execute(_CHUNKS)
                if row.job in kept
            },
            last=_runs(connection, _greatest(ended, "created_at")),
            measured=_runs(connection, _greatest(ended, "measured_at")),
            published_at=_greatest(published, "finished_at"),
            deadlines=_least(open_, "deadline_at"),
            considered_until=connection.scalar(select(func.max(schedules.c.considered_until))),
            deliveries={row.state: row.number for row in connection.execute(_DELIVERIES)},
        )


_NIGHT = runs.c.replay_of.is_(None)

_TALLIES = select(
    runs.c.job,
    runs.c.state,
    func.count().label("number"),
    func.max(case((_NIGHT, runs.c.created_at))).label("created_at"),
    func.max(case((and_(_NIGHT, runs.c.report.is_not(None)), runs.c.created_at))).label(
        "measured_at"
    ),
    func.max(case((_NIGHT, runs.c.finished_at))).label("finished_at"),
    func.min(runs.c.deadline_at).label("deadline_at"),
).group_by(runs.c.job, runs.c.state)

_CHUNKS = (
    select(runs.c.job, chunks.c.state, func.count().label("number"))
    .join(runs, runs.c.id == chunks.c.run_id)
    .where(runs.c.state == "running")
    .group_by(runs.c.job, chunks.c.state)
)

_DELIVERIES = select(deliveries.c.state, func.count().label("number")).group_by(deliveries.c.state)


def _greatest(rows: Iterable[Row[Any]], column: str) -> dict[str, float]:
    return {job: max(values) for job, values in _by_job(rows, column).items()}


def _least(rows: Iterable[Row[Any]], column: str) -> dict[str, float]:
    return {job: min(values) for job, values in _by_job(rows, column).items()}


def _by_job(rows: Iterable[Row[Any]], column: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in rows:
        value = row._mapping[column]
        if value is not None:
            found.setdefault(row.job, []).append(value)
    return found


def _runs(connection: Connection, created_at: Mapping[str, float]) -> dict[str, RunRecord]:
    """The runs of these jobs that were created at these times."""
    wanted = tuple_(runs.c.job, runs.c.created_at).in_(list(created_at.items()))
    found = connection.execute(select(runs).where(wanted).order_by(runs.c.id))
    return {row.job: RunRecord(**row._mapping) for row in found}
