"""Each child of a real Celery worker has one GPU and its share of the cores.

The GPUs are what ``CUDA_VISIBLE_DEVICES`` names, as on a machine that is shared: nothing here needs
them to exist, because a child is given its GPU before anything looks for one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import mlflow
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from scoring import submit
from scoring.devices import gpus
from scoring.settings import Settings, cores
from scoring.stack import _broker
from tests.conftest import make_settings
from tests.integration import models
from tests.integration.processes import ROOT, SCRIPTS, Process, running, until
from tests.ports import free_port

pytestmark = pytest.mark.slow

CHUNK_ROWS = 100
CHUNKS = 3
WAIT_SECONDS = 140.0
"""How long a child waits for the others: less than PATIENCE, so that a test says who came."""

Told = dict[str, Any]
"""What one child said of itself."""


class Roll(mlflow.pyfunc.PythonModel):
    """Says which child it is in, and ends when as many children as expected have said so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def predict(self, context, model_input, params=None):
        told = {name: os.environ.get(name) for name in ASKED} | {"pid": os.getpid()}
        expected = int((self.folder / "expected").read_text())
        place = self.folder / f"{(self.folder / 'run').read_text()}-{os.getpid()}.json"
        place.with_suffix(".new").write_text(json.dumps(told))
        place.with_suffix(".new").rename(place)
        deadline = time.monotonic() + WAIT_SECONDS
        pattern = f"{(self.folder / 'run').read_text()}-*.json"
        while len(list(self.folder.glob(pattern))) < expected and time.monotonic() < deadline:
            time.sleep(0.05)
        return model_input["a"].astype("float64")


ASKED = ("CUDA_VISIBLE_DEVICES", "SCORING_WORKERS", "OMP_NUM_THREADS")
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True, slots=True)
class Installation:
    """A broker, a ledger, a job in the queue ``gpu`` and its model, which calls the roll."""

    settings: Settings
    folder: Path

    def worker(self, *arguments: str, visible: str | None) -> dict[str, Any]:
        """Keywords of a process that runs `celery -A tasks worker`."""
        ours = ("SCORING_", "MLFLOW_", "CELERY_", "CUDA_", "OMP_")
        inherited = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
        environment = inherited | {
            "SCORING_HOME": str(self.settings.home),
            "SCORING_JOBS": str(self.settings.jobs),
            "SCORING_BROKER_URL": self.settings.broker_url,
            "MLFLOW_TRACKING_URI": self.settings.tracking_uri,
        }
        if visible is not None:
            environment["CUDA_VISIBLE_DEVICES"] = visible
        return {
            "name": f"worker-{time.monotonic_ns()}",
            "command": [str(SCRIPTS / "celery"), "-A", "tasks", "worker", "-l", "INFO", *arguments],
            "env": environment,
            "cwd": ROOT,
            "logs": self.folder,
        }

    def roll(self, run: str, children: int) -> list[Told]:
        """Have every child score a chunk at the same time; what each said, by its GPU."""
        (self.folder / "run").write_text(run)
        (self.folder / "expected").write_text(str(children))
        submitted = submit("roll", idempotency_key=run, settings=self.settings)
        until(lambda: submitted.record.chunks_done == CHUNKS, otherwise=lambda: str(submitted))
        told = [json.loads(path.read_text()) for path in self.folder.glob(f"{run}-*.json")]
        return sorted(told, key=lambda one: str(one["CUDA_VISIBLE_DEVICES"]))


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, tracking_uri: str
) -> Iterator[Installation]:
    folder, port = tmp_path_factory.mktemp("gpus"), free_port()
    settings = make_settings(
        folder / "home", tracking_uri, broker_url=f"redis://127.0.0.1:{port}/0"
    )
    settings.jobs.mkdir(parents=True)
    rows = np.arange(CHUNK_ROWS * CHUNKS)
    pq.write_table(
        pa.table({"id": rows, "a": rows.astype(np.float32)}),
        folder / "rows.parquet",
        row_group_size=CHUNK_ROWS,
    )
    model = models.register(
        tracking_uri,
        mlflow.pyfunc.log_model,
        Roll(folder),
        signature=ModelSignature(
            inputs=Schema([ColSpec("float", "a")]), outputs=Schema([ColSpec("double", "score")])
        ),
    )
    (settings.jobs / "roll.toml").write_text(
        f'name = "roll"\nmodel = "{model}"\nkey = ["id"]\n[input]\npath = "{folder}/rows.parquet"\n'
        f'[output]\npath = "{folder}/scores/{{run_id}}"\n'
        f'[execution]\nqueue = "gpu"\nchunk_rows = {CHUNK_ROWS}\n',
        encoding="utf-8",
    )
    command = _broker(port, settings.home)
    with running("broker", command, env=os.environ, cwd=folder, logs=folder) as valkey:
        valkey.wait_for("Ready to accept connections")
        yield Installation(settings, folder)


def ready(worker: Process, children: int) -> None:
    """Every child has started and taken its GPU."""
    worker.wait_for("ready.")
    worker.wait_for(lambda: worker.said.count("gpu_claimed") >= children)


def test_a_gpu_worker_has_a_child_for_each_visible_gpu_and_a_new_child_takes_the_old_ones_gpu(
    installation: Installation,
) -> None:
    with running(**installation.worker("-Q", "gpu", visible="4,7,9")) as worker:
        ready(worker, 3)
        told = installation.roll("first", children=3)

        assert [one["CUDA_VISIBLE_DEVICES"] for one in told] == ["4", "7", "9"]
        assert {one["SCORING_WORKERS"] for one in told} == {"3"}
        assert {one["OMP_NUM_THREADS"] for one in told} == {str(max(1, cores() // 3))}
        assert "gpus_shared" not in worker.said

        psutil.Process(told[1]["pid"]).send_signal(signal.SIGKILL)
        ready(worker, 4)
        again = installation.roll("again", children=3)

    assert [one["CUDA_VISIBLE_DEVICES"] for one in again] == ["4", "7", "9"]
    assert again[1]["pid"] != told[1]["pid"]
    assert (again[0]["pid"], again[2]["pid"]) == (told[0]["pid"], told[2]["pid"])


def test_children_beyond_the_gpus_share_them_and_the_worker_says_so_once(
    installation: Installation,
) -> None:
    with running(**installation.worker("-Q", "gpu", "-c", "3", visible="4,7")) as worker:
        ready(worker, 3)
        told = installation.roll("shared", children=3)

        assert Counter(one["CUDA_VISIBLE_DEVICES"] for one in told) == {"4": 2, "7": 1}
        assert worker.said.count("gpus_shared") == 1
        assert "--concurrency=2" in worker.said


def test_a_child_alone_has_all_cores_and_without_gpus_none_is_chosen(
    installation: Installation,
) -> None:
    if gpus():
        pytest.skip("there is a GPU here")
    with running(**installation.worker("-Q", "gpu", "-c", "1", visible=None)) as worker:
        worker.wait_for("ready.")
        told = installation.roll("alone", children=1)

    assert told[0]["CUDA_VISIBLE_DEVICES"] is None
    assert told[0]["SCORING_WORKERS"] == "1"
    assert told[0]["OMP_NUM_THREADS"] == str(cores())


def test_a_solo_worker_scores_with_all_cores(installation: Installation) -> None:
    with running(**installation.worker("-Q", "gpu", "-P", "solo", visible="7,4")) as worker:
        ready(worker, 1)
        told = installation.roll("solo", children=1)

    assert [one["CUDA_VISIBLE_DEVICES"] for one in told] == ["7"]
    assert told[0]["SCORING_WORKERS"] == "1"
