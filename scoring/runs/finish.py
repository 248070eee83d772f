"""Finish a run: merge profiles, measure drift, check the row balance, publish or hold.

Every step can be repeated: reports are written over, the output is published anew and whole,
and the ledger's last word is one conditional statement. A finisher that dies
anywhere leaves a run that the next one finishes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from scoring import telemetry
from scoring.data.room import room_in
from scoring.errors import (
    DriftTooSevere,
    LeaseLost,
    LedgerUnreachable,
    OutputBusy,
    OutputClaimed,
    OutputError,
    OutputFull,
    OutputIncomplete,
    ScoringError,
    StoreRefused,
    StoreUnreachable,
)
from scoring.job import Job
from scoring.ledger import ChunkRecord, Finishing, RunRecord
from scoring.runs import deliveries
from scoring.runs.addition import publish_addition
from scoring.runs.balance import check_balance, check_budget, collect_quarantine
from scoring.runs.confined import check_confined
from scoring.runs.context import Context
from scoring.runs.create import wake_finisher
from scoring.runs.frame import discard_frame
from scoring.runs.identity import is_dead_here, this_worker
from scoring.runs.lease import Lease
from scoring.runs.manifest import manifest
from scoring.runs.places import PAGE_FILE
from scoring.runs.report import (
    Reported,
    make_report,
    read_report,
    severity_of,
    show_in_registry,
)

log = telemetry.logger(__name__)


AGAIN = (OutputClaimed, OutputFull, OutputIncomplete, StoreUnreachable)
"""What may be over when the next finisher tries."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of an attempt at finishing."""

    word: str
    """For the task's log."""
    reported: Reported | None = None
    """The drift report of a run that this attempt ended."""


def finish_run(context: Context, run_id: str) -> str:
    """Finish the run if nobody else is; return what became of it."""
    with structlog.contextvars.bound_contextvars(run=run_id):
        hold = _claim(context, run_id)
        if hold is None:
            return "not free"
        run = context.ledger.runs.get(run_id)
        if hold.attempt > run.max_attempts and not _is_out(context, run):
            why = _exhausted(run.max_attempts, "its worker died each time")
            return _fail(context, run, hold, why).word
        ended = _finish_held(context, run, hold)
        if ended.reported is not None:
            _tell(context, run, ended.reported)
        return ended.word


def _finish_held(context: Context, run: RunRecord, hold: Finishing) -> Ended:
    with Lease(partial(_renew, context, hold), context.settings.lease_seconds) as lease:
        try:
            with room_in(run.artifacts):
                return _finish(context, run, hold, lease)
        except LedgerUnreachable:
            raise  # the lease runs out and the sweep wakes another finisher
        except Exception as error:
            return _failed(context, run, hold, error)
        except BaseException:  # the worker is told to stop: let another finish at once
            if context.ledger.runs.expire_finish(run.id, hold.attempt):
                wake_finisher(context, run)
            raise


def _failed(context: Context, run: RunRecord, hold: Finishing, error: Exception) -> Ended:
    """What to do about an error: whether it is the run's end depends on whose the run is now."""
    if isinstance(error, LeaseLost) or not context.ledger.runs.renew_finish(hold):
        # Frozen past its lease, say: what it needs may be gone, as another has ended the run.
        log.warning("lease_lost", attempt=hold.attempt, error=str(error))
        return Ended("lease lost")
    if isinstance(error, OutputBusy):
        return _hand_back(context, hold, error)
    if isinstance(error, ScoringError) and not isinstance(error, AGAIN):
        return _fail(context, run, hold, str(error))
    return _try_again(context, run, hold, error)


def _try_again(context: Context, run: RunRecord, hold: Finishing, error: Exception) -> Ended:
    """Let another finisher go on, unless this was the last one."""
    known = isinstance(error, ScoringError)
    log.warning("finish_failed", attempt=hold.attempt, error=str(error), exc_info=not known)
    if hold.attempt >= run.max_attempts:
        text = str(error) if known else f"{type(error).__name__}: {error}"
        says_all = isinstance(error, OutputError)
        return _fail(context, run, hold, text if says_all else _exhausted(hold.attempt, text))
    context.ledger.runs.expire_finish(run.id, hold.attempt)
    return Ended("finish failed")


def _hand_back(context: Context, hold: Finishing, error: OutputBusy) -> Ended:
    """Let a later finisher try: it was not this one's fault, so it costs no attempt."""
    log.warning("output_busy", error=str(error))
    context.ledger.runs.hand_back_finish(hold)
    return Ended("output busy")


def _is_out(context: Context, run: RunRecord) -> bool:
    """Whether readers see the run already, as a finisher died after the swap: it cannot fail."""
    try:
        found = context.output(run).manifest() if run.replay_of is None else None
    except (StoreRefused, StoreUnreachable) as error:  # nobody reads there now
        log.warning("output_not_seen", error=str(error))
        return False
    return found is not None and found["run_id"] == run.id


def _exhausted(attempts: int, why: str) -> str:
    return (
        f"finishing failed {attempts} times, last: {why}. Scored parts are kept; nothing is "
        "published, the earlier output stands. `scoring retry` finishes it again."
    )


def _claim(context: Context, run_id: str) -> Finishing | None:
    runs, worker = context.ledger.runs, this_worker()
    hold = runs.claim_finish(run_id, worker)
    if hold is not None:
        return hold
    held = runs.get(run_id)
    if held.state != "finishing" or not is_dead_here(held.finish_worker):
        return None
    runs.expire_finish(run_id, held.finish_attempt)
    return runs.claim_finish(run_id, worker)


