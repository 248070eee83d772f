"""The variants of a model on this machine: found now, or remembered from a search before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from scoring.errors import SampleMissing
from scoring.job import Precision
from scoring.models import features, read_model
from scoring.models.choice import choose, verdict
from scoring.models.search_request import Device
from scoring.models.search_result import Candidate, SearchResult
from scoring.runs import Context, sample, search


def of_model(
    context: Context,
    model: str,
    *,
    path: str | None = None,
    label: str = "",
    columns: tuple[str, ...] = (),
    device: Device = "auto",
    again: bool = False,
) -> SearchResult:
    """Every variant of the version that ``model`` means now, built, judged and timed.

    ``path`` names Parquet rows to judge by, with their known ``label`` if there is one; without it
    the rows of the version's reference are used. ``again`` forgets what an earlier search found.

    Raises:
        ModelError, InputError: the model or the rows cannot be used.
        SampleMissing: there are no rows to judge by.
    """
    version = context.registry.resolve(model)
    digest, folder = context.cache.fetch(version)
    files = read_model(folder, version.uri)
    needed = features(files.signature, columns, version.uri)
    about = search.subject(context, files, digest, columns=columns, device=device)
    if again:
        context.ledger.searches.forget(about.key)

    def rows() -> tuple[pa.Table, str]:
        most = sample.rows_wanted(files)
        if path is not None:
            return sample.from_files(str(Path(path).absolute()), needed, most, label), "given"
        found = sample.from_reference(context, version, needed, most)
        if found is None:
            raise SampleMissing(version.uri)
        return found, "reference"

    return search.find(context, about, rows, lambda: None).result


def document(found: SearchResult, limits: Precision) -> dict[str, Any]:
    """What `scoring models variants --json` shows."""
    choice = choose(found, limits.model_copy(update={"variant": "auto"}))
    return {
        "model": found.model,
        "model_digest": found.model_digest,
        "device": found.device,
        "runtimes": found.runtimes,
        "rows": found.rows,
        "sample": found.sample,
        "seconds": found.seconds,
        "chosen": choice.variant,
        "batch_rows": choice.batch_rows,
        "why": choice.why,
        "variants": [_row(one, limits, choice.variant) for one in found.candidates],
        "others": [_row(one, limits, choice.variant) for one in found.others],
    }


def _row(one: Candidate, limits: Precision, chosen: str) -> dict[str, Any]:
    reasons = verdict(one, limits)
    compared, best = one.comparison, one.best
    return {
        "variant": one.variant,
        "recipe": one.recipe,
        "size_bytes": one.size_bytes or None,
        "mean_error": compared.mean_error if compared else None,
        "max_error": compared.max_error if compared else None,
        "relative": compared.relative if compared else None,
        "agreement": compared.agreement if compared else None,
        "r2": compared.determination if compared else None,
        "batch_error": compared.batch_error if compared else None,
        "labels": None
        if compared is None or compared.labels is None
        else {
            "metric": compared.labels.metric,
            "native": compared.labels.native,
            "variant": compared.labels.variant,
        },
        "batch_rows": best.batch_rows if best else None,
        "rows_per_second": best.rows_per_second if best else None,
        "timings": [
            {"batch_rows": timing.batch_rows, "rows_per_second": timing.rows_per_second}
            for timing in one.timings
        ],
        "admitted": not reasons,
        "reasons": list(reasons),
        "chosen": one.variant == chosen and bool(one.timings or not one.recipe),
    }
