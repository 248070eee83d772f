"""Told to stop, a worker finishes its chunk or hands it back, and a cancelled run frees its own."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from celery import Celery
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from scoring import Settings, get_run, latest_runs, submit
from scoring.api import Run, open_context
from scoring.errors import RunNotInState
from scoring.models.batch import NETWORK_ROWS
from scoring.runs import this_user
from scoring.stack import _broker
from scoring.wake import CONTROL, TRANSPORT_OPTIONS
from tests.conftest import make_settings
from tests.contract.ledgers import finishing_run
from tests.integration import models
from tests.integration.processes import PATIENCE, ROOT, SCRIPTS, Process, running, start, until
from tests.ports import free_port

pytestmark = pytest.mark.slow

ROWS = 300
MANY = 200 * NETWORK_ROWS
"""Rows of a table that a sluggish network needs minutes for, and of which one slab is the most."""
FOREVER = 3_600.0
"""Seconds of a lease, and of a soft time: nothing that a test sees can come of their end."""


class Slow(mlflow.pyfunc.PythonModel):
    """Says that it has begun, and answers when it may; until then it sleeps, or computes."""

    def __init__(self, folder: Path, *, deaf: bool = False) -> None:
        self.begun, self.may_end, self.deaf = folder / "begun", folder / "may_end", deaf

    def predict(self, context, model_input, params=None):
        self.begun.touch()
        while not self.may_end.exists():
            if self.deaf:  # in native code, where no signal is heard
                hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
            time.sleep(0.05)
        return model_input["a"].astype("float64")


class Sluggish(torch.nn.Module):
    """Takes a second for every batch."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.begun = str(folder / "begun")

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        Path(self.begun).touch()
        time.sleep(1.0)
        return rows[:, 0]


cloudpickle.register_pickle_by_value(sys.modules[__name__])
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("float", "a")]), outputs=Schema([ColSpec("double", "score")])
)


@dataclass(frozen=True, slots=True)
class Site:
    """An installation without beat: nobody sweeps, and no lease ends before a test does."""

    settings: Settings
    folder: Path

    def environment(self, stop_seconds: float) -> dict[str, str]:
        ours = ("SCORING_", "MLFLOW_", "CELERY_")
        inherited = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
        return inherited | {
            "SCORING_HOME": str(self.settings.home),
            "SCORING_BROKER_URL": self.settings.broker_url,
            "SCORING_LEASE_SECONDS": str(FOREVER),
            "SCORING_STOP_SECONDS": str(stop_seconds),
            "MLFLOW_TRACKING_URI": self.settings.tracking_uri,
        }

    def worker(self, name: str, *queues: str, stop_seconds: float = FOREVER) -> dict[str, Any]:
        arguments = ["worker", "--concurrency=1", "-l", "INFO", "-Q", ",".join(queues)]
        arguments.append(f"--hostname={name}@%h")
        return {
            "name": name,
            "command": [
                str(SCRIPTS / "celery"),
                "-A",
                "tasks",
                *arguments,
                f"--hostname={name}@%h",
            ],
            "env": self.environment(stop_seconds),
            "cwd": ROOT,
            "logs": self.folder,
        }

    def job(self, model: Any, name: str, queue: str, rows: str = "rows") -> Path:
        """A job of one chunk; the model is registered."""
        is_torch = isinstance(model, torch.nn.Module)
        log_model = mlflow.pytorch.log_model if is_torch else mlflow.pyfunc.log_model
        how = {"serialization_format": "pickle"} if is_torch else {}
        uri = models.register(
            self.settings.tracking_uri, log_model, model, signature=SIGNATURE, **how
        )
        file = self.folder / f"{name}.toml"
        file.write_text(
            f'name = "{name}"\nmodel = "{uri}"\nkey = ["id"]\n'
            f'[input]\npath = "{self.folder}/{rows}.parquet"\n'
            f'[output]\npath = "{self.folder}/scores/{name}"\n'
            f'[execution]\nqueue = "{queue}"\n[precision]\nvariant = "native"\n',
            encoding="utf-8",
        )
        return file

    def scoring(self, *arguments: str) -> Process:
        """The command in the background."""
        return start(
            f"{arguments[0]}-{time.monotonic_ns()}",
            [str(SCRIPTS / "scoring"), *arguments],
            env=self.environment(FOREVER),
            cwd=self.folder,
            logs=self.folder,
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tracking_uri: str) -> Iterator[Site]:
    folder, port = tmp_path_factory.mktemp("stopping"), free_port()
    broker = f"redis://127.0.0.1:{port}/0"
    home = folder / "home"
    settings = make_settings(home, tracking_uri, broker_url=broker, lease_seconds=FOREVER)
    settings.home.mkdir()
    for name, rows in (("rows", ROWS), ("many", MANY)):
        table = pa.table({"id": np.arange(rows), "a": np.arange(rows, dtype=np.float32)})
        pq.write_table(table, folder / f"{name}.parquet")
    with running("broker", _broker(port, home), env=os.environ, cwd=folder, logs=folder) as valkey:
        valkey.wait_for("Ready to accept connections")
        yield Site(settings, folder)


