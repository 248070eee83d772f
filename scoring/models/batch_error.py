"""Whether a row's score depends on the rows it shares a batch with.

A retried chunk must give the same scores, and so must the same row in another run.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scoring.models import gate
from scoring.models.engines import Engine, score

BATCHES = (1, 7, 64, 1000)
"""Batch sizes in which the same rows must score alike."""
BATCH_ROWS, BATCHES_OF = 512, 8
"""Rows that are scored again in each of them: so many, or so many of the engine's batches if these
are fewer, because an engine that begins with small batches is slow."""
OUTLIER = 100.0
"""How many times the largest number of a column an outlier has there."""
SEED = 1


def batch_error(engine: Engine, rows: pa.RecordBatch) -> float:
    """The largest change of a row's outputs over batch sizes, a shuffled order, and an outlier.

    The outlier takes the place of one row: a range that is taken from the batch stretches to it.
    """
    usual = engine.batch_rows
    few = rows.slice(0, min(BATCH_ROWS, BATCHES_OF * usual))
    baseline = score(engine, few)
    order = np.random.default_rng(SEED).permutation(few.num_rows)
    shuffled, back = few.take(pa.array(order)), pa.array(np.argsort(order))
    moved = []
    for size in BATCHES:
        engine.resize(size)
        again = score(engine, shuffled)
        moved.append(gate.moved(baseline, score(engine, few)))
        moved.append(gate.moved(baseline, {name: again[name].take(back) for name in again}))
    beside = score(engine, pa.concat_batches([few.slice(0, few.num_rows - 1), _outlier(few)]))
    moved.append(gate.moved(_without_last(baseline), _without_last(beside)))
    engine.resize(usual)
    return max(moved)


def _outlier(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The last row, its numbers far beyond those of all others."""
    last = rows.slice(rows.num_rows - 1)
    columns = [
        _beyond(whole) if pa.types.is_floating(whole.type) else one
        for whole, one in zip(rows.columns, last.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)


def _beyond(column: pa.Array) -> pa.Array:
    largest = pc.max(pc.abs(column)).as_py()
    return pa.array([None if largest is None else largest * OUTLIER], column.type)


def _without_last(outputs: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    return {name: values.slice(0, len(values) - 1) for name, values in outputs.items()}
