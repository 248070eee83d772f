"""Score one chunk of a run: claim, score, commit; whatever happens, the ledger ends up right."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import structlog

from scoring import telemetry
from scoring.data import sink, source
from scoring.data.room import room_in
from scoring.data.staged import Staging
from scoring.errors import (
    BrokerUnreachable,
    ErrorBudgetExceeded,
    InputError,
    LeaseLost,
    LedgerUnreachable,
    ModelDies,
    ModelDigestMismatch,
    ModelFilesGone,
    ModelHangs,
    ModelNotFound,
    ModelUnsupported,
    ModelUntrusted,
    PathOutsideRoots,
    RegistryUnreachable,
    ScoringError,
    SignatureMissing,
    StoreRefused,
    VariantDamaged,
    VariantRefused,
    VariantUnavailable,
)
from scoring.job import Job
from scoring.ledger import Claim, Committed, RunRecord
from scoring.models.faults import said
from scoring.pipeline import ChunkWork, Scored
from scoring.pipeline import score_chunk as score
from scoring.runs.calling import CAREFUL_AT, called
from scoring.runs.confined import check_confined
from scoring.runs.context import Context, pinned_version
from scoring.runs.create import wake, wake_finisher
from scoring.runs.frame import read_frame
from scoring.runs.handing_back import hand_back
from scoring.runs.identity import is_dead_here, this_worker
from scoring.runs.lease import Lease
from scoring.runs.prepare import kept_columns
from scoring.runs.scratch import scratch_folder
from scoring.runs.variant import pinned, remember_ceiling

log = telemetry.logger(__name__)

HOPELESS = (
    InputError,
    ErrorBudgetExceeded,
    ModelDies,
    ModelDigestMismatch,
    ModelFilesGone,
    ModelNotFound,
    ModelUnsupported,
    ModelUntrusted,
    PathOutsideRoots,
    SignatureMissing,
    StoreRefused,
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
            hand_back(context, run, claim)
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
    _check_confined(context, run, claim)
    renew = partial(context.ledger.chunks.renew, claim)
    with Lease(renew, context.settings.lease_seconds) as lease:
        with room_in(context.settings.model_cache):
            run = pinned(context, run, job, lease.check)
        hung = partial(_hung, context, run, claim)
        scratch = scratch_folder(context.settings.home)
        with (
            room_in(context.settings.model_cache),
            called(context, run, job, claim, lease.check, hung) as engine,
            room_in(str(run.staging)),
            context.staging(run).attempt(scratch) as folder,
        ):
            batch_rows = engine.batch_rows
            scored = score(_work(context, run, job, claim, folder), engine, lease.check)
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
        drop(context.staging(run), scored)
        raise
    log.info("chunk_committed", attempt=claim.attempt, rows=scored.rows_scored)
    if last:
        wake_finisher(context, run)
    return "committed"


def _work(context: Context, run: RunRecord, job: Job, claim: Claim, folder: Path) -> ChunkWork:
    files = context.ledger.runs.inputs_of(run.id, sorted({span.file for span in claim.spans}))
    frame = read_frame(Path(run.artifacts), Path(str(run.staging)))
    return ChunkWork(
        number=claim.number,
        attempt=claim.attempt,
        spans=claim.spans,
        files=files,
        schema=source.schema_of(files[claim.spans[0].file], context.stores),
        kept=kept_columns(job),
        staging=folder,
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
        stores=context.stores,
        replayed=run.replay_of is not None,
    )


def _check_confined(context: Context, run: RunRecord, claim: Claim) -> None:
    """Raise unless what this chunk reads and writes is where jobs may. Raises: PathOutsideRoots."""
    files = context.ledger.runs.inputs_of(run.id, sorted({span.file for span in claim.spans}))
    check_confined(context, run, [file.path for file in files.values()])


def drop(staging: Staging, scored: Scored) -> None:
    """Remove what an attempt wrote that another one replaced."""
    part = scored.part
    staging.drop([part, sink.profile_name(part), sink.quarantine_name(part)])


def _hung(context: Context, run: RunRecord, claim: Claim, seconds: float) -> None:
    """Give a chunk back whose model does not answer; the next attempt at it is careful."""
    error = ModelHangs(pinned_version(run).uri, seconds)
    with structlog.contextvars.bound_contextvars(run=run.id, chunk=claim.number):
        _try_again(context, run, claim, error, deaths=CAREFUL_AT)


def _try_again(
    context: Context, run: RunRecord, claim: Claim, error: Exception, deaths: int = 0
) -> str:
    """Give the chunk back; fail the run if that was its last attempt."""
    known = isinstance(error, ScoringError)
    text = str(error) if known else f"{type(error).__name__}: {said(error)}"
    log.warning("attempt_failed", attempt=claim.attempt, error=text, exc_info=not known)
    try:
        more = context.ledger.chunks.release(claim, text, deaths=deaths)
    except LeaseLost as lost:
        log.warning("lease_lost", attempt=claim.attempt, error=str(lost))
        return "lease lost"
    if not more:
        context.ledger.runs.fail(run.id, exhausted(claim.number, claim.attempt, text))
        return "run failed"
    try:
        wake(context, run, [claim.number], delay=_pause(claim.attempt, error))
    except BrokerUnreachable as unreachable:
        log.warning("run_not_woken", error=str(unreachable))
    return "attempt failed"


def _pause(attempt: int, error: Exception) -> float:
    """Seconds to wait after a failed attempt; an outage is not over in two."""
    if isinstance(error, RegistryUnreachable):
        return RETRY_SECONDS_MOST
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
