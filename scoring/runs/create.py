"""Create a run: what `prepare` planned is written down at once, then workers are woken."""

from __future__ import annotations

import re
from collections.abc import Sequence

from scoring import telemetry
from scoring.data.room import room_in
from scoring.errors import (
    BrokerUnreachable,
    KeyInvalid,
    KeyTaken,
    RegistryUnreachable,
    ScoringError,
    ServiceError,
    SubmissionRefused,
)
from scoring.job import Job
from scoring.ledger import Created, NewRun, RunRecord
from scoring.runs.context import Context
from scoring.runs.frame import discard_frame, freeze_frame
from scoring.runs.places import Occasion
from scoring.runs.prepare import Prepared, new_run_id, prepare, write_plan

log = telemetry.logger(__name__)

PRIORITY_TONIGHT = 3
PRIORITY_BACKFILL = 6
"""Celery's order: 0 goes first, 9 last."""
KEY_LENGTH = 200
"""Characters of an idempotency key, at the most."""


def create(
    context: Context,
    job: Job,
    occasion: Occasion,
    *,
    trigger: str,
    idempotency_key: str | None = None,
    priority: int = PRIORITY_TONIGHT,
    who: str | None = None,
) -> Created:
    """Create a run and wake its workers; or return the run that this key or slot already has.

    ``who`` asked for it is on record, and may ask so many times a minute; a schedule asks as
    nobody.

    Raises:
        SubmissionRefused: they have used up their share; nothing is recorded.
        JobError, InputError, ModelError, OutputError: the run would be pointless; nothing is
            recorded.
        BrokerUnreachable: the run is recorded, and the sweep will wake it.
    """
    if idempotency_key is not None:
        _check_key(idempotency_key)
        earlier = context.ledger.runs.with_idempotency_key(idempotency_key)
        if earlier is not None:
            return _same(earlier, job, occasion, idempotency_key)
    if trigger == "manual" and who is not None:
        _admit(context, who)
    prepared = prepare(context, job, occasion)
    return start(context, prepared, trigger, idempotency_key, priority, who)


def start(
    context: Context,
    prepared: Prepared,
    trigger: str,
    idempotency_key: str | None = None,
    priority: int = PRIORITY_TONIGHT,
    who: str | None = None,
) -> Created:
    """Record a run that was planned, and wake its workers, unless its key or slot has one."""
    run = _new_run(prepared, trigger, idempotency_key, priority)
    created = _record(context, prepared, run, who)
    if not created.new:
        return created
    if prepared.resolution == "last":
        _note_outage(context, prepared)
    write_plan(prepared)
    log.info("run_created", run=created.run.id, model=prepared.version.uri, rows=prepared.rows)
    wake(context, created.run, [chunk.number for chunk in prepared.chunks])
    return created


def _note_outage(context: Context, prepared: Prepared) -> None:
    """Keep with the run that the registry was not there to ask, and what that meant for it."""
    context.ledger.runs.note(
        prepared.run_id,
        "last_version_used",
        model=prepared.version.uri,
        digest=prepared.digest,
        reference=None if prepared.baseline is None else prepared.baseline.compared_with.kind,
    )


def _same(earlier: RunRecord, job: Job, occasion: Occasion, key: str) -> Created:
    if (earlier.job, earlier.slot) != (job.name, occasion.slot):
        raise KeyTaken(key, earlier.id, earlier.job, earlier.slot or "no date")
    return Created(run=earlier, new=False)


def _check_key(key: str) -> None:
    if not 0 < len(key) <= KEY_LENGTH or re.search("[\x00\ud800-\udfff]", key):
        raise KeyInvalid(key)


def _admit(context: Context, who: str) -> None:
    """Let them submit once more, or say from when on they may."""
    most = context.settings.submissions_per_minute
    seconds = context.ledger.callers.take(who, most) if most else 0.0
    if seconds > 0.0:
        raise SubmissionRefused(who, most, seconds)


def _record(context: Context, prepared: Prepared, run: NewRun, who: str | None) -> Created:
    """Write the frozen frame, then the run; the frame goes again unless the run is new."""
    new = False
    try:
        with room_in(prepared.places.artifacts):
            freeze_frame(prepared)
        created = context.ledger.runs.create(
            run,
            [one.file for one in prepared.scanned],
            prepared.chunks,
            take_slot=prepared.occasion.scheduled,
            who=who,
        )
        new = created.new
        return created
    finally:
        if not new:
            discard_frame(prepared.places.artifacts)


