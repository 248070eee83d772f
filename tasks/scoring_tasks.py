"""The tasks: each hands its ids to the engine and returns a word for the log and Flower."""

from __future__ import annotations

from typing import Any

from schedules import due
from scoring import runs
from scoring.errors import RegistryUnreachable, ServiceError
from scoring.job_files import find_job
from scoring.runs import PRIORITY_TONIGHT, on_date
from scoring.wake import FINISH_RUN, SCORE_CHUNK, START_DUE, START_RUN, SWEEP
from tasks.app import app, context


@app.task(name=SCORE_CHUNK)  # type: ignore[untyped-decorator]  # celery is untyped
def score_chunk(run_id: str, number: int) -> str:
    """Score one chunk of a run, unless somebody else has it."""
    return runs.score_chunk(context(), run_id, number)


@app.task(name=FINISH_RUN)  # type: ignore[untyped-decorator]
def finish_run(run_id: str) -> str:
    """Publish or hold a run whose chunks are all committed."""
    return runs.finish_run(context(), run_id)


@app.task(  # type: ignore[untyped-decorator]
    name=START_RUN,
    bind=True,
    autoretry_for=(ServiceError, RegistryUnreachable),
    retry_backoff=5,
    retry_backoff_max=60,
    max_retries=10,
)
def start_run(
    self: Any, job: str, date: str | None = None, idempotency_key: str | None = None
) -> str:
    """Start a run of a job in the jobs folder; for applications that cannot import `scoring`.

    A message that is delivered twice starts one run: its id is the key unless one is given.
    """
    return runs.create_or_record(
        context(),
        find_job(job, context().settings.jobs),
        on_date(date),
        trigger="manual",
        idempotency_key=idempotency_key or f"message {self.request.id}",
        priority=PRIORITY_TONIGHT,
    ).id


@app.task(name=START_DUE)  # type: ignore[untyped-decorator]
def start_due(job: str) -> list[str]:
    """Start the slots of a scheduled job that are due."""
    return due.start_due(context(), job)


@app.task(name=SWEEP)  # type: ignore[untyped-decorator]
def sweep() -> dict[str, int]:
    """Wake what was lost, and start what beat missed."""
    due.start_due(context())
    return runs.sweep(context())
