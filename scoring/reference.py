"""Reference profiles: what a model was trained on, kept with its version in the registry.

A reference comes from training rows (features read, outputs predicted by the version itself) or
from a run. Training rows also leave a sample, by which variants of the model are judged, and if
their label is known, how good the version is on them. Later runs of the version are counted on the
reference's edges and compared with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scoring.data import source
from scoring.data.validate import validate
from scoring.drift.profile.frame import Role
from scoring.drift.profile.profile import Profile, reference_from
from scoring.errors import ReferenceMissing, RunNotInState
from scoring.models import Engine, EngineOptions, load, read_model, score
from scoring.pipeline import by_name, expected_columns, feature_kinds
from scoring.reference_performance import LabelledRows
from scoring.runs import Context, sample
from scoring.runs.places import PROFILE_FILE

Columns = dict[str, pa.Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slab:
    """A batch of training rows."""

    path: str
    columns: Columns
    """The features of every row."""
    features: pa.RecordBatch
    """The same of the rows that can be predicted."""
    labels: pa.Array
    """The labels of these, as the file has them; nulls without a label column."""


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
    variants of the model are judged by them. With a ``label`` the version's performance is logged
    too, which that of evaluated runs is compared with: give rows that it was not trained on, as it
    is better on those that it was.

    Rows that break the signature are not predicted, as they would be quarantined in a run.
    ``columns`` are the job's ``[input] columns``.

    Raises:
        InputError, ModelError: the rows or the model cannot be used.
    """
    version = context.registry.resolve(model)
    _, folder = context.cache.fetch(version)
    options = EngineOptions(device="auto", threads=context.threads, columns=tuple(columns))
    files = read_model(folder, version.uri)
    context.trust.check(files)
    engine = load(files, options)
    names = [str(feature.name) for feature in engine.features]
    needed = [*names, *([label] if label else [])]
    scanned = source.scan(path, needed, context.stores)
    source.check_columns(scanned, needed)
    kinds: list[tuple[str, Role, Any]] = [*feature_kinds(expected_columns(engine))]
    outputs = _sample_outputs(scanned, engine)
    kinds += [(name, "output", kind) for name, kind in outputs.items()]
    labelled = LabelledRows.of(scanned, label, outputs) if label else None
    profile = reference_from(lambda: _predicted(scanned, engine, labelled), kinds)
    performance = labelled.performance() if labelled else None
    if not keep_sample:
        context.registry.log_reference(version, profile.to_json(), performance=performance)
        return profile
    rows = sample.from_files(
        path, engine.features, sample.rows_wanted(files), label, context.stores
    )
    with TemporaryDirectory() as scratch:
        kept = Path(scratch) / "sample.parquet"
        pq.write_table(rows, kept)
        context.registry.log_reference(version, profile.to_json(), kept, performance)
    return profile


def from_run(context: Context, model: str, run_id: str) -> Profile:
    """Make the profile of a run the reference of a version; log it to the version.

    Raises:
        RunNotFound, RunNotInState: the run has no profile.
    """
    run = context.ledger.runs.get(run_id)
    path = Path(run.artifacts) / PROFILE_FILE
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


def _predicted(
    scanned: list[source.Scanned], engine: Engine, labelled: LabelledRows | None
) -> Iterator[Columns]:
    if labelled is not None:
        labelled.begin()
    label = labelled.label if labelled else ""
    for slab in _slabs(scanned, engine, label):
        outputs = score(engine, slab.features) if slab.features.num_rows else {}
        if labelled is not None and outputs:
            labelled.add(outputs, slab.labels, slab.path)
        yield {**slab.columns, **outputs}


def _sample_outputs(scanned: list[source.Scanned], engine: Engine) -> dict[str, pa.DataType]:
    """The types of the outputs: those of a few rows, as a model promises less than it returns."""
    for slab in _slabs(scanned, engine):
        if slab.features.num_rows:
            few = score(engine, slab.features.slice(0, 16))
            return {name: values.type for name, values in few.items()}
    return {name: values.type for name, values in engine.empty().items()}


def _slabs(scanned: list[source.Scanned], engine: Engine, label: str = "") -> Iterator[_Slab]:
    expected = expected_columns(engine)
    names = [column.name for column in expected]
    read = list(dict.fromkeys([*names, *([label] if label else [])]))
    for one in scanned:
        for batch in one.rows(read, engine.slab_rows):
            checked = validate(batch.select(names), expected)
            labels = batch.column(label) if label else pa.nulls(batch.num_rows)
            yield _Slab(
                path=one.file.path,
                columns=by_name(checked.columns),
                features=checked.features,
                labels=labels if checked.kept is None else labels.take(pa.array(checked.kept)),
            )
