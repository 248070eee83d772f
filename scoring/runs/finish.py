"""Finish a run: merge profiles, measure drift, check the row balance, publish or hold.

Every step can be repeated: reports are written over, the output folder is assembled anew and
swapped in whole, and the ledger's last word is one conditional statement. A finisher that dies
anywhere leaves a run that the next one finishes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import structlog

from scoring import telemetry
from scoring.data import publish, sink
from scoring.drift.profile import Profile
from scoring.drift.report import DriftReport, compare, render_html
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
from scoring.runs.context import Context
from scoring.runs.frame import read_frame
from scoring.runs.identity import is_dead_here, this_worker
from scoring.runs.lease import Lease

log = telemetry.logger(__name__)


def finish_run(context: Context, run_id: str) -> str:
    """Finish the run if nobody else is; return what became of it."""
    with structlog.contextvars.bound_contextvars(run=run_id):
        hold = _claim(context, run_id)
        if hold is None:
            return "not free"
        run = context.ledger.runs.get(run_id)
        if hold.attempt > run.max_attempts:
            return _fail(context, hold, _exhausted(run.max_attempts, "its worker died each time"))
        renew = partial(_renew, context, hold)
        with Lease(renew, context.settings.lease_seconds):
            try:
                return _finish(context, run, hold)
            except LedgerUnreachable:
                raise  # the lease runs out and the sweep wakes another finisher
            except DriftTooSevere as error:
                return _fail(context, hold, str(error), drift_severity=error.severity)
            except ScoringError as error:
                return _fail(context, hold, str(error))
            except Exception as error:
                log.exception("finish_failed", attempt=hold.attempt)
                if hold.attempt < run.max_attempts:
                    context.ledger.runs.expire_finish(run_id, hold.attempt)
                    return "finish failed"
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


def _finish(context: Context, run: RunRecord, hold: Finishing) -> str:
    job = Job.from_json(run.job_json)
    staging, artifacts = Path(str(run.staging)), Path(run.artifacts)
    chunks = context.ledger.chunks.of(run.id)
    artifacts.mkdir(parents=True, exist_ok=True)
    _check_balance(run, chunks, staging)
    reasons = _collect_quarantine(chunks, staging, artifacts / "quarantine")
    _check_budget(run, job, reasons, artifacts / "quarantine")
    report = _report_drift(run, job, chunks, staging, artifacts)
    verdict = _decide(context, run, job, report)
    if verdict == "hold":
        return _end(context, hold, "held", report, artifacts)
    manifest = _manifest(run, chunks, context.ledger.runs.manifest(run.id), report)
    ready = publish.assemble(staging, hold.attempt, [str(c.part) for c in chunks], manifest)
    mine = publish.publish(ready, Path(run.output), lambda: context.ledger.runs.renew_finish(hold))
    if not mine:
        return "lease lost"
    ended = _end(context, hold, "published", report, artifacts)
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


def _report_drift(
    run: RunRecord, job: Job, chunks: Sequence[ChunkRecord], staging: Path, artifacts: Path
) -> DriftReport:
    """Merge the chunks' profiles, compare with the reference, write both and the page."""
    reference, _ = read_frame(staging)
    current = Profile.merged(
        Profile.from_json((staging / sink.profile_name(str(chunk.part))).read_text("utf-8"))
        for chunk in chunks
    )
    tiers = job.drift
    report = compare(
        reference, current, small=tiers.small, moderate=tiers.moderate, severe=tiers.severe
    )
    identity = _identity(run)
    _write(artifacts / "profile.json", current.to_json())
    _write(artifacts / "drift.json", json.dumps(report.to_dict(identity), indent=2) + "\n")
    _write(artifacts / "drift.html", render_html(report, identity))
    return report


def _identity(run: RunRecord) -> dict[str, str | int | None]:
    return {
        "job": run.job,
        "slot": run.slot,
        "run_id": run.id,
        "model": run.model,
        "model_version": run.model_version,
        "variant": run.variant,
        "engine": run.engine,
        "device": run.device,
        "rows_in": run.rows_in,
        "rows_scored": run.rows_scored,
        "rows_quarantined": run.rows_quarantined,
        "output": run.output,
        "created_at": iso_time(run.created_at),
    }


def _decide(context: Context, run: RunRecord, job: Job, report: DriftReport) -> str:
    """What the job wants done about drift of this severity: publish, hold, or fail."""
    if report.severity == "none":
        return "publish"
    actions = {
        "small": job.drift.on_small,
        "moderate": job.drift.on_moderate,
        "severe": job.drift.on_severe,
    }[report.severity]
    name, psi = str(report.worst), float(report.psi or 0.0)
    for action in actions:
        log.warning("drift", severity=report.severity, column=name, psi=psi, action=action)
        context.ledger.runs.note(
            run.id, "drift", severity=report.severity, column=name, psi=psi, action=action
        )
    if run.released:
        return "publish"
    if "fail" in actions:
        page = str(Path(run.artifacts) / "drift.html")
        raise DriftTooSevere(report.severity, name, psi, page)
    return "hold" if "hold" in actions else "publish"


def _manifest(
    run: RunRecord, chunks: Sequence[ChunkRecord], inputs: Sequence[Any], report: DriftReport
) -> dict[str, Any]:
    schema = pq.read_schema(Path(str(run.staging)) / str(chunks[0].part))
    return {
        "run_id": run.id,
        "job": run.job,
        "slot": run.slot,
        "fingerprint": run.fingerprint,
        "model": run.model,
        "model_name": run.model_name,
        "model_version": run.model_version,
        "model_digest": run.model_digest,
        "flavor": run.flavor,
        "variant": run.variant,
        "precision": json.loads(run.precision) if run.precision else None,
        "engine": run.engine,
        "device": run.device,
        "nightscore": installed("nightscore"),
        "created_at": iso_time(run.created_at),
        "published_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows_in": run.rows_in,
        "rows_scored": run.rows_scored,
        "rows_quarantined": run.rows_quarantined,
        "drift_severity": report.severity if report.reference else None,
        "artifacts": run.artifacts,
        "columns": [{"name": field.name, "type": str(field.type)} for field in schema],
        "parts": [
            {
                "file": publish.part_file(index),
                "rows": chunk.rows_scored,
                "sha256": chunk.part_digest,
            }
            for index, chunk in enumerate(chunks)
        ],
        "inputs": [
            {"path": line.path, "size": line.size, "stamp": line.stamp, "rows": line.rows}
            for line in inputs
        ],
    }


def _end(
    context: Context, hold: Finishing, state: str, report: DriftReport, artifacts: Path
) -> str:
    ended = context.ledger.runs.end(
        hold,
        state,
        drift_severity=report.severity if report.reference else None,
        report=str(artifacts / "drift.html"),
    )
    log.info("run_ended" if ended else "lease_lost", state=state)
    return state if ended else "lease lost"


def _fail(context: Context, hold: Finishing, error: str, drift_severity: str | None = None) -> str:
    report = Path(context.ledger.runs.get(hold.run_id).artifacts) / "drift.html"
    context.ledger.runs.end(
        hold,
        "failed",
        error=error,
        drift_severity=drift_severity,
        report=str(report) if report.is_file() else None,
    )
    log.error("run_failed", error=error)
    return "run failed"


def _write(path: Path, text: str) -> None:
    """Replace a file whole, so that nobody reads half of it."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)


def iso_time(seconds: float | None) -> str | None:
    """Seconds since the epoch as ISO 8601 in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
