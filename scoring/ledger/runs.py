"""The life of a run: running -> finishing -> published or held; failed or cancelled from any.

*Finishing* means that every chunk is committed and one finisher, the holder of the finish lease,
may publish. *Ended* (published, held, failed, cancelled) is final but for `retry` and for
`Decisions.release`; a held run that a person rejected is cancelled for good, as its parts are gone.
A run's state gates its chunks: nothing is claimed, renewed or committed unless the run is running.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import Connection, Select, and_, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from scoring.errors import RunNotFound, RunNotInState
from scoring.ledger import deliveries as outbox
from scoring.ledger import history
from scoring.ledger.chunks import finishing
from scoring.ledger.database import Database
from scoring.ledger.decisions import state_of
from scoring.ledger.promotion import promotion
from scoring.ledger.records import (
    ENDED,
    EventRecord,
    InputRecord,
    NewDelivery,
    NewRun,
    RunRecord,
)
from scoring.ledger.tables import chunks, database_now, inputs, runs, slots
from scoring.plan import Chunk, InputFile, spans_to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """The run that stands in the ledger now, and whether this call put it there."""

    run: RunRecord
    new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Finishing:
    """A finisher's hold on a run; ``attempt`` is the fencing token."""

    run_id: str
    attempt: int
    worker: str


