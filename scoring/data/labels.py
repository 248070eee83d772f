"""Labels: the known truth of rows that were scored, read when it arrives and found by key.

Only the key and the label are read, and only rows whose label is known. Invariant: a key has one
label; two are refused, because nothing says which is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from scoring.data import source
from scoring.data.keys import Numbered, Numbers, common_type, places
from scoring.data.stores import Stores
from scoring.errors import (
    InputChanged,
    InputColumnsMissing,
    InputUnreadable,
    LabelsUnusable,
    NoInputFiles,
)

BATCH_ROWS = 262_144
LOOK_UP_ROWS = 1_000_000
LABEL = "label of the row"
"""Column of the labels as they are read, beside columns that the files name."""

Column = TypeVar("Column", pa.Array, pa.ChunkedArray)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFiles:
    """Files with labels, and the columns of them that are wanted."""

    path: str
    """As it was given."""
    scanned: tuple[source.Scanned, ...]
    key: pa.Schema
    """The key's columns, in the types that labels and scores are compared in."""
    column: str
    """The column of the label."""


def find_labels(
    path: str, key: pa.Schema, column: str | None, stores: Stores = source.NO_STORES
) -> LabelFiles:
    """The Parquet files of ``path`` and the column of the label: named, or the only one beside
    the key.

    ``key`` has the key's columns as the scores have them, and the label is none of these.

    Raises:
        LabelsUnusable: there are no files, or they lack a column, or keys cannot be compared.
    """
    if column in key.names:
        raise LabelsUnusable(path, f"{column} is of the key, so it cannot be the label")
    try:
        scanned = tuple(source.scan(path, [*key.names, *([column] if column else [])], stores))
        _check_columns(path, scanned, key.names)
        found = column or _only_other(path, scanned[0], key.names)
        _check_columns(path, scanned, [found])
    except NoInputFiles as error:
        raise LabelsUnusable(path, "there are no Parquet files") from error
    except InputUnreadable as error:
        raise LabelsUnusable(path, f"{error.path}: {error.reason}") from error
    fields = [_comparable(path, scanned, name, key.field(name).type) for name in key.names]
    return LabelFiles(path=path, scanned=scanned, key=pa.schema(fields), column=found)


class Labels:
    """The labels of some files, by key."""

    def __init__(self, files: LabelFiles) -> None:
        """Read them.

        Raises:
            LabelsUnusable: a key has two labels, none has one, or a value cannot be used.
        """
        self._files = files
        try:
            table = _read(files)
        except (InputChanged, InputUnreadable) as error:
            raise LabelsUnusable(files.path, f"{error.path} cannot be read") from error
        keys = [table[name] for name in files.key.names]
        self._numbered = Numbered(keys)
        numbers = self._numbered.numbers
        order = np.argsort(numbers)
        order = order[np.searchsorted(numbers, 0, sorter=order) :]  # without nulls in the key
        if not len(order):
            raise LabelsUnusable(files.path, f"no row has both a key and its {files.column} yet")
        self._numbers = numbers[order]
        _check_unique(files, keys, order, self._numbers)
        self.values: pa.Array = table[LABEL].combine_chunks().take(pa.array(order))
        """[label] float64 or words, none missing, in the order that `of` speaks of."""

    @property
    def look_up_rows(self) -> int:
        """Rows that `of` is best asked for at once; each time may cost a pass over the labels."""
        return LOOK_UP_ROWS if self._numbered.by_value else max(LOOK_UP_ROWS, len(self.values))

    def of(self, keys: Sequence[pa.ChunkedArray]) -> Numbers:
        """[row] Which of the `values` belongs to each row with these keys; -1: none.

        Raises: LabelsUnusable: a key cannot be compared with those of the labels.
        """
        compared = [
            _compared(self._files.path, values, field)
            for values, field in zip(keys, self._files.key, strict=True)
        ]
        return places(self._numbers, self._numbered.look_up(compared))


def truth(values: Column) -> Column | None:
    """Labels as float64 or words; null where one is missing or not a finite number.

    None where they are neither numbers, nor words, nor true and false.
    """
    kind = values.type
    if types.is_dictionary(kind):
        kind = kind.value_type
        values = values.cast(kind)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return values.cast(pa.large_string())
    if types.is_boolean(kind):
        return values.cast(pa.int8()).cast(pa.float64())
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
        return None
    numbers = values.cast(pa.float64(), safe=False)
    return pc.if_else(pc.is_finite(numbers), numbers, None)


def _check_columns(path: str, scanned: Sequence[source.Scanned], needed: Sequence[str]) -> None:
    try:
        source.check_columns(scanned, needed)
    except InputColumnsMissing as error:
        missing, present = ", ".join(error.missing), ", ".join(error.present)
        raise LabelsUnusable(path, f"{error.path} lacks {missing}; it has {present}") from error


def _only_other(path: str, one: source.Scanned, key: Sequence[str]) -> str:
    folders = {name for name, _ in one.file.partitions}
    others = [name for name in one.schema.names if name not in key and name not in folders]
    if len(others) != 1:
        which = ", ".join(others) or "none"
        raise LabelsUnusable(
            path, f"one of its columns must be named as the label (--label); it has {which}"
        )
    (found,) = others
    return str(found)


def _comparable(
    path: str, scanned: Sequence[source.Scanned], name: str, scored: pa.DataType
) -> pa.Field:
    kind = scored
    for one in scanned:
        found = one.schema.field(name).type
        common = common_type(kind, found)
        if common is None:
            raise LabelsUnusable(
                path,
                f"its key {name} is {found} and that of the scores {scored}, which cannot be "
                "compared",
            )
        kind = common
    return pa.field(name, kind)


def _read(files: LabelFiles) -> pa.Table:
    """Key and label of every row that has a label."""
    names = [*files.key.names, files.column]
    parts = []
    for one in files.scanned:
        for batch in one.rows(names, BATCH_ROWS):
            *keys, labels = (pa.chunked_array([column]) for column in batch.columns)
            if types.is_null(labels.type):
                continue
            known = truth(labels)
            if known is None:
                raise LabelsUnusable(
                    files.path,
                    f"{files.column} is {labels.type}, not numbers, words, or true and false",
                )
            if known.null_count == len(known):
                continue
            compared = map(partial(_compared, files.path), keys, files.key)
            parts.append(pa.table([*compared, known], names=[*files.key.names, LABEL]))
    if len({part[LABEL].type for part in parts}) > 1:
        raise LabelsUnusable(files.path, f"{files.column} holds words in one file but not in all")
    if not parts:
        return files.key.append(pa.field(LABEL, pa.float64())).empty_table()
    table = pa.concat_tables(parts)
    return table.filter(table[LABEL].is_valid()) if table[LABEL].null_count else table


def _compared(path: str, values: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    try:
        return values.cast(field.type)
    except pa.ArrowInvalid as error:
        raise LabelsUnusable(
            path, f"its key {field.name} cannot be compared with that of the scores: {error}"
        ) from error


def _check_unique(
    files: LabelFiles, keys: Sequence[pa.ChunkedArray], order: Numbers, numbers: Numbers
) -> None:
    again = np.flatnonzero(numbers[1:] == numbers[:-1])
    if not len(again):
        return
    row = int(order[again[0]])
    example = ", ".join(
        f"{name} = {column[row].as_py()!r}"
        for name, column in zip(files.key.names, keys, strict=True)
    )
    raise LabelsUnusable(
        files.path,
        f"{len(again):,} rows have the key of another, such as {example}, and nothing says which "
        "label is right",
    )
