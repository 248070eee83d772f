"""Ctrl-C, SIGHUP and kill -9 of what runs the embedded services: nothing is left, nothing is lost.

Leases and sweeps take an hour here: what goes on after the next start does so because of the start.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from scoring import Settings, address, get_run
from scoring.api import Run, latest_runs
from scoring.stack import MLFLOW_JOBS, SOFT_SECONDS, STOP_SECONDS, Stack
from tasks.stopping import HAND_BACK_SECONDS
from tests.conftest import make_settings
from tests.integration import models
from tests.integration.processes import SCRIPTS, Process, start, until

pytestmark = pytest.mark.slow

ROWS = 300
FOREVER = 3_600.0


@dataclass(frozen=True, slots=True)
class Laptop:
    """A home without a configured broker, and a job whose model waits."""

    settings: Settings
    folder: Path
    job: Path

    def scoring(self, *arguments: str) -> Process:
        """The command in the background."""
        settings = self.settings
        ours = ("SCORING_", "MLFLOW_", "CELERY_")
        inherited = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
        environment = inherited | {
            "SCORING_HOME": str(settings.home),
            "SCORING_JOBS": str(settings.jobs),
            "SCORING_LEASE_SECONDS": str(settings.lease_seconds),
            "SCORING_SWEEP_SECONDS": str(settings.sweep_seconds),
            "SCORING_WORKERS": "1",
            "MLFLOW_TRACKING_URI": settings.tracking_uri,
        }
        command = [str(SCRIPTS / "scoring"), *arguments]
        return start(
            f"{arguments[0]}-{time.monotonic_ns()}",
            command,
            env=environment,
            cwd=self.folder,
            logs=self.folder,
        )

    def run(self) -> Run:
        (found,) = latest_runs(settings=self.settings)
        return found

    @property
    def begun(self) -> bool:
        return (self.folder / "begun").exists()


@pytest.fixture
def laptop(tmp_path: Path, tracking_uri: str) -> Laptop:
    settings = make_settings(
        tmp_path / "home",
        tracking_uri,
        lease_seconds=FOREVER,
        sweep_seconds=FOREVER,
        workers=1,
    )
    settings.home.mkdir()
    table = pa.table({"id": np.arange(ROWS), "a": np.arange(ROWS, dtype=np.float32)})
    pq.write_table(table, tmp_path / "rows.parquet")
    uri = models.register(
        tracking_uri,
        mlflow.pyfunc.log_model,
        models.Waiting(tmp_path),
        signature=ModelSignature(
            inputs=Schema([ColSpec("float", "a")]), outputs=Schema([ColSpec("double", "score")])
        ),
    )
    job = tmp_path / "waiting.toml"
    job.write_text(
        f'name = "waiting"\nmodel = "{uri}"\nkey = ["id"]\n'
        f'[input]\npath = "{tmp_path}/rows.parquet"\n[output]\npath = "{tmp_path}/scores"\n',
        encoding="utf-8",
    )
    return Laptop(settings, tmp_path, job)


def goes_on(laptop: Laptop, run: Run) -> bool:
    found = get_run(run.id, settings=laptop.settings)
    assert found.status in ("running", "finishing", "published"), found.error
    return found.status == "published"


def of_mlflow(up: Process) -> list[psutil.Process]:
    """The process that is `mlflow server`, once it is."""
    found = []
    for process in up.family():
        with suppress(psutil.NoSuchProcess):
            found += [process] if "mlflow" in process.cmdline() else []
    return found


def nothing_is_left(laptop: Laptop) -> bool:
    """No address that others would go by, and a lock that nobody holds."""
    return not address.note(laptop.settings.home).exists()


def test_services_have_the_time_that_their_workers_need_to_hand_back() -> None:
    assert STOP_SECONDS > SOFT_SECONDS + 2 * HAND_BACK_SECONDS


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGHUP])
def test_a_stop_while_it_starts_is_heard_at_once_and_leaves_nothing(
    laptop: Laptop, told: signal.Signals
) -> None:
    up = laptop.scoring("up")
    up.wait_for((laptop.settings.logs / "worker.log").exists)

    assert up.end(told) == 130

    assert "ready; Ctrl-C" not in up.said
    assert "Traceback" not in up.said
    assert nothing_is_left(laptop)


def test_ctrl_c_twice_in_a_run_hands_back_and_the_next_start_goes_on_at_once(
    laptop: Laptop,
) -> None:
    command = laptop.scoring("run", str(laptop.job))
    command.wait_for(lambda: laptop.begun)
    run = laptop.run()

    command.popen.send_signal(signal.SIGINT)
    command.wait_for("is kept as it is")
    assert command.end(signal.SIGINT) == 130

    assert "Traceback" not in command.said
    assert nothing_is_left(laptop)
    (chunk,) = run._context.ledger.chunks.of(run.id)
    assert (run.status, chunk.state, chunk.attempt, chunk.deaths) == ("running", "waiting", 0, 0)

    (laptop.folder / "may_end").touch()
    with Stack(laptop.settings):
        until(lambda: goes_on(laptop, run))
    (chunk,) = run._context.ledger.chunks.of(run.id)
    assert chunk.attempt == 1


def test_stacks_that_are_killed_leave_no_orphan_and_the_next_goes_on_at_once(
    laptop: Laptop,
) -> None:
    command = laptop.scoring("run", str(laptop.job))
    command.wait_for(lambda: laptop.begun)
    run = laptop.run()

    command.end(signal.SIGKILL)

    (laptop.folder / "may_end").touch()
    up = laptop.scoring("up")
    try:
        up.wait_for(lambda: goes_on(laptop, run))
        up.wait_for(lambda: of_mlflow(up) != [])
        registry, *_ = of_mlflow(up)
        assert registry.environ()[MLFLOW_JOBS] == "false"
        up.end(signal.SIGKILL)
    finally:
        up.kill(up.family())
    assert run.scores().count_rows() == ROWS
    assert address.read(laptop.settings.home) is None
    with Stack(laptop.settings) as stack:
        assert stack.running, "neither lock nor address is in the way of the next"
