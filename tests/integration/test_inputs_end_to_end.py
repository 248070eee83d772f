"""From input files to published scores: what is asked for, and everything that can be wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec

from scoring import Job, Run, Settings, reference, submit
from scoring.api import open_context
from scoring.errors import (
    InputTypeMismatch,
    OutputOccupied,
    RunFailed,
)
from scoring.ledger import RunRecord
from scoring.runs import Context, Occasion, create, finish_run, score_chunk
from tests.integration import models
from tests.integration.models import register
from tests.silent_bell import SilentBell

pytestmark = pytest.mark.slow

WAIT = 240
"""Seconds after which a run counts as stuck."""
AMOUNT = ModelSignature(inputs=Schema([ColSpec("double", "amount")]))
"""Takes one required number."""


@pytest.fixture
def context(settings: Settings) -> Iterator[Context]:
    """An installation in which nothing happens by itself."""
    settings.home.mkdir(parents=True)
    opened = Context.open(settings, SilentBell())
    opened.ledger.database.ready()
    yield opened
    opened.ledger.database.engine.dispose()


def score_here(context: Context, run: RunRecord) -> RunRecord:
    """What the workers would do, in this process."""
    for number in range(run.chunks):
        score_chunk(context, run.id, number)
    finish_run(context, run.id)
    return context.ledger.runs.get(run.id)


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Job]:
    """A job from ``tmp_path/in`` to ``tmp_path/out``, without tolerance for bad rows."""

    def make(model: str, *, source: str = "in", output: str = "out", **more: Any) -> Job:
        into = {"path": str(tmp_path / output), **more.pop("output_more", {})}
        execution = {"device": "cpu", "error_budget": 0.0, **more.pop("execution", {})}
        return Job(
            name="end-to-end",
            model=model,
            input={"path": str(tmp_path / source)},
            output=into,
            execution=execution,
            **more,
        )

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes an input file below ``tmp_path/in``."""

    def write_file(name: str, columns: dict[str, Any], **how: Any) -> Path:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path, **how)
        return path

    return write_file


@pytest.fixture
def quarter_more(tracking_uri: str) -> str:
    """A model that adds 0.25 to ``amount``."""
    return register(tracking_uri, mlflow.pyfunc.log_model, models.AsSeries(), signature=AMOUNT)


def quarantine(run: RunRecord) -> list[dict[str, Any]]:
    """Every quarantined row of a run that has ended."""
    files = sorted(Path(run.artifacts, "quarantine").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


Maker = Callable[..., Job]
Writer = Callable[..., Path]


def test_an_input_without_rows_publishes_an_empty_output_with_its_schema(
    stack: Settings, tracking_uri: str, make_job: Maker, write: Writer, tmp_path: Path
) -> None:
    model = register(
        tracking_uri,
        mlflow.onnx.log_model,
        models.linear(np.ones((1, 2), np.float32), output="pair"),
        signature=ModelSignature(
            inputs=Schema([ColSpec("float", "amount")]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 2), "pair")]),
        ),
    )
    write("none.parquet", {"id": pa.array([], pa.int64()), "amount": pa.array([], pa.float32())})

    run = submit(make_job(model, key=["id"]), settings=stack).wait(timeout=WAIT)

    published = pq.read_table(tmp_path / "out" / "part-00000.parquet")
    assert published.num_rows == 0
    assert published.column_names == ["id", "pair"]
    assert published.schema.types == [pa.int64(), pa.list_(pa.float32(), 2)]
    assert (tmp_path / "out" / "_SUCCESS").is_file()
    assert json.loads((tmp_path / "out" / "_manifest.json").read_text())["run_id"] == run.id


def test_a_file_that_changed_after_planning_fails_the_run_and_publishes_nothing(
    context: Context, quarter_more: str, make_job: Maker, write: Writer, tmp_path: Path
) -> None:
    write("a.parquet", {"amount": [1.0]})
    changed = write("b.parquet", {"amount": [2.0]})
    run = create(context, make_job(quarter_more), Occasion(), trigger="manual").run
    write("b.parquet", {"amount": [3.0, 4.0]})

    ended = score_here(context, run)

    assert ended.state == "failed"
    assert f"input file {changed} changed after the run was planned" in str(ended.error)
    assert not (tmp_path / "out").exists()


def test_a_file_that_vanished_after_planning_fails_the_run_and_the_earlier_output_stands(
    context: Context, quarter_more: str, make_job: Maker, write: Writer, tmp_path: Path
) -> None:
    path = write("a.parquet", {"amount": [1.0]})
    job = make_job(quarter_more)
    first = score_here(context, create(context, job, Occasion(), trigger="manual").run)
    second = create(context, job, Occasion(), trigger="manual").run
    path.unlink()

    ended = score_here(context, second)

    assert (first.state, ended.state) == ("published", "failed")
    assert "no such file" in str(ended.error)
    assert "the earlier output stands" in str(ended.error)
    assert pq.read_table(tmp_path / "out")["score"].to_pylist() == [1.25]


