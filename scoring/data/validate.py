"""The signature, row by row: what fits goes to the model, what does not is quarantined.

A column whose type is right and that has no nulls costs nothing. Conversions that cannot lose a
value are made (int to float, a whole float to int, any timestamp to UTC), in lists too; a number
is rounded to the float that the model takes, unless it would become infinite. Bytes are taken for
text, as some writers leave it, where they are UTF-8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

NO_ROWS: npt.NDArray[np.int64] = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A column as the model's signature wants it."""

    name: str
    type: pa.DataType
    """Of one element; of one list item when ``width`` is not 1."""
    width: int = 1
    """Values per row: 1 for a plain column, more or -1 (any) for a list column."""
    allow_null: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Rows of one batch that break the signature in the same way."""

    rows: npt.NDArray[np.int64]
    """Their numbers in the batch."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """A batch, split into what can be scored and what cannot."""

    columns: pa.RecordBatch
    """The model's columns of every row, with the signature's types."""
    kept: npt.NDArray[np.int64] | None
    """Row numbers that can be scored; ``None``: all."""
    features: pa.RecordBatch
    """The same of the kept rows."""
    rejected: tuple[Rejected, ...]


def fits(found: pa.DataType, expected: Expected) -> bool:
    """Whether values of that type can ever be what the signature wants."""
    if types.is_null(found):
        return True  # a file in which every value is missing
    if expected.width != 1 or types.is_list(expected.type):
        if not _is_list(found):
            return False
        item = expected.type.value_type if types.is_list(expected.type) else expected.type
        return _converts(found.value_type, item)
    return _converts(found, expected.type)


def validate(
    batch: pa.RecordBatch, expected: Sequence[Expected], kept: Sequence[str] = ()
) -> Validated:
    """Check and convert the expected columns of a batch.

    Rows are refused for text that is not UTF-8 also in the ``kept`` columns, since a reader of the
    part would refuse the whole of it.
    """
    rejected: list[Rejected] = []
    columns = []
    for column in expected:
        converted, refused = _convert(batch.column(column.name), column)
        columns.append(converted)
        rejected.extend(refused)
    names = [column.name for column in expected]
    every = pa.RecordBatch.from_arrays(columns, names=names)
    for name in kept:
        if name not in names:
            rejected.extend(_garbled(name, batch.column(name)))
    if not rejected:
        return Validated(columns=every, kept=None, features=every, rejected=())
    good = np.ones(batch.num_rows, bool)
    unique = []
    for refusal in rejected:  # a row is quarantined once, for the first reason found
        first = refusal.rows[good[refusal.rows]]
        good[first] = False
        if len(first):
            unique.append(Rejected(rows=first, reason=refusal.reason))
    whole = np.flatnonzero(good)
    features = every.take(pa.array(whole))
    return Validated(columns=every, kept=whole, features=features, rejected=tuple(unique))


def _convert(column: pa.Array, expected: Expected) -> tuple[pa.Array, list[Rejected]]:
    name, refused = expected.name, []
    if column.null_count and not expected.allow_null:
        refused.append(Rejected(rows=_where(pc.is_null(column)), reason=f"null in column {name}"))
    if types.is_null(column.type):
        return pa.nulls(len(column), _wanted(expected)), refused
    if expected.width != 1:
        refused += _wrong_width(column, expected)
    if _is_list(column.type):
        item = expected.type.value_type if types.is_list(expected.type) else expected.type
        converted, unfit = _cast_items(column, item)
    else:
        item = expected.type
        converted, unfit = _cast(column, item)
    if len(unfit):
        refused.append(Rejected(rows=unfit, reason=f"value in column {name} does not fit {item}"))
    return converted, [*refused, *_garbled(name, converted)]


def _wanted(expected: Expected) -> pa.DataType:
    """The type of a whole column, whose lists have any length."""
    plain = expected.width == 1 or types.is_list(expected.type)
    return expected.type if plain else pa.list_(expected.type)


def _garbled(name: str, column: pa.Array) -> list[Rejected]:
    """Rows with text that is not UTF-8: writers need not check it, and readers refuse it."""
    rows = garbled_rows(column)
    return [Rejected(rows=rows, reason=f"text in column {name} is not UTF-8")] if len(rows) else []


def garbled_rows(column: pa.Array) -> npt.NDArray[np.int64]:
    """Rows whose text, or one of whose texts, is not UTF-8."""
    if types.is_dictionary(column.type):
        if not len(garbled_rows(column.dictionary)):
            return NO_ROWS
        column = column.dictionary_decode()
    if _is_list(column.type):
        if not (_is_text(column.type.value_type) or types.is_dictionary(column.type.value_type)):
            return NO_ROWS
        bad = garbled_rows(pc.list_flatten(column))
        return np.unique(pc.list_parent_indices(column).to_numpy()[bad]) if len(bad) else NO_ROWS
    if not _is_text(column.type):
        return NO_ROWS
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        raw = column.cast(pa.large_binary()).to_pylist()
        return np.flatnonzero([text is not None and not _decodes(text) for text in raw])
    return NO_ROWS


def _decodes(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _cast_items(column: pa.Array, item: pa.DataType) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """The lists with that item type, and the rows in which an item does not fit it."""
    if column.type.value_type.equals(item):
        return column, NO_ROWS
    _, unfit = _cast(pc.list_flatten(column), item)
    if types.is_fixed_size_list(column.type):
        wanted = pa.list_(item, column.type.list_size)
    else:
        wanted = pa.list_(item)
    rows = np.unique(pc.list_parent_indices(column).to_numpy()[unfit]) if len(unfit) else NO_ROWS
    return pc.cast(column, wanted, safe=False), rows


def _cast(column: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """The values as ``wanted``, and the rows whose value does not fit it."""
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.type.equals(wanted):
        return column, NO_ROWS
    if types.is_timestamp(column.type) and column.type.tz is not None:
        column = column.cast(pa.timestamp(column.type.unit, "UTC")).cast(
            pa.timestamp(column.type.unit)
        )
    if types.is_string(wanted):
        return pc.cast(column, wanted, safe=False), NO_ROWS  # whether it is text, `_garbled` asks
    if types.is_floating(wanted):
        rounded = pc.cast(column, wanted, safe=False)
        return rounded, _became_infinite(column, rounded)
    try:
        return pc.cast(column, wanted), NO_ROWS
    except pa.ArrowInvalid:
        forced = pc.cast(column, wanted, safe=False)
        changed = pc.not_equal(_comparable(forced, column.type), _comparable(column, column.type))
        return forced, _where(pc.fill_null(changed, False))


def _became_infinite(column: pa.Array, rounded: pa.Array) -> npt.NDArray[np.int64]:
    infinite = pc.is_inf(rounded)
    if not pc.any(infinite).as_py():
        return NO_ROWS
    rows = _where(pc.fill_null(infinite, False))
    if not types.is_floating(column.type):
        return rows
    return rows[_where(pc.is_finite(column.take(pa.array(rows))))]


def _comparable(values: pa.Array, found: pa.DataType) -> pa.Array:
    """Values as the type they were found in, or as one in which no number of that type wraps."""
    if types.is_integer(found) or types.is_decimal(found):
        return pc.cast(values, pa.decimal256(76, found.scale if types.is_decimal(found) else 0))
    if types.is_float16(found):
        found = pa.float32()
    return pc.cast(values, found, safe=False)


def _wrong_width(column: pa.Array, expected: Expected) -> list[Rejected]:
    """Rows whose list has too many or too few values, or no value where one should be."""
    refused = []
    if expected.width >= 0:
        lengths = pc.fill_null(pc.list_value_length(column), expected.width)
        rows = _where(pc.not_equal(lengths, expected.width))
        reason = f"column {expected.name} has not {expected.width} values"
        refused.append(Rejected(rows=rows, reason=reason))
    items = pc.list_flatten(column)
    if items.null_count and not expected.allow_null:
        holes = pc.list_parent_indices(column).to_numpy()[_where(pc.is_null(items))]
        reason = f"null among the values of column {expected.name}"
        refused.append(Rejected(rows=np.unique(holes), reason=reason))
    return [refusal for refusal in refused if len(refusal.rows)]


def _where(mask: pa.Array) -> npt.NDArray[np.int64]:
    return np.flatnonzero(mask.to_numpy(zero_copy_only=False))


def _is_list(kind: pa.DataType) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _converts(found: pa.DataType, wanted: pa.DataType) -> bool:
    if types.is_dictionary(found):
        found = found.value_type
    if found.equals(wanted):
        return True
    if types.is_null(found):
        return True
    number = types.is_integer(found) or types.is_floating(found) or types.is_decimal(found)
    if types.is_float16(wanted):
        return bool(number) and not types.is_decimal(found)
    if types.is_floating(wanted) or types.is_integer(wanted):
        return bool(number)
    if types.is_string(wanted):
        return _is_text(found) or _is_bytes(found)
    if types.is_binary(wanted):
        return _is_bytes(found) or types.is_fixed_size_binary(found)
    if types.is_timestamp(wanted):
        return bool(types.is_timestamp(found) or types.is_date(found))
    return False