def _renew(context: Context, hold: Finishing) -> None:
    if not context.ledger.runs.renew_finish(hold):
        raise LeaseLost(hold.run_id, hold.attempt, None)


def _finish(context: Context, run: RunRecord, hold: Finishing, lease: Lease) -> Ended:
    job = Job.from_json(run.job_json)
    check_confined(context, run)
    staging, artifacts = context.staging(run), Path(run.artifacts)
    chunks = context.ledger.chunks.of(run.id)
    artifacts.mkdir(parents=True, exist_ok=True)
    check_balance(run, chunks, staging)
    reasons = collect_quarantine(chunks, staging, artifacts / "quarantine")
    check_budget(run, job, reasons, artifacts / "quarantine")
    lease.check()
    reported = make_report(context, run, job, chunks, reasons)
    lease.check()
    if run.replay_of is not None:
        return _finish_replay(context, run, hold, chunks, reported)
    if reported.decision.outcome == "fail":
        return _end(context, hold, run, reported, "failed", _too_severe(run, reported))
    if reported.decision.outcome == "hold":
        return _end(context, hold, run, reported, "held")
    inputs = context.ledger.runs.manifest(run.id)
    described = manifest(run, staging, chunks, inputs, reported.severity)
    parts = [str(chunk.part) for chunk in chunks]
    publisher = replace(
        context.publisher(hold), still_mine=partial(_may_publish, context, hold, run)
    )
    with room_in(run.output):
        mine = context.output(run).publish(staging, parts, described, publisher)
    if not mine:
        return Ended("lease lost")
    ended = _end(context, hold, run, reported, "published")
    if ended.reported is not None:  # else the parts are another finisher's, who needs them
        _discard(context, run)
    return ended


def _may_publish(context: Context, hold: Finishing, run: RunRecord) -> bool:
    """Whether this finisher still has the run; asked at the last moment, so links count as then.

    Raises: PathOutsideRoots.
    """
    check_confined(context, run)
    return context.ledger.runs.renew_finish(hold)


def _finish_replay(
    context: Context,
    run: RunRecord,
    hold: Finishing,
    chunks: Sequence[ChunkRecord],
    reported: Reported,
) -> Ended:
    """Add a replay to the run it is of; its drift is written down, and told to nobody."""
    page = Path(run.artifacts) / PAGE_FILE
    if not publish_addition(context, hold, run, chunks, reported.severity, page):
        return Ended("lease lost")
    _discard(context, run)
    return Ended("published")


def _discard(context: Context, run: RunRecord) -> None:
    """Remove what only an unfinished run needs."""
    try:
        context.staging(run).discard()
    except (StoreRefused, StoreUnreachable) as error:  # it is published; `scoring clean` can do it
        log.warning("parts_not_removed", path=str(run.staging), error=str(error))
    discard_frame(Path(run.artifacts))


def _set_off(reported: Reported) -> list[dict[str, Any]]:
    """What drift sets off, once for each action."""
    found = {name: reported.document[name] for name in ("severity", "worst", "score")}
    return [found | {"action": action} for action in reported.decision.actions]


def _too_severe(run: RunRecord, reported: Reported) -> str:
    found = reported.document
    page = str(Path(run.artifacts) / PAGE_FILE)
    return str(DriftTooSevere(found["severity"], found["worst"], found["score"], page))


def _end(
    context: Context,
    hold: Finishing,
    run: RunRecord,
    reported: Reported,
    state: str,
    error: str | None = None,
) -> Ended:
    """End the run and, with it, write down what its drift sets off; a release sets off nothing."""
    drift_events = [] if run.released else _set_off(reported)
    mine = context.ledger.runs.end(
        hold,
        state,
        error=error,
        drift_severity=reported.severity,
        report=str(Path(run.artifacts) / PAGE_FILE),
        drift_events=drift_events,
        deliveries=[] if run.released else deliveries.owed(run, reported),
    )
    for detail in drift_events if mine else []:
        log.warning("drift", **detail)
    log.info("run_ended" if mine else "lease_lost", state=state)
    return Ended(state, reported) if mine else Ended("lease lost")


def _tell(context: Context, run: RunRecord, reported: Reported) -> None:
    """Tell receivers and the registry now; what fails is tried again, or recorded, not fatal."""
    try:
        deliveries.deliver_due(context, run.id)
    finally:
        show_in_registry(context, run, reported.document)


def _fail(context: Context, run: RunRecord, hold: Finishing, error: str) -> Ended:
    """End the run as failed, unless an earlier finisher has published it or is about to.

    One that was frozen after it asked whether the run is its own holds the output's lock, and
    swaps when it wakes: nothing is said of the run before that.
    """
    try:
        with context.output(run).alone():
            if _is_out(context, run):
                log.warning("finish_failed", attempt=hold.attempt, error=error)
                context.ledger.runs.expire_finish(run.id, hold.attempt)
                return Ended("finish failed")
            return _end_failed(context, run, hold, error)
    except OutputBusy as busy:
        return _hand_back(context, hold, busy)


def _end_failed(context: Context, run: RunRecord, hold: Finishing, error: str) -> Ended:
    artifacts = Path(run.artifacts)
    report, found = artifacts / PAGE_FILE, read_report(artifacts)
    mine = context.ledger.runs.end(
        hold,
        "failed",
        error=error,
        drift_severity=severity_of(found) if found else None,
        report=str(report) if report.is_file() else None,
    )
    if not mine:
        log.warning("lease_lost", attempt=hold.attempt, error=error)
        return Ended("lease lost")
    log.error("run_failed", error=error)
    return Ended("run failed")
