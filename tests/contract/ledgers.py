"""What the ledger's tests share: runs to work on, a database clock that stands still, threads.

A lease is aged by moving its end in the database, and an exact instant is reached by stopping the
database's own clock; no test waits for time to pass.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import event, select, text, update

from scoring.job import Input, Job, Output, Schedule
from scoring.ledger import Claim, Committed, Finishing, Ledger, NewDelivery, NewRun
from scoring.ledger.tables import chunks, database_now, deliveries, events, runs
from scoring.plan import Chunk, InputFile, RowGroup, cut

NIGHT = datetime(2026, 11, 23, 2, 30, tzinfo=UTC)
"""Where a stopped clock stands."""
ROWS = 10
"""Rows of each chunk."""
JOB = Job(
    name="flights",
    model="models:/flights@production",
    input=Input(path="data/flights"),
    output=Output(path="scores/flights"),
    schedule=Schedule(cron="30 2 * * *", deadline_minutes=180),
)
T = TypeVar("T")
_numbers = itertools.count()


def new_run(**values: Any) -> NewRun:
    """A run as `create` is given it; an id of its own unless ``values`` has one."""
    usual: dict[str, Any] = {
        "id": f"flights-{next(_numbers):05d}",
        "job": JOB.name,
        "slot": None,
        "trigger": "manual",
        "idempotency_key": None,
        "job_json": JOB.to_json(),
        "fingerprint": JOB.fingerprint,
        "model": JOB.model,
        "model_name": "flights",
        "model_version": "7",
        "model_source": "models:/m-1",
        "model_digest": "d" * 64,
        "flavor": "onnx",
        "variant": "native",
        "device": "auto",
        "output": "/scores/flights",
        "staging": "/scores/.staging",
        "artifacts": "/artifacts/flights",
        "queue": "cpu",
        "priority": 3,
        "max_attempts": JOB.execution.max_attempts,
        "deadline_seconds": None,
    }
    return NewRun(**{**usual, **values})


def planned(count: int) -> tuple[list[InputFile], tuple[Chunk, ...]]:
    """One file, cut into ``count`` chunks of ``ROWS`` rows."""
    groups = tuple(RowGroup(rows=ROWS, bytes=ROWS * 8) for _ in range(count))
    files = [InputFile(path="/data/a.parquet", size=count * 80, stamp="1", row_groups=groups)]
    return files, cut(files, chunk_rows=ROWS)


def start_run(ledger: Ledger, *, count: int = 2, **values: Any) -> str:
    """A running run of ``count`` chunks; returns its id."""
    return ledger.runs.create(new_run(**values), *planned(count)).run.id


def claimed(ledger: Ledger, run_id: str, number: int = 0, worker: str = "quick") -> Claim:
    """A claim that must succeed."""
    claim = ledger.chunks.claim(run_id, number, worker)
    assert claim is not None
    return claim


def made_by(claim: Claim, *, quarantined: int = 0) -> Committed:
    """What an attempt commits: every row of its chunk, ``quarantined`` of them refused."""
    return Committed(
        part=f"part-{claim.number}.attempt-{claim.attempt}",
        part_digest="0" * 64,
        rows_scored=claim.rows - quarantined,
        rows_quarantined=quarantined,
        engine="onnxruntime",
        device="cpu",
        timings={"read": 0.1},
    )


def commit_all(ledger: Ledger, run_id: str) -> None:
    """Score every chunk of a run; it is finishing then."""
    for chunk in ledger.chunks.of(run_id):
        claim = claimed(ledger, run_id, chunk.number)
        ledger.chunks.commit(claim, made_by(claim))


def finishing_run(ledger: Ledger, **values: Any) -> tuple[str, Finishing]:
    """A run whose chunks are all done, and a finisher's hold on it."""
    run_id = start_run(ledger, **values)
    commit_all(ledger, run_id)
    hold = ledger.runs.claim_finish(run_id, "finisher")
    assert hold is not None
    return run_id, hold


def run_in(ledger: Ledger, state: str) -> str:
    """A run in a state, reached the way runs reach it."""
    if state == "running":
        return start_run(ledger)
    if state in ("failed", "cancelled"):
        run_id = start_run(ledger)
        assert ledger.runs.fail(run_id, "x") if state == "failed" else ledger.runs.cancel(run_id)
        return run_id
    run_id, hold = finishing_run(ledger)
    if state != "finishing":
        assert ledger.runs.end(hold, state)
    return run_id


def new_delivery(**values: Any) -> NewDelivery:
    """A delivery as a finisher writes it; an id of its own unless ``values`` has one."""
    usual: dict[str, Any] = {
        "id": f"delivery-{next(_numbers):05d}",
        "action": "retrain",
        "channel": "webhook",
        "target": "mlops",
        "task_queue": None,
        "payload": '{"version": 1}',
    }
    return NewDelivery(**{**usual, **values})


