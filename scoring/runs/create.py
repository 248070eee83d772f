"""Create a run: resolve the model once, freeze the input, cut chunks, write it all down at once.

`prepare` does everything that can be refused, and changes nothing but the model cache; `create`
writes the frozen frame beside the parts-to-be and then, in one transaction, the run.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scoring import telemetry
from scoring.data import publish, source
from scoring.data.validate import Expected, fits
from scoring.drift.profile import Profile
from scoring.errors import (
    BrokerUnreachable,
    InputTypeMismatch,
    ReferenceUnreadable,
    ScoringError,
    VariantUnavailable,
)
from scoring.job import Job
from scoring.ledger import Created, NewRun, RunRecord
from scoring.models import Field, Version, features, read_model
from scoring.plan import Chunk, cut
from scoring.runs.context import Context
from scoring.runs.places import Occasion, Places, places

log = telemetry.logger(__name__)

FRAME = "frame.json"
"""In the staging folder: how every chunk of the run counts its columns."""
PRIORITY_TONIGHT = 3
PRIORITY_BACKFILL = 6
"""Celery's order: 0 goes first, 9 last."""
VARIANTS = ("native",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A run that could start now."""

    run_id: str
    job: Job
    occasion: Occasion
    places: Places
    version: Version
    digest: str
    flavor: str
    scanned: Sequence[source.Scanned]
    chunks: Sequence[Chunk]
    reference: Profile | None

    @property
    def rows(self) -> int:
        return sum(one.file.rows for one in self.scanned)


def prepare(context: Context, job: Job, occasion: Occasion) -> Prepared:
    """Plan a run without starting it.

    Raises:
        JobError, InputError, ModelError, OutputError: whatever would make the run pointless.
    """
    run_id = new_run_id(job)
    where = places(
        job,
        run_id,
        occasion,
        artifacts=context.settings.artifacts,
        roots=context.settings.data_roots,
    )
    publish.check_output(where.output)
    version = context.registry.resolve(job.model)
    _check_variant(job, version)
    digest, folder = context.cache.fetch(version)
    files = read_model(folder, version.uri)
    needed = features(files.signature, job.input.columns, version.uri)
    scanned = _scan(where.input, job, needed)
    return Prepared(
        run_id=run_id,
        job=job,
        occasion=occasion,
        places=where,
        version=version,
        digest=digest,
        flavor=files.flavor,
        scanned=scanned,
        chunks=cut([one.file for one in scanned], job.execution.chunk_rows),
        reference=_reference(context, job, version),
    )


def create(
    context: Context,
    job: Job,
    occasion: Occasion,
    *,
    trigger: str,
    idempotency_key: str | None = None,
    priority: int = PRIORITY_TONIGHT,
) -> Created:
    """Create a run and wake its workers; or return the run that this key or slot already has.

    Raises:
        JobError, InputError, ModelError, OutputError: the run would be pointless; nothing is
            recorded.
        BrokerUnreachable: the run is recorded, and the sweep will wake it.
    """
    if idempotency_key is not None:
        earlier = context.ledger.runs.with_idempotency_key(idempotency_key)
        if earlier is not None:
            return Created(run=earlier, new=False)
    prepared = prepare(context, job, occasion)
    created = _record(context, prepared, trigger, idempotency_key, priority)
    if not created.new:
        return created
    _write_plan(prepared)
    log.info("run_created", run=created.run.id, model=prepared.version.uri, rows=prepared.rows)
    wake(context, created.run, [chunk.number for chunk in prepared.chunks])
    return created


def _record(
    context: Context,
    prepared: Prepared,
    trigger: str,
    idempotency_key: str | None,
    priority: int,
) -> Created:
    """Write the frozen frame, then the run; the frame goes again unless the run is new."""
    _freeze_frame(prepared)
    new = False
    try:
        created = context.ledger.runs.create(
            _new_run(prepared, trigger, idempotency_key, priority),
            [one.file for one in prepared.scanned],
            prepared.chunks,
            take_slot=prepared.occasion.scheduled,
        )
        new = created.new
        return created
    finally:
        if not new:
            publish.discard(prepared.places.staging)


def create_or_record(
    context: Context, job: Job, occasion: Occasion, *, trigger: str, priority: int
) -> RunRecord:
    """`create`, for callers nobody listens to: what goes wrong becomes a failed run."""
    try:
        return create(context, job, occasion, trigger=trigger, priority=priority).run
    except BrokerUnreachable as error:
        log.warning("run_not_woken", run=error.run, error=str(error))
        return context.ledger.runs.get(str(error.run))
    except ScoringError as error:
        log.error("run_not_created", job=job.name, slot=occasion.slot, error=str(error))
        run = _unplanned_run(context, job, occasion, trigger, priority)
        return context.ledger.runs.record_failed(run, str(error), take_slot=occasion.scheduled).run


def wake(context: Context, run: RunRecord, indexes: Sequence[int], delay: float = 0.0) -> None:
    """Send the chunks' messages and remember that they were sent.

    Raises:
        BrokerUnreachable: names the run, which is safe.
    """
    try:
        context.doorbell.chunks(run, indexes, delay)
    except BrokerUnreachable as error:
        raise BrokerUnreachable(error.url, error.reason, run.id) from error
    context.ledger.chunks.mark_sent(run.id, indexes)


def new_run_id(job: Job) -> str:
    """Sorts by time within a job, and is safe in paths and URLs."""
    return f"{job.name}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def _check_variant(job: Job, version: Version) -> None:
    if job.precision.variant not in ("auto", *VARIANTS):
        raise VariantUnavailable(version.uri, job.precision.variant, VARIANTS)


def _scan(path: str, job: Job, needed: Sequence[Field]) -> list[source.Scanned]:
    kept = kept_columns(job)
    names = [str(field.name) for field in needed]
    scanned = source.scan(path, [*kept, *names])
    source.check_columns(scanned, [*kept, *names])
    for one in scanned:
        for field in needed:
            found = one.schema.field(str(field.name)).type
            if not fits(found, as_expected(field)):
                raise InputTypeMismatch(one.file.path, str(field.name), str(found), _wanted(field))
        for name in kept:
            first, found = scanned[0].schema.field(name).type, one.schema.field(name).type
            if found != first:
                raise InputTypeMismatch(
                    one.file.path, name, str(found), f"{first}, as in {scanned[0].file.path}"
                )
    return scanned


def kept_columns(job: Job) -> list[str]:
    """Key and passthrough columns, in output order."""
    return [*job.key, *job.output.passthrough]


def as_expected(field: Field) -> Expected:
    """A field of the signature as the validator sees it, nulls aside."""
    return Expected(
        name=str(field.name),
        type=field.type,
        width=field.width if field.shape is not None else 1,
        allow_null=not field.required,
    )


def _wanted(field: Field) -> str:
    return str(field.type) if field.shape is None else f"a list of {field.type}"


def _reference(context: Context, job: Job, version: Version) -> Profile | None:
    """The reference profile that the job names, or ``None`` when there is none yet."""
    named = job.drift.reference
    if named == "model":
        text = context.registry.reference_profile(version)
    elif named == "previous":
        published = context.ledger.runs.latest(job=job.name, states=["published"], limit=1)
        path = Path(published[0].artifacts) / "profile.json" if published else None
        text = path.read_text(encoding="utf-8") if path and path.is_file() else None
    else:
        try:
            text = Path(named).read_text(encoding="utf-8")
        except OSError as error:
            raise ReferenceUnreadable(named, error.strerror or str(error)) from error
    if text is None:
        return None
    try:
        return Profile.from_json(text).as_reference()
    except (ValueError, KeyError) as error:
        raise ReferenceUnreadable(named, str(error)) from error


def _freeze_frame(prepared: Prepared) -> None:
    staging = prepared.places.staging
    staging.mkdir(parents=True, exist_ok=True)
    reference = prepared.reference
    minima = [one.minima for one in prepared.scanned]
    document = {
        "reference": None if reference is None else reference.to_json(),
        "origins": {
            name: min(found[name] for found in minima if name in found)
            for name in sorted({name for found in minima for name in found})
        },
    }
    (staging / FRAME).write_text(json.dumps(document), encoding="utf-8")


def read_frame(staging: Path) -> tuple[Profile | None, Mapping[str, float]]:
    """The reference profile and the open grids' origins that a run was frozen with."""
    document = json.loads((staging / FRAME).read_text(encoding="utf-8"))
    text = document["reference"]
    return None if text is None else Profile.from_json(text), document["origins"]


def _write_plan(prepared: Prepared) -> None:
    folder = prepared.places.artifacts
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plan_document(prepared), indent=2) + "\n"
    (folder / "plan.json").write_text(text, encoding="utf-8")


def plan_document(prepared: Prepared) -> dict[str, Any]:
    """What would run: for `scoring plan` and the run's ``plan.json``."""
    return {
        "job": prepared.job.name,
        "fingerprint": prepared.job.fingerprint,
        "slot": prepared.occasion.slot,
        "model": prepared.version.uri,
        "digest": prepared.digest,
        "flavor": prepared.flavor,
        "input": prepared.places.input,
        "output": str(prepared.places.output),
        "rows_in": prepared.rows,
        "reference": prepared.reference is not None,
        "files": [
            {
                "path": one.file.path,
                "size": one.file.size,
                "stamp": one.file.stamp,
                "rows": one.file.rows,
                "row_groups": len(one.file.row_groups),
            }
            for one in prepared.scanned
        ],
        "chunks": [
            {"number": chunk.number, "rows": chunk.rows, "spans": len(chunk.spans)}
            for chunk in prepared.chunks
        ],
    }


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
        variant="native",
        device=job.execution.device,
        output=str(prepared.places.output),
        staging=str(prepared.places.staging),
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
