"""Derived elements of vectors and scores: norm, class, decision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["as_vectors", "classes", "decisions", "norms"]

# Items per block, so that their float64 squares stay in a core's second cache.
_BLOCK = 65_536
_SIDES = ("0.5 or less", "above 0.5")


def as_vectors(lists: pa.Array, places: int) -> pa.Array:
    """Lists as vectors of `places`; null where a list is null or has another length."""
    lengths = _lengths(lists)
    fit = lengths == places
    items = lists.filter(pa.array(fit)).flatten() if not fit.all() else lists.flatten()
    vectors = pa.FixedSizeListArray.from_arrays(items, places)
    if fit.all():
        return vectors
    return vectors.take(pa.array(np.cumsum(fit) - 1, mask=~fit))


def norms(vectors: pa.Array) -> pa.Array:
    """The L2 norm of each row of a list column (row,); null for null, NaN where an item is missing.

    Summed row by row, so that a row's norm does not depend on its neighbours.
    """
    lengths = _lengths(vectors)
    found = np.zeros(len(lengths))
    at_once = max(1, _BLOCK // max(1, int(lengths.max(initial=0))))
    for first in range(0, len(lengths), at_once):
        rows = lengths[first : first + at_once]
        used = np.flatnonzero(rows)
        if len(used):
            items = _floats(vectors.slice(first, len(rows)).flatten())
            starts = (np.cumsum(rows) - rows)[used]
            with np.errstate(over="ignore", invalid="ignore"):
                found[first + used] = np.sqrt(np.add.reduceat(items * items, starts))
    return _with_nulls(found, vectors)


def classes(vectors: pa.Array) -> pa.Array:
    """The place of the largest item of each vector (row,), the first of equals, as a category.

    Null where the vector is null or one of its items is missing.
    """
    places = vectors.type.list_size
    items = _floats(vectors.flatten(), exact=False).reshape(-1, places)
    largest = items.argmax(axis=1)
    missing = np.isnan(np.take_along_axis(items, largest[:, None], axis=1)[:, 0])
    present = ~_nulls(vectors)
    codes, unknown = np.zeros(len(vectors), np.int32), ~present
    codes[present], unknown[present] = largest, missing
    names = pa.array([str(place) for place in range(places)])
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=unknown), names)


def decisions(scores: pa.Array) -> pa.Array:
    """Which side of 0.5 each score lies on (row,), as a category; null for null and NaN.

    0.5 itself is no yes: the gate and the accuracy of a run decide likewise, and so does `classes`
    for two scores of 0.5.
    """
    values = _floats(scores, exact=False)
    codes = (values > 0.5).astype(np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=np.isnan(values)), pa.array(_SIDES))


def _floats(items: pa.Array, *, exact: bool = True) -> NDArray[Any]:
    """Items as floats (float64 if `exact`), NaN for null."""
    if items.null_count:
        items = items.cast(pa.float64()).fill_null(np.nan)
    values: NDArray[Any] = items.to_numpy(zero_copy_only=False)
    return values.astype(np.float64, copy=False) if exact else values


def _lengths(lists: pa.Array) -> NDArray[np.int64]:
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    values: NDArray[np.int64] = lengths.to_numpy(zero_copy_only=False).astype(np.int64)
    return values


def _nulls(array: pa.Array) -> NDArray[np.bool_]:
    nulls: NDArray[np.bool_] = array.is_null().to_numpy(zero_copy_only=False)
    return nulls


def _with_nulls(values: NDArray[np.float64], of: pa.Array) -> pa.Array:
    return pa.array(values, mask=_nulls(of) if of.null_count else None)
