"""Runs evaluated on labels that arrive later: through the API, the command, and what they leave."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper
from sklearn import metrics as sklearn

from scoring import Job, Settings, reference
from scoring.api import Run
from scoring.drift.performance.performance import Performance
from scoring.errors import (
    KeyMissing,
    LabelsUnusable,
    PathOutsideRoots,
    RunNotInState,
    StoreUnsupported,
)
from scoring.runs import Context, create, finish_run, on_date, score_chunk
from tests.integration import models
from tests.integration.models import register
from tests.integration.terminal import Terminal
from tests.silent_bell import SilentBell

pytestmark = pytest.mark.slow

ROWS = 6_000
SCHEMA = json.loads(
    (Path(reference.__file__).parent / "drift" / "drift.schema.json").read_text("utf-8")
)
Truth = np.ndarray[Any, Any]


@pytest.fixture
def context(settings: Settings) -> Iterator[Context]:
    """An installation in which nothing happens by itself."""
    settings.home.mkdir(parents=True)
    opened = Context.open(settings, SilentBell())
    opened.ledger.database.ready()
    yield opened
    opened.ledger.database.engine.dispose()


@pytest.fixture(scope="module")
def chance(tracking_uri: str) -> str:
    """``score = sigmoid(a + 2 b)``, the true chance of the rows below, without a reference."""
    frame = pd.DataFrame(np.zeros((4, 2), np.float32), columns=["a", "b"])
    graph = models.graph(
        [
            helper.make_node("MatMul", ["X", "W"], ["sum"]),
            helper.make_node("Sigmoid", ["sum"], ["score"]),
        ],
        {"X": (TensorProto.FLOAT, ["rows", 2])},
        {"score": (TensorProto.FLOAT, ["rows", 1])},
        {"W": np.array([[1.0], [2.0]], np.float32)},
    )
    signature = mlflow.models.infer_signature(frame, np.zeros(4, np.float32))
    return register(tracking_uri, mlflow.onnx.log_model, graph, signature=signature)


def rows_and_truth(seed: int, rows: int = ROWS) -> tuple[pa.Table, Truth]:
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(2, rows)).astype(np.float32)
    late = (random.random(rows) < 1 / (1 + np.exp(-(a + 2 * b)))).astype(np.int64)
    table = pa.table(
        {
            "id": np.arange(rows, dtype=np.int64) * 7 - 1_000,
            "airport": pa.array(np.array(["JFK", "EWR", "LGA"])[np.arange(rows) % 3]),
            "a": a,
            "b": b,
        }
    )
    return table, late


Score = Callable[..., Run]


@pytest.fixture
def score(context: Context, tmp_path: Path) -> Score:
    """``score(model, rows)``: a published run of four chunks."""

    def run(model: str, rows: pa.Table, key: Sequence[str] = ("id",), **drift: Any) -> Run:
        (tmp_path / "in").mkdir(exist_ok=True)
        pq.write_table(rows, tmp_path / "in" / "rows.parquet", row_group_size=ROWS // 4)
        job = Job(
            name="evaluated",
            model=model,
            key=key,
            input={"path": str(tmp_path / "in")},
            output={"path": str(tmp_path / "out" / "day=1")},
            execution={"chunk_rows": ROWS // 4, "device": "cpu"},
            precision={"variant": "native"},
            drift=drift,
        )
        created = create(context, job, on_date(None), trigger="manual").run
        for number in range(created.chunks):
            score_chunk(context, created.id, number)
        assert finish_run(context, created.id) == "published"
        return Run(created.id, context)

    return run


@pytest.fixture
def profiled(context: Context, chance: str, tmp_path: Path) -> str:
    """The model with its performance on rows of its own, some of them without a label."""
    table, late = rows_and_truth(1)
    labels = pa.array([None if n % 50 == 0 else bool(hit) for n, hit in enumerate(late)])
    pq.write_table(table.append_column("late", labels), tmp_path / "held_out.parquet")
    reference.from_training(context, chance, str(tmp_path / "held_out.parquet"), label="late")
    return chance


def written(path: Path, columns: dict[str, Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return str(path)


def metric(document: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in document["metrics"] if one["name"] == name]
    return found


def scores_of(run: Run) -> Truth:
    return np.asarray(run.scores().to_table()["score"])


def test_a_run_is_evaluated_on_the_labels_that_have_arrived(
    score: Score, profiled: str, tmp_path: Path
) -> None:
    table, late = rows_and_truth(2)
    run = score(profiled, table)
    before = run.report()
    order = np.random.default_rng(3).permutation(ROWS)[: ROWS - 500]
    labels = pa.array(late[order], mask=np.arange(len(order)) < 100)  # known later still
    keys = np.asarray(table["id"])[order].astype(np.int32)
    for part in (0, 1):
        written(
            tmp_path / "labels" / f"part={part}" / "rows.parquet",
            {"id": keys[part::2], "late": labels.take(pa.array(np.arange(part, len(order), 2)))},
        )

    found = run.evaluate(tmp_path / "labels")

    known, scores = order[100:], scores_of(run)
    assert (found["kind"], found["output"], found["label"]) == ("binary", "score", "late")
    assert (found["rows"], found["unmatched"]) == (ROWS - 600, 600)
    expected = {
        "auc": sklearn.roc_auc_score(late[known], scores[known]),
        "accuracy": sklearn.accuracy_score(late[known], scores[known] > 0.5),
        "brier": sklearn.brier_score_loss(late[known], scores[known]),
        "log_loss": sklearn.log_loss(late[known], scores[known]),
    }
    for name, value in expected.items():
        one = metric(found, name)
        assert one["value"] == pytest.approx(value, rel=1e-6)
        assert one["low"] < value < one["high"]
        assert one["reference"] == pytest.approx(value, abs=0.03)
    assert sum(one["rows"] for one in found["calibration"]) == ROWS - 600
    assert (found["lead"], found["severity"]) == ("auc", "none")

    report = run.report()
    assert report["performance"] == found
    assert report["severity"] == before["severity"] == run.record.drift_severity
    assert report["verdict"] == f"{before['verdict']} {found['verdict']}"
    jsonschema.validate(report, SCHEMA)
    evaluation = Path(run.record.artifacts) / "evaluation.json"
    assert json.loads(evaluation.read_text("utf-8")) == found
    page = Path(str(run.record.report)).read_text("utf-8")
    assert found["verdict"].replace("'", "&#39;") in page
    again = run.evaluate(tmp_path / "labels")
    assert {**again, "evaluated_at": ""} == {**found, "evaluated_at": ""}


def test_a_drop_raises_the_severity_until_better_labels_say_otherwise(
    score: Score, profiled: str, tmp_path: Path
) -> None:
    table, late = rows_and_truth(4)
    wrong = np.where(np.arange(ROWS) % 5 == 0, 1 - late, late)
    keys = {"id": table["id"]}
    run = score(profiled, table)

    bad = run.evaluate(written(tmp_path / "bad.parquet", {**keys, "y": wrong, "late": late}), "y")

    lead = metric(bad, "auc")
    assert lead["drop"] == pytest.approx(lead["reference"] - lead["value"])
    assert bad["severity"] == lead["severity"] == "severe"
    assert "points lower than the reference's" in bad["verdict"]
    assert run.record.drift_severity == run.report()["severity"] == "severe"
    assert run.report()["trend"][-1]["severity"] == "severe"
    (event,) = [one for one in run.history() if one["event"] == "evaluated"]
    assert event["detail"]["severity"] == "severe"
    assert event["detail"]["value"] == lead["value"]

    good = run.evaluate(written(tmp_path / "good.parquet", {**keys, "late": late}))

    assert good["severity"] == "none"
    assert run.record.drift_severity == run.report()["severity"] == "none"
    assert bad["verdict"] not in run.report()["verdict"]


def test_a_drop_asks_for_what_the_job_does_about_drift_so_severe(
    score: Score, context: Context, profiled: str, tmp_path: Path
) -> None:
    table, late = rows_and_truth(4)
    task = {"task": "training.retrain", "task_queue": "training"}
    asked = {"on_severe": ["retrain", "hold"], "retrain": task}
    run = score(profiled, table, **asked)
    assert context.ledger.deliveries.of(run.id) == []
    wrong = written(tmp_path / "wrong.parquet", {"id": table["id"], "late": 1 - late})

    for _ in range(2):
        run.evaluate(wrong)

    (delivery,) = context.ledger.deliveries.of(run.id)
    payload = json.loads(delivery.payload)
    assert (delivery.target, payload["action"], payload["severity"]) == (
        "training.retrain",
        "retrain",
        "severe",
    )
    assert run.status == "published"  # it is too late to hold it
    assert run.report()["actions"] == ["retrain"]
    events = [one["detail"] for one in run.history() if one["event"] == "evaluated"]
    assert [event["actions"] for event in events] == [["retrain"]] * 2


def test_a_model_without_a_performance_is_evaluated_all_the_same(
    score: Score, context: Context, chance: str, tmp_path: Path, tracking_uri: str
) -> None:
    frame = pd.DataFrame(np.zeros((4, 2), np.float32), columns=["a", "b"])
    price = register(
        tracking_uri,
        mlflow.onnx.log_model,
        models.linear(np.array([[1.0], [2.0]], np.float32), output="price"),
        signature=mlflow.models.infer_signature(
            frame, pd.DataFrame({"price": np.zeros(4, np.float32)})
        ),
    )
    table, _ = rows_and_truth(5)
    run = score(price, table, key=("airport", "id"))
    truth = np.asarray(table["a"]) + np.random.default_rng(6).normal(size=ROWS)
    labels = {
        "paid": truth.astype(np.float32),
        "id": table["id"].cast(pa.float64()),  # as pandas keeps whole numbers beside a null
        "airport": table["airport"].combine_chunks().dictionary_encode(),
    }

    found = run.evaluate(written(tmp_path / "paid.parquet", labels), "paid")

    scores = np.asarray(run.scores().to_table()["price"])
    assert (found["lead"], found["kind"], found["calibration"]) == ("rmse", "regression", None)
    error = sklearn.root_mean_squared_error(truth, scores)
    assert metric(found, "rmse")["value"] == pytest.approx(error, rel=1e-6)
    assert metric(found, "rmse")["reference"] is None
    assert "no performance to compare with" in found["verdict"]
    assert run.record.drift_severity is None
    jsonschema.validate(run.report(), SCHEMA)


def test_labels_that_cannot_be_matched_are_refused_and_nothing_changes(
    score: Score, profiled: str, tmp_path: Path
) -> None:
    table, late = rows_and_truth(7)
    run = score(profiled, table)
    report = run.report()
    ids = np.asarray(table["id"])
    cases: dict[str, dict[str, Any]] = {
        r"1 rows have the key of another, such as id = -1000, and": {
            "id": [-1000, -993, -1000],
            "late": [0, 1, 0],
        },
        "none of 2 labels has the id of a scored row": {"id": [3, 4], "late": [0, 1]},
        "one of its columns must be named .* it has late, early": {
            "id": ids,
            "late": late,
            "early": late,
        },
        r"lacks id; it has flight, late": {"flight": ids, "late": late},
        "its key id is string and that of the scores int64": {
            "id": [str(one) for one in ids],
            "late": late,
        },
        "late is date32.*, not numbers": {"id": [1], "late": pa.array([1], pa.date32())},
        r"no output of the run \(score \(float\)\) can be judged by the words in late": {
            "id": ids,
            "late": ["yes"] * ROWS,
        },
        "none of 1 labels has the id": {"id": [0.5, -1000], "late": [1, None]},
    }
    for number, (why, columns) in enumerate(cases.items()):
        with pytest.raises(LabelsUnusable, match=why):
            run.evaluate(written(tmp_path / f"labels-{number}.parquet", columns))
    with pytest.raises(LabelsUnusable, match="no Parquet files"):
        run.evaluate(tmp_path / "nowhere")
    with pytest.raises(StoreUnsupported):
        run.evaluate("hdfs://cluster/labels")

    assert run.report() == report
    assert not [one for one in run.history() if one["event"] == "evaluated"]


def test_labels_are_read_only_where_jobs_may_read(
    score: Score, profiled: str, context: Context, tmp_path: Path
) -> None:
    table, late = rows_and_truth(8)
    run = score(profiled, table)
    (tmp_path / "allowed").mkdir()
    settings = context.settings.model_copy(update={"data_roots": (str(tmp_path / "allowed"),)})
    narrow = Context(settings, context.ledger, context.registry, context.cache, SilentBell())
    outside = written(tmp_path / "outside.parquet", {"id": table["id"], "late": late})
    os.symlink(outside, tmp_path / "allowed" / "link.parquet")

    for path in (outside, str(tmp_path / "allowed")):
        with pytest.raises(PathOutsideRoots, match="labels is"):
            Run(run.id, narrow).evaluate(path)


def test_only_scores_that_are_published_and_in_place_are_evaluated(
    score: Score, profiled: str, context: Context, tmp_path: Path
) -> None:
    table, late = rows_and_truth(9)
    labels = written(tmp_path / "labels.parquet", {"id": table["id"], "late": late})
    first = score(profiled, table)
    twice = score(profiled, pa.concat_tables([table, table.slice(0, 10)]))

    with pytest.raises(RunNotInState, match=f"replaced by {twice.id}"):
        first.evaluate(labels)
    assert twice.evaluate(labels)["rows"] == ROWS + 10, "each row with the key is evaluated"
    keyless = score(profiled, table, key=())
    with pytest.raises(KeyMissing, match="job evaluated names no key"):
        keyless.evaluate(labels)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(RunNotInState, match="replaced by nothing"):
        twice.evaluate(labels)


def test_a_version_keeps_its_performance_with_its_reference(
    context: Context, chance: str, profiled: str, tmp_path: Path
) -> None:
    version = context.registry.resolve(chance)
    rows = pq.read_table(tmp_path / "held_out.parquet")

    known = Performance.from_json(str(context.registry.reference_performance(version)))

    labelled = rows.filter(rows["late"].is_valid())
    score = 1 / (1 + np.exp(-(np.asarray(labelled["a"]) + 2 * np.asarray(labelled["b"]))))
    found = known.metric("auc")
    assert found is not None
    assert found.value == pytest.approx(sklearn.roc_auc_score(labelled["late"], score))
    assert (known.output, known.kind, known.rows) == ("score", "binary", labelled.num_rows)


def test_the_command_shows_what_it_found(
    score: Score, profiled: str, settings: Settings, tmp_path: Path
) -> None:
    table, late = rows_and_truth(10)
    run = score(profiled, table)
    written(tmp_path / "labels.parquet", {"id": table["id"][:-5], "late": late[:-5]})
    scoring = Terminal(
        tmp_path,
        {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "SCORING_HOME": str(settings.home),
            "MLFLOW_TRACKING_URI": settings.tracking_uri,
        },
    )

    shown = scoring("evaluate", run.id, "--labels", "labels.parquet")
    spoken = scoring(
        "evaluate", "latest", "--labels", "labels.parquet", "--label", "late", "--json"
    )
    wrong = scoring("evaluate", run.id, "--labels", "labels.parquet", "--label", "early")

    assert (shown.code, spoken.code, wrong.code) == (0, 0, 1), (shown.err, spoken.err, wrong.err)
    assert spoken.json["verdict"] in shown.err.replace("\n", " ")
    assert spoken.json == run.report()["performance"]
    for text in ("AUC", "Brier score", "95% interval", "predicted"):
        assert text in shown.out
    assert "5 scored rows have no label yet." in shown.err
    assert "lacks early" in wrong.err