class Runs:
    """Create runs, move them through their states, read them back."""

    def __init__(self, database: Database, lease_seconds: float) -> None:
        self._database = database
        self._lease_seconds = lease_seconds

    def create(
        self,
        run: NewRun,
        files: Sequence[InputFile],
        cut: Sequence[Chunk],
        *,
        take_slot: bool = False,
        who: str | None = None,
    ) -> Created:
        """Write a run, its manifest and its chunks in one transaction; ``who`` asked for it.

        A second run for the same idempotency key, or for the same (job, slot) with
        ``take_slot``, is not written: the first one is returned.
        """
        values = _values(run, chunks_total=len(cut), rows_in=sum(file.rows for file in files))

        def plan(connection: Connection) -> None:
            if files:
                connection.execute(insert(inputs), _input_rows(run.id, files))
            if cut:
                connection.execute(insert(chunks), _chunk_rows(run.id, cut))

        return self._write_once(run, values, plan, take_slot=take_slot, who=who)

    def record_failed(
        self, run: NewRun, error: str, *, take_slot: bool, who: str | None = None
    ) -> Created:
        """Write a run that could not even be planned, so that a person sees it and why."""
        values = _values(run, chunks_total=0, rows_in=0) | {
            "state": "failed",
            "error": error,
            "finished_at": database_now(),
        }

        def plan_nothing(_: Connection) -> None:
            pass

        return self._write_once(run, values, plan_nothing, take_slot=take_slot, who=who)

    def get(self, run_id: str) -> RunRecord:
        """Raises: RunNotFound."""
        with self._database.reading() as connection:
            row = connection.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
        if row is None:
            raise RunNotFound(run_id)
        return RunRecord(**row._mapping)

    def latest(
        self,
        *,
        job: str | None = None,
        states: Sequence[str] = (),
        limit: int = 20,
        before: float | None = None,
        replays: bool = True,
    ) -> list[RunRecord]:
        """Runs, newest first; with ``before``, only those created earlier (seconds since epoch).

        ``replays`` are among them unless it is False: they are no nights of the job.
        """
        query = select(runs).order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit)
        if job is not None:
            query = query.where(runs.c.job == job)
        if states:
            query = query.where(runs.c.state.in_(states))
        if before is not None:
            query = query.where(runs.c.created_at < before)
        if not replays:
            query = query.where(runs.c.replay_of.is_(None))
        with self._database.reading() as connection:
            return [RunRecord(**row._mapping) for row in connection.execute(query)]

    def with_idempotency_key(self, key: str) -> RunRecord | None:
        """The run that was submitted with this key."""
        with self._database.reading() as connection:
            row = connection.execute(select(runs).where(runs.c.idempotency_key == key)).first()
        return RunRecord(**row._mapping) if row else None

    def manifest(self, run_id: str) -> list[InputRecord]:
        """The frozen input files of a run, in order."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(inputs).where(inputs.c.run_id == run_id).order_by(inputs.c.number)
            ).all()
        return [_input(row) for row in rows]

    def inputs_of(self, run_id: str, indexes: Sequence[int]) -> dict[int, InputRecord]:
        """Some lines of a run's manifest, by index."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(inputs).where(inputs.c.run_id == run_id, inputs.c.number.in_(indexes))
            ).all()
        return {row.number: _input(row) for row in rows}

    def pin_variant(
        self, run_id: str, *, variant: str, batch_rows: int, search: str | None, precision: str
    ) -> bool:
        """Pin what every chunk of the run is scored with. False if it was before, or has ended."""
        pinned = (
            update(runs)
            .where(runs.c.id == run_id, runs.c.state == "running", runs.c.variant.is_(None))
            .values(variant=variant, batch_rows=batch_rows, search=search, precision=precision)
        )
        with self._database.transaction() as connection:
            if connection.execute(pinned).rowcount != 1:
                return False
            history.append(connection, run_id, "variant_pinned", json.loads(precision))
            return True

    def shrink_batch(self, run_id: str, batch_rows: int) -> None:
        """Pin a smaller batch, because the pinned one did not fit into a worker's memory."""
        smaller = or_(runs.c.batch_rows == 0, runs.c.batch_rows > batch_rows)
        with self._database.transaction() as connection:
            changed = connection.execute(
                update(runs).where(runs.c.id == run_id, smaller).values(batch_rows=batch_rows)
            )
            if changed.rowcount == 1:
                history.append(connection, run_id, "batch_shrunk", {"batch_rows": batch_rows})

    def claim_finish(self, run_id: str, worker: str) -> Finishing | None:
        """Become the run's finisher, or ``None`` if it is not finishing or has a live one."""
        free = or_(runs.c.finish_lease_until.is_(None), runs.c.finish_lease_until < database_now())
        taken = (
            update(runs)
            .where(runs.c.id == run_id, runs.c.state == "finishing", free)
            .values(
                finish_attempt=runs.c.finish_attempt + 1,
                finish_worker=worker,
                finish_lease_until=database_now() + self._lease_seconds,
            )
            .returning(runs.c.finish_attempt)
        )
        with self._database.transaction() as connection:
            attempt = connection.execute(taken).scalar_one_or_none()
        if attempt is None:
            return None
        return Finishing(run_id=run_id, attempt=attempt, worker=worker)

    def renew_finish(self, hold: Finishing) -> bool:
        """Hold the run for another lease. False if another finisher has it, or it ended."""
        longer = (
            update(runs)
            .where(finishing_by(hold))
            .values(finish_lease_until=database_now() + self._lease_seconds)
        )
        with self._database.transaction() as connection:
            return connection.execute(longer).rowcount == 1

    def hand_back_finish(self, hold: Finishing) -> bool:
        """Undo a hold on a run that came to nothing, its attempt too. True if it was still ours."""
        undone = (
            update(runs)
            .where(finishing_by(hold), runs.c.finish_worker == hold.worker)
            .values(finish_attempt=runs.c.finish_attempt - 1, finish_lease_until=None)
        )
        with self._database.transaction() as connection:
            return connection.execute(undone).rowcount == 1

    def expire_finish(self, run_id: str, attempt: int) -> bool:
        """End the finish lease of a worker known to be dead. True if it was held."""
        ended = (
            update(runs)
            .where(
                runs.c.id == run_id,
                runs.c.state == "finishing",
                runs.c.finish_attempt == attempt,
            )
            .values(finish_lease_until=database_now() - 1.0)
        )
        with self._database.transaction() as connection:
            return connection.execute(ended).rowcount == 1

    def end(
        self,
        hold: Finishing,
        state: str,
        *,
        error: str | None = None,
        drift_severity: str | None = None,
        report: str | None = None,
        drift_events: Sequence[Mapping[str, Any]] = (),
        deliveries: Sequence[NewDelivery] = (),
    ) -> bool:
        """End a finishing run. False if another finisher has it; nothing was changed then.

        ``drift_events``, what drift sets off, and ``deliveries`` are written with it: told of are
        exactly the ends that happened. A delivery that an earlier end of the same run has written
        already is not written again.
        """
        ended = (
            update(runs)
            .where(finishing_by(hold))
            .values(
                state=state,
                error=error,
                drift_severity=drift_severity,
                report=report,
                finish_lease_until=None,
                finished_at=database_now(),
            )
        )
        with self._database.transaction() as connection:
            if connection.execute(ended).rowcount != 1:
                return False
            outbox.write(connection, hold.run_id, deliveries)
            for detail in drift_events:
                history.append(connection, hold.run_id, "drift", detail)
            history.append(connection, hold.run_id, state, {"error": error} if error else {})
            return True

    def fail(self, run_id: str, error: str) -> bool:
        """Fail a run that is still running. False if it is not."""
        return self._stop(run_id, "failed", ("running",), error)

    def cancel(self, run_id: str, who: str = "") -> bool:
        """Cancel a run that is running or held. False if it ended, or is being published now."""
        error = f"cancelled by {who or 'a person'}"
        return self._stop(run_id, "cancelled", ("running", "held"), error, who)

    def retry(self, run_id: str, who: str = "") -> list[int]:
        """Let a failed or cancelled run go on; return the chunks that are not done.

        Committed chunks stay committed. Attempts start again at the next number, so an attempt
        from before cannot commit. Attempts and time are granted as the job gave them at first.

        Raises:
            RunNotFound, RunNotInState: the run is not failed or cancelled, was never planned, or
                was rejected.
        """
        with self._database.transaction() as connection:
            if connection.execute(select(runs.c.id).where(runs.c.id == run_id)).first() is None:
                raise RunNotFound(run_id)
            connection.execute(locked_chunks(run_id))
            reopened = (
                update(runs)
                .where(
                    runs.c.id == run_id,
                    runs.c.state.in_(("failed", "cancelled")),
                    runs.c.chunks > 0,
                    runs.c.decision.is_distinct_from("rejected"),
                )
                .values(state="running", error=None, finished_at=None, finish_lease_until=None)
            )
            if connection.execute(reopened).rowcount != 1:
                wanted = "failed or cancelled, and was planned and not rejected"
                raise RunNotInState(run_id, state_of(connection, run_id), wanted)
            undone = (
                update(chunks)
                .where(chunks.c.run_id == run_id, chunks.c.state != "done")
                .values(state="waiting", lease_until=None, sent_at=None)
                .returning(chunks.c.number, chunks.c.attempt)
            )
            rows = connection.execute(undone).all()
            self._grant_again(connection, run_id, max((r.attempt for r in rows), default=0))
            connection.execute(finishing(run_id))
            told = {"chunks": len(rows)} | ({"who": who} if who else {})
            history.append(connection, run_id, "retried", told)
        return sorted(row.number for row in rows)

    def record_evaluation(
        self,
        run_id: str,
        severity: str | None,
        detail: Mapping[str, Any],
        deliveries: Sequence[NewDelivery] = (),
    ) -> None:
        """Record an evaluation with its figures; the run is as severe as it says from now on.

        ``severity`` is the worse of drift's and of the evaluation's: none, small, moderate or
        severe; None where neither was compared with anything. ``deliveries`` are written with it,
        those only that the run has not told of before.
        """
        judged = update(runs).where(runs.c.id == run_id).values(drift_severity=severity)
        with self._database.transaction() as connection:
            connection.execute(judged)
            outbox.write(connection, run_id, deliveries)
            history.append(connection, run_id, "evaluated", detail)

    def note(self, run_id: str | None, event: str, **detail: Any) -> None:
        """Append to the run's history."""
        with self._database.transaction() as connection:
            history.append(connection, run_id, event, detail)

    def history(self, run_id: str) -> list[EventRecord]:
        """What happened to a run, oldest first."""
        with self._database.reading() as connection:
            return history.of(connection, run_id)

    def _write_once(
        self,
        run: NewRun,
        values: dict[str, Any],
        plan: Callable[[Connection], None],
        *,
        take_slot: bool,
        who: str | None,
    ) -> Created:
        """Write the run and what goes with it, unless its key or slot has a run already."""
        try:
            with self._database.transaction() as connection:
                if take_slot:
                    connection.execute(
                        insert(slots).values(
                            job=run.job, slot=run.slot, run_id=run.id, taken_at=database_now()
                        )
                    )
                connection.execute(insert(runs).values(**values))
                plan(connection)
                promoted = promotion(connection, run)
                told = {"trigger": run.trigger, "slot": run.slot} | ({"who": who} if who else {})
                history.append(connection, run.id, "created", told)
                if promoted is not None:
                    history.append(connection, run.id, "promotion_seen", promoted)
                if values["state"] == "failed":
                    history.append(connection, run.id, "failed", {"error": values["error"]})
        except IntegrityError:
            earlier = self._earlier(run, by_slot=take_slot)
            if earlier is None:
                raise
            return Created(run=earlier, new=False)
        return Created(run=self.get(run.id), new=True)

    def _earlier(self, run: NewRun, *, by_slot: bool) -> RunRecord | None:
        if run.idempotency_key is not None:
            earlier = self.with_idempotency_key(run.idempotency_key)
            if earlier is not None:
                return earlier
        if not by_slot:
            return None
        with self._database.reading() as connection:
            run_id = connection.execute(
                select(slots.c.run_id).where(slots.c.job == run.job, slots.c.slot == run.slot)
            ).scalar_one_or_none()
        return self.get(run_id) if run_id else None

    def _stop(
        self, run_id: str, state: str, during: Sequence[str], error: str, who: str = ""
    ) -> bool:
        stopped = (
            update(runs)
            .where(runs.c.id == run_id, runs.c.state.in_(during))
            .values(state=state, error=error, finished_at=database_now())
        )
        with self._database.transaction() as connection:
            if connection.execute(stopped).rowcount != 1:
                return False
            told = {"error": error} | ({"who": who} if who else {})
            history.append(connection, run_id, state, told)
            return True

    def _grant_again(self, connection: Connection, run_id: str, used: int) -> None:
        """As many attempts (of chunks and finishers) and as much time as at first."""
        run = connection.execute(
            select(runs.c.job_json, runs.c.deadline_at, runs.c.finish_attempt).where(
                runs.c.id == run_id
            )
        ).one()
        job = json.loads(run.job_json)
        most = max(used, run.finish_attempt) + int(job["execution"]["max_attempts"])
        granted: dict[str, Any] = {"max_attempts": most}
        if run.deadline_at is not None:
            minutes = float(job["schedule"]["deadline_minutes"])
            granted["deadline_at"] = database_now() + 60.0 * minutes
        connection.execute(update(runs).where(runs.c.id == run_id).values(**granted))


