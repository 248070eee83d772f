"""What a stopped worker held goes to another, whole, and at once; in this process, step by step."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring import Job
from scoring.data import sink
from scoring.ledger import RunRecord
from scoring.ledger.chunks import Chunks
from scoring.pipeline import attempt
from scoring.runs import (
    Context,
    Occasion,
    create,
    finish,
    finish_run,
    hand_back_of,
    score_chunk,
    worker_of,
)
from scoring.runs.sweep import sweep
from tests.conftest import make_settings
from tests.contract.ledgers import commit_all, start_run
from tests.integration.processes import until
from tests.silent_bell import SilentBell

ROWS = 2 * 65_536
"""Rows of a chunk: several slabs."""
FULL = 7
"""Messages in a queue that is not empty."""


class CountingBell(SilentBell):
    """Remembers which chunks were rung for; its queues hold so many messages."""

    def __init__(self) -> None:
        super().__init__()
        self.in_queues = 0
        self.rung: list[tuple[str, int]] = []

    def chunks(self, run: RunRecord, numbers: Sequence[int], delay: float = 0.0) -> None:
        self.rung += [(run.id, number) for number in numbers]

    def waiting(self, queue: str) -> int:
        return self.in_queues + len(self.rung)


@pytest.fixture
def bell() -> CountingBell:
    return CountingBell()


@pytest.fixture
def context(tmp_path: Path, tracking_uri: str, bell: CountingBell) -> Iterator[Context]:
    settings = make_settings(
        tmp_path / "home", tracking_uri, sweep_seconds=3_600.0, lease_seconds=60.0
    )
    settings.home.mkdir()
    opened = Context.open(settings, bell)
    opened.ledger.database.ready()
    yield opened
    opened.ledger.database.engine.dispose()


@contextmanager
def process() -> Iterator[str]:
    """Another process on this host, for the length of the block; its name."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as popen:
        yield str(worker_of(popen.pid))
        popen.kill()


@pytest.fixture
def dead() -> str:
    """The name of a process that is gone."""
    with process() as name:
        pass
    return name


def test_chunks_of_workers_that_are_gone_are_given_away_and_others_are_not(
    context: Context, bell: CountingBell, dead: str
) -> None:
    chunks, run_id = context.ledger.chunks, start_run(context.ledger, count=3)
    with process() as alive:
        for number, worker in enumerate((dead, alive, dead)):
            assert chunks.claim(run_id, number, worker) is not None

        assert hand_back_of(context, [dead, alive]) == 2

    found = [(chunk.state, chunk.attempt, chunk.deaths) for chunk in chunks.of(run_id)]
    assert found == [("waiting", 0, 0), ("leased", 1, 0), ("waiting", 0, 0)]
    assert bell.rung == [(run_id, 0), (run_id, 2)]


def test_a_finisher_that_is_gone_is_replaced_at_once(
    context: Context, bell: CountingBell, dead: str
) -> None:
    run_id = start_run(context.ledger)
    commit_all(context.ledger, run_id)
    assert context.ledger.runs.claim_finish(run_id, dead) is not None

    hand_back_of(context, [dead])

    assert bell.woken == [run_id]
    assert context.ledger.runs.claim_finish(run_id, "another") is not None


def test_a_chunk_of_a_cancelled_run_is_given_back_without_a_ring(
    context: Context, bell: CountingBell, dead: str
) -> None:
    run_id = start_run(context.ledger)
    context.ledger.chunks.claim(run_id, 0, dead)
    context.ledger.runs.cancel(run_id)

    hand_back_of(context, [dead])

    assert bell.rung == []


def test_messages_that_a_new_broker_never_had_are_sent_again_at_once(
    context: Context, bell: CountingBell, dead: str
) -> None:
    first, second = start_run(context.ledger), start_run(context.ledger)
    context.ledger.chunks.mark_sent(first, [0, 1])
    context.ledger.chunks.claim(second, 1, dead)  # and the stack was killed
    bell.in_queues = FULL

    assert sweep(context)["woken"] == 1, "the dead worker's alone: the others may be on their way"
    bell.rung.clear()
    sweep(context, messages_lost=True)

    assert bell.rung == [(first, 0), (first, 1), (second, 0), (second, 1)]


def test_all_runs_of_an_empty_queue_are_woken_by_one_sweep(
    context: Context, bell: CountingBell
) -> None:
    settled = Context.open(
        context.settings.model_copy(update={"sweep_seconds": 0.0}), context.doorbell
    )
    runs = [start_run(context.ledger) for _ in range(2)]
    for run_id in runs:
        context.ledger.chunks.mark_sent(run_id, [0, 1])

    sweep(settled)

    assert {run_id for run_id, _ in bell.rung} == set(runs)


