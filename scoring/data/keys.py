"""Keys as integers, so that millions of rows can be matched by sorting eight bytes each.

The keys that are known are numbered, and those of other rows looked up. A whole number, a date or
a time stands for itself, anything else for its place among the known values, and several columns
are read as the digits of one number. Invariant: two rows have the same number exactly if their
keys are equal; a key with a null, or with a value that is not known, has none: it is `UNKNOWN`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

Numbers = npt.NDArray[np.int64]
UNKNOWN = -1
WIDEST = 2**62
"""Keys are numbered below this, so that a difference or a sum of two still fits 64 bits."""


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """A type in which keys of both types can be compared; None if there is none."""
    schemas = [pa.schema([("key", _plain(kind))]) for kind in (one, other)]
    try:
        found: pa.DataType = pa.unify_schemas(schemas, promote_options="permissive").types[0]
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None
    return found


class Numbered:
    """The known keys, numbered.

    ``keys`` are their columns, each of one type throughout and the same for what is looked up.
    """

    def __init__(self, keys: Sequence[pa.ChunkedArray]) -> None:
        self._columns = [_Column(column) for column in keys]
        self._dense: list[Numbers | None] = []
        found, size = self._columns[0].digits(keys[0]), self._columns[0].size
        for column, values in zip(self._columns[1:], keys[1:], strict=True):
            dense = None
            if size * column.size > WIDEST:
                dense = np.unique(found[found != UNKNOWN])
                found, size = places(dense, found), len(dense)
            found, size = _next_digit(found, column, values), size * column.size
            self._dense.append(dense)
        self.numbers = found
        """[row] One for each known row; UNKNOWN where the key holds a null."""

    @property
    def by_value(self) -> bool:
        """Whether keys stand for themselves, so that few are looked up as cheaply as many."""
        return all(column.by_value for column in self._columns)

    def look_up(self, keys: Sequence[pa.ChunkedArray]) -> Numbers:
        """[row] The numbers of other rows' keys."""
        found = self._columns[0].digits(keys[0])
        for column, values, dense in zip(self._columns[1:], keys[1:], self._dense, strict=True):
            found = found if dense is None else places(dense, found)
            found = _next_digit(found, column, values)
        return found


def places(known: Numbers, numbers: Numbers) -> Numbers:
    """[row] Where each number stands among the known ones, which are sorted and not negative."""
    if not len(known):
        return np.full(len(numbers), UNKNOWN, np.int64)
    order = np.argsort(numbers)  # in order, a search finds the last one's neighbourhood cached
    wanted = numbers[order]
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    found = np.empty(len(numbers), np.int64)
    found[order] = np.where(known[at] == wanted, at, UNKNOWN)
    return found


class _Column:
    """One column of the known keys: each value is a digit from 0 up to ``size``."""

    def __init__(self, values: pa.ChunkedArray) -> None:
        self._names: pa.Array | None = None
        self._least, self._most = 0, -1
        if _is_whole(values.type):
            bounds = pc.min_max(_whole(values)).as_py()
            if bounds["min"] is not None:
                self._least, self._most = bounds["min"], bounds["max"]
        self.size = self._most - self._least + 1
        if self.size > WIDEST or not _is_whole(values.type):
            self._names = pc.unique(values.drop_null())
            self.size = len(self._names)

    @property
    def by_value(self) -> bool:
        return self._names is None

    def digits(self, values: pa.ChunkedArray) -> Numbers:
        """[row] The digit of each value."""
        if self._names is not None:
            found = pc.index_in(values, value_set=self._names, skip_nulls=True)
            return np.asarray(found.fill_null(UNKNOWN).to_numpy(), np.int64)
        whole = _whole(values)
        numbers: Numbers = whole.fill_null(0).to_numpy()
        known = (numbers >= self._least) & (numbers <= self._most)
        if whole.null_count:
            known &= whole.is_valid().to_numpy()
        return np.where(known, numbers - self._least, UNKNOWN)


def _next_digit(found: Numbers, column: _Column, values: pa.ChunkedArray) -> Numbers:
    digits = column.digits(values)
    known = (found != UNKNOWN) & (digits != UNKNOWN)
    return np.where(known, found * column.size + digits, UNKNOWN)


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of the same values without extension, dictionary or view."""
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(kind.storage_type)
    if types.is_dictionary(kind):
        return _plain(kind.value_type)
    if types.is_string(kind) or types.is_string_view(kind):
        return pa.large_string()
    return pa.large_binary() if types.is_binary(kind) or types.is_binary_view(kind) else kind


def _is_whole(kind: pa.DataType) -> bool:
    """Whether 64 bits hold each value as a whole number."""
    timed = types.is_date(kind) or types.is_time(kind) or types.is_timestamp(kind)
    return bool(timed or (types.is_integer(kind) and not types.is_uint64(kind)))


def _whole(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if not types.is_integer(values.type) and values.type.bit_width == 32:
        values = values.cast(pa.int32())  # of dates and times only those of 64 bits cast to such
    return values.cast(pa.int64())
