"""Input: which files a path means, what their footers say, and their rows.

Invariant: `read` yields rows of exactly the file the run was planned from. Size and modification
time are compared before the first row and after the last, so that a file replaced or rewritten
meanwhile fails the run instead of mixing two versions.
"""

from __future__ import annotations

import glob
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from scoring.errors import InputChanged, InputColumnsMissing, InputUnreadable, NoInputFiles
from scoring.plan import InputFile, RowGroup, Span

FOOTER_READERS = 8
"""Footers read at once."""
READ_BUFFER = 2**20
"""Bytes read ahead per column: rows stream, however large a row group is."""
HIDDEN = (".", "_")
"""Prefixes of files and folders that a search passes over, as Spark and Arrow do."""
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""How a hive folder spells null."""


class Frozen(Protocol):
    """A line of the input manifest, wherever it is kept."""

    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def stamp(self) -> str: ...
    @property
    def partitions(self) -> tuple[tuple[str, str], ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """One input file and the columns it has, partitions included."""

    file: InputFile
    schema: pa.Schema
    minima: dict[str, float]
    """Least value of each numeric column that the footer gives one for."""


def scan(path: str, columns: Sequence[str]) -> list[Scanned]:
    """Find the Parquet files of ``path`` (a file, a folder or a glob) and read their footers.

    Files come in the order of their paths. Sizes count ``columns`` only (empty: all).

    Raises:
        NoInputFiles: nothing matches.
        InputUnreadable: a file is not Parquet, or may not be read.
    """
    paths = _find(path)
    if not paths:
        raise NoInputFiles(path)
    with ThreadPoolExecutor(FOOTER_READERS) as readers:
        return list(readers.map(lambda found: _scan_file(found, frozenset(columns)), paths))


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
    file: Frozen, span: Span, columns: Sequence[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """The span's rows, in order, in batches of at most ``batch_rows``, columns as named.

    Raises:
        InputChanged: the file is not the one that was planned, or is gone.
        InputUnreadable: the file does not decode.
    """
    check_unchanged(file)
    if span.rows == 0:
        return
    try:
        with pq.ParquetFile(file.path, buffer_size=READ_BUFFER, pre_buffer=False) as parquet:
            yield from _rows(parquet, file, span, columns, batch_rows)
    except (pa.ArrowException, OSError) as error:
        check_unchanged(file)  # a file swapped while we read it often fails to decode first
        raise InputUnreadable(file.path, str(error)) from error
    check_unchanged(file)


def check_unchanged(file: Frozen) -> None:
    """Raise `InputChanged` unless the file is still the one in the manifest."""
    try:
        found = os.stat(file.path)
    except FileNotFoundError as error:
        raise InputChanged(file.path, _identity(file.size, file.stamp), "no such file") from error
    except OSError as error:
        raise InputUnreadable(file.path, error.strerror or str(error)) from error
    if (found.st_size, str(found.st_mtime_ns)) != (file.size, file.stamp):
        raise InputChanged(
            file.path,
            _identity(file.size, file.stamp),
            _identity(found.st_size, str(found.st_mtime_ns)),
        )


def _identity(size: int, stamp: str) -> str:
    return f"{size} bytes written at {stamp} ns"


def _find(path: str) -> list[str]:
    place = Path(path)
    if place.is_dir():
        return sorted(_walk(place))
    if place.exists():
        return [str(place)]
    if not glob.has_magic(path):
        return []
    found: set[str] = set()
    named = frozenset(place.parts)
    for match in glob.iglob(path, recursive=True):
        if any(part.startswith(HIDDEN) and part not in named for part in Path(match).parts):
            continue
        if os.path.isdir(match):
            found.update(_walk(Path(match)))
        else:
            found.add(match)
    return sorted(found)


def _walk(folder: Path) -> Iterator[str]:
    for where, folders, names in os.walk(folder, followlinks=True):
        here = Path(where).resolve()
        folders[:] = [
            name
            for name in folders
            if not name.startswith(HIDDEN)
            and not here.is_relative_to((here / name).resolve())  # a link back up has no end
        ]
        for name in names:
            if name.endswith((".parquet", ".pq", ".parq")) and not name.startswith(HIDDEN):
                yield os.path.join(where, name)


def _scan_file(path: str, columns: frozenset[str]) -> Scanned:
    try:
        status = os.stat(path)
        with pq.ParquetFile(path) as parquet:
            footer, schema = parquet.metadata, parquet.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise InputUnreadable(path, str(error)) from error
    partitions = tuple(
        (name, value) for name, value in _partitions(path).items() if name not in schema.names
    )
    for name, _ in partitions:
        schema = schema.append(pa.field(name, pa.string()))
    groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
    return Scanned(
        file=InputFile(
            path=path,
            size=status.st_size,
            stamp=str(status.st_mtime_ns),
            row_groups=tuple(_row_group(group, columns) for group in groups),
            partitions=partitions,
        ),
        schema=schema,
        minima=_minima(groups, columns),
    )


def _row_group(group: pq.RowGroupMetaData, columns: frozenset[str]) -> RowGroup:
    chunks = [group.column(index) for index in range(group.num_columns)]
    return RowGroup(
        rows=group.num_rows,
        bytes=sum(
            chunk.total_uncompressed_size
            for chunk in chunks
            if not columns or chunk.path_in_schema.split(".")[0] in columns
        ),
    )


def _minima(groups: Sequence[pq.RowGroupMetaData], columns: frozenset[str]) -> dict[str, float]:
    """Least values of plain numeric columns, from the footer's statistics."""
    least: dict[str, float] = {}
    for group in groups:
        for index in range(group.num_columns):
            chunk = group.column(index)
            name = chunk.path_in_schema
            if columns and name not in columns:
                continue
            statistics = chunk.statistics
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
        batch_size=batch_rows,
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
