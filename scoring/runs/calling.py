"""How an attempt calls its model: in this process, watched, or in a process of the model's own.

In this process is the rule, and the fast way. Once attempts at a chunk have died or hung, the next
is careful: whatever the model does then, this worker lives to say on which row it did it.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyarrow as pa

from scoring import telemetry
from scoring.errors import ModelNotLoaded
from scoring.job import Job
from scoring.ledger import Claim, RunRecord
from scoring.models import Engine
from scoring.models.apart import ApartEngine
from scoring.models.engines.wrapped import WrappedEngine
from scoring.models.faults import ModelRaised
from scoring.runs.context import Context
from scoring.runs.host import Host
from scoring.runs.variant import to_load
from scoring.runs.watchdog import STDERR, Watchdog

log = telemetry.logger(__name__)

CAREFUL_AT = 2
"""Deaths after which an attempt is careful: one may be anybody's kill -9."""
LOAD_SECONDS = 600.0
"""How long loading may take, at least: it reads gigabytes, or prepares a graph for its device."""


def is_careful(run: RunRecord, claim: Claim) -> bool:
    """Whether the model gets a process of its own: workers have died, and this may be the last."""
    last = claim.attempt >= run.max_attempts
    return claim.deaths >= CAREFUL_AT or (last and claim.deaths > 0)


@contextmanager
def called(
    context: Context,
    run: RunRecord,
    job: Job,
    claim: Claim,
    check: Callable[[], None],
    hung: Callable[[float], None],
) -> Iterator[Engine]:
    """The engine of a run whose variant is pinned, for one attempt.

    ``hung`` is told, from another thread, after how many seconds a call in this process was given
    up; then the process is ended, if it is ours to end.

    Raises:
        ModelDies: not even a process of its own helps.
        ModelError: it cannot be loaded.
    """
    batch, load = job.execution.batch_seconds, max(job.execution.batch_seconds, LOAD_SECONDS)
    if is_careful(run, claim):
        log.warning("model_apart", attempt=claim.attempt, deaths=claim.deaths)
        with ApartEngine(to_load(context, run, job), batch, load, check) as apart:
            yield apart
        return
    bark = partial(_bark, context.host, hung)
    with Watchdog(bark, may_end_process=context.host.end is not None) as watchdog, _place_kept():
        engine = context.engines.get(run, job, lambda: _loaded(context, run, job, watchdog, load))
        engine.watch(partial(_batch_done, watchdog, check))
        yield GuardedEngine(engine, watchdog, batch, context.host)


def _batch_done(watchdog: Watchdog, check: Callable[[], None]) -> None:
    """A slab may take minutes, and the run be cancelled meanwhile."""
    watchdog.progress()
    check()


class GuardedEngine(WrappedEngine):
    """Another engine, its calls watched, and what the model raises told apart from our own end."""

    def __init__(self, inner: Engine, watchdog: Watchdog, seconds: float, host: Host) -> None:
        super().__init__(inner)
        self._watchdog, self._seconds, self._host = watchdog, seconds, host

    def predict(self, prepared: Any) -> dict[str, pa.Array]:
        with self._watchdog.call(self._seconds), _only_errors(self._host):
            return self._inner.predict(prepared)

    def empty(self) -> dict[str, pa.Array]:
        with self._watchdog.call(self._seconds), _only_errors(self._host):
            return self._inner.empty()


def _loaded(
    context: Context, run: RunRecord, job: Job, watchdog: Watchdog, seconds: float
) -> Engine:
    what = to_load(context, run, job)
    try:
        with watchdog.call(seconds), _only_errors(context.host):
            return what.load()
    except ModelRaised as error:
        raise ModelNotLoaded(what.model, str(error)) from error


@contextmanager
def _only_errors(host: Host) -> Iterator[None]:
    """An exit or an interrupt that the model raises is its error, and no reason for us to stop."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if host.told_to_stop():
            raise
        raise ModelRaised.of(error) from error


@contextmanager
def _place_kept() -> Iterator[None]:
    """Back to the folder that we were in, whichever the model went to."""
    place = os.open(".", os.O_RDONLY)  # its name may be gone, and it is the same folder still
    try:
        yield
    finally:
        os.fchdir(place)
        os.close(place)


def _bark(host: Host, hung: Callable[[float], None], seconds: float) -> None:
    """Write down that the model hangs, and where, then end this process."""
    try:
        faulthandler.dump_traceback(file=STDERR, all_threads=True)
        hung(seconds)
    finally:
        if host.end is not None:
            host.end()