@pytest.fixture(scope="module")
def other(site: Site) -> Iterator[Process]:
    """A worker that goes on, and serves a test's queue when it is told to."""
    with running(**site.worker("other", CONTROL)) as worker:
        worker.wait_for("ready.")
        yield worker


def serve(site: Site, queue: str) -> None:
    """Have the other worker take messages from a queue from now on."""
    app = Celery(broker=site.settings.broker_url, set_as_current=False)
    app.conf.broker_transport_options = dict(TRANSPORT_OPTIONS)
    answer = app.control.add_consumer(queue, reply=True, limit=1, timeout=PATIENCE)
    assert answer, "the other worker did not hear it"


def published(site: Site, run: Run) -> bool:
    found = get_run(run.id, settings=site.settings)
    assert found.status not in ("failed", "held", "cancelled"), found.error
    return found.status == "published"


@pytest.mark.parametrize(
    ("told", "stop_seconds", "deaf"),
    [
        pytest.param([signal.SIGTERM], 1.0, False, id="its time is over"),
        pytest.param([signal.SIGTERM], 1.0, True, id="it hears nothing"),
        pytest.param([signal.SIGINT, signal.SIGQUIT], FOREVER, False, id="it is told twice"),
    ],
)
def test_a_chunk_that_takes_too_long_is_handed_back_and_scored_by_another_at_once(
    site: Site,
    other: Process,
    tmp_path: Path,
    told: list[signal.Signals],
    stop_seconds: float,
    deaf: bool,
) -> None:
    queue = f"q{tmp_path.name[-12:]}"
    worker = start(**site.worker(f"stopped-{queue}", queue, stop_seconds=stop_seconds))
    try:
        worker.wait_for("ready.")
        job = site.job(Slow(tmp_path, deaf=deaf), queue, queue)
        run = submit(job, settings=site.settings)
        worker.wait_for((tmp_path / "begun").exists)

        for number in told:
            worker.popen.send_signal(number)
            worker.wait_for("Warm shutdown")

        assert worker.end(signal.SIGCONT) == 0, "and nothing of it is left"
    finally:
        worker.kill(worker.family())
    (chunk,) = run._context.ledger.chunks.of(run.id)
    assert (chunk.state, chunk.attempt, chunk.deaths) == ("waiting", 0, 0)

    (tmp_path / "may_end").touch()
    serve(site, queue)
    until(lambda: published(site, run))
    (chunk,) = run._context.ledger.chunks.of(run.id)
    assert (chunk.attempt, chunk.deaths) == (1, 0), "no attempt was used up"
    assert run.scores().count_rows() == ROWS


def test_a_cancelled_run_frees_its_worker_between_two_batches(
    site: Site, other: Process, tmp_path: Path
) -> None:
    (tmp_path / "may_end").touch()
    sluggish = site.job(Sluggish(tmp_path), "sluggish", "sluggish", rows="many")
    quick = site.job(Slow(tmp_path), "quick", "sluggish")
    serve(site, "sluggish")
    watching = site.scoring("run", str(sluggish))
    watching.wait_for((tmp_path / "begun").exists)
    waiting = submit(quick, settings=site.settings)
    (run,) = latest_runs(job="sluggish", settings=site.settings)

    cancelling = site.scoring("cancel", run.id)

    assert watching.popen.wait(PATIENCE) == 4, watching
    until(lambda: published(site, waiting))
    assert cancelling.popen.wait(PATIENCE) == 0, cancelling
    assert "is cancelled" in cancelling.said
    record = run.record
    assert (record.state, record.chunks_done) == ("cancelled", 0)
    assert record.error == f"cancelled by {this_user()}"
    assert not Path(record.output).exists()
    assert not list(Path(str(record.staging)).iterdir()), "what was begun is gone"
    with pytest.raises(RunNotInState, match="is cancelled"):
        run.cancel("operator")


def test_a_run_that_is_being_published_is_not_cancelled_and_it_is_said_why(
    ledger_only: Run,
) -> None:
    with pytest.raises(RunNotInState, match="finishing: all of it is scored, and it is being"):
        ledger_only.cancel("operator")


@pytest.fixture
def ledger_only(tmp_path: Path) -> Iterator[Run]:
    """A run that a finisher is at."""
    context = open_context(make_settings(tmp_path / "home", "sqlite://"))
    run_id, _ = finishing_run(context.ledger)
    yield Run(run_id, context)
    context.ledger.database.engine.dispose()
