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
from scoring.errors import (
    ModelError,
    OutputError,
    RunNotInState,
    SearchFailed,
    VariantDamaged,
    VariantUnavailable,
)
from scoring.job import Job
from scoring.ledger import RunRecord
from scoring.models import EngineOptions, ModelFiles, features, read_model
from scoring.models.build import AS_REGISTERED, has_variants
from scoring.models.built import Built
from scoring.models.cache import folder_digest
from scoring.models.choice import Choice, choose
from scoring.models.loadable import Loadable
from scoring.models.search_result import Candidate, SearchResult
from scoring.runs import sample, search
from scoring.runs.context import Context, pinned_version

log = telemetry.logger(__name__)


def pinned(context: Context, run: RunRecord, job: Job, check: Callable[[], None]) -> RunRecord:
    """The run with its variant; chosen now, if no worker has yet.

    Raises:
        VariantUnavailable, VariantRefused: the job names a variant that may not be used.
        SearchFailed: it could not be found out now.
        RunNotInState: the run has ended meanwhile.
    """
    if run.variant is not None:
        return run
    files = _files(context, run)
    wanted = job.precision.variant
    if wanted not in ("auto", "native") and not has_variants(files):
        why = f"no variant can be made of a model of the flavor {files.flavor}"
        raise VariantUnavailable(files.model, wanted, ("native",), why)
    if wanted == "auto" and not has_variants(files):
        found: search.Found | None = None
    else:
        found = _found(context, run, job, files, check)
        if found is None and wanted != "native":  # settled meanwhile
            return _with_variant(context, run.id)
    if found is not None and found.failure and wanted not in ("auto", "native"):
        raise SearchFailed(files.model, wanted, found.failure)
    choice = choose(found.result, job.precision) if found else _native(job)
    candidate = None if found is None else found.result.of(choice.variant)
    mine = context.ledger.runs.pin_variant(
        run.id,
        variant=choice.variant,
        batch_rows=choice.batch_rows,
        search=found.key if found else None,
        precision=json.dumps(document(choice, candidate), allow_nan=False),
    )
    if mine:
        log.info("variant_pinned", variant=choice.variant, batch=choice.batch_rows, why=choice.why)
        if found is not None and not found.failure and _is_news(context, run, found.key, choice):
            _tell_registry(context, run, job, found.result, choice)
    return _with_variant(context, run.id)


def document(choice: Choice, candidate: Candidate | None) -> dict[str, Any]:
    """A choice with its numbers and its files, for the ledger, the manifest and JSON."""
    compared = asdict(choice.comparison) if choice.comparison else None
    return {
        "variant": choice.variant,
        "recipe": choice.recipe,
        "batch_rows": choice.batch_rows,
        "rows_per_second": choice.rows_per_second,
        "native_rows_per_second": choice.native_rows_per_second,
        "why": choice.why,
        "gate": compared,
        "engine": candidate.engine if candidate else "",
        "folder": candidate.folder if candidate else "",
        "digest": candidate.digest if candidate else "",
        "refused": list(candidate.refused) if candidate else [],
        "bounded": list(candidate.bounded) if candidate else [],
    }


def to_load(context: Context, run: RunRecord, job: Job) -> Loadable:
    """What a run whose variant is pinned is scored with, by the pin alone.

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
    pin = json.loads(run.precision) if run.precision else None  # None: planned before variants
    if pin is None or not pin["folder"]:
        return Loadable(model=files.model, folder=files.folder, built=None, options=options)
    folder = search.variant_folder(context, str(run.search), pin["folder"])
    if not folder.is_dir() or folder_digest(folder) != pin["digest"]:
        raise VariantDamaged(files.model, str(run.variant), str(folder))
    built = Built(
        variant=str(run.variant),
        recipe=pin["recipe"],
        engine=pin["engine"],
        folder=folder,
        refused=tuple(pin["refused"]),
        bounded=tuple(pin["bounded"]),
    )
    return Loadable(model=files.model, folder=files.folder, built=built, options=options)


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


def _found(
    context: Context, run: RunRecord, job: Job, files: ModelFiles, check: Callable[[], None]
) -> search.Found | None:
    """What there is to choose from; ``None`` if that is settled, or native needs no search."""
    about = search.subject(
        context,
        files,
        str(run.model_digest),
        columns=job.input.columns,
        device=job.execution.device,
        tensorrt=job.execution.tensorrt,
    )
    if job.precision.variant == "native":
        return search.remembered(context, about)  # not worth a search, but it knows the best batch
    return search.find(
        context,
        about,
        partial(_sample_rows, context, run, job, files),
        check,
        settled=lambda: _is_settled(context.ledger.runs.get(run.id)),
        fit=partial(_is_kept, context, job),
    )


def _is_settled(run: RunRecord) -> bool:
    """Whether another worker has pinned the variant, or the run has ended and needs none."""
    return run.variant is not None or run.state != "running"


def _with_variant(context: Context, run_id: str) -> RunRecord:
    """The run as it is now. Raises: RunNotInState: it ended before a variant was pinned."""
    now = context.ledger.runs.get(run_id)
    if now.variant is None:
        raise RunNotInState(now.id, now.state, "running")
    return now


def _is_kept(context: Context, job: Job, known: search.Found) -> bool:
    """Whether the files of what would be chosen are still where they were built."""
    candidate = known.result.of(choose(known.result, job.precision).variant)
    if candidate is None or not candidate.folder:
        return True
    return search.variant_folder(context, known.key, candidate.folder).is_dir()


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
    except (ModelError, OutputError, pa.ArrowException, OSError) as error:
        log.warning("reference_sample_unreadable", error=str(error))  # the run's own rows will do
        return None


def _files(context: Context, run: RunRecord) -> ModelFiles:
    """The pinned model on this machine. Raises: ModelUntrusted: it may not be loaded."""
    version = pinned_version(run)
    files = read_model(Path(context.cache.get(version, str(run.model_digest))), version.uri)
    context.trust.check(files)
    return files


def _is_news(context: Context, run: RunRecord, key: str, choice: Choice) -> bool:
    """Whether the job's run before this one used something else; a replay's choice is no news."""
    if run.replay_of is not None:
        return False
    latest = context.ledger.runs.latest(job=run.job, limit=2, replays=False)
    before = [one for one in latest if one.id != run.id]
    return not before or (before[0].search, before[0].variant) != (key, choice.variant)


def _tell_registry(
    context: Context, run: RunRecord, job: Job, found: SearchResult, choice: Choice
) -> None:
    """Show the choice on the model's page; the run does not depend on it."""
    try:
        context.registry.log_variants(pinned_version(run), job.name, found, choice)
    except (ModelError, OutputError) as error:
        log.warning("variants_not_logged", error=str(error))