def test_hive_partitions_are_columns_for_the_model_and_for_the_output(
    stack: Settings, tracking_uri: str, make_job: Maker, write: Writer, tmp_path: Path
) -> None:
    model = register(
        tracking_uri,
        mlflow.pyfunc.log_model,
        models.AsText(),
        signature=ModelSignature(inputs=Schema([ColSpec("string", "name")])),
    )
    for day, name in (("2013-07-01", "São%20Paulo"), ("2013-07-02", "Oslo")):
        write(f"day={day}/name={name}/rows.parquet", {"id": [1, 2]})
    job = make_job(model, key=["id"], output_more={"passthrough": ("day",)})

    submit(job, settings=stack).wait(timeout=WAIT)

    assert pq.read_table(tmp_path / "out").to_pylist() == [
        {"id": 1, "day": "2013-07-01", "score": "São Paulo!"},
        {"id": 2, "day": "2013-07-01", "score": "São Paulo!"},
        {"id": 1, "day": "2013-07-02", "score": "Oslo!"},
        {"id": 2, "day": "2013-07-02", "score": "Oslo!"},
    ]


def test_bad_rows_within_the_budget_are_quarantined_and_the_others_are_published(
    stack: Settings, quarter_more: str, make_job: Maker, write: Writer, tmp_path: Path
) -> None:
    first = write("a.parquet", {"id": list(range(10)), "amount": [1.0, None] + [2.0] * 8})
    second = write(
        "b.parquet",
        {"id": list(range(10, 20)), "amount": [*map(float, range(9)), None]},
        row_group_size=4,
    )
    job = make_job(quarter_more, key=["id"], execution={"error_budget": 0.1, "chunk_rows": 5})

    run = submit(job, settings=stack).wait(timeout=WAIT)

    scores = pq.read_table(tmp_path / "out")
    assert scores["id"].to_pylist() == [n for n in range(20) if n not in (1, 19)]
    assert (run.record.rows_in, run.record.rows_scored, run.record.rows_quarantined) == (20, 18, 2)
    found = [
        (row["id"], row["_input_file"], row["_row"], row["_reason"])
        for row in quarantine(run.record)
    ]
    assert found == [
        (1, str(first), 1, "null in column amount"),
        (19, str(second), 9, "null in column amount"),
    ]


def test_one_bad_row_more_than_the_budget_fails_the_run(
    stack: Settings, quarter_more: str, make_job: Maker, write: Writer, tmp_path: Path
) -> None:
    write("a.parquet", {"amount": [None] * 3 + [1.0] * 17})
    job = make_job(quarter_more, execution={"error_budget": 0.1})

    with pytest.raises(RunFailed, match=r"3 of 20 rows could not be scored \(15.00%"):
        submit(job, settings=stack).wait(timeout=WAIT)

    assert not (tmp_path / "out").exists()


def test_the_budget_is_the_runs_even_when_no_single_chunk_exceeds_it(
    context: Context, quarter_more: str, make_job: Maker, write: Writer, tmp_path: Path
) -> None:
    write("a.parquet", {"amount": [None, *[1.0] * 9, None, *[1.0] * 9]})
    job = make_job(quarter_more, execution={"error_budget": 0.05, "chunk_rows": 10})

    ended = score_here(context, create(context, job, Occasion(), trigger="manual").run)

    assert ended.state == "failed"
    assert "2 of 20 rows could not be scored" in str(ended.error)
    assert [row["_row"] for row in quarantine(ended)] == [0, 10]
    assert not (tmp_path / "out").exists()


def test_a_slab_without_a_good_row_does_not_disturb_the_others(
    context: Context, tracking_uri: str, make_job: Maker, write: Writer, tmp_path: Path
) -> None:
    model = register(tracking_uri, mlflow.pyfunc.log_model, models.Whole(), signature=AMOUNT)
    for name, value in (("a", 1.5), ("b", None), ("c", 2.5)):
        write(f"{name}.parquet", {"amount": pa.array([value], pa.float64())})
    job = make_job(model, execution={"error_budget": 0.5})

    ended = score_here(context, create(context, job, Occasion(), trigger="manual").run)

    assert (ended.state, ended.chunks) == ("published", 1)
    scores = pq.read_table(tmp_path / "out")
    assert scores.schema.field("score").type == pa.int64()
    assert scores["score"].to_pylist() == [1, 2]


