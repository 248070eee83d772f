"""A deterministic sample of rows, and the frames that it suggests.

A row is chosen by a hash of its place, so the sample depends neither on how the rows are
batched nor on a seed, and does not beat with a period in the data as every n-th row would.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scoring.drift.columns import NAMED
from scoring.drift.counters import LONGEST_NAME, names_counted, numbers
from scoring.drift.edges import quantile_edges, spaced
from scoring.drift.frame import ColumnFrame, elements_of

__all__ = ["frames_from_sample", "sampled"]

OUTPUT_SPAN, OUTPUT_STEP = (0.05, 0.95), 0.005
"""Edges of outputs lie apart by this share of the distance between these quantiles. A variant of a
model may move its scores by as much, and a saturated classifier has most of them within less."""
_ALL = 2**64 - 1


def sampled(batches: Iterable[Mapping[str, pa.Array | pa.ChunkedArray]], rows: int) -> pa.Table:
    """At most `rows` rows and, where there are more, at least about half as many."""
    table, ranks = pa.table({}), np.empty(0, dtype=np.uint64)
    first, halvings = 0, 0
    for batch in batches:
        more = pa.table(dict(batch))
        more_ranks = _ranks(first, more.num_rows)
        first += more.num_rows
        chosen = more_ranks <= _ALL >> halvings
        table = (
            pa.concat_tables([table, more.filter(chosen)])
            if table.num_columns
            else more.filter(chosen)
        )
        ranks = np.concatenate([ranks, more_ranks[chosen]])
        while len(ranks) > rows:
            halvings += 1
            chosen = ranks <= _ALL >> halvings
            table, ranks = table.filter(chosen), ranks[chosen]
    return table


def frames_from_sample(
    sample: pa.Table, frames: Sequence[ColumnFrame], bins: int
) -> tuple[ColumnFrame, ...]:
    """The open `frames`, with the sample's quantile edges and commonest categories."""
    columns = {
        element: chunk
        for name in sample.column_names
        for element, chunk in elements_of(name, _whole(sample[name]))
    }
    return tuple(
        _framed(frame, columns[frame.name], bins) if frame.name in columns else frame
        for frame in frames
    )


def _framed(frame: ColumnFrame, array: pa.Array, bins: int) -> ColumnFrame:
    if frame.kind == "number":
        values = numbers(array.drop_null())
        values = values[np.isfinite(values)]
        edges = quantile_edges(values, bins)
        if frame.role == "output" and len(values):
            low, high = np.quantile(values, OUTPUT_SPAN)
            edges = spaced(edges, OUTPUT_STEP * float(high - low))
        return replace(frame, edges=edges)
    counts = {n: rows for n, rows in names_counted(array) if n and len(n) <= LONGEST_NAME}
    common = sorted(counts, key=lambda name: (-counts[name], name))[:NAMED]
    return replace(frame, categories=tuple(sorted(common)))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    whole = column.unify_dictionaries().combine_chunks()
    return whole if isinstance(whole, pa.Array) else whole.chunk(0)


def _ranks(first: int, rows: int) -> NDArray[np.uint64]:
    """A hash of each row's place (SplitMix64: Steele, Lea and Flood 2014)."""
    place = np.arange(first, first + rows, dtype=np.uint64)
    hashed: NDArray[np.uint64] = place * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashed = (hashed ^ (hashed >> np.uint64(shift))) * np.uint64(factor)
    return hashed ^ (hashed >> np.uint64(31))