class Told(SystemExit):
    """What a signal raises in a worker child."""


def threads_of_an_attempt() -> set[str]:
    """Those that could still write behind the back of whoever is next."""
    return {thread.name for thread in threading.enumerate()} & {"reader", "writer", "lease"}


@pytest.fixture
def job(tmp_path: Path, model: str) -> Job:
    """Two chunks of several slabs."""
    rows = 2 * ROWS
    values = np.arange(rows, dtype=np.float32) % 1000
    table = pa.table({"id": np.arange(rows), "a": values, "b": values})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=ROWS)
    return Job(
        name="told",
        model=model,
        key=["id"],
        input={"path": str(tmp_path / "rows.parquet")},
        output={"path": str(tmp_path / "scores")},
        execution={"device": "cpu", "chunk_rows": ROWS},
        precision={"variant": "native"},
    )


def raise_told(*_: object) -> None:
    raise Told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "name"),
    [
        pytest.param(attempt.isolate, "predict", id="while it predicts"),
        pytest.param(attempt.Attempt, "_close", id="while it closes"),
        pytest.param(Chunks, "commit", id="while it commits"),
    ],
)
def test_an_attempt_that_is_told_to_stop_gives_the_chunk_back_whole(
    context: Context,
    bell: CountingBell,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    place: object,
    name: str,
) -> None:
    run = create(context, job, Occasion(), trigger="manual").run
    bell.rung.clear()
    with monkeypatch.context() as patched:
        patched.setattr(place, name, raise_told)
        with pytest.raises(Told):
            score_chunk(context, run.id, 0)

    given_back(context, bell, run, complete=name == "commit")


@pytest.mark.slow
def test_an_attempt_whose_writer_is_busy_when_it_is_told_waits_for_it(
    context: Context, bell: CountingBell, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create(context, job, Occasion(), trigger="manual").run
    bell.rung.clear()
    left = threading.Event()
    begun, ended, write = [], [], sink.PartWriter.write

    def busy(writer: sink.PartWriter, batch: pa.RecordBatch) -> None:
        begun.append(batch.num_rows)
        if sum(begun) == ROWS:
            until(caller_waits)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
            left.wait(2.0)  # long enough for whoever would not wait
        write(writer, batch)
        ended.append(batch.num_rows)

    def told(_signal: int, _frame: FrameType | None) -> None:
        raise Told

    before = signal.signal(signal.SIGALRM, told)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(sink.PartWriter, "write", busy)
            with pytest.raises(Told):
                score_chunk(context, run.id, 0)
        assert ended == begun, "nobody writes behind the back of whoever is next"
    finally:
        left.set()
        signal.signal(signal.SIGALRM, before)

    given_back(context, bell, run)


def caller_waits() -> bool:
    """Whether the thread that predicts has nothing to do but to wait for the writer."""
    frame = sys._current_frames()[threading.main_thread().ident]
    names = set()
    while frame is not None:
        names.add((Path(frame.f_code.co_filename).name, frame.f_code.co_name))
        frame = frame.f_back
    return ("handover.py", "wait") in names


def given_back(
    context: Context, bell: CountingBell, run: RunRecord, *, complete: bool = False
) -> None:
    """Nothing of the attempt is left, and another is as good as the first.

    A ``complete`` part stays: it may have been committed, and else is written over.
    """
    until(lambda: threads_of_an_attempt() == set())
    chunk = context.ledger.chunks.get(run.id, 0)
    assert (chunk.state, chunk.attempt, chunk.deaths) == ("waiting", 0, 0)
    assert bool(list(Path(str(run.staging)).iterdir())) == complete
    assert bell.rung == [(run.id, 0)]
    for number in range(run.chunks):
        assert score_chunk(context, run.id, number) == "committed"
    assert finish_run(context, run.id) == "published"


@pytest.mark.slow
def test_a_finisher_that_is_told_to_stop_lets_another_finish_at_once(
    context: Context, bell: CountingBell, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create(context, job, Occasion(), trigger="manual").run
    for number in range(run.chunks):
        score_chunk(context, run.id, number)
    bell.woken.clear()

    with monkeypatch.context() as patched:
        patched.setattr(finish, "make_report", raise_told)
        with pytest.raises(Told):
            finish_run(context, run.id)

    assert bell.woken == [run.id]
    assert finish_run(context, run.id) == "published"
