"""What missing and infinite values mean to a model, and whether a variant takes them the same way.

Many models raise on NaN or infinity, and such rows go to quarantine; an exported graph often
computes on, and would publish what it made of them. Others send a missing value down a branch of
its own, which exporters get wrong. The gate's sample may hold no such row, so some are made: a row
of the sample with one value replaced, for every column in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

Outputs = Mapping[str, pa.Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """How native takes missing and infinite values."""

    refused: tuple[str, ...]
    """Columns in which it raises on NaN."""
    bounded: tuple[str, ...]
    """Columns in which it raises on infinity."""
    rows: pa.RecordBatch
    """Rows with such a value that it scores."""
    expected: Outputs
    """Its outputs for these rows; empty if there is none."""


def probe(native: Engine, sample: pa.RecordBatch) -> Probes:
    """Give native a NaN, then an infinity, in every column of floats in turn."""
    refused, with_nan = _probed(native, sample, float("nan"))
    bounded, with_infinity = _probed(native, sample, float("inf"))
    rows = pa.concat_batches([with_nan, with_infinity])
    expected = score(native, rows) if rows.num_rows else {}
    return Probes(refused=refused, bounded=bounded, rows=rows, expected=expected)


def differs(variant: Engine, probes: Probes) -> str:
    """Why a variant may not stand for native on such values; empty: it may."""
    if not probes.expected:
        return ""
    found = score(variant, probes.rows)
    for name, mine in probes.expected.items():
        known = _known(mine)
        if not np.array_equal(known, _known(found[name])):
            return "a missing or infinite value gives a score where native gives none, or none"
        if not known.any():
            continue
        kept = pa.array(known)
        same = gate.compare({name: mine.filter(kept)}, {name: found[name].filter(kept)})
        if reasons := gate.refusals(same, LIMITS):
            return f"on rows with a missing or infinite value, {'; '.join(reasons)}"
    return ""


def _probed(
    native: Engine, sample: pa.RecordBatch, value: float
) -> tuple[tuple[str, ...], pa.RecordBatch]:
    """The columns in which native raises on the value, and the rows of the others."""
    names = [field.name for field in sample.schema if pa.types.is_floating(field.type)]
    if not names:
        return (), sample.slice(0, 0)
    usual = _complete_row(sample, names)
    rows = pa.concat_batches([_replaced(usual, name, value) for name in names])
    if not _raises(native, rows):
        return (), rows
    tried = names[:MOST_COLUMNS]
    refused = {name for row, name in enumerate(tried) if _raises(native, rows.slice(row, 1))}
    if len(tried) < len(names):
        refused |= set(names)
    kept = rows.filter(pa.array([name not in refused for name in names]))
    return tuple(name for name in names if name in refused), kept


def _complete_row(sample: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
    """A row that has all its values, if there is one: what is raised is then the probe's doing."""
    known = np.ones(sample.num_rows, bool)
    for name in names:
        known &= _known(sample.column(name))
    return sample.slice(int(np.argmax(known)), 1)


def _replaced(row: pa.RecordBatch, name: str, value: float) -> pa.RecordBatch:
    index = row.schema.get_field_index(name)
    kind = row.column(index).type
    return row.set_column(index, row.schema.field(index), pa.array(np.array([value])).cast(kind))


def _raises(native: Engine, rows: pa.RecordBatch) -> bool:
    try:
        score(native, rows)
    except MemoryError:
        raise
    except Exception:
        return True
    return False


def _known(values: pa.Array) -> npt.NDArray[np.bool_]:
    """Rows that have finite numbers, or any label."""
    array = floats(values)
    if array is None:
        return np.asarray(values.is_valid())
    return np.asarray(np.isfinite(array.reshape(len(values), -1)).all(axis=1))
