"""Runs whose input and output lie in an object store: a real server, real workers, real faults."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from sqlalchemy import create_engine, text

from scoring import Job, Run, Settings, reference, submit
from scoring.data.stores import Stores
from scoring.errors import (
    NoInputFiles,
    OutputOccupied,
    PathOutsideRoots,
    RunNotInState,
    StoreRefused,
    StoreUnreachable,
)
from scoring.ledger import RunRecord
from scoring.runs import Context, create, finish_run, on_date, plan_document, prepare, score_chunk
from scoring.runs.clean import clean
from scoring.runs.leftover import Policy
from scoring.runs.replay import replay
from tests.conftest import make_settings
from tests.front import Front
from tests.integration import models
from tests.integration.files import contents
from tests.integration.processes import until
from tests.integration.terminal import Terminal
from tests.silent_bell import SilentBell
from tests.stores import IMPATIENT, KEY_ID, SECRET, Bucket

pytestmark = pytest.mark.slow

WAIT = 240
"""Seconds after which a run counts as stuck."""
AMOUNT = ModelSignature(inputs=Schema([ColSpec("double", "amount")]))


def rows(count: int, first: int = 0) -> pa.Table:
    rng = np.random.default_rng(first + count)
    return pa.table(
        {
            "id": np.arange(first, first + count),
            "a": rng.normal(size=count).astype(np.float32),
            "b": rng.normal(size=count).astype(np.float32),
        }
    )


def scored(model: str, table: pa.Table) -> list[float]:
    """The model called directly."""
    found = mlflow.pyfunc.load_model(model).predict(table.select(["a", "b"]).to_pandas())
    return [float(value) for value in np.asarray(found["score"]).ravel()]


def make_job(model: str, read: str, written: str, name: str = "in-a-store", **more: Any) -> Job:
    execution = {"device": "cpu", **more.pop("execution", {})}
    return Job(
        name=name,
        model=model,
        key=["id"],
        input={"path": read},
        output={"path": written, **more.pop("output", {})},
        execution=execution,
        precision={"variant": "native"},
        **more,
    )


def published(bucket: Bucket, prefix: str) -> pa.Table:
    """What a reader of the manifest reads; all that a listing shows is in it."""
    manifest = bucket.manifest(prefix)
    parts = [f"{prefix}/{part['file']}" for part in manifest["parts"]]
    assert bucket.keys(f"{prefix}/") == sorted(
        [f"{prefix}/_SUCCESS", f"{prefix}/_manifest.json", *parts]
    )
    return pa.concat_tables(bucket.table(part) for part in parts)


# Through real services


def test_a_night_in_a_store_is_published_replaced_and_read(
    stack: Settings, model: str, bucket: Bucket
) -> None:
    days = [rows(900), rows(700, first=900)]
    for hour, table in enumerate(days):
        key = f"in/date=2024-05-01/hour={hour}/rows.parquet"
        bucket.put_table(key, table, row_group_size=200)
    bucket.put_table("in/date=2024-05-01/_tmp/rows.parquet", rows(5))
    bucket.put("in/date=2024-05-01/hour=0/.rows.parquet.crc", b"x")
    job = make_job(
        model,
        f"{bucket.url}/in/date={{date}}",
        f"{bucket.url}/scores/date={{date}}",
        output={"passthrough": ["hour"]},
        execution={"chunk_rows": 400},
    )

    run = submit(job, date="2024-05-01", settings=stack).wait(timeout=WAIT)

    found = published(bucket, "scores/date=2024-05-01")
    together = pa.concat_tables(days)
    assert run.record.chunks >= 4
    assert found["id"].to_pylist() == together["id"].to_pylist()
    assert found["score"].to_pylist() == scored(model, together)
    assert found["score"].type == pa.float32()
    assert set(found["hour"].to_pylist()) == {"0", "1"}
    assert run.scores().to_table() == found.replace_schema_metadata(None)
    manifest = bucket.manifest("scores/date=2024-05-01")
    etags = bucket.listing("in/")
    assert [line["stamp"] for line in manifest["inputs"]] == [
        etags[f"in/date=2024-05-01/hour={hour}/rows.parquet"] for hour in (0, 1)
    ]
    until(lambda: bucket.keys(".nightscore/") == [])  # cleared after the run is published
    until(lambda: bucket.keys("scores/.nightscore/") == [])

    bucket.delete("in/date=2024-05-01/hour=1/rows.parquet")
    again = submit(job, date="2024-05-01", settings=stack).wait(timeout=WAIT)

    assert published(bucket, "scores/date=2024-05-01")["id"].to_pylist() == list(range(900))
    assert again.scores().count_rows() == 900
    with pytest.raises(RunNotInState, match=f"replaced by {again.id}"):
        run.scores()
    until(lambda: bucket.keys(".nightscore/") == [])
    assert contents(stack.home / "scratch") == {}
    assert_nothing_planted(stack, bucket, again)


def assert_nothing_planted(settings: Settings, bucket: Bucket, run: Run) -> None:
    """Nothing that the run wrote anywhere holds what the store was told."""
    found = {key: bucket.get(key) for key in bucket.listing()} | contents(settings.home)
    engine = create_engine(settings.database_url)
    with engine.connect() as connection:
        for table in ("runs", "chunks", "events", "inputs"):
            lines = connection.execute(text(f"SELECT * FROM {table}")).all()
            found[table] = repr(lines).encode()
    engine.dispose()
    found["document"] = json.dumps([run.to_dict(), run.history(), run.report()]).encode()
    assert len(found) > 20
    for place, content in found.items():
        for secret in (KEY_ID, SECRET, SECRET.replace("/", "%2F").replace("+", "%2B")):
            assert secret.encode() not in content, place


@pytest.mark.parametrize("way", ["out", "in"])
def test_a_run_may_have_one_end_here_and_the_other_in_a_store(
    stack: Settings, model: str, bucket: Bucket, tmp_path: Path, way: str
) -> None:
    table = rows(300)
    if way == "out":
        pq.write_table(table, tmp_path / "rows.parquet")
        job = make_job(model, str(tmp_path / "rows.parquet"), f"{bucket.url}/scores")
    else:
        read = bucket.put_table("in/rows.parquet", table, row_group_size=50)
        job = make_job(model, read.replace("rows", "r*s"), str(tmp_path / "scores"))

    run = submit(job, settings=stack).wait(timeout=WAIT)

    if way == "out":
        found = published(bucket, "scores")
        assert os.listdir(tmp_path) == ["rows.parquet"]
    else:
        found = pq.read_table(tmp_path / "scores")
        assert bucket.keys() == ["in/rows.parquet"]
    assert found["score"].to_pylist() == scored(model, table)
    assert run.scores().to_table() == found.replace_schema_metadata(None)


def test_commands_say_where_a_run_is_in_a_store(
    stack: Settings, model: str, bucket: Bucket, tmp_path: Path, write_job: Callable[..., Path]
) -> None:
    bucket.put_table("in/rows.parquet", rows(10))
    path = write_job("planned", model, f"{bucket.url}/in", f"{bucket.url}/scores", 'key = ["id"]')
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "SCORING_HOME": str(stack.home),
        "MLFLOW_TRACKING_URI": stack.tracking_uri,
        "SCORING_STORAGE_OPTIONS": json.dumps(
            {
                "s3://": {
                    name: value.get_secret_value()
                    for name, value in stack.storage_options["s3://"].items()
                }
            }
        ),
    }
    scoring = Terminal(tmp_path, environment)

    planned = scoring("plan", str(path), "--json")
    assert planned.code == 0, planned.err
    document = planned.json

    assert document["files"][0]["path"] == f"{bucket.url}/in/rows.parquet"
    assert (document["output"], document["rows_in"]) == (f"{bucket.url}/scores", 10)
    refused = scoring("plan", str(path), "--json", SCORING_DATA_ROOTS="s3://other")
    assert refused.code == 2
    assert "outside the places that jobs may read" in " ".join(refused.err.split())


# Step by step


class Impatient(Context):
    """An installation that gives a store up soon."""

    @property
    def stores(self) -> Stores:
        made = Stores.of(self.settings.storage_options, self.settings.s3_endpoint)
        return replace(made, patience=IMPATIENT)


@pytest.fixture
def front(bucket: Bucket) -> Iterator[Front]:
    made = Front(bucket.server)
    yield made
    made.close()


@pytest.fixture
def context(tmp_path: Path, tracking_uri: str, bucket: Bucket, front: Front) -> Iterator[Context]:
    """An installation in which nothing happens by itself, with a front before its store."""
    settings = make_settings(
        tmp_path / "home", tracking_uri, storage_options=bucket.options(front.address)
    )
    settings.home.mkdir()
    opened = Impatient.open(settings, SilentBell())
    opened.ledger.database.ready()
    yield opened
    opened.ledger.database.engine.dispose()


@pytest.fixture
def job(model: str, bucket: Bucket) -> Job:
    bucket.put_table("in/rows.parquet", rows(100))
    return make_job(model, f"{bucket.url}/in", f"{bucket.url}/scores")


def begin(context: Context, job: Job) -> RunRecord:
    return create(context, job, on_date(None), trigger="manual").run


def work(context: Context, run: RunRecord) -> RunRecord:
    """Score and finish a run, as workers would, as often as it takes."""
    for number in range(run.chunks):
        while context.ledger.runs.get(run.id).state == "running" and (
            context.ledger.chunks.get(run.id, number).state != "done"
        ):
            score_chunk(context, run.id, number)
    while context.ledger.runs.get(run.id).state == "finishing":
        finish_run(context, run.id)
    return context.ledger.runs.get(run.id)


def test_labels_training_rows_and_references_may_lie_in_a_store(
    context: Context, job: Job, bucket: Bucket
) -> None:
    training = bucket.put_table("training/rows.parquet", rows(500))
    reference.from_training(context, job.model, training)
    run = Run(work(context, begin(context, job)).id, context)
    table = rows(100)
    truth = pc.greater(pc.add(table["a"], pc.multiply(table["b"], 2.0)), 0.0)
    known = table.select(["id"]).append_column("late", truth)
    labels = bucket.put_table("labels/part=1/l.parquet", known)
    bucket.put("profile.json", (Path(run.record.artifacts) / "profile.json").read_bytes())

    found = run.evaluate(labels.replace("l.parquet", "*.parquet"), label="late")

    assert found["rows"] == 100
    assert run.report()["performance"]["labels"].startswith(bucket.url)
    with_path = job.model_copy(
        update={"drift": job.drift.model_copy(update={"reference": f"{bucket.url}/profile.json"})}
    )
    planned = plan_document(prepare(context, with_path, on_date(None)))
    assert planned["compared_with"]["rows"] == 100


def test_replayed_rows_are_added_to_a_run_in_a_store(
    context: Context, tracking_uri: str, bucket: Bucket
) -> None:
    amounts = [-1.0 if number in (3, 40) else float(number) for number in range(50)]
    table = pa.table({"id": range(50), "amount": amounts})
    bucket.put_table("in/rows.parquet", table)

    def register(model: Any) -> str:
        log = mlflow.pyfunc.log_model
        return models.register(tracking_uri, log, model, signature=AMOUNT, name="store-picky")

    job = make_job(
        register(models.Picky()),
        f"{bucket.url}/in",
        f"{bucket.url}/scores",
        execution={"error_budget": 0.1},
    )
    run = work(context, begin(context, job))
    assert (run.state, run.rows_quarantined) == ("published", 2)
    register(models.AsSeries())

    replayed = work(context, replay(context, run.id, "2", "operator"))

    assert replayed.state == "published"
    found = published(bucket, "scores")
    assert sorted(found["id"].to_pylist()) == list(range(50))
    assert found["id"].to_pylist()[-2:] == [3, 40]
    manifest = bucket.manifest("scores")
    assert (manifest["rows_scored"], manifest["rows_quarantined"]) == (50, 0)
    assert [one["run_id"] for one in manifest["replays"]] == [replayed.id]
    assert Run(run.id, context).scores().count_rows() == 50
    assert bucket.keys(".nightscore/") == []


def test_an_object_that_is_replaced_after_planning_fails_the_run(
    context: Context, job: Job, bucket: Bucket
) -> None:
    run = begin(context, job)
    bucket.put_table("in/rows.parquet", rows(100, first=1))

    ended = work(context, run)

    assert ended.state == "failed"
    assert "changed after the run was planned" in str(ended.error)
    assert "with ETag" in str(ended.error)
    assert bucket.keys("scores") == []


def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed(
    context: Context, job: Job, bucket: Bucket, front: Front
) -> None:
    """After the worker has looked at it, before it reads its pages."""
    run = begin(context, job)
    seen: list[str] = []

    def swap(method: str, path: str) -> int:
        if method == "HEAD" and path.endswith("in/rows.parquet"):
            seen.append(path)
        if method == "GET" and path.endswith("in/rows.parquet") and len(seen) == 2:
            bucket.put_table("in/rows.parquet", rows(100, first=1))
        return 0

    front.refuse = swap

    ended = work(context, run)

    assert (ended.state, len(seen)) == ("failed", 3)
    assert "changed after the run was planned" in str(ended.error)
    assert bucket.keys("scores") == []


def test_what_a_store_refuses_is_told_before_a_run_is_recorded(
    context: Context, job: Job, model: str, bucket: Bucket, front: Front
) -> None:
    missing = make_job(model, f"{bucket.url}/none", f"{bucket.url}/scores")
    with pytest.raises(NoInputFiles, match=f"no Parquet files at {bucket.url}/none"):
        begin(context, missing)
    bucket.put("taken/notes.txt", b"keep me")
    with pytest.raises(OutputOccupied, match="1 objects"):
        begin(context, make_job(model, f"{bucket.url}/in", f"{bucket.url}/taken"))
    front.refuse = lambda _method, _path: 403
    with pytest.raises(StoreRefused, match="403 Forbidden"):
        begin(context, job)
    front.refuse = lambda _method, _path: 503
    with pytest.raises(StoreUnreachable, match="503 Service Unavailable"):
        begin(context, job)

    assert context.ledger.runs.latest() == []


def test_a_job_cannot_read_what_a_root_does_not_hold(context: Context, job: Job) -> None:
    inside = context.settings.model_copy(update={"data_roots": ("s3://elsewhere",)})

    with pytest.raises(PathOutsideRoots):
        begin(replace(context, settings=inside), job)


@pytest.mark.parametrize("status", [500, 503])
def test_a_store_that_is_away_costs_an_attempt(
    context: Context, job: Job, bucket: Bucket, front: Front, status: int
) -> None:
    run = begin(context, job)
    front.refuse = lambda method, _: status if method == "PUT" else 0

    assert score_chunk(context, run.id, 0) == "attempt failed"

    chunk = context.ledger.chunks.get(run.id, 0)
    assert (chunk.state, chunk.attempt) == ("waiting", 1)
    assert "the attempt is made again" in str(chunk.error)
    assert bucket.keys(".nightscore") == []
    front.refuse = lambda _method, _path: 0
    assert work(context, run).state == "published"
    assert published(bucket, "scores").num_rows == 100


def test_a_store_that_denies_a_worker_fails_the_run_at_once(
    context: Context, job: Job, bucket: Bucket, front: Front
) -> None:
    run = begin(context, job)
    front.refuse = lambda method, _: 403 if method == "PUT" else 0

    assert score_chunk(context, run.id, 0) == "run failed"

    ended = context.ledger.runs.get(run.id)
    assert (ended.state, context.ledger.chunks.get(run.id, 0).attempt) == ("failed", 1)
    assert "403 Forbidden (AccessDenied)" in str(ended.error)
    assert bucket.keys("scores") == []


def test_a_store_that_is_away_for_a_moment_costs_nothing(
    context: Context, job: Job, front: Front
) -> None:
    """Whatever is written or deleted is refused the first time."""

    def refuse(method: str, path: str) -> int:
        first = method in ("PUT", "POST") and f"{method} {path}" not in front.refused
        return 503 if first else 0

    front.refuse = refuse

    ended = work(context, begin(context, job))

    assert ended.state == "published"
    assert len(front.refused) > 5
    assert context.ledger.chunks.get(ended.id, 0).attempt == 1


def test_publishing_that_stops_half_way_says_so_and_a_retry_completes_it(
    context: Context, job: Job, bucket: Bucket, front: Front
) -> None:
    first = work(context, begin(context, job))
    bucket.put_table("in/rows.parquet", rows(60))
    run = begin(context, job)
    front.refuse = lambda method, path: 503 if method == "PUT" and "_manifest" in path else 0

    ended = work(context, run)

    assert (ended.state, ended.finish_attempt) == ("failed", ended.max_attempts)
    assert "stopped half-way: 503 Service Unavailable (SlowDown)" in str(ended.error)
    assert bucket.keys("scores/_SUCCESS") == []
    with pytest.raises(RunNotInState, match="replaced by nothing"):
        Run(first.id, context).scores()
    front.refuse = lambda _method, _path: 0
    context.ledger.runs.retry(run.id)
    assert work(context, run).state == "published"
    assert published(bucket, "scores").num_rows == 60
    assert bucket.keys(".nightscore/") == []


def test_a_staged_part_that_somebody_removed_leaves_the_earlier_output(
    context: Context, job: Job, bucket: Bucket
) -> None:
    first = work(context, begin(context, job))
    run = begin(context, job)
    score_chunk(context, run.id, 0)
    bucket.delete(f".nightscore/{run.id}/part-00000.attempt-1")

    ended = work(context, run)

    assert ended.state == "failed"
    assert "part-00000.attempt-1 is gone from" in str(ended.error)
    assert bucket.manifest("scores")["run_id"] == first.id
    assert published(bucket, "scores").num_rows == 100


def test_a_store_that_cannot_remove_what_was_staged_does_not_unpublish_a_run(
    context: Context, job: Job, bucket: Bucket, front: Front
) -> None:
    run = begin(context, job)
    score_chunk(context, run.id, 0)

    def refuse(method: str, path: str) -> int:
        listed = method == "GET" and "list-type" in path and run.id in path
        return 503 if listed and bucket.keys("scores/_SUCCESS") else 0

    front.refuse = refuse

    ended = work(context, run)

    assert ended.state == "published"
    assert published(bucket, "scores").num_rows == 100
    assert bucket.keys(f".nightscore/{run.id}/") != []
    front.refuse = lambda _method, _path: 0
    cleaned = clean(context, Policy())
    assert [one.run for one in cleaned.leftovers if one.kind == "parts"] == [run.id]
    assert bucket.keys(".nightscore/") == []


def test_runs_of_which_nothing_is_left_are_cleaned_out_of_a_store(
    context: Context, job: Job, bucket: Bucket
) -> None:
    """Parts of a failed run stay until it is time; of nobody's, until they are old enough."""
    failed = begin(context, job)
    score_chunk(context, failed.id, 0)
    bucket.put(f".nightscore/{failed.id}/part-00000.attempt-9", b"of an attempt that lost")
    running = begin(context, job)
    score_chunk(context, running.id, 0)
    hold = context.ledger.runs.claim_finish(failed.id, "worker")
    assert hold is not None
    context.ledger.runs.end(hold, "failed", error="for the test")
    bucket.put(".nightscore/other-20240501T020000-abcdef/part-00000.attempt-1", b"fresh")

    first = clean(context, Policy())
    kept = bucket.keys(f".nightscore/{failed.id}/")
    again = clean(context, Policy(failed=True, who="operator"))

    assert [one.where for one in first.leftovers] == [f"{bucket.url}/.nightscore/{failed.id}"]
    assert f".nightscore/{failed.id}/part-00000.attempt-1" in kept
    assert f".nightscore/{failed.id}/part-00000.attempt-9" not in kept
    assert [one.run for one in again.leftovers] == [failed.id]
    assert bucket.keys(f".nightscore/{failed.id}/") == []
    assert bucket.keys(".nightscore/other-20240501T020000-abcdef/") != []
    assert bucket.keys(f".nightscore/{running.id}/") != []
    context.ledger.runs.retry(failed.id)
    assert work(context, failed).state == "published"