def create_or_record(
    context: Context,
    job: Job,
    occasion: Occasion,
    *,
    trigger: str,
    priority: int,
    idempotency_key: str | None = None,
    who: str | None = None,
) -> RunRecord:
    """`create`, for callers nobody listens to: what goes wrong becomes a failed run.

    Raises:
        ServiceError, RegistryUnreachable: an outage; nothing is recorded, so that the slot or
            message can be tried again when it is over.
        SubmissionRefused: the same, as they have asked too often just now.
    """
    try:
        return create(
            context,
            job,
            occasion,
            trigger=trigger,
            idempotency_key=idempotency_key,
            priority=priority,
            who=who,
        ).run
    except BrokerUnreachable as error:
        log.warning("run_not_woken", run=error.run, error=str(error))
        return context.ledger.runs.get(str(error.run))
    except (ServiceError, RegistryUnreachable, SubmissionRefused):
        raise
    except Exception as error:
        known = isinstance(error, ScoringError)
        why = str(error) if known else f"{type(error).__name__}: {error}"
        log.error(
            "run_not_created", job=job.name, slot=occasion.slot, error=why, exc_info=not known
        )
        run = _unplanned_run(context, job, occasion, trigger, priority)
        failed = context.ledger.runs.record_failed(run, why, take_slot=occasion.scheduled, who=who)
        return failed.run


def wake(context: Context, run: RunRecord, indexes: Sequence[int], delay: float = 0.0) -> None:
    """Send the chunks' messages and remember that they were sent.

    Raises:
        BrokerUnreachable: names the run, which is safe.
    """
    try:
        context.doorbell.chunks(run, indexes, delay)
    except BrokerUnreachable as error:
        raise BrokerUnreachable(error.url, error.reason, run.id) from error
    context.ledger.chunks.mark_sent(run.id, indexes, delay)


def wake_finisher(context: Context, run: RunRecord) -> None:
    """Wake a finisher; if nobody hears it, the sweep wakes another."""
    try:
        context.doorbell.finish(run)
    except BrokerUnreachable as error:
        log.warning("finisher_not_woken", run=run.id, error=str(error))


def _new_run(
    prepared: Prepared, trigger: str, idempotency_key: str | None, priority: int
) -> NewRun:
    job = prepared.job
    return NewRun(
        id=prepared.run_id,
        job=job.name,
        slot=prepared.occasion.slot,
        trigger=trigger,
        idempotency_key=idempotency_key,
        job_json=job.to_json(),
        fingerprint=job.fingerprint,
        model=job.model,
        model_name=prepared.version.name,
        model_version=prepared.version.version,
        model_source=prepared.version.source,
        model_digest=prepared.digest,
        flavor=prepared.flavor,
        resolution=prepared.resolution,
        replay_of=prepared.replay_of,
        variant=None,
        device=job.execution.device,
        output=prepared.places.output,
        staging=prepared.places.staging,
        artifacts=str(prepared.places.artifacts),
        queue=job.execution.queue,
        priority=priority,
        max_attempts=job.execution.max_attempts,
        deadline_seconds=_deadline(job, trigger),
    )


def _unplanned_run(
    context: Context, job: Job, occasion: Occasion, trigger: str, priority: int
) -> NewRun:
    run_id = new_run_id(job)
    return NewRun(
        id=run_id,
        job=job.name,
        slot=occasion.slot,
        trigger=trigger,
        idempotency_key=None,
        job_json=job.to_json(),
        fingerprint=job.fingerprint,
        model=job.model,
        model_name=None,
        model_version=None,
        model_source=None,
        model_digest=None,
        flavor=None,
        variant=None,
        device=job.execution.device,
        output=job.output.path,
        staging=None,
        artifacts=str(context.settings.artifacts / job.name / run_id),
        queue=job.execution.queue,
        priority=priority,
        max_attempts=job.execution.max_attempts,
        deadline_seconds=None,
    )


def _deadline(job: Job, trigger: str) -> float | None:
    if job.schedule is None or trigger != "schedule":
        return None
    return job.schedule.deadline_minutes * 60.0
