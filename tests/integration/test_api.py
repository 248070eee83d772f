"""`submit`, `get_run` and `Run`, as an application uses them."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from scoring import Job, Settings, get_run, submit
from scoring.address import broker_url
from scoring.api import Run, open_context
from scoring.errors import (
    BrokerNotConfigured,
    BrokerUnreachable,
    DateInvalid,
    ErrorBudgetExceeded,
    KeyTaken,
    LedgerUnreachable,
    PathOutsideRoots,
    RunFailed,
    RunNotFound,
    RunNotInState,
)
from scoring.runs import this_caller
from scoring.stack import Stack
from tests.ports import free_port

pytestmark = pytest.mark.slow
ROWS = 500
WAIT = 180
"""Seconds after which a run counts as stuck."""


@pytest.fixture
def job(tmp_path: Path, model: str) -> Job:
    numbers = np.random.default_rng(7).normal(size=(ROWS, 2)).astype(np.float32)
    table = pa.table({"id": np.arange(ROWS), "a": numbers[:, 0], "b": numbers[:, 1]})
    pq.write_table(table, tmp_path / "rows.parquet")
    return Job(
        name="api",
        model=model,
        key=["id"],
        input={"path": str(tmp_path / "rows.parquet")},
        output={"path": str(tmp_path / "scores")},
        precision={"variant": "native"},
    )


def test_a_submitted_job_is_scored_and_read_back(stack: Settings, job: Job) -> None:
    run = submit(job, settings=stack).wait(timeout=WAIT)

    scores = run.scores()
    rows = pq.read_table(job.input.path)
    assert isinstance(scores, pyarrow.dataset.Dataset)
    frame = scores.to_table().to_pandas()
    assert list(frame.columns) == ["id", "score"]
    assert frame["id"].tolist() == list(range(ROWS))
    expected = rows["a"].to_numpy() + 2 * rows["b"].to_numpy()
    np.testing.assert_allclose(frame["score"], expected, rtol=1e-5)
    assert run.status == "published"
    assert run.report()["rows"] == ROWS
    assert get_run(run.id, settings=stack).to_dict() == run.to_dict()


def test_the_same_idempotency_key_returns_the_same_run(stack: Settings, job: Job) -> None:
    first = submit(job, idempotency_key="once", settings=stack)
    second = submit(job, idempotency_key="once", settings=stack)

    assert second.id == first.id
    first.wait(timeout=WAIT)
    assert submit(job, idempotency_key="once", settings=stack).status == "published"


def test_scores_of_a_replaced_run_are_refused_not_mixed(stack: Settings, job: Job) -> None:
    first = submit(job, settings=stack).wait(timeout=WAIT)
    second = submit(job, settings=stack).wait(timeout=WAIT)

    with pytest.raises(RunNotInState, match=f"replaced by {second.id}"):
        first.scores()


def test_a_failed_run_raises_its_reason_and_can_be_retried(
    stack: Settings, job: Job, tmp_path: Path
) -> None:
    rows = pq.read_table(job.input.path)
    holes = rows.set_column(1, "a", pa.array([None] * ROWS, pa.float32()))
    pq.write_table(holes, tmp_path / "rows.parquet")

    run = submit(job, settings=stack)
    with pytest.raises(RunFailed, match="null in column a"):
        run.wait(timeout=WAIT)
    assert run.status == "failed"
    assert not (tmp_path / "scores").exists()

    with pytest.raises(RunFailed, match="could not be scored"):
        run.retry().wait(timeout=WAIT)
    assert ErrorBudgetExceeded.__doc__


def test_a_cancelled_run_publishes_nothing(settings: Settings, job: Job, tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(BrokerUnreachable) as unreachable:
        submit(
            job, settings=settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{port}"})
        )
    run = get_run(str(unreachable.value.run), settings=settings)

    run.cancel()

    assert run.status == "cancelled"
    with pytest.raises(RunNotInState, match="is cancelled"):
        run.cancel()
    with pytest.raises(RunFailed, match=f"cancelled by {this_caller()}"):
        run.wait()
    assert not (tmp_path / "scores").exists()


def test_an_unreachable_broker_is_one_error_within_seconds_and_the_sweep_picks_the_run_up(
    settings: Settings, job: Job
) -> None:
    nobody = settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{free_port()}/0"})
    open_context(nobody)  # creating the ledger is not what is timed

    with pytest.raises(BrokerUnreachable, match="the sweep will start it") as unreachable:
        submit(job, settings=nobody)

    run_id = str(unreachable.value.run)
    assert get_run(run_id, settings=settings).status == "running"
    with Stack(settings):
        assert get_run(run_id, settings=settings).wait(timeout=WAIT).status == "published"


def test_an_unreachable_database_is_one_error_within_seconds(settings: Settings, job: Job) -> None:
    url = f"postgresql://someone:hidden@127.0.0.1:{free_port()}/ledger"
    broken = settings.model_copy(update={"database_url": url, "broker_url": "redis://127.0.0.1:1"})

    with pytest.raises(LedgerUnreachable, match="did not answer") as unreachable:
        submit(job, settings=broken)

    assert "hidden" not in str(unreachable.value)


def test_without_any_broker_nothing_is_started(settings: Settings, job: Job) -> None:
    with pytest.raises(BrokerNotConfigured, match="scoring up"):
        submit(job, settings=settings)

    assert open_context(settings).ledger.runs.latest() == []
    with pytest.raises(BrokerNotConfigured):
        broker_url(settings)


def test_an_unknown_run_is_said_to_be_unknown(settings: Settings) -> None:
    with pytest.raises(RunNotFound, match="no run 'nope'"):
        get_run("nope", settings=settings)


def test_waiting_has_a_limit_that_leaves_the_run_alone(settings: Settings, job: Job) -> None:
    nobody = settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{free_port()}/0"})
    with pytest.raises(BrokerUnreachable) as unreachable:
        submit(job, settings=nobody)
    run = get_run(str(unreachable.value.run), settings=settings)

    with pytest.raises(TimeoutError, match=run.id):
        run.wait(timeout=0.1)

    assert run.status == "running"
    assert run.record.created_at <= time.time() + 1


@pytest.mark.parametrize("date", ["2026-13-01", "../../elsewhere", "20261123", "2026-W01-1", ""])
def test_what_is_not_a_date_is_refused_before_anything_is_started(
    settings: Settings, job: Job, date: str
) -> None:
    brokered = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1"})

    with pytest.raises(DateInvalid, match="Give it as YYYY-MM-DD"):
        submit(job, date=date, settings=brokered)

    assert open_context(settings).ledger.runs.latest() == []


def test_a_date_may_be_given_as_a_date(stack: Settings, job: Job) -> None:
    run = submit(job, date=datetime.date(2026, 11, 23), settings=stack).wait(timeout=WAIT)

    assert run.to_dict()["slot"] == "2026-11-23"


def test_an_idempotency_key_of_another_date_is_refused(stack: Settings, job: Job) -> None:
    first = submit(job, date="2026-11-23", idempotency_key="taken", settings=stack)

    with pytest.raises(KeyTaken, match=f"belongs to run {first.id}"):
        submit(job, date="2026-11-24", idempotency_key="taken", settings=stack)


def test_a_run_that_is_printed_shows_no_password(settings: Settings) -> None:
    secret = settings.model_copy(
        update={"broker_url": "redis://:hidden@127.0.0.1:1", "cache_url": "redis://:hidden@x"}
    )

    run = Run("some-run", open_context(secret))

    assert "hidden" not in repr(run)
    assert "hidden" not in repr(secret)


def test_a_link_that_leads_out_of_the_data_roots_is_not_read(
    stack: Settings, job: Job, tmp_path: Path
) -> None:
    allowed = tmp_path / "allowed"
    (allowed / "in").mkdir(parents=True)
    (allowed / "in" / "link.parquet").symlink_to(tmp_path / "rows.parquet")
    rooted = stack.model_copy(update={"data_roots": (str(allowed),)})
    inside = Job(
        name="api",
        model=job.model,
        key=["id"],
        input={"path": str(allowed / "in")},
        output={"path": str(allowed / "scores")},
    )

    with pytest.raises(PathOutsideRoots, match="outside the places"):
        submit(inside, settings=rooted)