def _values(run: NewRun, *, chunks_total: int, rows_in: int) -> dict[str, Any]:
    values = asdict(run)
    deadline = values.pop("deadline_seconds")
    return values | {
        "state": "running",
        "chunks": chunks_total,
        "chunks_done": 0,
        "rows_in": rows_in,
        "rows_scored": 0,
        "rows_quarantined": 0,
        "finish_attempt": 0,
        "released": 0,
        "created_at": database_now(),
        "deadline_at": None if deadline is None else database_now() + deadline,
    }


def _input_rows(run_id: str, files: Sequence[InputFile]) -> list[dict[str, Any]]:
    return [
        {
            "run_id": run_id,
            "number": index,
            "path": file.path,
            "size": file.size,
            "stamp": file.stamp,
            "rows": file.rows,
            "row_groups": len(file.row_groups),
            "partitions": json.dumps(file.partitions),
        }
        for index, file in enumerate(files)
    ]


def _chunk_rows(run_id: str, cut: Sequence[Chunk]) -> list[dict[str, Any]]:
    return [
        {
            "run_id": run_id,
            "number": chunk.number,
            "spans": spans_to_json(chunk.spans),
            "rows": chunk.rows,
            "state": "waiting",
            "attempt": 0,
            "deaths": 0,
        }
        for chunk in cut
    ]


def _input(row: Any) -> InputRecord:
    values = {field.name: getattr(row, field.name) for field in fields(InputRecord)}
    values["partitions"] = tuple((name, value) for name, value in json.loads(row.partitions))
    return InputRecord(**values)


def locked_chunks(run_id: str) -> Select[tuple[int]]:
    """Lock a run's chunks before the run, as a commit does: the other order is a deadlock."""
    numbers = select(chunks.c.number).where(chunks.c.run_id == run_id)
    return numbers.order_by(chunks.c.number).with_for_update()


def finishing_by(hold: Finishing) -> Any:
    return and_(
        runs.c.id == hold.run_id,
        runs.c.state == "finishing",
        runs.c.finish_attempt == hold.attempt,
    )


__all__ = ["ENDED", "Created", "Finishing", "Runs"]