def test_a_file_without_a_single_value_of_a_column_is_scored_or_refused_row_by_row(
    context: Context, tracking_uri: str, make_job: Maker, write: Writer, tmp_path: Path
) -> None:
    signature = ModelSignature(inputs=Schema([ColSpec("double", "amount", required=False)]))
    model = register(tracking_uri, mlflow.pyfunc.log_model, models.AsSeries(), signature=signature)
    write("a.parquet", {"amount": pa.nulls(2)})
    write("b.parquet", {"amount": [1.0, None]})
    write("c.parquet", {"amount": pa.nulls(1)})
    job = make_job(model, execution={"chunk_rows": 4})

    ended = score_here(context, create(context, job, Occasion(), trigger="manual").run)

    assert (ended.state, ended.error, ended.chunks) == ("published", None, 2)
    assert pq.read_table(tmp_path / "out")["score"].to_pylist() == [None, None, 1.25, None, None]


def test_bad_rows_of_files_with_different_types_share_a_quarantine(
    context: Context, tracking_uri: str, make_job: Maker, write: Writer, tmp_path: Path
) -> None:
    model = register(tracking_uri, mlflow.pyfunc.log_model, models.AsSeries(), signature=AMOUNT)
    write("a.parquet", {"amount": pa.array([1, None], pa.int32())})
    write("b.parquet", {"amount": pa.array([0.5, None], pa.float64())})
    job = make_job(model, execution={"error_budget": 0.9})

    ended = score_here(context, create(context, job, Occasion(), trigger="manual").run)

    assert (ended.state, ended.error) == ("published", None)
    assert pq.read_table(tmp_path / "out")["score"].to_pylist() == [1.25, 0.75]
    assert [Path(row["_input_file"]).name for row in quarantine(ended)] == [
        "a.parquet",
        "b.parquet",
    ]


def test_rows_that_make_the_model_raise_cost_only_themselves(
    stack: Settings, tracking_uri: str, make_job: Maker, write: Writer, tmp_path: Path
) -> None:
    model = register(tracking_uri, mlflow.pyfunc.log_model, models.Picky(), signature=AMOUNT)
    amounts = np.arange(5_000.0)
    bad = [0, 17, 18, 4_999]
    amounts[bad] *= -1
    amounts[0] = -1
    write("a.parquet", {"id": np.arange(5_000), "amount": amounts}, row_group_size=900)
    job = make_job(model, key=["id"], execution={"error_budget": 0.01})

    run = submit(job, settings=stack).wait(timeout=WAIT)

    scores = pq.read_table(tmp_path / "out")
    good = np.delete(np.arange(5_000), bad)
    assert scores["id"].to_pylist() == good.tolist()
    np.testing.assert_array_equal(scores["score"].to_numpy(), good * 3.0)
    refused = quarantine(run.record)
    assert [row["_row"] for row in refused] == bad
    assert {row["_reason"] for row in refused} == {
        "the model raised ValueError: amount must not be negative"
    }


def test_a_model_that_loses_rows_fails_the_run(
    stack: Settings, tracking_uri: str, make_job: Maker, write: Writer, tmp_path: Path
) -> None:
    model = register(tracking_uri, mlflow.pyfunc.log_model, models.Forgetful(), signature=AMOUNT)
    write("a.parquet", {"amount": [1.0, 2.0, 3.0]})
    job = make_job(model, execution={"max_attempts": 1, "error_budget": 1.0})

    with pytest.raises(RunFailed, match="returned 2 values of 'score' for 3 rows"):
        submit(job, settings=stack).wait(timeout=WAIT)

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("amounts", "why"),
    [
        ([0, 1], "its output score was int64 in one batch and is string in the next"),
        ([2, 0], "its output score is null in a whole batch and its signature does not say"),
    ],
)
def test_an_output_without_one_type_fails_the_run_at_once_and_says_how_to_mend_it(
    context: Context,
    tracking_uri: str,
    make_job: Maker,
    write: Writer,
    tmp_path: Path,
    amounts: list[float],
    why: str,
) -> None:
    model = register(tracking_uri, mlflow.pyfunc.log_model, models.Fickle(), signature=AMOUNT)
    for number, amount in enumerate(amounts):
        write(f"{number}.parquet", {"amount": [float(amount)] * 3})

    run = create(context, make_job(model), Occasion(), trigger="manual").run

    assert score_chunk(context, run.id, 0) == "run failed"
    assert why in str(context.ledger.runs.get(run.id).error)
    assert not (tmp_path / "out").exists()


