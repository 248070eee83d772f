"""The life of a chunk: waiting -> leased -> done, or failed when its attempts are used up.

*Leased* means that one worker may write, until ``lease_until``. *Expired* means that the time has
passed and anyone may take over with a higher attempt. *Committed* (``done``) is final. Every
change is one conditional statement whose row count is checked; no method reads first and writes
after.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection, and_, case, exists, func, or_, select, update

from scoring.errors import LeaseLost, RunNotFound
from scoring.ledger.database import Database, in_statements
from scoring.ledger.records import ChunkRecord, Claim, Committed
from scoring.ledger.tables import chunks, database_now, runs
from scoring.plan import spans_from_json


class Chunks:
    """Claim, renew, commit and release chunks."""

    def __init__(self, database: Database, lease_seconds: float) -> None:
        self._database = database
        self._lease_seconds = lease_seconds

    def claim(self, run_id: str, number: int, worker: str) -> Claim | None:
        """Take the chunk, or ``None`` if it is done, leased by a live worker, or its run ended."""
        free = or_(
            chunks.c.state == "waiting",
            and_(chunks.c.state == "leased", chunks.c.lease_until < database_now()),
        )
        allowed = exists().where(
            runs.c.id == chunks.c.run_id,
            runs.c.state == "running",
            chunks.c.attempt < runs.c.max_attempts,
        )
        taken = (
            update(chunks)
            .where(chunks.c.run_id == run_id, chunks.c.number == number, free, allowed)
            .values(
                state="leased",
                attempt=chunks.c.attempt + 1,
                deaths=chunks.c.deaths + case((chunks.c.state == "leased", 1), else_=0),
                worker=worker,
                lease_until=database_now() + self._lease_seconds,
                claimed_at=database_now(),
            )
            .returning(chunks.c.attempt, chunks.c.rows, chunks.c.spans, chunks.c.deaths)
        )
        with self._database.transaction() as connection:
            row = connection.execute(taken).one_or_none()
        if row is None:
            return None
        return Claim(
            run_id=run_id,
            number=number,
            attempt=row.attempt,
            worker=worker,
            rows=row.rows,
            spans=spans_from_json(row.spans),
            deaths=row.deaths,
        )

    def renew(self, claim: Claim) -> None:
        """Hold the chunk for another lease.

        Raises:
            LeaseLost: another attempt has the chunk, or the run ended or was cancelled.
        """
        running = exists().where(runs.c.id == chunks.c.run_id, runs.c.state == "running")
        longer = (
            update(chunks)
            .where(_held(claim), running)
            .values(lease_until=database_now() + self._lease_seconds)
        )
        with self._database.transaction() as connection:
            if connection.execute(longer).rowcount != 1:
                raise self._lost(connection, claim)

    def commit(self, claim: Claim, made: Committed) -> bool:
        """Record the chunk as done. True if it was the last one, and the run is now finishing.

        Raises:
            LeaseLost: another attempt has the chunk, or the run ended; nothing was recorded.
        """
        done = (
            update(chunks)
            .where(_held(claim))
            .values(
                state="done",
                lease_until=None,
                committed_at=database_now(),
                part=made.part,
                part_digest=made.part_digest,
                rows_scored=made.rows_scored,
                rows_quarantined=made.rows_quarantined,
                timings=json.dumps(made.timings),
                error=None,
            )
        )
        counted = (
            update(runs)
            .where(runs.c.id == claim.run_id, runs.c.state == "running")
            .values(
                chunks_done=runs.c.chunks_done + 1,
                rows_scored=runs.c.rows_scored + made.rows_scored,
                rows_quarantined=runs.c.rows_quarantined + made.rows_quarantined,
                engine=func.coalesce(runs.c.engine, made.engine),
                device=made.device,
            )
        )
        with self._database.transaction() as connection:
            if connection.execute(done).rowcount != 1:
                raise self._lost(connection, claim)
            if connection.execute(counted).rowcount != 1:
                raise self._lost(connection, claim)
            return connection.execute(finishing(claim.run_id)).rowcount == 1

    def release(self, claim: Claim, error: str, *, deaths: int = 0) -> bool:
        """Give the chunk back after an error. False if that was its last attempt.

        ``deaths`` is how many this attempt counts as, although it could still say why.

        Raises:
            LeaseLost: another attempt has the chunk already.
        """
        with self._database.transaction() as connection:
            most = select(runs.c.max_attempts).where(runs.c.id == claim.run_id)
            last = claim.attempt >= connection.execute(most).scalar_one()
            returned = (
                update(chunks)
                .where(_held(claim))
                .values(
                    state="failed" if last else "waiting",
                    deaths=chunks.c.deaths + deaths,
                    lease_until=None,
                    error=error,
                )
            )
            if connection.execute(returned).rowcount != 1:
                raise self._lost(connection, claim)
            return not last

    def hand_back(self, claim: Claim) -> bool:
        """Undo a claim that was not used, its attempt too. True if it was still ours."""
        undone = (
            update(chunks)
            .where(_held(claim))
            .values(state="waiting", attempt=chunks.c.attempt - 1, lease_until=None)
        )
        with self._database.transaction() as connection:
            return connection.execute(undone).rowcount == 1

    def hand_back_of(self, worker: str) -> list[tuple[str, int]]:
        """Undo every claim of a worker that was stopped and is gone; (run, chunk) of each."""
        undone = (
            update(chunks)
            .where(chunks.c.state == "leased", chunks.c.worker == worker)
            .values(state="waiting", attempt=chunks.c.attempt - 1, lease_until=None)
            .returning(chunks.c.run_id, chunks.c.number)
        )
        with self._database.transaction() as connection:
            return [(row.run_id, row.number) for row in connection.execute(undone)]

    def expire(self, run_id: str, number: int, attempt: int) -> bool:
        """End the lease of an attempt whose worker is known to be dead. True if it was held."""
        ended = (
            update(chunks)
            .where(
                chunks.c.run_id == run_id,
                chunks.c.number == number,
                chunks.c.attempt == attempt,
                chunks.c.state == "leased",
            )
            .values(lease_until=database_now() - 1.0)
        )
        with self._database.transaction() as connection:
            return connection.execute(ended).rowcount == 1

    def mark_sent(self, run_id: str, indexes: Sequence[int], delay: float = 0.0) -> None:
        """Remember that the wake-up messages of these chunks reached the broker.

        Those that are held back for ``delay`` seconds are not missed before that.
        """
        with self._database.transaction() as connection:
            for some in in_statements(indexes):
                connection.execute(
                    update(chunks)
                    .where(chunks.c.run_id == run_id, chunks.c.number.in_(some))
                    .values(sent_at=database_now() + delay)
                )

    def get(self, run_id: str, number: int) -> ChunkRecord:
        """One chunk. Raises: RunNotFound."""
        with self._database.reading() as connection:
            row = connection.execute(
                select(chunks).where(chunks.c.run_id == run_id, chunks.c.number == number)
            ).one_or_none()
        if row is None:
            raise RunNotFound(run_id)
        return ChunkRecord(**row._mapping)

    def of(self, run_id: str) -> list[ChunkRecord]:
        """All chunks of a run, in order."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(chunks).where(chunks.c.run_id == run_id).order_by(chunks.c.number)
            ).all()
        return [ChunkRecord(**row._mapping) for row in rows]

    def _lost(self, connection: Connection, claim: Claim) -> LeaseLost:
        current = connection.execute(
            select(chunks.c.attempt).where(
                chunks.c.run_id == claim.run_id, chunks.c.number == claim.number
            )
        ).scalar_one_or_none()
        return LeaseLost(str(claim), claim.attempt, current)


def finishing(run_id: str):  # type: ignore[no-untyped-def]  # an Update, generic in its own columns
    """The statement that moves a run whose chunks are all done to `finishing`, once."""
    return (
        update(runs)
        .where(runs.c.id == run_id, runs.c.state == "running", runs.c.chunks_done == runs.c.chunks)
        .values(state="finishing")
    )


def _held(claim: Claim):  # type: ignore[no-untyped-def]  # a boolean column expression
    return and_(
        chunks.c.run_id == claim.run_id,
        chunks.c.number == claim.number,
        chunks.c.state == "leased",
        chunks.c.attempt == claim.attempt,
        chunks.c.worker == claim.worker,  # a number that was handed back is given out again
    )
