"""Reference profiles: what a model was trained on, kept with its version in the registry.

A reference comes from training rows (features read, outputs predicted by the version itself) or
from a run. Training rows also leave a sample, by which variants of the model are judged. Later runs
of the version are counted on the reference's edges and compared with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scoring.data import source
from scoring.data.validate import validate
from scoring.drift.frame import Role
from scoring.drift.profile import Profile, reference_from
from scoring.errors import ReferenceMissing, RunNotInState
from scoring.models import Engine, EngineOptions, load, read_model, score
from scoring.pipeline import by_name, expected_columns, feature_kinds
from scoring.plan import whole
from scoring.runs import Context, sample

Columns = dict[str, pa.Array]


def read(context: Context, model: str) -> Profile:
    """The reference profile of the version that ``model`` means now.

    Raises:
        ReferenceMissing: it has none yet.
    """
    version = context.registry.resolve(model)
    text = context.registry.reference_profile(version)
    if text is None:
        raise ReferenceMissing(version.uri)
    return Profile.from_json(text)


def from_training(
    context: Context,
    model: str,
    path: str,
    columns: Sequence[str] = (),
    label: str = "",
    *,
    keep_sample: bool = True,
) -> Profile:
    """Profile training rows and the version's own outputs on them; log it to the version.

    Unless told otherwise, some of the rows are logged with it, with their ``label`` if it is named:
    variants of the model are judged by them.

    Rows that break the signature are not predicted, as they would be quarantined in a run.
    ``columns`` are the job's ``[input] columns``.

    Raises:
        InputError, ModelError: the rows or the model cannot be used.
    """
    version = context.registry.resolve(model)
    _, folder = context.cache.fetch(version)
    options = EngineOptions(device="auto", threads=context.threads, columns=tuple(columns))
    files = read_model(folder, version.uri)
    engine = load(files, options)
    names = [str(feature.name) for feature in engine.features]
    scanned = source.scan(path, names)
    source.check_columns(scanned, names)
    kinds: list[tuple[str, Role, Any]] = [*feature_kinds(expected_columns(engine))]
    kinds += [(name, "output", values.type) for name, values in _sample_outputs(scanned, engine)]
    profile = reference_from(lambda: _predicted(scanned, engine), kinds)
    if not keep_sample:
        context.registry.log_reference(version, profile.to_json())
        return profile
    rows = sample.from_files(path, engine.features, sample.rows_wanted(files), label)
    with TemporaryDirectory() as scratch:
        kept = Path(scratch) / "sample.parquet"
        pq.write_table(rows, kept)
        context.registry.log_reference(version, profile.to_json(), kept)
    return profile


def from_run(context: Context, model: str, run_id: str) -> Profile:
    """Make the profile of a run the reference of a version; log it to the version.

    Raises:
        RunNotFound, RunNotInState: the run has no profile.
    """
    run = context.ledger.runs.get(run_id)
    path = Path(run.artifacts) / "profile.json"
    if not path.is_file():
        raise RunNotInState(run.id, run.state, "finished, and so has a profile")
    profile = Profile.from_json(path.read_text(encoding="utf-8")).as_reference()
    context.registry.log_reference(context.registry.resolve(model), profile.to_json())
    return profile


def document(profile: Profile) -> dict[str, Any]:
    """What `scoring models profile --json` shows."""
    return {
        "rows": profile.rows,
        "reference": profile.framed_by,
        "columns": [
            {
                "name": column.frame.name,
                "role": column.frame.role,
                "kind": column.frame.kind,
                "rows": column.rows,
                "nulls": column.nulls,
            }
            for column in profile.columns
        ],
        "skipped": list(profile.skipped),
    }


def _predicted(scanned: list[source.Scanned], engine: Engine) -> Iterator[Columns]:
    for features, slab in _slabs(scanned, engine):
        outputs = score(engine, slab) if slab.num_rows else {}
        yield {**features, **outputs}


def _sample_outputs(scanned: list[source.Scanned], engine: Engine) -> list[tuple[str, pa.Array]]:
    """The outputs of a few rows: their names and types are what is wanted."""
    for _, slab in _slabs(scanned, engine):
        if slab.num_rows:
            return list(score(engine, slab.slice(0, 16)).items())
    return list(engine.empty().items())


def _slabs(
    scanned: list[source.Scanned], engine: Engine
) -> Iterator[tuple[Columns, pa.RecordBatch]]:
    expected = expected_columns(engine)
    names = [column.name for column in expected]
    for one in scanned:
        for batch in source.read(one.file, whole(one.file), names, engine.slab_rows):
            checked = validate(batch, expected)
            yield by_name(checked.columns), checked.features
