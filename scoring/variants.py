"""The variants of a model on this machine: found now, or remembered from a search before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from scoring.errors import SampleMissing, SearchFailed, VariantUnavailable
from scoring.job import Precision
from scoring.models import features, read_model
from scoring.models.build import has_variants
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
    tensorrt: bool = False,
    again: bool = False,
) -> SearchResult:
    """Every variant of the version that ``model`` means now, built, judged and timed.

    ``path`` names Parquet rows to judge by, with their known ``label`` if there is one, and so does
    not look at what is remembered; without it the rows of the version's reference are used.
    ``again`` searches anew; what was found before stands until there is a new result.

    Raises:
        ModelError, InputError: the model or the rows cannot be used.
        SampleMissing: there are no rows to judge by.
        SearchFailed: the search did not end well; what is remembered stands.
    """
    version = context.registry.resolve(model)
    digest, folder = context.cache.fetch(version)
    files = read_model(folder, version.uri)
    if not has_variants(files):
        why = f"no variant can be made of a model of the flavor {files.flavor}"
        raise VariantUnavailable(version.uri, "but native", ("native",), why)
    needed = features(files.signature, columns, version.uri)
    about = search.subject(
        context, files, digest, columns=columns, device=device, tensorrt=tensorrt
    )

    def rows() -> tuple[pa.Table, str]:
        most = sample.rows_wanted(files)
        if path is not None:
            return sample.from_files(str(Path(path).absolute()), needed, most, label), "given"
        found = sample.from_reference(context, version, needed, most)
        if found is None:
            raise SampleMissing(version.uri)
        return found, "reference"

    anew = again or path is not None
    found = search.find(context, about, rows, lambda: None, again=anew)
    if found is None or found.failure:
        raise SearchFailed(version.uri, "fastest", found.failure if found else "it was given up")
    return found.result


def document(found: SearchResult, limits: Precision) -> dict[str, Any]:
    """What `scoring models variants --json` shows."""
    try:
        choice = choose(found, limits.model_copy(update={"variant": "auto"}))
        chosen, batch_rows, why = choice.variant, choice.batch_rows, choice.why
    except VariantUnavailable as error:
        chosen, batch_rows, why = None, None, error.reason
    return {
        "model": found.model,
        "model_digest": found.model_digest,
        "device": found.device,
        "runtimes": found.runtimes,
        "rows": found.rows,
        "sample": found.sample,
        "seconds": found.seconds,
        "chosen": chosen,
        "batch_rows": batch_rows,
        "why": why,
        "variants": [_row(one, limits, chosen) for one in found.candidates],
        "others": [_row(one, limits, None) for one in found.others],
    }


def _row(one: Candidate, limits: Precision, chosen: str | None) -> dict[str, Any]:
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
        "chosen": one.variant == chosen,
    }
