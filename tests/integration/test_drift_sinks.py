"""Where drift is shown beside the report: MLflow's run for each run, the plan, Prometheus."""

from __future__ import annotations

import json
import os
import random
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from scoring import Job, Settings
from scoring.errors import RegistryUnreachable
from scoring.ledger import RunRecord
from scoring.models import Registry, Version
from scoring.models.patience import Patience
from scoring.runs import (
    Context,
    create,
    finish_run,
    on_date,
    plan_document,
    prepare,
    score_chunk,
)
from scoring.runs.frame import read_frame
from tests.integration.processes import ROOT, SCRIPTS, running
from tests.silent_bell import SilentBell

pytestmark = pytest.mark.slow

VERSION = Version(model="m", name="m", version="7", source="", profile_uri=None)
ROWS = 400
PATIENT = Patience(optional=120.0)
"""Nothing here depends on how soon a busy machine has written a thousand figures."""
AWKWARD = ["a/b", "a_b", "A_B", "größe (m²)", "text[length]", "x" * 300, "x" * 299 + "y", "..", " "]
"""Names of columns that are too long, hold what MLflow refuses, or look alike to a database."""


def document(*columns: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A drift.json, as far as it is logged."""
    usual = {
        "version": 2,
        "job": "flights",
        "slot": "2026-11-23",
        "model": "models:/m@production",
        "model_version": "7",
        "variant": "int8",
        "rows_in": 1000,
        "rows_quarantined": 3,
        "created_at": "2026-11-23T02:30:00+00:00",
        "severity": "severe",
        "worst": "distance",
        "psi": 0.4,
        "score": 0.35,
        "verdict": "Severe drift: 1 of 2 columns moved.",
        "outcome": "hold",
        "compared_with": {"kind": "weekday", "rows": 4000, "runs": ["r"], "path": None},
        "timing": {"seconds": 12.5},
        "columns": list(columns),
    }
    return {**usual, **more}


def column(name: str, role: str = "feature", **figures: float | None) -> dict[str, Any]:
    return {"name": name, "role": role, "figures": {"psi": 0.4, "ks": None, **figures}}


class Logged:
    """What MLflow shows of one job."""

    def __init__(self, tracking_uri: str, job: str) -> None:
        self.client = MlflowClient(tracking_uri)
        self.tracking_uri, self.job = tracking_uri, job

    def runs(self) -> list[Any]:
        experiment = self.client.get_experiment_by_name(f"nightscore/{self.job}")
        return list(self.client.search_runs([experiment.experiment_id])) if experiment else []

    def text(self, file: str) -> str:
        (run,) = self.runs()
        uri = f"runs:/{run.info.run_id}/{file}"
        return Path(download_artifacts(uri, tracking_uri=self.tracking_uri)).read_text("utf-8")


@pytest.fixture
def logged(tracking_uri: str, request: pytest.FixtureRequest) -> Logged:
    """The experiment of a job that no other test has."""
    return Logged(tracking_uri, request.node.name.replace("[", "-").rstrip("]"))


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "drift.html"
    path.write_text("<!doctype html><title>drift</title>", encoding="utf-8")
    return path


# MLflow


def test_a_run_is_one_mlflow_run_with_its_figures_and_its_report(
    tracking_uri: str, logged: Logged, page: Path
) -> None:
    drift = document(column("distance", missing_change=-0.01), column("origin", js=0.2))

    Registry(tracking_uri, PATIENT).log_drift(VERSION, logged.job, "flights-1", drift, page)

    (run,) = logged.runs()
    assert (run.info.run_name, run.info.status) == ("flights-1", "FINISHED")
    assert run.info.start_time == 1_795_401_000_000
    assert run.data.metrics == {
        "drift.score": 0.35,
        "drift.psi": 0.4,
        "drift.severity": 3.0,
        "rows": 1000.0,
        "rows_quarantined": 3.0,
        "seconds": 12.5,
        "drift.distance.psi": 0.4,
        "drift.distance.missing_change": -0.01,
        "drift.origin.psi": 0.4,
        "drift.origin.js": 0.2,
    }
    assert run.data.params == {
        "model": "models:/m@production",
        "model_version": "7",
        "variant": "int8",
        "slot": "2026-11-23",
    }
    ours = {name: text for name, text in run.data.tags.items() if name.startswith("nightscore.")}
    assert ours == {
        "nightscore.run": "flights-1",
        "nightscore.job": "flights",
        "nightscore.severity": "severe",
        "nightscore.outcome": "hold",
        "nightscore.worst": "distance",
        "nightscore.reference": "weekday",
        "nightscore.verdict": "Severe drift: 1 of 2 columns moved.",
    }
    assert json.loads(logged.text("drift.json")) == drift
    assert logged.text("drift.html") == page.read_text("utf-8")


def test_a_run_that_is_finished_again_stays_one_mlflow_run_and_says_what_became_of_it(
    tracking_uri: str, logged: Logged, page: Path
) -> None:
    registry = Registry(tracking_uri, PATIENT)
    for _ in range(2):
        registry.log_drift(VERSION, logged.job, "flights-1", document(column("a")), page)
    released = document(column("a"), outcome="publish")
    page.write_text("released", encoding="utf-8")
    registry.log_drift(VERSION, logged.job, "flights-1", released, page)

    (run,) = logged.runs()
    assert run.data.tags["nightscore.outcome"] == "publish"
    history = logged.client.get_metric_history(run.info.run_id, "drift.a.psi")
    assert [point.value for point in history] == [0.4]
    assert json.loads(logged.text("drift.json")) == released
    assert logged.text("drift.html") == "released"

    registry.log_drift(VERSION, logged.job, "flights-2", document(column("a")), page)
    assert {run.info.run_name for run in logged.runs()} == {"flights-1", "flights-2"}


def test_the_newest_evaluation_is_what_mlflow_shows_also_where_it_is_the_lower(
    tracking_uri: str, logged: Logged, page: Path
) -> None:
    for auc, at in ((0.9, "2026-11-25T08:00:00+00:00"), (0.7, "2026-11-26T08:00:00+00:00")):
        found = {"evaluated_at": at, "metrics": [{"name": "auc", "value": auc}]}
        evaluated = document(column("a"), performance=found)
        Registry(tracking_uri, PATIENT).log_drift(VERSION, logged.job, "flights-1", evaluated, page)

    (run,) = logged.runs()
    assert run.data.metrics["performance.auc"] == 0.7


def test_every_column_has_a_metric_of_its_own_that_keeps_its_name_from_run_to_run(
    tracking_uri: str, logged: Logged, page: Path
) -> None:
    columns = [column(name, psi=number + 1.0) for number, name in enumerate(AWKWARD)]
    columns.append(column("a/b", role="output", psi=99.0))
    registry = Registry(tracking_uri, PATIENT)
    shuffled = random.Random(4).sample(columns, len(columns))

    registry.log_drift(VERSION, logged.job, "one", document(*columns), page)
    registry.log_drift(VERSION, logged.job, "two", document(*shuffled), page)

    one, two = (
        {name: value for name, value in run.data.metrics.items() if name.endswith(".psi")}
        for run in logged.runs()
    )
    assert one == two
    assert sorted(one.values()) == sorted([0.4, 99.0, *range(1, len(AWKWARD) + 1)])
    assert len({name.casefold() for name in one}) == len(columns) + 1
    assert (one["drift.a_b.psi"], one["drift.text.length.psi"]) == (99.0, 5.0)


def test_more_figures_than_mlflow_takes_at_once_are_logged_in_several_calls(
    tracking_uri: str, logged: Logged, page: Path
) -> None:
    columns = [column(f"c{number}", ks=0.1, js=0.1, wasserstein=0.1) for number in range(300)]

    Registry(tracking_uri, PATIENT).log_drift(VERSION, logged.job, "wide", document(*columns), page)

    (run,) = logged.runs()
    assert len(run.data.metrics) == 6 + 4 * 300


def test_a_run_that_nothing_was_measured_in_is_shown_too(
    tracking_uri: str, logged: Logged, page: Path
) -> None:
    nothing = {"name": "a", "role": "feature", "figures": None}
    drift = document(
        nothing, severity="none", worst=None, psi=None, score=None, compared_with=None, slot=None
    )

    Registry(tracking_uri, PATIENT).log_drift(VERSION, logged.job, "first", drift, page)

    (run,) = logged.runs()
    assert run.data.metrics.keys() == {"drift.severity", "rows", "rows_quarantined", "seconds"}
    assert "slot" not in run.data.params


def test_a_registry_that_is_not_there_is_one_error(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    with pytest.raises(RegistryUnreachable, match=r"http://127\.0\.0\.1:9 did"):
        Registry("http://127.0.0.1:9").log_drift(VERSION, "job", "run", document(), page)


# The plan and the frame


@pytest.fixture
def context(settings: Settings) -> Iterator[Context]:
    """An installation in which nothing happens by itself."""
    settings.home.mkdir(parents=True)
    patient = Registry(settings.tracking_uri, PATIENT)
    opened = replace(Context.open(settings, SilentBell()), registry=patient)
    opened.ledger.database.ready()
    yield opened
    opened.ledger.database.engine.dispose()


@pytest.fixture
def job(tmp_path: Path, model: str) -> Callable[..., Job]:
    """A job over 400 rows, by its reference."""
    rows = np.random.default_rng(3).normal(size=(ROWS, 2)).astype(np.float32)
    pq.write_table(pa.table({"a": rows[:, 0], "b": rows[:, 1]}), tmp_path / "rows.parquet")

    def make(reference: str) -> Job:
        return Job(
            name="nightly",
            model=model,
            input={"path": str(tmp_path / "rows.parquet")},
            output={"path": str(tmp_path / "scores" / "date={date}")},
            drift={"reference": reference},
        )

    return make


def score(context: Context, job: Job, day: str) -> RunRecord:
    run = create(context, job, on_date(day), trigger="manual").run
    for number in range(run.chunks):
        score_chunk(context, run.id, number)
    finish_run(context, run.id)
    return context.ledger.runs.get(run.id)


@pytest.mark.parametrize("reference", ["previous", "weekday"])
def test_what_a_run_is_compared_with_is_planned_frozen_reported_and_logged(
    context: Context, job: Callable[..., Job], tracking_uri: str, reference: str
) -> None:
    first = score(context, job(reference), "2026-11-16")
    planned = plan_document(prepare(context, job(reference), on_date("2026-11-23")))
    created = create(context, job(reference), on_date("2026-11-23"), trigger="manual").run
    expected = {"kind": reference, "rows": ROWS, "runs": [first.id], "path": None}

    assert first.state == "published", first.error
    assert planned["compared_with"] == expected
    frame = read_frame(Path(created.artifacts), Path(str(created.staging)))
    assert frame.compared_with == expected
    assert frame.reference is not None
    assert frame.reference.rows == ROWS

    for number in range(created.chunks):
        score_chunk(context, created.id, number)
    finish_run(context, created.id)
    report = json.loads(Path(created.artifacts, "drift.json").read_text("utf-8"))
    assert (report["compared_with"], report["severity"]) == (expected, "none")
    shown = [
        run for run in Logged(tracking_uri, "nightly").runs() if run.info.run_name == created.id
    ]
    assert [run.data.tags["nightscore.reference"] for run in shown] == [reference]


def test_a_frame_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    (tmp_path / "frame.json").write_text('{"reference": null, "origins": {"a": 1.5}}')

    frame = read_frame(tmp_path / "artifacts", staging=tmp_path)

    assert (frame.reference, frame.origins, frame.compared_with) == (None, {"a": 1.5}, None)


# Prometheus


def test_the_command_serves_until_it_is_told_to_stop(settings: Settings, tmp_path: Path) -> None:
    environment = {**os.environ, "SCORING_HOME": str(settings.home)}
    command = [str(SCRIPTS / "scoring"), "metrics", "--port", "0"]
    with running("metrics", command, env=environment, cwd=ROOT, logs=tmp_path) as process:
        process.wait_for("metrics at ")
        address = process.said.split("metrics at ")[1].split(";")[0]
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert b"\nnightscore_up 0.0\n" in answer.read()