def test_running_a_date_again_replaces_its_output_and_no_other(
    stack: Settings, quarter_more: str, make_job: Maker, write: Writer, tmp_path: Path
) -> None:
    job = make_job(quarter_more, source="in/date={date}", output="out/date={date}")
    write("date=2024-05-01/a.parquet", {"amount": [1.0, 2.0]})
    write("date=2024-05-02/a.parquet", {"amount": [5.0]})
    for day in ("2024-05-01", "2024-05-02"):
        submit(job, date=day, settings=stack).wait(timeout=WAIT)
    write("date=2024-05-01/a.parquet", {"amount": [7.0]})

    again = submit(job, date="2024-05-01", settings=stack).wait(timeout=WAIT)

    def scores(day: str) -> list[float]:
        found: list[float] = pq.read_table(tmp_path / "out" / f"date={day}")["score"].to_pylist()
        return found

    assert (scores("2024-05-01"), scores("2024-05-02")) == ([7.25], [5.25])
    assert again.scores().to_table()["score"].to_pylist() == [7.25]
    assert sorted(os.listdir(tmp_path / "out" / "date=2024-05-01")) == [
        "_SUCCESS",
        "_manifest.json",
        "part-00000.parquet",
    ]


def test_a_column_of_the_wrong_type_is_refused_when_the_run_is_planned(
    context: Context, quarter_more: str, make_job: Maker, write: Writer
) -> None:
    path = write("a.parquet", {"amount": ["twelve"]})

    with pytest.raises(InputTypeMismatch, match="column amount is string") as refused:
        create(context, make_job(quarter_more), Occasion(), trigger="manual")

    assert (refused.value.path, refused.value.wanted) == (str(path), "double")
    assert context.ledger.runs.latest() == []


def test_an_output_that_holds_somebody_elses_files_is_refused_and_left_alone(
    context: Context, quarter_more: str, make_job: Maker, write: Writer, tmp_path: Path
) -> None:
    write("a.parquet", {"amount": [1.0]})
    theirs = tmp_path / "out" / "precious.csv"
    theirs.parent.mkdir()
    theirs.write_text("a,b\n")

    with pytest.raises(OutputOccupied, match=r"precious\.csv"):
        create(context, make_job(quarter_more), Occasion(), trigger="manual")

    assert theirs.read_text() == "a,b\n"


def test_a_held_run_is_published_when_it_is_released(
    stack: Settings, tracking_uri: str, make_job: Maker, write: Writer, tmp_path: Path
) -> None:
    model = register(tracking_uri, mlflow.pyfunc.log_model, models.AsSeries(), signature=AMOUNT)
    rng = np.random.default_rng(3)
    pq.write_table(pa.table({"amount": rng.normal(0, 1, 2_000)}), tmp_path / "train.parquet")
    reference.from_training(open_context(stack), model, str(tmp_path / "train.parquet"))
    write("a.parquet", {"amount": rng.normal(3, 1, 1_000)})
    job = make_job(model, drift={"on_severe": ["hold"]})

    run: Run = submit(job, settings=stack).wait(timeout=WAIT)

    assert (run.status, run.record.drift_severity) == ("held", "severe")
    assert not (tmp_path / "out").exists()

    run.release("a tester")
    run.wait(timeout=WAIT)

    assert run.status == "published"
    assert run.scores().count_rows() == 1_000


def test_key_and_passthrough_keep_their_types(
    context: Context, quarter_more: str, make_job: Maker, write: Writer, tmp_path: Path
) -> None:
    from datetime import UTC, datetime, timedelta
    from decimal import Decimal

    kept = pa.table(
        {
            "code": pa.array(["x", None, "y"]).dictionary_encode(),
            "price": pa.array([Decimal("1.10"), None, Decimal("2.20")], pa.decimal128(9, 2)),
            "at": pa.array(
                [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(3)],
                pa.timestamp("us", "Europe/Berlin"),
            ),
            "tags": pa.array([["a"], [], None], pa.list_(pa.string())),
            "pair": pa.array([{"a": 1}, None, {"a": 3}]),
            "blob": pa.array([b"\x00", b"", None]),
            "dotted.näme": pa.array([1, 2, 3], pa.uint8()),
        }
    )
    columns = {name: kept[name] for name in kept.column_names}
    write("a.parquet", {"amount": [1.0, None, 3.0], **columns}, row_group_size=2)
    job = make_job(
        quarter_more,
        key=["dotted.näme"],
        output_more={"passthrough": tuple(kept.column_names[:-1])},
        execution={"error_budget": 0.5},
    )

    ended = score_here(context, create(context, job, Occasion(), trigger="manual").run)

    assert (ended.state, ended.error) == ("published", None)
    scores = pq.read_table(tmp_path / "out" / "part-00000.parquet")
    expected = kept.take([0, 2]).select(["dotted.näme", *kept.column_names[:-1]])
    assert scores.drop_columns(["score"]).to_pylist() == expected.to_pylist()
    assert scores.drop_columns(["score"]).schema.types == expected.schema.types
