"""Score one chunk of a run: claim, score, commit; whatever happens, the ledger ends up right."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from scoring import telemetry
from scoring.data import sink, source
from scoring.errors import (
    BrokerUnreachable,
    ErrorBudgetExceeded,
    InputError,
    InputUnreadable,
    LeaseLost,
    LedgerUnreachable,
    ModelDigestMismatch,
    ModelNotFound,
    ModelUnsupported,
    ScoringError,
    SignatureMissing,
    VariantDamaged,
    VariantRefused,
    VariantUnavailable,
)
from scoring.job import Job
from scoring.ledger import Claim, Committed, RunRecord
from scoring.pipeline import ChunkWork, Scored
from scoring.pipeline import score_chunk as score
from scoring.runs.context import Context
from scoring.runs.create import wake
from scoring.runs.frame import read_frame
from scoring.runs.identity import is_dead_here, this_worker
from scoring.runs.lease import Lease
from scoring.runs.prepare import kept_columns
from scoring.runs.variant import load_pinned, pinned, remember_ceiling

log = telemetry.logger(__name__)

HOPELESS = (
    InputError,
    ErrorBudgetExceeded,
    ModelDigestMismatch,
    ModelNotFound,
    ModelUnsupported,
    SignatureMissing,
    VariantDamaged,
    VariantRefused,
    VariantUnavailable,
)
"""Errors that every further attempt would meet again: they fail the run at once."""
RETRY_SECONDS, RETRY_SECONDS_MOST = 2.0, 60.0
"""Wait before the second attempt, doubled for each one after it up to the most."""


def score_chunk(context: Context, run_id: str, number: int) -> str:
    """Score a chunk if it is free; return what became of it, for the task's log."""
    with structlog.contextvars.bound_contextvars(run=run_id, chunk=number):
        claim = _claim(context, run_id, number)
        if claim is None:
            return "not free"
        run = context.ledger.runs.get(run_id)
        try:
            return _attempt(context, run, claim)
        except LeaseLost as error:
            log.warning("lease_lost", attempt=claim.attempt, error=str(error))
            return "lease lost"
        except HOPELESS as error:
            context.ledger.runs.fail(run_id, str(error))
            log.error("run_failed", error=str(error))
            return "run failed"
        except LedgerUnreachable:
            raise  # nothing can be recorded now: the lease runs out and the sweep takes over
        except Exception as error:
            return _try_again(context, run, claim, error)
        except BaseException:  # the worker is told to stop: give the chunk to another at once
            context.ledger.chunks.hand_back(claim)
            raise


def _claim(context: Context, run_id: str, number: int) -> Claim | None:
    chunks, worker = context.ledger.chunks, this_worker()
    claim = chunks.claim(run_id, number, worker)
    if claim is not None:
        return claim
    held = chunks.get(run_id, number)
    if held.state != "leased" or not is_dead_here(held.worker):
        return None
    chunks.expire(run_id, number, held.attempt)
    return chunks.claim(run_id, number, worker)


def _attempt(context: Context, run: RunRecord, claim: Claim) -> str:
    job = Job.from_json(run.job_json)
    renew = partial(context.ledger.chunks.renew, claim)
    with Lease(renew, context.settings.lease_seconds) as lease:
        run = pinned(context, run, job, lease.check)
        engine = context.engines.get(run, job, partial(load_pinned, context, run, job))
        work, batch_rows = _work(context, run, job, claim), engine.batch_rows
        scored = score(work, engine, lease.check)
        if engine.batch_rows < batch_rows:
            remember_ceiling(context, run, engine.batch_rows)
    try:
        last = context.ledger.chunks.commit(
            claim,
            Committed(
                part=scored.part,
                part_digest=scored.part_digest,
                rows_scored=scored.rows_scored,
                rows_quarantined=scored.rows_quarantined,
                engine=engine.name,
                device=engine.device,
                timings=scored.timings,
            ),
        )
    except LeaseLost:
        drop(Path(str(run.staging)), scored)
        raise
    log.info("chunk_committed", attempt=claim.attempt, rows=scored.rows_scored)
    if last:
        _wake_finisher(context, run)
    return "committed"


def _work(context: Context, run: RunRecord, job: Job, claim: Claim) -> ChunkWork:
    files = context.ledger.runs.inputs_of(run.id, sorted({span.file for span in claim.spans}))
    staging = Path(str(run.staging))
    frame = read_frame(staging)
    return ChunkWork(
        number=claim.number,
        attempt=claim.attempt,
        spans=claim.spans,
        files=files,
        schema=_schema(files[claim.spans[0].file]),
        kept=kept_columns(job),
        staging=staging,
        overflow=Path(run.artifacts) / "quarantine",
        reference=frame.reference,
        origins=frame.origins,
        metadata={
            "run": run.id,
            "job": run.job,
            "model": f"models:/{run.model_name}/{run.model_version}",
            "variant": str(run.variant),
        },
        run_rows=run.rows_in,
        error_budget=job.execution.error_budget,
        budget_rows=job.execution.budget_rows(run.rows_in),
    )


def _schema(file: source.Frozen) -> pa.Schema:
    source.check_unchanged(file)
    try:
        schema = pq.read_schema(file.path)
    except (pa.ArrowException, OSError) as error:
        source.check_unchanged(file)
        raise InputUnreadable(file.path, str(error)) from error
    for name, _ in file.partitions:
        schema = schema.append(pa.field(name, pa.string()))
    return schema


def drop(staging: Path, scored: Scored) -> None:
    """Remove what an attempt wrote that another one replaced."""
    for name in (
        scored.part,
        sink.profile_name(scored.part),
        sink.quarantine_name(scored.part),
    ):
        (staging / name).unlink(missing_ok=True)


def _try_again(context: Context, run: RunRecord, claim: Claim, error: Exception) -> str:
    """Give the chunk back; fail the run if that was its last attempt."""
    known = isinstance(error, ScoringError)
    log.warning("attempt_failed", attempt=claim.attempt, error=str(error), exc_info=not known)
    text = str(error) if known else f"{type(error).__name__}: {error}"
    try:
        more = context.ledger.chunks.release(claim, text)
    except LeaseLost as lost:
        log.warning("lease_lost", attempt=claim.attempt, error=str(lost))
        return "lease lost"
    if not more:
        context.ledger.runs.fail(run.id, exhausted(claim.number, claim.attempt, text))
        return "run failed"
    try:
        wake(context, run, [claim.number], delay=_pause(claim.attempt))
    except BrokerUnreachable as unreachable:
        log.warning("run_not_woken", error=str(unreachable))
    return "attempt failed"


def _pause(attempt: int) -> float:
    """Seconds to wait after a failed attempt."""
    return min(RETRY_SECONDS * 2.0 ** (attempt - 1), RETRY_SECONDS_MOST)


def exhausted(number: int, attempts: int, error: str | None) -> str:
    """What a person is told about a chunk that may not be tried again."""
    why = error or (
        "each attempt's worker died before it could say why (out of memory, a crash in the model's "
        "native code, or a killed machine); see the worker's log"
    )
    return (
        f"chunk {number + 1} failed {attempts} times, last: {why}. Nothing is published, the "
        "earlier output stands, finished chunks are kept: `scoring retry` goes on from there."
    )


def _wake_finisher(context: Context, run: RunRecord) -> None:
    try:
        context.doorbell.finish(run)
    except BrokerUnreachable as error:
        log.warning("finisher_not_woken", error=str(error))
