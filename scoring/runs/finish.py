"""Finish a run: merge profiles, measure drift, check the row balance, publish or hold.

Every step can be repeated: reports are written over, the output folder is assembled anew and
swapped in whole, and the ledger's last word is one conditional statement. A finisher that dies
anywhere leaves a run that the next one finishes.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import structlog

from scoring import telemetry
from scoring.data import publish, sink
from scoring.errors import (
    DriftTooSevere,
    ErrorBudgetExceeded,
    LeaseLost,
    LedgerUnreachable,
    PartsDiffer,
    RowBalanceBroken,
    ScoringError,
)
from scoring.job import Job
from scoring.ledger import ChunkRecord, Finishing, RunRecord
from scoring.runs import deliveries
from scoring.runs.context import Context
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
        if hold.attempt > run.max_attempts:
            return _fail(
                context, hold, _exhausted(run.max_attempts, "its worker died each time")
            ).word
        ended = _finish_held(context, run, hold)
        if ended.reported is not None:
            _tell(context, run, ended.reported)
        return ended.word


def _finish_held(context: Context, run: RunRecord, hold: Finishing) -> Ended:
    with Lease(partial(_renew, context, hold), context.settings.lease_seconds):
        try:
            return _finish(context, run, hold)
        except LedgerUnreachable:
            raise  # the lease runs out and the sweep wakes another finisher
        except ScoringError as error:
            return _fail(context, hold, str(error))
        except Exception as error:
            log.exception("finish_failed", attempt=hold.attempt)
            if hold.attempt < run.max_attempts:
                context.ledger.runs.expire_finish(run.id, hold.attempt)
                return Ended("finish failed")
            why = f"{type(error).__name__}: {error}"
            return _fail(context, hold, _exhausted(hold.attempt, why))


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


def _finish(context: Context, run: RunRecord, hold: Finishing) -> Ended:
    job = Job.from_json(run.job_json)
    staging, artifacts = Path(str(run.staging)), Path(run.artifacts)
    chunks = context.ledger.chunks.of(run.id)
    artifacts.mkdir(parents=True, exist_ok=True)
    _check_balance(run, chunks, staging)
    reasons = _collect_quarantine(chunks, staging, artifacts / "quarantine")
    _check_budget(run, job, reasons, artifacts / "quarantine")
    reported = make_report(context, run, job, chunks, reasons)
    if reported.decision.outcome == "fail":
        return _end(context, hold, run, reported, "failed", _too_severe(run, reported))
    if reported.decision.outcome == "hold":
        return _end(context, hold, run, reported, "held")
    described = manifest(run, chunks, context.ledger.runs.manifest(run.id), reported.severity)
    ready = publish.assemble(staging, hold.attempt, [str(c.part) for c in chunks], described)
    mine = publish.publish(ready, Path(run.output), lambda: context.ledger.runs.renew_finish(hold))
    if not mine:
        return Ended("lease lost")
    ended = _end(context, hold, run, reported, "published")
    publish.discard(staging)
    return ended


def _check_balance(run: RunRecord, chunks: Sequence[ChunkRecord], staging: Path) -> None:
    """Rows in the parts' own footers, not only in the ledger, must add up."""
    footers = [pq.read_metadata(staging / str(chunk.part)) for chunk in chunks]
    columns = {str(footer.schema.to_arrow_schema().remove_metadata()) for footer in footers}
    if len(columns) > 1:
        one, other, *_ = sorted(text.replace("\n", ", ") for text in columns)
        raise PartsDiffer(run.id, one, other)
    written = [footer.num_rows for footer in footers]
    recorded = [chunk.rows_scored for chunk in chunks]
    quarantined = sum(chunk.rows_quarantined or 0 for chunk in chunks)
    per_chunk = all(
        chunk.rows == rows + (chunk.rows_quarantined or 0)
        for chunk, rows in zip(chunks, written, strict=True)
    )
    if not per_chunk or written != recorded or run.rows_in != sum(written) + quarantined:
        raise RowBalanceBroken(run.id, run.rows_in, sum(written), quarantined)


def _collect_quarantine(chunks: Sequence[ChunkRecord], staging: Path, folder: Path) -> Counter[str]:
    """Copy quarantined rows to their own place; return how often each reason occurs."""
    reasons: Counter[str] = Counter()
    shutil.rmtree(folder, ignore_errors=True)
    for chunk in chunks:
        if not chunk.rows_quarantined:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        staged = staging / sink.quarantine_name(str(chunk.part))
        shutil.copyfile(staged, folder / publish.part_file(chunk.number))
        for reason in pq.read_table(staged, columns=["_reason"])["_reason"].value_counts():
            reasons[reason["values"].as_py()] += reason["counts"].as_py()
    return reasons


def _check_budget(run: RunRecord, job: Job, reasons: Counter[str], folder: Path) -> None:
    if run.rows_quarantined > job.execution.budget_rows(run.rows_in):
        raise ErrorBudgetExceeded(
            run.rows_quarantined,
            run.rows_in,
            job.execution.error_budget,
            str(folder),
            reasons.most_common(1)[0][0],
        )


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


def _fail(context: Context, hold: Finishing, error: str) -> Ended:
    artifacts = Path(context.ledger.runs.get(hold.run_id).artifacts)
    report, found = artifacts / PAGE_FILE, read_report(artifacts)
    context.ledger.runs.end(
        hold,
        "failed",
        error=error,
        drift_severity=severity_of(found) if found else None,
        report=str(report) if report.is_file() else None,
    )
    log.error("run_failed", error=error)
    return Ended("run failed")
