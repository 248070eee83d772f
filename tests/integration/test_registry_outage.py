"""The registry is up, away, silent, and back: what becomes of runs, slots and workers meanwhile.

A real MLflow server stands behind a proxy that spoils the connection. Nothing else is spoilt, and
models are registered past the proxy.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import structlog

from schedules.due import start_due
from scoring import Job, Settings, reference
from scoring.api import Run
from scoring.errors import RegistryUnreachable
from scoring.ledger import Ledger, RunRecord
from scoring.models import ModelCache, Registry, Version
from scoring.models.patience import Patience
from scoring.runs import Context, Occasion, create, finish_run, score_chunk
from tests.chaos.proxy import Mode, Proxy
from tests.conftest import make_settings
from tests.contract.ledgers import NIGHT, StoppedClock
from tests.integration.models import linear, register
from tests.integration.processes import PATIENCE, running
from tests.integration.terminal import Terminal
from tests.ports import free_port
from tests.receiver import Answer, receiving
from tests.silent_bell import SilentBell

pytestmark = pytest.mark.slow

PATIENT = Patience(retrying=0.5, pause=0.01, open=0.0, question=60.0, optional=60.0)
"""For a registry that may be slow, as this machine may, but is there."""
HASTY = replace(PATIENT, question=0.3, optional=0.3)
"""For one that is known to be away."""
ROWS = 40
ALONE = Occasion(date=None, slot=None)
FRAME = pd.DataFrame(np.zeros((4, 2), np.float32), columns=["a", "b"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real registry."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [
        *(sys.executable, "-m", "flask", "--app", "mlflow.server:app", "run"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    store = f"sqlite:///{folder}/mlflow.db"
    env = {  # what `mlflow server` hands to it, without the further services that it starts
        **os.environ,
        "_MLFLOW_SERVER_FILE_STORE": store,
        "_MLFLOW_SERVER_REGISTRY_STORE": store,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
    }
    with running("mlflow", command, env=env, cwd=folder, logs=folder) as process:
        process.wait_for("Running on")
        address = f"http://127.0.0.1:{port}"
        store_is_made = f"{address}/api/2.0/mlflow/experiments/get?experiment_id=0"
        urllib.request.urlopen(store_is_made, timeout=PATIENCE).close()
        mlflow.MlflowClient(address).create_experiment("tests")
        yield address


class Bell(SilentBell):
    """Wakes nobody, and remembers how long they should have been left asleep."""

    def __init__(self) -> None:
        super().__init__()
        self.delays: list[float] = []

    def chunks(self, run: RunRecord, numbers: Sequence[int], delay: float = 0.0) -> None:
        self.delays.append(delay)


@dataclass
class Outage:
    """An installation, and the way to its registry."""

    server: str
    proxy: Proxy
    settings: Settings
    ledger: Ledger
    job: Job

    def context(self, patience: Patience = PATIENT, cache: str = "") -> Context:
        """A process of its own on this machine, or with ``cache`` on another."""
        registry = Registry(str(self.settings.tracking_uri), patience)
        folder = self.settings.home / cache if cache else self.settings.model_cache
        return Context(
            settings=self.settings,
            ledger=self.ledger,
            registry=registry,
            cache=ModelCache(folder, registry),
            doorbell=Bell(),
        )

    def away(self, how: Mode = "refuse") -> Context:
        """From now on the registry is away; a process that asks it then."""
        self.proxy.mode = how
        self.proxy.cut()
        return self.context(HASTY)

    def back(self) -> None:
        self.proxy.cut()
        self.proxy.mode = "pass"

    def register(self, weight: float = 1.0) -> Version:
        """A further version, in production from now on."""
        model = linear(np.array([[weight], [2.0]], np.float32))
        signature = mlflow.models.infer_signature(FRAME, np.zeros(4, np.float32))
        name = self.job.model.removeprefix("models:/").partition("@")[0]
        register(self.server, mlflow.onnx.log_model, model, name=name, signature=signature)
        return Registry(self.server).resolve(self.job.model)

    def changed(self, **values: Any) -> Job:
        return Job.from_json(json.dumps({**json.loads(self.job.to_json()), **values}))

    def events(self, run: RunRecord) -> dict[str, Any]:
        return {one.event: one.detail for one in self.ledger.runs.history(run.id)}


@pytest.fixture
def outage(
    request: pytest.FixtureRequest, tmp_path: Path, server: str, sqlite_template: Path
) -> Iterator[Outage]:
    """One version in production, and some rows to score."""
    (tmp_path / "data").mkdir()
    values = {name: np.arange(ROWS, dtype=np.float32) for name in ("a", "b")}
    pq.write_table(pa.table(values), tmp_path / "data" / "rows.parquet")
    host, _, port = server.removeprefix("http://").partition(":")
    proxy = Proxy((host, int(port)))
    settings = make_settings(tmp_path / "home", f"http://127.0.0.1:{proxy.port}")
    settings.jobs.mkdir(parents=True)
    (settings.home / "ledger.db").write_bytes(sqlite_template.read_bytes())
    ledger = Ledger.open(settings.database_url, settings.lease_seconds)
    name = f"outage-{request.node.name.partition('[')[0][5:60]}-{uuid.uuid4().hex[:8]}"
    job = {
        "name": "nightly",
        "model": f"models:/{name}@production",
        "on_registry_outage": "last",
        "input": {"path": str(tmp_path / "data")},
        "output": {"path": str(tmp_path / "scores")},
        "precision": {"variant": "native"},
    }
    found = Outage(server, proxy, settings, ledger, Job.from_json(json.dumps(job)))
    found.register()
    yield found
    proxy.close()
    ledger.database.engine.dispose()


@pytest.fixture(autouse=True)
def _mlflow_tries_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What MLflow tries again by itself is slow, and not what is tested; nor are its 10 s."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "150")


def scored(context: Context, job: Job) -> RunRecord:
    """A run that has ended."""
    run = create(context, job, ALONE, trigger="manual").run
    for number in range(run.chunks):
        score_chunk(context, run.id, number)
    finish_run(context, run.id)
    return context.ledger.runs.get(run.id)


def manifest_of(run: RunRecord) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(run.output) / "_manifest.json").read_text())
    return found


# Going on with the last version


@pytest.mark.parametrize("how", ["refuse", "silent", "drip"])
def test_a_job_that_allows_it_is_scored_with_the_last_version_and_everything_says_so(
    outage: Outage, how: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.chaos.proxy.DRIP_BYTES", 1)
    before = scored(outage.context(), outage.job)
    assert (before.state, before.resolution) == ("published", "registry"), before.error
    assert manifest_of(before)["resolution"] == "registry"

    context = outage.away(how)
    with structlog.testing.capture_logs() as lines:
        run = scored(context, outage.job)

    assert (run.state, run.resolution, run.model_version) == ("published", "last", "1"), run.error
    assert run.model_digest == before.model_digest
    assert manifest_of(run)["resolution"] == "last"
    assert json.loads((Path(run.artifacts) / "plan.json").read_text())["resolution"] == "last"
    assert Run(run.id, context).to_dict()["resolution"] == "last"
    assert outage.events(run)["last_version_used"] == {
        "model": f"{outage.job.model.partition('@')[0]}/1",
        "digest": run.model_digest,
        "reference": None,
    }
    said = [line for line in lines if line["event"] == "last_version_used"]
    assert [(line["log_level"], line["job"]) for line in said] == [("warning", "nightly")]


def test_an_explicit_version_comes_from_the_same_memory(outage: Outage) -> None:
    scored(outage.context(), outage.job)

    named = outage.changed(model=f"{outage.job.model.partition('@')[0]}/1")
    run = scored(outage.away(), named)

    assert (run.state, run.resolution, run.model_version) == ("published", "last", "1"), run.error


def test_the_last_version_is_the_one_named_last_and_not_the_newest(outage: Outage) -> None:
    scored(outage.context(), outage.job)
    second = outage.register(3.0)
    scored(outage.context(), outage.job)
    alias = (second.name, "production", "1")
    mlflow.MlflowClient(outage.server).set_registered_model_alias(*alias)  # rolled back
    scored(outage.context(), outage.job)

    assert scored(outage.away(), outage.job).model_version == "1"


def test_the_reference_is_the_one_that_was_remembered(outage: Outage, tmp_path: Path) -> None:
    with_server = Registry(outage.server, PATIENT)
    context = replace(outage.context(), registry=with_server)
    reference.from_training(context, outage.job.model, str(tmp_path / "data"))
    before = scored(outage.context(), outage.job)

    run = scored(outage.away(), outage.job)

    def compared(of: RunRecord) -> Any:
        return json.loads((Path(of.artifacts) / "drift.json").read_text())["compared_with"]

    assert run.resolution == "last"
    assert compared(run) == compared(before)
    assert compared(run)["rows"] == ROWS
    assert outage.events(run)["last_version_used"]["reference"] == "model"


def test_without_a_remembered_reference_it_goes_on_without_one_and_says_so(
    outage: Outage, tmp_path: Path
) -> None:
    context = replace(outage.context(), registry=Registry(outage.server, PATIENT))
    reference.from_training(context, outage.job.model, str(tmp_path / "data"))
    scored(outage.context(), outage.changed(drift={"reference": "previous"}))

    with structlog.testing.capture_logs() as lines:
        run = scored(outage.away(), outage.job)

    assert (run.state, run.resolution) == ("published", "last"), run.error
    assert "reference_not_remembered" in [line["event"] for line in lines]
    assert outage.events(run)["last_version_used"]["reference"] is None


# Nothing to go on with


def test_a_machine_that_never_pinned_the_model_has_nothing_to_go_on_with(outage: Outage) -> None:
    scored(outage.context(), outage.job)

    outage.away()
    with pytest.raises(RegistryUnreachable, match="on this machine"):
        create(outage.context(HASTY, "elsewhere"), outage.job, ALONE, trigger="manual")


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_files_that_are_not_as_they_were_are_not_gone_on_with(outage: Outage, damage: str) -> None:
    before = scored(outage.context(), outage.job)
    model = outage.settings.model_cache / str(before.model_digest) / "model.onnx"
    if damage == "gone":
        model.unlink()
    else:
        model.write_bytes(model.read_bytes() + b"\0")

    with pytest.raises(RegistryUnreachable, match="or not as they were"):
        create(outage.away(), outage.job, ALONE, trigger="manual")


def test_what_another_registry_said_is_not_gone_on_with(outage: Outage) -> None:
    scored(outage.context(), outage.job)

    outage.away()
    other = Registry(f"http://127.0.0.1:{outage.proxy.port}/other", HASTY)
    context = outage.context(HASTY)
    cache = ModelCache(outage.settings.model_cache, other)
    with pytest.raises(RegistryUnreachable, match="ever pinned"):
        create(replace(context, registry=other, cache=cache), outage.job, ALONE, trigger="manual")


# A job that does not allow it


def test_a_manual_run_ends_with_what_happened_and_what_could_be_done(
    outage: Outage, tmp_path: Path
) -> None:
    path = outage.settings.jobs / "nightly.toml"
    path.write_text(
        f'name = "nightly"\nmodel = "{outage.job.model}"\n'
        f'[input]\npath = "{outage.job.input.path}"\n[output]\npath = "{outage.job.output.path}"\n'
    )
    scoring = Terminal(
        tmp_path,
        {
            **os.environ,
            "SCORING_HOME": str(outage.settings.home),
            "SCORING_BROKER_URL": "redis://127.0.0.1:1/0",
            "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/none/mlflow.db",
        },
    )

    typed = scoring("run", str(path))

    assert typed.code == 1
    assert "did not answer: there is no such file. Nothing was started" in typed.err
    assert 'on_registry_outage = "last"' in typed.err
    assert outage.ledger.runs.latest() == []


def test_a_slot_stays_open_and_starts_when_the_registry_is_back(outage: Outage) -> None:
    clock = StoppedClock(outage.ledger, NIGHT - timedelta(hours=1))
    (outage.settings.jobs / "nightly.toml").write_text(
        f'name = "nightly"\nmodel = "{outage.job.model}"\n'
        f'[input]\npath = "{outage.job.input.path}"\n[output]\npath = "{outage.job.output.path}"\n'
        '[schedule]\ncron = "30 2 * * *"\n'
    )
    scored(outage.context(), outage.job)  # there is something that it may not go on with
    start_due(outage.context())
    clock.set(NIGHT + timedelta(seconds=1))

    with structlog.testing.capture_logs() as lines:
        assert start_due(outage.away()) == []
    assert [run.trigger for run in outage.ledger.runs.latest()] == ["manual"]
    assert outage.ledger.slots.taken("nightly") == {}
    waits = [line for line in lines if line["event"] == "slot_waits_for_registry"]
    assert [(line["log_level"], line["job"]) for line in waits] == [("warning", "nightly")]

    outage.back()
    clock.set(NIGHT + timedelta(minutes=10))
    (run_id,) = start_due(outage.context())

    run = outage.ledger.runs.get(run_id)
    assert (run.slot, run.state, run.resolution) == (NIGHT.isoformat(), "running", "registry")


# Workers


def test_a_worker_that_has_the_model_does_not_ask_the_registry(outage: Outage) -> None:
    run = create(outage.context(), outage.job, ALONE, trigger="manual").run
    with receiving(Answer(status=503)) as receiver:
        registry = Registry(receiver.address, PATIENT)
        cache = ModelCache(outage.settings.model_cache, registry)
        worker = replace(outage.context(), registry=registry, cache=cache)

        assert score_chunk(worker, run.id, 0) == "committed"

        assert receiver.posted == []


def test_a_worker_without_the_model_tries_again_when_the_registry_is_back(outage: Outage) -> None:
    run = create(outage.context(), outage.job, ALONE, trigger="manual").run
    outage.away()
    worker = outage.context(HASTY, "another machine")

    assert score_chunk(worker, run.id, 0) == "attempt failed"
    assert worker.doorbell.delays == [60.0], "an outage is not over in two seconds"
    assert outage.ledger.runs.get(run.id).state == "running"
    chunk = outage.ledger.chunks.get(run.id, 0)
    assert (chunk.state, chunk.attempt) == ("waiting", 1)
    assert "did not answer" in str(chunk.error)

    outage.back()
    assert score_chunk(outage.context(PATIENT, "another machine"), run.id, 0) == "committed"


def test_a_finisher_publishes_while_the_registry_is_silent(outage: Outage) -> None:
    run = create(outage.context(), outage.job, ALONE, trigger="manual").run
    score_chunk(outage.context(), run.id, 0)

    assert finish_run(outage.away("silent"), run.id) == "published"

    told = outage.events(run)["drift_not_in_registry"]
    assert "had not answered after 0.3 s" in told["error"]
