"""Input: which files a path means, what their footers say, and their rows.

Invariant: `read` yields rows of exactly the file the run was planned from. Size and modification
time, or ETag, are compared before the first row, and after the last where an open file may change;
so a file replaced or rewritten meanwhile fails the run instead of mixing two versions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from scoring import urls
from scoring.data.local_input import LocalInput
from scoring.data.parquet import why
from scoring.data.place import Found, Frozen, Place
from scoring.data.store_input import StoreInput
from scoring.data.stores import Stores
from scoring.errors import InputChanged, InputColumnsMissing, InputUnreadable, NoInputFiles
from scoring.plan import InputFile, RowGroup, Span, whole

FOOTER_READERS = 8
"""Footers read at once."""
READ_BUFFER = 2**20
"""Bytes read ahead per column: rows stream, however large a row group is."""
BATCH_BYTES = 64 * 2**20
"""Most bytes of one batch, as the footer counts them: rows may be megabytes of text."""
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""How a hive folder spells null."""
NO_STORES = Stores()
"""Stores as the environment alone says how to reach them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """One input file and the columns it has, partitions included."""

    file: InputFile
    schema: pa.Schema
    minima: dict[str, float]
    """Least value of each numeric column that the footer gives one for."""
    stores: Stores = field(default=NO_STORES, repr=False)

    def rows(self, columns: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """All of its rows, as `read` gives them."""
        return read(self.file, whole(self.file), columns, batch_rows, self.stores)


def scan(path: str, columns: Sequence[str], stores: Stores = NO_STORES) -> list[Scanned]:
    """Find the Parquet files of ``path`` (a file, a folder or a glob) and read their footers.

    Files come in the order of their paths. Sizes count ``columns`` only (empty: all).

    Raises:
        NoInputFiles: nothing matches.
        InputUnreadable: a file is not Parquet, or may not be read.
        StoreRefused, StoreUnreachable: the store of the path.
    """
    place = _place(path, stores)
    found = place.find(path)
    if not found:
        raise NoInputFiles(path)
    with ThreadPoolExecutor(FOOTER_READERS) as readers:
        scanned = readers.map(lambda one: _scan_file(place, one, frozenset(columns)), found)
        return [replace(one, stores=stores) for one in scanned]


def check_columns(scanned: Sequence[Scanned], needed: Sequence[str]) -> None:
    """Raise unless every file has every needed column, once.

    Raises:
        InputColumnsMissing, InputUnreadable.
    """
    for one in scanned:
        counts = Counter(one.schema.names)
        missing = [name for name in needed if name not in counts]
        if missing:
            raise InputColumnsMissing(one.file.path, missing, one.schema.names)
        for name in needed:
            if counts[name] > 1:
                raise InputUnreadable(
                    one.file.path, f"it has {counts[name]} columns named {name!r}"
                )


def read(
    file: Frozen,
    span: Span,
    columns: Sequence[str],
    batch_rows: int,
    stores: Stores = NO_STORES,
) -> Iterator[pa.RecordBatch]:
    """The span's rows, in order, in batches of at most ``batch_rows``, columns as named.

    Raises:
        InputChanged: the file is not the one that was planned, or is gone.
        InputUnreadable: the file does not decode.
        StoreRefused, StoreUnreachable: the store that it is in.
    """
    place = _place(file.path, stores)
    _check_unchanged(place, file)
    if span.rows == 0:
        return
    try:
        with place.open(file, READ_BUFFER) as parquet:
            yield from _rows(parquet, file, span, columns, batch_rows)
    except (pa.ArrowException, OSError) as error:
        _check_unchanged(place, file)  # a file swapped while we read it often fails to decode
        raise InputUnreadable(file.path, why(error)) from error
    if not place.reads_one_version:
        _check_unchanged(place, file)


def schema_of(file: Frozen, stores: Stores = NO_STORES) -> pa.Schema:
    """The columns of a file, partitions included.

    Raises: InputChanged, InputUnreadable, StoreRefused, StoreUnreachable.
    """
    place = _place(file.path, stores)
    _check_unchanged(place, file)
    try:
        with place.open(file) as parquet:
            schema = parquet.schema_arrow
    except (pa.ArrowException, OSError) as error:
        _check_unchanged(place, file)
        raise InputUnreadable(file.path, why(error)) from error
    return _with_partitions(schema, file.partitions)


def _place(path: str, stores: Stores) -> Place:
    return StoreInput(stores) if urls.is_url(path) else LocalInput()


def _check_unchanged(place: Place, file: Frozen) -> None:
    """Raise `InputChanged` unless the file is still the one in the manifest."""
    planned = place.describe(file.size, file.stamp)
    try:
        found = place.look(file.path)
    except FileNotFoundError as error:
        raise InputChanged(file.path, planned, "no such file") from error
    except OSError as error:
        raise InputUnreadable(file.path, why(error)) from error
    if (found.size, found.stamp) != (file.size, file.stamp):
        raise InputChanged(file.path, planned, place.describe(found.size, found.stamp))


def _scan_file(place: Place, found: Found, columns: frozenset[str]) -> Scanned:
    try:
        with place.open(found) as parquet:
            footer, schema = parquet.metadata, parquet.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise InputUnreadable(found.path, why(error)) from error
    partitions = tuple(
        (name, value) for name, value in _partitions(found.path).items() if name not in schema.names
    )
    groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
    wanted = _wanted(footer, columns)
    return Scanned(
        file=InputFile(
            path=found.path,
            size=found.size,
            stamp=found.stamp,
            row_groups=tuple(_row_group(group, wanted) for group in groups),
            partitions=partitions,
        ),
        schema=_with_partitions(schema, partitions),
        minima=_minima(groups, wanted, columns),
    )


def _with_partitions(schema: pa.Schema, partitions: Sequence[tuple[str, str]]) -> pa.Schema:
    for name, _ in partitions:
        schema = schema.append(pa.field(name, pa.string()))
    return schema


def _wanted(footer: pq.FileMetaData, columns: frozenset[str]) -> list[int]:
    """Which of a row group's columns belong to the named ones (none: all do)."""
    paths = [footer.schema.column(index).path for index in range(footer.num_columns)]
    return [
        index
        for index, path in enumerate(paths)
        if not columns or path in columns or path.split(".")[0] in columns
    ]


