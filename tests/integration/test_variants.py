"""Variants through real workers: searched once, gated, pinned for the run, shown everywhere."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from sqlalchemy import select, update

from scoring import Job, Run, Settings, reference, submit, variants
from scoring.api import open_context
from scoring.errors import NoInputFiles, RunFailed, SampleMissing, VariantDamaged
from scoring.job import Precision
from scoring.ledger import Ledger
from scoring.ledger.tables import runs, searches
from scoring.models import Field
from scoring.models.search_document import search_document
from scoring.models.search_result import SearchResult
from scoring.runs import sample
from scoring.runs.variant import to_load
from scoring.stack import Stack
from tests.conftest import make_settings
from tests.integration import models
from tests.integration.models import register
from tests.integration.processes import until

pytestmark = pytest.mark.slow

ROWS = 3_000
WAIT = 180
"""Seconds after which a run counts as stuck."""
WIDE: Any = {"variant": "int8", "min_agreement": 0.97, "max_mean_error": 0.02}
"""Limits that int8 keeps even on random weights."""
COLUMNS = tuple(f"f{n}" for n in range(16))

Score = Callable[..., Run]


@pytest.fixture
def rows(tmp_path: Path) -> pa.Table:
    """Rows in six row groups, so that several workers take part."""
    rng = np.random.default_rng(3)
    table = pa.table(
        {"id": np.arange(ROWS)}
        | {name: rng.normal(size=ROWS).astype(np.float32) for name in COLUMNS}
    )
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "rows.parquet", row_group_size=500)
    return table


@pytest.fixture
def score(stack: Settings, tmp_path: Path, rows: pa.Table) -> Score:
    """``score(model, **precision)``: submit a run of six chunks and wait for it."""

    def run(model: str, wait: bool = True, **precision: Any) -> Run:
        job = Job(
            name="variants",
            model=model,
            key=("id",),
            input={"path": str(tmp_path / "in")},
            output={"path": str(tmp_path / "out" / "{run_id}")},
            execution={"chunk_rows": 500, "device": "cpu"},
            precision=precision,
        )
        submitted = submit(job, settings=stack)
        if wait:
            submitted.wait(timeout=WAIT)
        return submitted

    return run


@pytest.fixture(scope="module")
def network(tracking_uri: str) -> str:
    """A registered network that int8 serves well."""
    return registered_network(tracking_uri, seed=1)


def registered_network(tracking_uri: str, seed: int, name: str = "") -> str:
    signature = ModelSignature(
        inputs=Schema([ColSpec("float", name) for name in COLUMNS]),
        outputs=Schema([ColSpec("float", "score")]),
    )
    return register(
        tracking_uri,
        mlflow.onnx.log_model,
        models.network(len(COLUMNS), seed),
        name=name,
        signature=signature,
        save_as_external_data=False,
    )


def manifest(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (Path(run.to_dict()["output"]) / "_manifest.json").read_text()
    )
    return found


def scores_of(run: Run) -> np.ndarray[Any, Any]:
    table = run.scores().to_table().sort_by("id")
    return np.asarray(table["score"])


def direct(seed: int, rows: pa.Table) -> np.ndarray[Any, Any]:
    """The network's scores of the rows, without Nightscore."""
    session = onnxruntime.InferenceSession(
        models.network(len(COLUMNS), seed).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    matrix = np.stack([rows[name].to_numpy() for name in COLUMNS], axis=1)
    return np.asarray(session.run(None, {"features": matrix})[0])


def attempts(settings: Settings, digest: str) -> list[int]:
    """How often each search for a model was begun."""
    ledger = Ledger.open(settings.database_url, 60.0)
    with ledger.database.reading() as connection:
        found = connection.execute(
            select(searches.c.attempt).where(searches.c.model_digest == digest)
        ).scalars()
        return list(found)


def test_a_run_takes_what_the_search_chose_and_says_so_everywhere(
    score: Score, stack: Settings, network: str, rows: pa.Table, tracking_uri: str
) -> None:
    run = score(network)

    shown = run.to_dict()
    ledger = Ledger.open(stack.database_url, 60.0)
    record = ledger.runs.get(run.id)
    found = SearchResult.from_json(str(ledger.searches.result(str(record.search))))
    assert run.status == "published"
    assert shown["variant"] in {one.variant for one in found.candidates}
    assert shown["precision"]["why"]
    assert manifest(run)["variant"] == shown["variant"]
    assert manifest(run)["precision"] == shown["precision"]
    assert shown["batch_rows"] == shown["precision"]["batch_rows"] > 0
    client = mlflow.MlflowClient(tracking_uri)
    name = network.removeprefix("models:/").partition("@")[0]
    tags = client.get_model_version(name, shown["model_version"]).tags
    assert tags["nightscore.variant"] == shown["variant"]
    experiment = client.get_experiment_by_name("nightscore/variants")
    logged = client.search_runs(
        [experiment.experiment_id], f"params.variant = '{shown['variant']}'"
    )
    assert any("native_rows_per_second" in one.data.metrics for one in logged)


def test_workers_that_meet_a_new_model_together_search_once(
    score: Score, stack: Settings, tracking_uri: str
) -> None:
    model = registered_network(tracking_uri, seed=2)

    first, second = score(model), score(model)

    digest = first.to_dict()["model_digest"]
    assert attempts(stack, digest) == [1]
    assert first.to_dict()["precision"] == second.to_dict()["precision"]
    np.testing.assert_array_equal(scores_of(first), scores_of(second))


def test_int8_scores_are_near_and_the_same_in_every_chunk(
    score: Score, network: str, rows: pa.Table
) -> None:
    run = score(network, **WIDE)

    expected = direct(1, rows)
    found = scores_of(run)
    assert run.to_dict()["variant"] == manifest(run)["variant"] == "int8"
    assert found.dtype == np.float32
    assert not np.array_equal(found, expected)
    assert np.abs(found - expected).mean() < 0.02
    gate = run.to_dict()["precision"]["gate"]
    assert gate["batch_error"] == 0.0
    assert np.abs(found - expected).mean() == pytest.approx(gate["mean_error"], rel=0.2)


def test_int8_beyond_the_limits_fails_the_run_before_a_row_is_scored(
    score: Score, network: str, tmp_path: Path
) -> None:
    with pytest.raises(RunFailed) as failed:
        score(network, variant="int8", max_mean_error=1e-9)

    text = str(failed.value)
    assert "may not be scored as int8" in text
    assert "above max_mean_error 1e-09" in text
    assert "Nothing was scored" in text
    assert not (tmp_path / "out").exists()


def test_a_limit_of_a_job_does_not_need_another_search(
    score: Score, stack: Settings, network: str
) -> None:
    run = score(network, max_mean_error=1e-12, min_agreement=1.0)

    assert run.to_dict()["variant"] in ("native", "fp32")
    assert attempts(stack, run.to_dict()["model_digest"]) == [1]


def test_a_promotion_during_a_run_changes_neither_its_model_nor_its_variant(
    score: Score, tracking_uri: str, rows: pa.Table
) -> None:
    model = registered_network(tracking_uri, seed=3)
    name = model.removeprefix("models:/").partition("@")[0]

    run = score(model, wait=False, **WIDE)
    registered_network(tracking_uri, seed=4, name=name)
    run.wait(timeout=WAIT)
    after = score(model, variant="native")

    assert (run.to_dict()["model_version"], run.to_dict()["variant"]) == ("1", "int8")
    assert (after.to_dict()["model_version"], after.to_dict()["variant"]) == ("2", "native")
    assert np.abs(scores_of(run) - direct(3, rows)).mean() < 0.02
    np.testing.assert_allclose(scores_of(after), direct(4, rows), atol=1e-6)


def test_a_variant_that_a_model_cannot_have_fails_the_run_with_the_reason(
    score: Score, network: str
) -> None:
    with pytest.raises(RunFailed, match="has no variant fp16"):
        score(network, variant="fp16")


def test_native_needs_no_search(score: Score, stack: Settings, tracking_uri: str) -> None:
    run = score(registered_network(tracking_uri, seed=5), variant="native")

    assert attempts(stack, run.to_dict()["model_digest"]) == []
    assert run.to_dict()["precision"]["why"] == "the job asks for native"


def test_too_few_rows_prove_nothing_so_native_scores_them(
    stack: Settings, tmp_path: Path, rows: pa.Table, tracking_uri: str
) -> None:
    pq.write_table(rows.slice(0, 150), tmp_path / "few.parquet")
    job = Job(
        name="few",
        model=registered_network(tracking_uri, seed=6),
        input={"path": str(tmp_path / "few.parquet")},
        output={"path": str(tmp_path / "few")},
    )

    run = submit(job, settings=stack).wait(timeout=WAIT)

    shown = run.to_dict()
    assert shown["variant"] == "native"
    assert "150 rows are too few to judge it by; 200 are needed" in shown["precision"]["why"]


def search_processes() -> list[psutil.Process]:
    """Searches of this session's workers, and of nobody else's."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "scoring.models" in process.cmdline():
                found.append(process)
    return found


def searching() -> psutil.Process:
    """The search that is under way, waited for."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        for process in search_processes():
            return process
        time.sleep(0.01)
    raise TimeoutError("no search began")


def test_a_search_that_is_killed_costs_no_row_and_is_not_held_against_the_model(
    score: Score, stack: Settings, tracking_uri: str
) -> None:
    model = registered_network(tracking_uri, seed=7)

    run = score(model, wait=False)
    searching().kill()
    run.wait(timeout=WAIT)
    again = score(model)

    assert run.to_dict()["variant"] == "native"
    assert "the search ended with code -9" in run.to_dict()["precision"]["why"]
    assert attempts(stack, run.to_dict()["model_digest"]) == [2]
    assert again.to_dict()["precision"]["gate"] or again.to_dict()["variant"] == "native"
    assert "code -9" not in again.to_dict()["precision"]["why"]


def test_a_worker_that_is_killed_while_it_searches_takes_the_search_with_it(
    score: Score, stack: Settings, tracking_uri: str
) -> None:
    run = score(registered_network(tracking_uri, seed=8), wait=False)

    search = searching()
    search.parent().kill()
    search.wait(timeout=WAIT)
    run.wait(timeout=WAIT)

    assert run.status == "published"
    assert attempts(stack, run.to_dict()["model_digest"]) == [2]
    assert search_processes() == []


def test_a_search_that_takes_too_long_is_ended_and_native_scores(
    tmp_path: Path, tracking_uri: str, rows: pa.Table
) -> None:
    settings = make_settings(tmp_path / "home", tracking_uri, search_seconds=0.2)
    job = Job(
        name="hasty",
        model=registered_network(tracking_uri, seed=9),
        input={"path": str(tmp_path / "in")},
        output={"path": str(tmp_path / "out")},
    )
    with Stack(settings) as running:
        broker = running.ensure().broker
        asked = submit(job, settings=settings.model_copy(update={"broker_url": broker}))
        shown = asked.wait(timeout=WAIT).to_dict()

    assert shown["variant"] == "native"
    assert "took longer than SCORING_SEARCH_SECONDS = 0.2" in shown["precision"]["why"]


def test_a_variant_that_was_tampered_with_is_not_loaded(
    score: Score, stack: Settings, tracking_uri: str
) -> None:
    run = score(registered_network(tracking_uri, seed=10), **WIDE)
    context = open_context(stack)
    record = context.ledger.runs.get(run.id)
    job = Job.from_json(record.job_json)
    assert to_load(context, record, job).load().device == "cpu"

    (graph,) = (stack.artifacts / "_variants" / str(record.search)[:32]).glob("1/int8*/model.onnx")
    graph.write_bytes(graph.read_bytes() + b"\0")

    with pytest.raises(VariantDamaged, match="is not the one that passed the gate"):
        to_load(context, record, job).load()


class Roomy(mlflow.pyfunc.PythonModel):
    """A model that needs more memory than there is for more than 100 rows."""

    def predict(self, context: Any, model_input: pd.DataFrame) -> Any:
        if len(model_input) > 100:
            raise MemoryError("it asked for a petabyte")
        return model_input["f0"].to_numpy() * 2


def test_memory_that_runs_out_halves_the_batch_finishes_the_chunk_and_is_remembered(
    score: Score, tracking_uri: str, rows: pa.Table
) -> None:
    signature = ModelSignature(
        inputs=Schema([ColSpec("float", "f0")]), outputs=Schema([ColSpec("float", "score")])
    )
    model = register(tracking_uri, mlflow.pyfunc.log_model, Roomy(), signature=signature)

    run = score(model)

    assert run.to_dict()["rows_quarantined"] == 0
    np.testing.assert_array_equal(scores_of(run), rows["f0"].to_numpy() * 2)
    assert 50 <= run.to_dict()["batch_rows"] <= 100


def test_the_reference_keeps_rows_and_labels_that_variants_are_judged_by(
    stack: Settings, tmp_path: Path, rows: pa.Table, tracking_uri: str
) -> None:
    model = registered_network(tracking_uri, seed=11)
    labelled = rows.append_column("late", pa.array(direct(11, rows) > 0.5))
    pq.write_table(labelled, tmp_path / "train.parquet")
    context = open_context(stack)

    with pytest.raises(SampleMissing, match="there are no rows to judge variants"):
        variants.of_model(context, model)
    reference.from_training(context, model, str(tmp_path / "train.parquet"), label="late")
    found = search_document(variants.of_model(context, model), Precision())

    int8 = next(one for one in found["variants"] if one["variant"] == "int8")
    assert found["sample"] == "reference"
    assert found["rows"] >= 1_000
    assert int8["labels"]["metric"] == "auc"
    assert int8["labels"]["native"] == 1.0
    assert 0.9 < int8["labels"]["variant"] <= 1.0
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_another_search_leaves_what_a_run_is_pinned_to_alone(
    score: Score, stack: Settings, tmp_path: Path, tracking_uri: str
) -> None:
    model = registered_network(tracking_uri, seed=12)
    run = score(model, **WIDE)
    context = open_context(stack)
    record = context.ledger.runs.get(run.id)

    found = variants.of_model(context, model, path=str(tmp_path / "in"), device="cpu")
    engine = to_load(context, record, Job.from_json(record.job_json)).load()

    assert found.sample == "given"
    assert attempts(stack, str(record.model_digest)) == [2]
    assert json.loads(str(record.precision))["folder"].startswith("1/")
    assert engine.name.startswith("onnxruntime")


def test_an_impossible_search_leaves_what_is_remembered(
    score: Score, stack: Settings, tracking_uri: str
) -> None:
    model = registered_network(tracking_uri, seed=13)
    score(model)
    context = open_context(stack)

    with pytest.raises(NoInputFiles):
        variants.of_model(context, model, path="nowhere.parquet", device="cpu", again=True)

    assert variants.of_model(context, model, device="cpu").sample == "input"


def test_rows_to_judge_by_come_from_the_whole_input(
    score: Score, stack: Settings, tmp_path: Path, rows: pa.Table, tracking_uri: str
) -> None:
    """A file is often sorted: its first rows would say nothing of the others."""
    run = score(registered_network(tracking_uri, seed=14), variant="native")
    one_group = tmp_path / "sorted.parquet"
    pq.write_table(rows.sort_by("f0"), one_group)
    job = Job(
        name="sorted",
        model=run.to_dict()["model"],
        input={"path": str(one_group)},
        output={"path": str(tmp_path / "sorted")},
        precision={"variant": "native"},
    )
    whole = submit(job, settings=stack).wait(timeout=WAIT)
    context = open_context(stack)
    features = [Field(name="f0", type=pa.float32(), shape=None, required=True)]

    for submitted in (run, whole):
        record = context.ledger.runs.get(submitted.id)
        drawn = np.sort(sample.from_run(context, record, features, 300)["f0"].to_numpy())
        every = np.sort(rows["f0"].to_numpy())
        assert 290 <= len(drawn) <= 300
        assert abs(np.median(drawn) - np.median(every)) < 0.25
        assert drawn[-1] > np.quantile(every, 0.98)
        assert drawn[0] < np.quantile(every, 0.02)


class InPlace(mlflow.pyfunc.PythonModel):
    """Works in the array it is given, and then has too little memory for more than 100 rows."""

    def predict(self, context: Any, model_input: Any) -> Any:
        values = model_input["f0"]
        values *= 2
        if len(values) > 100:
            raise MemoryError("it asked for a petabyte")
        return values.reshape(-1)


def test_a_model_that_works_in_place_is_given_its_rows_anew_after_memory_ran_out(
    score: Score, tracking_uri: str, rows: pa.Table
) -> None:
    tensor = Schema([TensorSpec(np.dtype(np.float32), (-1, 1), "f0")])
    signature = ModelSignature(
        inputs=tensor, outputs=Schema([TensorSpec(np.dtype(np.float32), (-1,))])
    )
    model = register(tracking_uri, mlflow.pyfunc.log_model, InPlace(), signature=signature)

    np.testing.assert_array_equal(scores_of(score(model)), rows["f0"].to_numpy() * 2)


def test_variants_that_were_cleared_away_are_built_again(
    score: Score, stack: Settings, tracking_uri: str
) -> None:
    model = registered_network(tracking_uri, seed=15)
    first = score(model, **WIDE)
    digest = first.to_dict()["model_digest"]
    record = open_context(stack).ledger.runs.get(first.id)
    shutil.rmtree(stack.artifacts / "_variants" / str(record.search)[:32])

    again = score(model, **WIDE)

    assert attempts(stack, digest) == [2]
    assert again.to_dict()["precision"]["folder"].startswith("2/")
    np.testing.assert_allclose(scores_of(again), scores_of(first), atol=0.05)


def test_a_run_that_was_planned_before_there_were_variants_is_scored_natively(
    score: Score, stack: Settings, tracking_uri: str
) -> None:
    run = score(registered_network(tracking_uri, seed=16), variant="native")
    context = open_context(stack)
    with context.ledger.database.transaction() as connection:
        connection.execute(
            update(runs).where(runs.c.id == run.id).values(precision=None, batch_rows=None)
        )
    record = context.ledger.runs.get(run.id)

    assert to_load(context, record, Job.from_json(record.job_json)).load().device == "cpu"
    assert run.to_dict()["precision"] is None


def test_a_run_that_is_cancelled_while_it_searches_ends_its_search(
    score: Score, tracking_uri: str, tmp_path: Path
) -> None:
    run = score(registered_network(tracking_uri, seed=17), wait=False)
    searching()

    run.cancel()

    until(lambda: search_processes() == [])
    assert (run.status, run.to_dict()["variant"]) == ("cancelled", None)
    assert not (tmp_path / "out").exists()
