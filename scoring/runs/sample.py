"""The rows that a search judges variants by: the model's reference sample, or rows of a run.

Rows that break the signature are left out: in a run they would be quarantined, not scored.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scoring.data import source
from scoring.data.place import Frozen
from scoring.data.stores import Stores
from scoring.data.validate import Expected, validate
from scoring.drift.profile.sample import sampled
from scoring.errors import InputTypeMismatch
from scoring.ledger import RunRecord
from scoring.models import Field, ModelFiles, Version
from scoring.models.search_request import LABEL
from scoring.models.text import TEXT_FLAVORS
from scoring.pipeline import by_name, expected_column
from scoring.plan import Span, spans_from_json
from scoring.runs.confined import check_confined
from scoring.runs.context import Context

TABLE_ROWS, TEXT_ROWS = 5_120, 500
"""Rows of a sample; fewer where a row is a text, because each costs a thousand times as much."""
FEWEST_ROWS = 200
"""A sample of fewer rows cannot show an agreement of 0.995."""
PLACES = 16
"""Spans of a run's input that rows are taken from, if there are as many."""
BATCH_ROWS = 8_192


def rows_wanted(files: ModelFiles) -> int:
    """How many rows a sample for this model has at most."""
    return TEXT_ROWS if files.flavor in TEXT_FLAVORS else TABLE_ROWS


def from_reference(
    context: Context, version: Version, features: Sequence[Field], rows: int
) -> pa.Table | None:
    """The rows that were logged with the version's reference profile, if they fit."""
    with tempfile.TemporaryDirectory() as folder:
        path = context.registry.reference_sample(version, Path(folder))
        table = None if path is None else pq.read_table(path)
    names = [str(feature.name) for feature in features]
    if table is None or not set(names) <= set(table.column_names):
        return None
    kept = [*names, *([LABEL] if LABEL in table.column_names else [])]
    return table.select(kept).slice(0, rows)


def from_run(context: Context, run: RunRecord, features: Sequence[Field], rows: int) -> pa.Table:
    """At most ``rows`` rows, evenly apart in `PLACES` or more of the spans of a run's input."""
    expected = [_expected(feature) for feature in features]
    spans = [
        span
        for chunk in context.ledger.chunks.of(run.id)
        for span in spans_from_json(chunk.spans)
        if span.rows
    ]
    step = max(1, len(spans) // PLACES)
    chosen = [*spans[::step], *(span for n, span in enumerate(spans) if n % step)]
    batches: list[pa.RecordBatch] = []
    wanted = -(-rows // min(PLACES, max(len(spans), 1)))
    for span in chosen:
        room = rows - sum(batch.num_rows for batch in batches)
        if room <= 0:
            break
        file = context.ledger.runs.inputs_of(run.id, [span.file])[span.file]
        check_confined(context, run, [file.path])
        batches.extend(_evenly(context.stores, file, span, expected, min(wanted, room)))
    if not batches:
        return pa.table({})
    schema = batches[0].schema
    return pa.Table.from_batches([batch.cast(schema) for batch in batches])


def _evenly(
    stores: Stores, file: Frozen, span: Span, expected: Sequence[Expected], rows: int
) -> Iterator[pa.RecordBatch]:
    """About ``rows`` rows of a span, evenly apart: data may be sorted by anything."""
    numbers = np.unique(np.linspace(0, span.rows - 1, min(rows, span.rows)).astype(np.int64))
    first = 0
    names = [column.name for column in expected]
    for batch in source.read(file, span, names, BATCH_ROWS, stores):
        here = numbers[(numbers >= first) & (numbers < first + batch.num_rows)] - first
        if len(here):
            yield validate(batch.take(pa.array(here)), expected).features
        first += batch.num_rows


def from_files(
    path: str,
    features: Sequence[Field],
    rows: int,
    label: str = "",
    stores: Stores = source.NO_STORES,
) -> pa.Table:
    """At most ``rows`` rows of Parquet files, with their label as it is.

    Raises:
        InputError: the files cannot be read or lack a column.
    """
    expected = [_expected(feature) for feature in features]
    names = [*(column.name for column in expected), *([label] if label else [])]
    scanned = source.scan(path, names, stores)
    source.check_columns(scanned, names)
    return sampled(_labelled(scanned, expected, label), rows)


def write(rows: pa.Table, path: Path) -> None:
    """Write rows as the search reads them."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)


def _expected(feature: Field) -> Expected:
    """Nulls only where every engine can be given them."""
    possible = pa.types.is_floating(feature.type) or pa.types.is_string(feature.type)
    return expected_column(feature, allow_null=not feature.required and possible)


def _labelled(
    scanned: Sequence[source.Scanned], expected: Sequence[Expected], label: str
) -> Iterator[dict[str, pa.Array]]:
    names = [column.name for column in expected]
    for one in scanned:
        columns = list(dict.fromkeys([*names, *([label] if label else [])]))
        for batch in one.rows(columns, BATCH_ROWS):
            checked = validate(batch.select(names), expected)
            found = by_name(checked.features)
            if label:
                truth = _plain(batch.column(label), one.file.path, label)
                kept = None if checked.kept is None else pa.array(checked.kept)
                found[LABEL] = truth if kept is None else truth.take(kept)
            yield found


def _plain(labels: pa.Array, path: str, name: str) -> pa.Array:
    """Labels of one type, whatever integers, floats or dictionaries the files have."""
    if pa.types.is_dictionary(labels.type):
        labels = labels.dictionary_decode()
    kind = labels.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return labels.cast(pa.int8() if pa.types.is_boolean(kind) else kind).cast(pa.float64())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return labels.cast(pa.string())
    raise InputTypeMismatch(path, name, str(kind), "a label: a number, a word, true or false")
