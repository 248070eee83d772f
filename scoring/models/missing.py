"""What a missing value means to a model, and whether a variant takes it the same way.

Many models raise on NaN, and their rows go to quarantine; an exported graph often computes on, and
would publish what it made of it. Others send a missing value down a branch of its own, which
exporters get wrong. The gate's sample may hold no such row, so some are made: a row of the sample
with one value missing, for every column in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from scoring.job import Precision
from scoring.models import gate
from scoring.models.engines import Engine, score
from scoring.models.outputs import floats

MOST_COLUMNS = 256
"""Columns tried one by one; of a wider table all are refused if one is."""
LIMITS = Precision(max_mean_error=0.01, min_agreement=0.9)
"""Wider than a job's, because these rows are few: one on the brink of a decision must not count, a
branch taken wrongly does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """How native takes missing values."""

    refused: tuple[str, ...]
    """Columns in which native raises on one."""
    rows: pa.RecordBatch
    """Rows with a missing value that native scores."""
    expected: Mapping[str, pa.Array]
    """Its outputs for these rows; empty if there is none."""


def probe(native: Engine, sample: pa.RecordBatch) -> Probes:
    """Give native a missing value in every column of floats in turn."""
    names = [field.name for field in sample.schema if pa.types.is_floating(field.type)]
    rows = pa.Table.from_batches(
        [_without(sample, row, name) for row, name in enumerate(names)], sample.schema
    ).combine_chunks()
    whole = rows.to_batches()[0] if names else sample.slice(0, 0)
    if not names or not _raises(native, whole):
        return Probes(refused=(), rows=whole, expected=score(native, whole) if names else {})
    tried = names[:MOST_COLUMNS]
    refused = {name for row, name in enumerate(tried) if _raises(native, whole.slice(row, 1))}
    if len(tried) < len(names):
        refused |= set(names)
    kept = whole.filter(pa.array([name not in refused for name in names]))
    return Probes(
        refused=tuple(name for name in names if name in refused),
        rows=kept,
        expected=score(native, kept) if kept.num_rows else {},
    )


def differs(variant: Engine, probes: Probes) -> str:
    """Why a variant may not stand for native on missing values; empty: it may."""
    if not probes.expected:
        return ""
    found = score(variant, probes.rows)
    for name, mine in probes.expected.items():
        missing = _missing(mine)
        if not np.array_equal(missing, _missing(found[name])):
            return "a missing value gives a score where native gives none, or none where it does"
        if missing.all():
            continue
        kept = pa.array(~missing)
        same = gate.compare({name: mine.filter(kept)}, {name: found[name].filter(kept)})
        if reasons := gate.refusals(same, LIMITS):
            return f"on rows with a missing value, {'; '.join(reasons)}"
    return ""


def _without(sample: pa.RecordBatch, row: int, name: str) -> pa.RecordBatch:
    """One row of the sample, its value in column ``name`` missing."""
    one = sample.slice(row % sample.num_rows, 1)
    index = one.schema.get_field_index(name)
    return one.set_column(
        index, one.schema.field(index), pa.array([np.nan], one.column(index).type)
    )


def _raises(native: Engine, rows: pa.RecordBatch) -> bool:
    try:
        score(native, rows)
    except Exception:
        return True
    return False


def _missing(values: pa.Array) -> npt.NDArray[np.bool_]:
    array = floats(values)
    if array is None:
        return np.asarray(values.is_null())
    return np.asarray(np.isnan(array.reshape(len(values), -1)).any(axis=1))
