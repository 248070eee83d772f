"""What the sweep looks for: work that was lost between two processes.

Each question is one query, and each answer is acted on by a conditional statement elsewhere, so
any number of sweepers may run at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, exists, or_, select, update

from scoring.ledger import history
from scoring.ledger.chunks import finishing
from scoring.ledger.database import Database
from scoring.ledger.tables import chunks, database_now, runs

OVERDUE = (
    "not finished by its deadline ([schedule] deadline_minutes); nothing is published, the "
    "earlier output stands. `scoring retry` goes on where it stopped."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A hold on a chunk (or, with ``number`` None, on the finish of a run)."""

    run_id: str
    number: int | None
    attempt: int
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Chunks of one run whose wake-up message is missing."""

    run_id: str
    queue: str
    never_sent: tuple[int, ...]
    """Chunks that no message was ever recorded for."""
    unanswered: tuple[int, ...]
    """Chunks whose message was sent a while ago and is not claimed yet: lost, or in the queue."""
    abandoned: tuple[int, ...]
    """Chunks whose lease expired, and that nobody was woken for since."""


class Sweep:
    """Find what was lost."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def leases(self) -> list[Lease]:
        """Every hold that has not expired, of chunks and of finishers."""
        held = select(chunks.c.run_id, chunks.c.number, chunks.c.attempt, chunks.c.worker).where(
            chunks.c.state == "leased", chunks.c.lease_until >= database_now(), _run_is("running")
        )
        ends = select(runs.c.id, runs.c.finish_attempt, runs.c.finish_worker).where(
            runs.c.state == "finishing", runs.c.finish_lease_until >= database_now()
        )
        with self._database.reading() as connection:
            found = [
                Lease(run_id=row.run_id, number=row.number, attempt=row.attempt, worker=row.worker)
                for row in connection.execute(held)
            ]
            for row in connection.execute(ends):
                found.append(
                    Lease(
                        run_id=row.id,
                        number=None,
                        attempt=row.finish_attempt,
                        worker=row.finish_worker,
                    )
                )
        return found

    def exhausted(self) -> list[tuple[str, int, int, str | None]]:
        """(run, chunk, attempts, last error) of chunks that may not be tried again."""
        expired = and_(chunks.c.state == "leased", chunks.c.lease_until < database_now())
        query = (
            select(chunks.c.run_id, chunks.c.number, chunks.c.attempt, chunks.c.error)
            .join(runs, runs.c.id == chunks.c.run_id)
            .where(
                runs.c.state == "running",
                or_(
                    chunks.c.state == "failed",
                    and_(
                        or_(expired, chunks.c.state == "waiting"),
                        chunks.c.attempt >= runs.c.max_attempts,
                    ),
                ),
            )
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [(row.run_id, row.number, row.attempt, row.error) for row in rows]

    def lost(self, *, settle_seconds: float) -> list[Lost]:
        """Chunks to wake, by run, least urgent runs last.

        ``settle_seconds`` is how long a message may be on its way before it counts as lost.
        """
        before = database_now() - settle_seconds
        query = (
            select(
                chunks.c.run_id,
                chunks.c.number,
                chunks.c.state,
                chunks.c.sent_at,
                chunks.c.lease_until,
                runs.c.queue,
            )
            .join(runs, runs.c.id == chunks.c.run_id)
            .where(
                runs.c.state == "running",
                or_(
                    and_(
                        chunks.c.state == "waiting",
                        chunks.c.sent_at.is_(None),
                        runs.c.created_at < before,
                    ),
                    and_(chunks.c.state == "waiting", chunks.c.sent_at < before),
                    and_(
                        chunks.c.state == "leased",
                        chunks.c.lease_until < database_now(),
                        or_(
                            chunks.c.sent_at.is_(None),
                            chunks.c.sent_at <= chunks.c.lease_until,
                            chunks.c.sent_at < before,
                        ),
                    ),
                ),
            )
            .order_by(runs.c.priority, runs.c.created_at, chunks.c.number)
        )
        by_run: dict[str, tuple[str, list[int], list[int], list[int]]] = {}
        with self._database.reading() as connection:
            for row in connection.execute(query):
                lists = by_run.setdefault(row.run_id, (row.queue, [], [], []))
                _, never, unanswered, abandoned = lists
                if row.state == "leased" and (row.sent_at or 0.0) <= row.lease_until:
                    abandoned.append(row.number)
                elif row.sent_at is None:
                    never.append(row.number)
                else:
                    unanswered.append(row.number)
        return [
            Lost(
                run_id=run_id,
                queue=queue,
                never_sent=tuple(never),
                unanswered=tuple(unanswered),
                abandoned=tuple(abandoned),
            )
            for run_id, (queue, never, unanswered, abandoned) in by_run.items()
        ]

    def unfinished(self) -> list[str]:
        """Runs whose chunks are all done and that no live finisher holds."""
        stuck = select(runs.c.id).where(
            runs.c.state == "running", runs.c.chunks_done == runs.c.chunks
        )
        with self._database.transaction() as connection:
            for run_id in connection.execute(stuck).scalars().all():
                connection.execute(finishing(run_id))
            query = select(runs.c.id).where(
                runs.c.state == "finishing",
                or_(
                    runs.c.finish_lease_until.is_(None),
                    runs.c.finish_lease_until < database_now(),
                ),
            )
            return list(connection.execute(query).scalars())

    def overdue(self) -> list[str]:
        """Runs that are still running past their deadline; each is failed here, once."""
        late = (
            update(runs)
            .where(runs.c.state == "running", runs.c.deadline_at < database_now())
            .values(state="failed", finished_at=database_now(), error=OVERDUE)
            .returning(runs.c.id)
        )
        with self._database.transaction() as connection:
            failed = list(connection.execute(late).scalars())
            for run_id in failed:
                history.append(connection, run_id, "failed", {"error": OVERDUE})
        return failed


def _run_is(state: str):  # type: ignore[no-untyped-def]  # an Exists expression
    return exists().where(runs.c.id == chunks.c.run_id, runs.c.state == state)
