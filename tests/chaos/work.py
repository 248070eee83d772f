"""The pieces of work that the actor does: the product's own functions, called as it calls them.

Each begins to count its steps where the product's function begins, not where a test prepares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from scoring import api
from scoring.data import publish
from scoring.job import Job
from scoring.models import Registry
from scoring.models.patience import Patience
from scoring.runs import create, finish_run, on_date, score_chunk, sweep
from scoring.runs.context import Context
from scoring.settings import Settings
from tests.silent_bell import SilentBell

Begin = Callable[[], None]
LOCK_SECONDS = 1
"""How long a finisher waits for a frozen one, which in a test never goes on meanwhile."""


def submit(settings: Settings, begin: Begin, job: str, key: str) -> str:
    """Submit a job given as JSON; the run's id."""
    begin()
    return api.submit(Job.from_json(job), idempotency_key=key, settings=settings).id


def prepare(settings: Settings, begin: Begin, *jobs: str) -> list[str]:
    """Runs of these jobs whose chunks are all scored, and that nobody has finished."""
    context, made = _quiet(settings), []
    begin()
    for job in jobs:
        run = create(context, Job.from_json(job), on_date(None), trigger="manual").run
        for number in range(run.chunks):
            assert score_chunk(context, run.id, number) == "committed"
        made.append(run.id)
    return made


def planned(settings: Settings, begin: Begin, *jobs: str) -> list[str]:
    """Runs of these jobs of which no chunk is scored."""
    context = _quiet(settings)
    begin()
    return [
        create(context, Job.from_json(job), on_date(None), trigger="manual").run.id for job in jobs
    ]


def finish(settings: Settings, begin: Begin, run_id: str) -> str:
    publish.LOCK_SECONDS = LOCK_SECONDS
    context = _quiet(settings)
    begin()
    return finish_run(context, run_id)


def chunk(settings: Settings, begin: Begin, run_id: str, number: int) -> str:
    context = _quiet(settings)
    begin()
    return score_chunk(context, run_id, number)


def swept(settings: Settings, begin: Begin) -> dict[str, int]:
    context = api.open_context(settings)
    begin()
    return sweep(context)


def cancel(settings: Settings, begin: Begin, run_id: str) -> str:
    begin()
    return api.get_run(run_id, settings=settings).cancel().status


def retry(settings: Settings, begin: Begin, run_id: str) -> str:
    begin()
    return api.get_run(run_id, settings=settings).retry().status


def ring_again(settings: Settings, begin: Begin, run_id: str) -> int:
    """Send every message of a run once more."""
    context = api.open_context(settings)
    run = context.ledger.runs.get(run_id)
    begin()
    context.doorbell.chunks(run, range(run.chunks))
    context.doorbell.finish(run)
    return int(run.chunks) + 1


def _quiet(settings: Settings) -> Context:
    """A context that wakes nobody, and whose registry may be slow: a note of it is a step more."""
    registry = Registry(settings.tracking_uri, Patience(optional=100.0))
    context = replace(Context.open(settings, SilentBell()), registry=registry)
    context.ledger.database.ready()
    return context


WORK: dict[str, Callable[..., Any]] = {
    "submit": submit,
    "prepare": prepare,
    "planned": planned,
    "finish": finish,
    "chunk": chunk,
    "sweep": swept,
    "cancel": cancel,
    "retry": retry,
    "ring again": ring_again,
}
