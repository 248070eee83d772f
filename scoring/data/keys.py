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
"""Keys are numbered up to this, so that 64 bits hold them. Where values are further apart, they are
numbered by place; two columns of places stay below it up to two billion rows, which are more than
memory holds."""
DIGITS = 20
"""Before the point of a decimal, so that whole numbers of 64 bits can be compared with it."""


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """A type in which keys of both types can be compared; None if there is none."""
    if types.is_nested(_plain(one)) or types.is_nested(_plain(other)):
        return None
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
            dense, digits = None, column.digits(values)
            if size * column.size > WIDEST:
                dense = _known(found)
                found, size = places(dense, found), len(dense)
            if size * column.size > WIDEST:
                digits = column.narrow(digits)
            found, size = _next_digit(found, column.size, digits), size * column.size
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
            found = _next_digit(found, column.size, column.digits(values))
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
        self._dense: Numbers | None = None
        self._least, self._most = 0, -1
        if _is_whole(values.type):
            bounds = pc.min_max(_whole(values)).as_py()
            if bounds["min"] is not None:
                self._least, self._most = bounds["min"], bounds["max"]
        self.size = self._most - self._least + 1
        if self.size > WIDEST or not _is_whole(values.type):
            self._names = pc.unique(_one_zero(values).drop_null())
            self.size = len(self._names)

    @property
    def by_value(self) -> bool:
        return self._names is None

    def digits(self, values: pa.ChunkedArray) -> Numbers:
        """[row] The digit of each value."""
        if self._names is not None:
            found = pc.index_in(_one_zero(values), value_set=self._names, skip_nulls=True)
            return np.asarray(found.fill_null(UNKNOWN).to_numpy(), np.int64)
        whole = _whole(values)
        numbers: Numbers = whole.fill_null(0).to_numpy()
        known = (numbers >= self._least) & (numbers <= self._most)
        if whole.null_count:
            known &= whole.is_valid().to_numpy()
        digits = np.where(known, numbers - self._least, UNKNOWN)
        return digits if self._dense is None else places(self._dense, digits)

    def narrow(self, digits: Numbers) -> Numbers:
        """Have no more digits than there are values; those of the known keys, as they are now."""
        self._dense = _known(digits)
        self.size = len(self._dense)
        return places(self._dense, digits)


def _known(numbers: Numbers) -> Numbers:
    return np.unique(numbers[numbers != UNKNOWN])


def _next_digit(found: Numbers, size: int, digits: Numbers) -> Numbers:
    known = (found != UNKNOWN) & (digits != UNKNOWN)
    return np.where(known, found * size + digits, UNKNOWN)


def _plain(kind: pa.DataType) -> pa.DataType:
    """A type of the same values without extension, dictionary or view, that can be numbered."""
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(kind.storage_type)
    if types.is_dictionary(kind):
        return _plain(kind.value_type)
    if types.is_string(kind) or types.is_string_view(kind):
        return pa.large_string()
    if types.is_decimal(kind):
        digits = max(kind.precision, kind.scale + DIGITS)
        wide = pa.decimal128 if digits <= 38 else pa.decimal256
        return wide(min(digits, 76), kind.scale)
    if types.is_float16(kind):
        return pa.float32()
    return pa.large_binary() if types.is_binary(kind) or types.is_binary_view(kind) else kind


def _is_whole(kind: pa.DataType) -> bool:
    """Whether 64 bits hold each value as a whole number."""
    timed = types.is_date(kind) or types.is_time(kind) or types.is_timestamp(kind)
    return bool(timed or (types.is_integer(kind) and not types.is_uint64(kind)))


def _one_zero(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Floats whose zero has no sign, which else makes two values of it; anything else as it is."""
    return pc.add(values, 0.0) if types.is_floating(values.type) else values


def _whole(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if not types.is_integer(values.type) and values.type.bit_width == 32:
        values = values.cast(pa.int32())  # of dates and times only those of 64 bits cast to such
    return values.cast(pa.int64())