def held_run(ledger: Ledger, *told: NewDelivery) -> str:
    """A held run of whose drift these are to be told."""
    run_id, hold = finishing_run(ledger)
    assert ledger.runs.end(hold, "held", drift_severity="severe", deliveries=told)
    return run_id


def age_leases(ledger: Ledger, seconds: float) -> None:
    """Let ``seconds`` pass for every lease, of chunks and of finishers."""
    with ledger.database.transaction() as connection:
        connection.execute(
            update(chunks)
            .where(chunks.c.lease_until.is_not(None))
            .values(lease_until=chunks.c.lease_until - seconds)
        )
        connection.execute(
            update(runs)
            .where(runs.c.finish_lease_until.is_not(None))
            .values(finish_lease_until=runs.c.finish_lease_until - seconds)
        )


def age_messages(ledger: Ledger, seconds: float) -> None:
    """Let ``seconds`` pass since every run was created and every message sent."""
    with ledger.database.transaction() as connection:
        connection.execute(update(runs).values(created_at=runs.c.created_at - seconds))
        connection.execute(
            update(chunks)
            .where(chunks.c.sent_at.is_not(None))
            .values(sent_at=chunks.c.sent_at - seconds)
        )


def age_deliveries(ledger: Ledger, seconds: float) -> None:
    """Let ``seconds`` pass for every delivery's pause or lease."""
    with ledger.database.transaction() as connection:
        connection.execute(update(deliveries).values(next_at=deliveries.c.next_at - seconds))


def end_leases_in(ledger: Ledger, seconds: float) -> None:
    """Let every lease end ``seconds`` from the database's now (exactly, if its clock stands)."""
    with ledger.database.transaction() as connection:
        connection.execute(
            update(chunks)
            .where(chunks.c.lease_until.is_not(None))
            .values(lease_until=database_now() + seconds)
        )
        connection.execute(
            update(runs)
            .where(runs.c.finish_lease_until.is_not(None))
            .values(finish_lease_until=database_now() + seconds)
        )


def history(ledger: Ledger, run_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Events of a run, oldest first."""
    with ledger.database.reading() as connection:
        rows = connection.execute(
            select(events.c.event, events.c.detail)
            .where(events.c.run_id == run_id)
            .order_by(events.c.id)
        ).all()
    return [(row.event, json.loads(row.detail)) for row in rows]


def together(actions: Sequence[Callable[[], T]]) -> list[T | BaseException]:
    """Run the actions in threads that start at one moment; what each returned or raised."""
    barrier = threading.Barrier(len(actions))
    found: list[Any] = [None] * len(actions)

    def act(index: int, action: Callable[[], T]) -> None:
        barrier.wait(timeout=30)
        try:
            found[index] = action()
        except BaseException as error:
            found[index] = error

    threads = [
        threading.Thread(target=act, args=(index, action)) for index, action in enumerate(actions)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive(), "a thread is stuck"
    return found


class StoppedClock:
    """The clock of a ledger's database, standing at ``at`` until it is set again.

    A function of ours takes the place of the database's own: in SQLite by registering it, in
    PostgreSQL by a search path in which our schema comes first.
    """

    def __init__(self, ledger: Ledger, at: datetime) -> None:
        self._ledger = ledger
        self._engine = ledger.database.engine
        self._julian = 0.0
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", self._register)
        else:
            self._define(at)
        self._engine.dispose()  # connections opened from now on see our clock
        self.set(at)

    def set(self, at: datetime) -> None:
        """Move the clock."""
        resolution = 0.0001  # of a Julian day, in seconds: be that much late rather than early
        self._julian = (at.timestamp() + resolution) / 86400.0 + 2440587.5
        if self._engine.dialect.name != "sqlite":
            with self._engine.begin() as connection:
                connection.execute(text("UPDATE stopped_clock SET at = :at"), {"at": at})

    def _register(self, connection: Any, _record: Any) -> None:
        connection.create_function("julianday", 1, lambda _now: self._julian)

    def _define(self, at: datetime) -> None:
        with self._engine.begin() as connection:
            name = connection.scalar(text("SELECT current_database()"))
            for statement in (
                "CREATE TABLE stopped_clock (at timestamptz NOT NULL)",
                f"INSERT INTO stopped_clock VALUES ('{at.astimezone(UTC).isoformat()}')",
                "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql"
                " AS 'SELECT at FROM public.stopped_clock'",
                f"ALTER DATABASE {name} SET search_path = public, pg_catalog",
            ):
                connection.execute(text(statement))
