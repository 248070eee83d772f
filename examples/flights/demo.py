"""The demo: a week of nightly scoring of real flights, from nothing, in a minute or two.

Trains a model, registers it, profiles what it was trained on, and lets beat start one run per
night of a week of July 2013, through the embedded broker, worker and beat. Everything it makes
lies in one folder, which the next demo begins by removing.
"""

from __future__ import annotations

import shutil
import sys
import time
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console

from examples.flights.prepare import days, labels, write_days
from examples.flights.train import train
from scoring import Settings, reference
from scoring.api import open_context
from scoring.cli import show
from scoring.job_files import find_job
from scoring.ledger import RunRecord
from scoring.progress import follow
from scoring.stack import Stack

HOME = Path(".scoring/demo")
JOBS = Path("examples/flights")
JOB = "flights-delay"
LABELS = "labels.parquet"
WEEK = (date(2013, 7, 1), date(2013, 7, 7))
PATIENCE_SECONDS = 600.0

console = Console(highlight=False)


def main() -> None:
    began = time.monotonic()
    if not JOBS.is_dir():
        sys.exit("run the demo from the root of the repository: make demo")
    shutil.rmtree(HOME, ignore_errors=True)
    settings = _own_settings()
    _prepare(settings)
    runs = _score_the_week(settings)
    _show(settings, runs, time.monotonic() - began)
    if any(run.state != "published" for run in runs):
        sys.exit(1)


def _own_settings() -> Settings:
    """An installation in the demo's folder, whatever the environment says."""
    home = HOME.absolute()
    return Settings(
        home=home,
        jobs=JOBS,
        artifacts=home / "artifacts",
        database_url=f"sqlite:///{home}/ledger.db",
        broker_url="",
        MLFLOW_TRACKING_URI=f"sqlite:///{home}/mlflow.db",
    )


def _prepare(settings: Settings) -> None:
    _say("[bold]1[/] writing a week of departures, one folder a night")
    write_days(HOME / "departures", *WEEK)
    pq.write_table(labels(days(*WEEK)), HOME / LABELS)
    _say("[bold]2[/] training on January to June, registering in MLflow")
    trained = train(HOME, settings.tracking_uri)
    console.print(
        f"  models:/flights-delay/{trained.version} is in production, AUC {trained.auc:.3f} on July"
    )
    _say("[bold]3[/] profiling the training rows: the reference for drift")
    model = find_job(JOB, JOBS).model
    reference.from_training(open_context(settings), model, str(trained.train_path))


def _score_the_week(settings: Settings) -> list[RunRecord]:
    _say("[bold]4[/] starting broker, worker and beat; beat finds seven nights due")
    nights = (WEEK[1] - WEEK[0]).days + 1
    ledger = open_context(settings).ledger
    with Stack(settings) as stack:

        def started() -> list[RunRecord]:
            stack.check()
            runs = ledger.runs.latest(job=JOB, limit=nights)
            return runs if len(runs) == nights else []

        runs = follow(started, show=True, timeout=PATIENCE_SECONDS, label="seven nights")
    return sorted(runs, key=lambda run: str(run.slot))


def _show(settings: Settings, runs: list[RunRecord], seconds: float) -> None:
    home, scores, first = _short(settings.home), _short(Path(runs[0].output).parent), runs[0]
    console.print()
    show.table(show.runs_table(runs))
    _say(
        f"""
[bold]scores[/]  {scores}/date=*/part-*.parquet
[bold]drift[/]   {_short(Path(str(first.report)))}
        (1 July was a bad day: 85 flights cancelled, two thirds of the others late)

Look at them:
  .venv/bin/python -c "import pandas; print(pandas.read_parquet('{scores}'))"
  SCORING_HOME={home} .venv/bin/scoring runs
  SCORING_HOME={home} .venv/bin/scoring report {first.id}
  SCORING_HOME={home} .venv/bin/scoring evaluate {first.id} --labels {home}/{LABELS}

Done in {seconds:.0f} s; nothing is left running."""
    )


def _say(text: str) -> None:
    console.print(text, soft_wrap=True)


def _short(path: Path) -> Path:
    """Relative to here where it can be, so that it is easy to type."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


if __name__ == "__main__":
    main()
