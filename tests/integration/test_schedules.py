"""Scheduled runs through real beats: whatever is doubled or restarted, a slot starts one run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring import Settings
from scoring.api import open_context
from scoring.ledger import RunRecord
from scoring.progress import follow
from scoring.stack import Stack
from tests.conftest import make_settings
from tests.integration.models import linear, register

NIGHTS = [date(2013, 7, 1) + timedelta(days=day) for day in range(5)]
JOB = """
name = "nightly"
model = "{model}"
key = ["id"]
[input]
path = "{folder}/rows/date={{date}}"
[output]
path = "{folder}/scores/date={{date}}"
[schedule]
cron = "30 2 * * *"
timezone = "America/New_York"
catch_up = "all"
start = 2013-07-01
end = 2013-07-05
"""


@pytest.mark.slow
def test_two_beats_at_once_start_one_run_for_each_slot(tmp_path: Path, tracking_uri: str) -> None:
    settings = make_settings(tmp_path / "home", tracking_uri, jobs=tmp_path / "jobs")
    write_nights(tmp_path, tracking_uri)

    with Stack(settings) as stack, another_beat(stack, settings):
        runs = open_context(settings).ledger.runs

        def nightly() -> list[RunRecord]:
            found = runs.latest(job="nightly", limit=100)
            return found if len(found) >= len(NIGHTS) else []

        follow(nightly, show=False, timeout=240)

    ended = runs.latest(job="nightly", limit=100)
    assert sorted(str(run.slot) for run in ended) == [f"{night}T02:30:00-04:00" for night in NIGHTS]
    assert {run.state for run in ended} == {"published"}
    assert {run.trigger for run in ended} == {"schedule"}
    for night in NIGHTS:
        scores = pq.read_table(tmp_path / "scores" / f"date={night}" / "part-00000.parquet")
        assert scores["id"].to_pylist() == list(range(20))


def write_nights(folder: Path, tracking_uri: str) -> None:
    features = np.arange(60, dtype=np.float32).reshape(20, 3)
    model = register(
        tracking_uri,
        mlflow.onnx.log_model,
        linear(np.ones((3, 1), np.float32)),
        signature=mlflow.models.infer_signature(_frame(features), features[:, 0]),
    )
    for night in NIGHTS:
        place = folder / "rows" / f"date={night}"
        place.mkdir(parents=True)
        table = pa.Table.from_pandas(_frame(features)).append_column("id", pa.array(range(20)))
        pq.write_table(table, place / "rows.parquet")
    (folder / "jobs").mkdir()
    job = JOB.format(model=model, folder=folder)
    (folder / "jobs" / "nightly.toml").write_text(job, encoding="utf-8")


def _frame(features: npt.NDArray[np.float32]) -> pd.DataFrame:
    return pd.DataFrame(features, columns=["a", "b", "c"])


@contextmanager
def another_beat(stack: Stack, settings: Settings) -> Iterator[None]:
    """A second beat beside the stack's own, as after a careless deployment."""
    environment = {
        **os.environ,
        "SCORING_HOME": str(settings.home),
        "SCORING_JOBS": str(settings.jobs),
        "SCORING_SWEEP_SECONDS": str(settings.sweep_seconds),
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "SCORING_BROKER_URL": stack.ensure().broker,
    }
    beat = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "tasks", "beat"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        beat.terminate()
        beat.wait(60)
