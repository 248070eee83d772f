"""Plan a run: resolve the model once, scan the input, cut chunks, find what to compare it with.

Everything that can be refused is refused here, and nothing is changed but the model cache.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from scoring.data import source
from scoring.data.output import output_at
from scoring.data.stores import Stores
from scoring.data.validate import fits
from scoring.errors import InputError, InputTypeMismatch, InputTypesDiffer, JobFileInvalid
from scoring.job import Job
from scoring.ledger import Resolution
from scoring.models import Field, Version, features, read_model
from scoring.pipeline import expected_column
from scoring.plan import Chunk, cut
from scoring.runs.baseline import Baseline, find_baseline
from scoring.runs.context import Context
from scoring.runs.pin import pin
from scoring.runs.places import Occasion, Places, check_within, places
from scoring.urls import is_below


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
    resolution: Resolution
    scanned: Sequence[source.Scanned]
    chunks: Sequence[Chunk]
    baseline: Baseline | None
    replay_of: str | None = None
    """The run whose quarantined rows it scores again."""

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
    check_within(where.staging, "output.path", context.settings.data_roots)
    output_at(where.output, context.stores, context.settings.data_roots).check()
    planned = plan_at(context, job, occasion, run_id, where, context.settings.data_roots)
    baseline = find_baseline(context, job, occasion, planned.version, planned.resolution)
    return replace(planned, baseline=baseline)


def plan_at(
    context: Context,
    job: Job,
    occasion: Occasion,
    run_id: str,
    where: Places,
    roots: Sequence[str],
) -> Prepared:
    """Plan a run whose places are known, input below the roots (none: anywhere), no baseline."""
    pinned = pin(context, job)
    version = pinned.version
    files = read_model(pinned.folder, version.uri)
    context.trust.check(files)
    needed = features(files.signature, job.input.columns, version.uri)
    try:
        scanned = _scan(context.stores, where, job, needed)
    except InputError as error:  # which may tell of a file that no job may read
        check_within(getattr(error, "path", where.input), "input.path", roots)
        raise
    for one in scanned:  # what a search finds may be a link that leads elsewhere
        check_within(one.file.path, "input.path", roots)
    return Prepared(
        run_id=run_id,
        job=job,
        occasion=occasion,
        places=where,
        version=version,
        digest=pinned.digest,
        flavor=files.flavor,
        resolution=pinned.resolution,
        scanned=scanned,
        chunks=cut([one.file for one in scanned], job.execution.chunk_rows),
        baseline=None,
    )


def _check_apart(job: Job, path: str, output: str) -> None:
    """What the job's text cannot show: a link by which a run would read or replace its output."""
    if is_below(path, output):
        fault = (
            f"output.path is {output}; it holds {path}, which input.path finds. It must be a "
            "folder apart from the input, or a run would replace or read its own files. Nothing "
            "was started."
        )
        raise JobFileInvalid(f"job {job.name}", [fault])


def new_run_id(job: Job) -> str:
    """Sorts by time within a job, and is safe in paths and URLs."""
    return f"{job.name}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def kept_columns(job: Job) -> list[str]:
    """Key and passthrough columns, in output order."""
    return [*job.key, *job.output.passthrough]


def plan_document(prepared: Prepared) -> dict[str, Any]:
    """What would run: for `scoring plan` and the run's ``plan.json``."""
    baseline = prepared.baseline
    return {
        "job": prepared.job.name,
        "fingerprint": prepared.job.fingerprint,
        "slot": prepared.occasion.slot,
        "model": prepared.version.uri,
        "digest": prepared.digest,
        "resolution": prepared.resolution,
        "flavor": prepared.flavor,
        "input": prepared.places.input,
        "output": prepared.places.output,
        "rows_in": prepared.rows,
        "reference": baseline is not None,
        "compared_with": None if baseline is None else baseline.compared_with.to_dict(),
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


def write_plan(prepared: Prepared) -> None:
    folder = prepared.places.artifacts
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plan_document(prepared), indent=2) + "\n"
    (folder / "plan.json").write_text(text, encoding="utf-8")


def _scan(stores: Stores, where: Places, job: Job, needed: Sequence[Field]) -> list[source.Scanned]:
    kept = kept_columns(job)
    names = [str(field.name) for field in needed]
    scanned = source.scan(where.input, [*kept, *names], stores)
    for one in scanned:
        _check_apart(job, one.file.path, str(where.output))
    source.check_columns(scanned, [*kept, *names])
    for one in scanned:
        for field in needed:
            found = one.schema.field(str(field.name)).type
            if not fits(found, expected_column(field, allow_null=True)):
                raise InputTypeMismatch(one.file.path, str(field.name), str(found), _wanted(field))
        for name in kept:
            first, found = scanned[0].schema.field(name).type, one.schema.field(name).type
            if found != first:
                raise InputTypesDiffer(
                    one.file.path, name, str(found), scanned[0].file.path, str(first)
                )
    return scanned


def _wanted(field: Field) -> str:
    return str(field.type) if field.shape is None else f"a list of {field.type}"