def _row_group(group: pq.RowGroupMetaData, wanted: Sequence[int]) -> RowGroup:
    return RowGroup(
        rows=group.num_rows,
        bytes=sum(group.column(index).total_uncompressed_size for index in wanted),
    )


def _minima(
    groups: Sequence[pq.RowGroupMetaData], wanted: Sequence[int], columns: frozenset[str]
) -> dict[str, float]:
    """Least values of plain numeric columns, from the footer's statistics."""
    least: dict[str, float] = {}
    for group in groups:
        for index in wanted:
            chunk = group.column(index)
            name, statistics = chunk.path_in_schema, chunk.statistics
            if columns and name not in columns:
                continue
            if statistics is not None and statistics.has_min_max:
                least[name] = min(_least(statistics), least.get(name, math.inf))
    return {name: value for name, value in least.items() if math.isfinite(value)}


def _least(statistics: pq.Statistics) -> float:
    """A footer's minimum as drift counts it, times in seconds; infinite where it has none."""
    try:
        value = statistics.min
    except (OverflowError, ValueError):
        return math.inf  # a time that Python cannot hold
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, date):
        return (value - date(1970, 1, 1)).total_seconds()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return math.inf


def _partitions(path: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in Path(path).parent.parts)
    return {unquote(name): unquote(value) for name, equals, value in pairs if equals and name}


def _rows(
    parquet: pq.ParquetFile, file: Frozen, span: Span, columns: Sequence[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    partitions = dict(file.partitions)
    stored = [name for name in columns if name not in partitions]
    skip, left = span.skip, span.rows
    batches = parquet.iter_batches(
        batch_size=_rows_at_once(parquet.metadata, span, stored, batch_rows),
        row_groups=range(span.first_group, span.first_group + span.groups),
        columns=stored or parquet.schema_arrow.names[:1],
        use_threads=False,
    )
    for batch in batches:
        if skip >= batch.num_rows:
            skip -= batch.num_rows
            continue
        batch = batch.slice(skip, left)
        skip, left = 0, left - batch.num_rows
        yield _in_order(batch, columns, partitions)
        if left == 0:
            return
    raise InputUnreadable(
        file.path, f"its footer promises {span.rows} rows and {left} of them are not there"
    )


def _rows_at_once(
    footer: pq.FileMetaData, span: Span, columns: Sequence[str], batch_rows: int
) -> int:
    """``batch_rows``, or fewer where rows are so large that those would not fit into memory."""
    wanted = _wanted(footer, frozenset(columns))
    indexes = range(span.first_group, span.first_group + span.groups)
    groups = [_row_group(footer.row_group(index), wanted) for index in indexes]
    widest = max((group.bytes // group.rows for group in groups if group.rows), default=0)
    return max(1, min(batch_rows, BATCH_BYTES // max(widest, 1)))


def _in_order(
    batch: pa.RecordBatch, columns: Sequence[str], partitions: dict[str, str]
) -> pa.RecordBatch:
    arrays = [
        _constant(partitions[name], batch.num_rows) if name in partitions else batch.column(name)
        for name in columns
    ]
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _constant(value: str, rows: int) -> pa.Array:
    return pa.nulls(rows, pa.string()) if value == NO_VALUE else pa.repeat(value, rows)
