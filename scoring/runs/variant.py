"""Pin the variant that every chunk of a run is scored with, and load it.

The first worker that scores a chunk of the run chooses, on its own device; one conditional
statement writes the choice into the run, and whoever comes later reads it there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from scoring import telemetry
from scoring.errors import RegistryUnreachable, VariantDamaged
from scoring.job import Job
from scoring.ledger import RunRecord
from scoring.models import Engine, EngineOptions, ModelFiles, features, load, load_built, read_model
from scoring.models.build import AS_REGISTERED, has_variants
from scoring.models.built import Built
from scoring.models.cache import folder_digest
from scoring.models.choice import Choice, choose
from scoring.models.search_result import Candidate, SearchResult
from scoring.runs import sample, search
from scoring.runs.context import Context, pinned_version

log = telemetry.logger(__name__)


def pinned(context: Context, run: RunRecord, job: Job, check: Callable[[], None]) -> RunRecord:
    """The run with its variant; chosen now, if no worker has yet.

    Raises:
        VariantUnavailable, VariantRefused: the job names a variant that may not be used.
    """
    if run.variant is not None:
        return run
    files = _files(context, run)
    about = search.subject(
        context,
        files,
        str(run.model_digest),
        columns=job.input.columns,
        device=job.execution.device,
        tensorrt=job.execution.tensorrt,
    )
    if job.precision.variant == "native":
        found = search.remembered(context, about)  # not worth a search, but it knows the batch
    elif job.precision.variant == "auto" and not has_variants(files):
        found = None
    else:
        rows = partial(_sample_rows, context, run, job, files)
        found = search.find(context, about, rows, check)
    choice = choose(found.result, job.precision) if found else _native(job)
    candidate = None if found is None else found.result.of(choice.variant)
    mine = context.ledger.runs.pin_variant(
        run.id,
        variant=choice.variant,
        batch_rows=choice.batch_rows,
        search=found.key if found else None,
        precision=json.dumps(document(choice, candidate)),
    )
    if mine:
        log.info("variant_pinned", variant=choice.variant, batch=choice.batch_rows, why=choice.why)
        if found is not None and found.new:
            _tell_registry(context, run, job, found.result, choice)
    return context.ledger.runs.get(run.id)


def document(choice: Choice, candidate: Candidate | None) -> dict[str, Any]:
    """A choice with its numbers, for the ledger, the manifest and JSON."""
    compared = asdict(choice.comparison) if choice.comparison else None
    return {
        "variant": choice.variant,
        "recipe": choice.recipe,
        "batch_rows": choice.batch_rows,
        "rows_per_second": choice.rows_per_second,
        "native_rows_per_second": choice.native_rows_per_second,
        "why": choice.why,
        "gate": compared,
        "digest": candidate.digest if candidate else "",
    }


def load_pinned(context: Context, run: RunRecord, job: Job) -> Engine:
    """The engine of a run whose variant is pinned.

    Raises:
        VariantDamaged: the variant's files are not those that were judged.
    """
    files = _files(context, run)
    options = EngineOptions(
        device=job.execution.device,
        threads=context.threads,
        columns=job.input.columns,
        batch_rows=run.batch_rows or 0,
        tensorrt=job.execution.tensorrt,
        cache=context.settings.engine_cache,
    )
    text = context.ledger.searches.result(run.search) if run.search else None
    candidate = SearchResult.from_json(text).of(str(run.variant)) if text else None
    if candidate is None or not candidate.folder:
        return load(files, options)
    folder = search.variant_folder(context, str(run.search), candidate)
    judged = json.loads(str(run.precision))["digest"]
    if not folder.is_dir() or folder_digest(folder) != judged:
        raise VariantDamaged(files.model, candidate.variant, str(folder))
    built = Built(
        variant=candidate.variant,
        recipe=candidate.recipe,
        engine=candidate.engine,
        folder=folder,
        refused=candidate.refused,
    )
    return load_built(files, built, options)


def remember_ceiling(context: Context, run: RunRecord, batch_rows: int) -> None:
    """After memory ran out: the smaller batch, for the rest of the run and for runs to come."""
    log.warning("batch_shrunk", variant=run.variant, batch=batch_rows)
    context.ledger.runs.shrink_batch(run.id, batch_rows)
    text = context.ledger.searches.result(run.search) if run.search else None
    if text is not None:
        limited = SearchResult.from_json(text).limited(str(run.variant), batch_rows)
        context.ledger.searches.replace(str(run.search), text, limited.to_json())


def _native(job: Job) -> Choice:
    why = (
        "the job asks for native"
        if job.precision.variant == "native"
        else "no variant can be made of this flavor"
    )
    return Choice(
        variant="native",
        recipe=AS_REGISTERED,
        batch_rows=0,
        rows_per_second=None,
        native_rows_per_second=None,
        comparison=None,
        why=why,
    )


def _sample_rows(
    context: Context, run: RunRecord, job: Job, files: ModelFiles
) -> tuple[pa.Table, str]:
    """The rows to judge by, and where they come from."""
    needed = features(files.signature, job.input.columns, files.model)
    most = sample.rows_wanted(files)
    table = _reference_rows(context, run, needed, most)
    if table is not None and table.num_rows >= sample.FEWEST_ROWS:
        return table, "reference"
    return sample.from_run(context, run, needed, most), "input"


def _reference_rows(context: Context, run: RunRecord, needed: Any, most: int) -> pa.Table | None:
    try:
        return sample.from_reference(context, pinned_version(run), needed, most)
    except RegistryUnreachable as error:  # the run's own rows will do
        log.warning("reference_sample_unreachable", error=str(error))
        return None


def _files(context: Context, run: RunRecord) -> ModelFiles:
    version = pinned_version(run)
    return read_model(Path(context.cache.get(version, str(run.model_digest))), version.uri)


def _tell_registry(
    context: Context, run: RunRecord, job: Job, found: SearchResult, choice: Choice
) -> None:
    """Show the choice on the model's page; the run does not depend on it."""
    try:
        context.registry.log_variants(pinned_version(run), job.name, found, choice)
    except RegistryUnreachable as error:
        log.warning("variants_not_logged", error=str(error))
