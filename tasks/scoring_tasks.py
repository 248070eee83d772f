"""The tasks: each hands its ids to the engine and returns a word for the log and Flower."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from schedules import due
from scoring import runs, telemetry
from scoring.errors import (
    JobError,
    RegistryUnreachable,
    RunNotFound,
    ServiceError,
    SubmissionRefused,
)
from scoring.job_files import named_job
from scoring.runs import PRIORITY_TONIGHT, on_date
from scoring.wake import FINISH_RUN, SCORE_CHUNK, START_DUE, START_RUN, SWEEP
from tasks.app import app, context

log = telemetry.logger(__name__)


@app.task(name=SCORE_CHUNK)  # type: ignore[untyped-decorator]  # celery is untyped
def score_chunk(run_id: str, number: int) -> str:
    """Score one chunk of a run, unless somebody else has it."""
    return _of_a_run(runs.score_chunk, run_id, number)


@app.task(name=FINISH_RUN)  # type: ignore[untyped-decorator]
def finish_run(run_id: str) -> str:
    """Publish or hold a run whose chunks are all committed."""
    return _of_a_run(runs.finish_run, run_id)


@app.task(  # type: ignore[untyped-decorator]
    name=START_RUN,
    bind=True,
    autoretry_for=(ServiceError, RegistryUnreachable, SubmissionRefused),
    retry_backoff=5,
    retry_backoff_max=60,
    max_retries=None,  # it is not lost, however long the outage or the queue before it
)
def start_run(
    self: Any,
    job: str,
    date: str | None = None,
    idempotency_key: str | None = None,
    caller: str | None = None,
) -> str:
    """Start a run of a job in the jobs folder; for applications that cannot import `scoring`.

    A message that is delivered twice starts one run: its id is the key unless one is given. It
    counts as a submission of ``caller``, or of the host that sent it.
    """
    who = runs.sender(self.request.origin, caller)
    try:
        wanted, occasion = named_job(job, context().settings.jobs), on_date(date)
    except JobError as error:  # there is no job that a failed run could be recorded of
        log.error("submission_refused", job=job, who=who, error=str(error))
        return "refused"
    return runs.create_or_record(
        context(),
        wanted,
        occasion,
        trigger="manual",
        idempotency_key=idempotency_key or f"message {self.request.id}",
        priority=PRIORITY_TONIGHT,
        who=who,
    ).id


def _of_a_run(step: Callable[..., str], run_id: str, *more: int) -> str:
    """A step of a run; of one that the ledger does not know there is nothing to do."""
    try:
        return step(context(), run_id, *more)
    except RunNotFound as error:
        log.error("run_unknown", error=str(error))
        return "no such run"


@app.task(name=START_DUE)  # type: ignore[untyped-decorator]
def start_due(job: str) -> list[str]:
    """Start the slots of a scheduled job that are due."""
    return due.start_due(context(), job)


@app.task(name=SWEEP)  # type: ignore[untyped-decorator]
def sweep(messages_lost: bool = False) -> dict[str, int]:
    """Wake what was lost, and start what beat missed.

    ``messages_lost``: the broker has begun anew, so whatever was sent before is gone.
    """
    due.start_due(context())
    return runs.sweep(context(), messages_lost=messages_lost)
