"""A deterministic sample of rows, and the frames that it suggests.

A row is chosen by a hash of its place, so the sample depends neither on how the rows are
batched nor on a seed, and does not beat with a period in the data as every n-th row would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scoring.drift.profile.columns import NAMED, CategoryProfile
from scoring.drift.profile.counters import LONGEST_NAME, names_counted, numbers
from scoring.drift.profile.edges import quantile_edges, spaced
from scoring.drift.profile.elements import place_of, values_of
from scoring.drift.profile.frame import ColumnFrame
from scoring.drift.profile.kinds import is_text

__all__ = ["sampled", "sampled_frames"]

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


def sampled_frames(
    batches: Iterable[Mapping[str, pa.Array | pa.ChunkedArray]],
    frames: Sequence[ColumnFrame],
    rows: int,
    bins: int,
) -> tuple[ColumnFrame, ...]:
    """The open `frames`, with quantile edges and commonest categories of a sample of rows.

    What is sampled are the values that are counted, not the columns: the norm of a long vector and
    the beginning of a text. Derived categories stay open, as few of them are possible.
    """
    sample = sampled((_elements(batch, frames) for batch in batches), rows)
    return tuple(
        _framed(frame, _whole(sample[frame.name]), bins)
        if frame.name in sample.column_names
        else frame
        for frame in frames
    )


def _elements(
    batch: Mapping[str, pa.Array | pa.ChunkedArray], frames: Sequence[ColumnFrame]
) -> dict[str, pa.Array]:
    wanted = {f.name: f.aspect for f in frames if f.kind == "number" or not f.aspect}
    places = Counter(of[0] for frame in frames if (of := place_of(frame.name)))
    found: dict[str, pa.Array] = {}
    for name, column in batch.items():
        aspects = [f.aspect for f in frames if f.of == name and f.name in wanted]
        if not aspects and not places[name] and name not in wanted:
            continue
        for element, aspect, values in values_of(name, _whole(column), aspects, places[name]):
            if wanted.get(element) == aspect and (element == name or element not in batch):
                found[element] = _beginnings(values)
    return found


def _beginnings(values: pa.Array) -> pa.Array:
    """Of each text so much that it is seen to be longer than a name; batches alike in type."""
    if not is_text(values.type):
        return values
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return pc.utf8_slice_codeunits(values.cast(pa.large_string()), 0, LONGEST_NAME + 1)


def _framed(frame: ColumnFrame, array: pa.Array, bins: int) -> ColumnFrame:
    if frame.kind == "category":
        return _named(frame, array)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    values = numbers(array.drop_null())
    values = values[np.isfinite(values)]
    edges = quantile_edges(values, bins)
    if frame.role == "output" and len(values):
        steps = values.astype(np.float64) * OUTPUT_STEP  # first, as a span may leave float64
        low, high = np.quantile(steps, OUTPUT_SPAN)
        edges = spaced(edges, float(high - low))
    return replace(frame, edges=edges)


def _named(frame: ColumnFrame, array: pa.Array) -> ColumnFrame:
    counts: Counter[str] = Counter()
    for name, rows in names_counted(array):
        if name is not None:
            counts[name] += rows
    short = [name for name in counts if len(name) <= LONGEST_NAME]
    common = sorted(short, key=lambda name: (-counts[name], name))[:NAMED]
    named = {name: counts[name] for name in common}
    rest = counts.total() - sum(named.values())
    found = CategoryProfile(frame=frame, rows=counts.total(), counts=named, other=rest)
    return found.as_reference().frame


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.Array):
        return column
    whole = column.unify_dictionaries().combine_chunks()
    return whole if isinstance(whole, pa.Array) else whole.chunk(0)


def _ranks(first: int, rows: int) -> NDArray[np.uint64]:
    """A hash of each row's place (SplitMix64: Steele, Lea and Flood 2014)."""
    place = np.arange(first, first + rows, dtype=np.uint64)
    hashed: NDArray[np.uint64] = place * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashed = (hashed ^ (hashed >> np.uint64(shift))) * np.uint64(factor)
    return hashed ^ (hashed >> np.uint64(31))
