"""The variants of a model on this machine: found now, or remembered from a search before."""

from __future__ import annotations

import pyarrow as pa

from scoring.errors import SampleMissing, SearchFailed, VariantUnavailable
from scoring.models import features, read_model
from scoring.models.build import has_variants
from scoring.models.search_request import Device
from scoring.models.search_result import SearchResult
from scoring.runs import Context, sample, search
from scoring.runs.places import whole_place


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
    context.trust.check(files)
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
            whole = whole_place(path, "--from")
            given = sample.from_files(whole, needed, most, label, context.stores)
            return given, "given"
        found = sample.from_reference(context, version, needed, most)
        if found is None:
            raise SampleMissing(version.uri)
        return found, "reference"

    old = search.remembered(context, about) if again or path is not None else None
    found = search.find(context, about, rows, lambda: None, fit=lambda found: found != old)
    if found is None or found.failure:
        raise SearchFailed(version.uri, "fastest", found.failure if found else "it was given up")
    return found.result
