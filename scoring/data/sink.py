"""What one attempt at one chunk writes: the part and, if rows were refused, their quarantine.

Files lie in the run's staging folder under names that hold the attempt, so that two attempts
never write the same file; they become visible only when the run is published.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from scoring.data.validate import garbled_rows

ROW_GROUP_ROWS = 262_144
ROW_GROUP_BYTES = 64 * 2**20
"""A row group is written when it has this many rows or bytes, whichever comes first."""


def part_name(index: int, attempt: int) -> str:
    """Staged name of a part; no reader's ``*.parquet`` matches it."""
    return f"part-{index:05d}.attempt-{attempt}"


def profile_name(part: str) -> str:
    """Staged name of the profile beside a part."""
    return f"{part}.profile.json"


def quarantine_name(part: str) -> str:
    """Staged name of the quarantined rows beside a part."""
    return f"{part}.quarantine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A closed part."""

    rows: int
    digest: str
    """SHA-256 of its bytes."""


class PartWriter:
    """Writes one Parquet file in row groups of a good size; `close` makes it durable."""

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        self._path = path
        self._metadata = {f"nightscore.{key}": value for key, value in metadata.items()}
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows; the first batch fixes the schema."""
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        self._waiting_bytes += batch.nbytes
        if self._waiting_rows >= ROW_GROUP_ROWS or self._waiting_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> Written:
        """Write what is left, sync it to disk, and say what was written."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Written(rows=self._rows, digest=digest)

    def abandon(self) -> None:
        """Drop the part; nothing of it stays."""
        if self._writer is not None:
            with suppress(OSError):  # its footer may find no room either
                self._writer.close()
        self._path.unlink(missing_ok=True)

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.Table.from_batches(self._waiting)
        if self._writer is None:
            self._writer = _writer(self._path, table.schema, self._metadata)
        self._writer.write_table(table, row_group_size=max(table.num_rows, 1))
        self._rows += table.num_rows
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0


def write_quarantine(path: Path, batches: Sequence[pa.RecordBatch]) -> None:
    """Write refused rows as one file.

    Input files may disagree about a column's type; the wider one is taken, or text if neither is.
    Text that is not UTF-8 is kept as the bytes that it is, so that readers can read the others.
    """
    tables = [pa.Table.from_batches([_readable(batch)]) for batch in batches]
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        kinds = {(field.name, field.type) for table in tables for field in table.schema}
        count = Counter(name for name, _ in kinds)
        unlike = {name for name in count if count[name] > 1}
        table = pa.concat_tables([_as_text(table, unlike) for table in tables])
    pq.write_table(table, path)


def _readable(batch: pa.RecordBatch) -> pa.RecordBatch:
    for index, (name, column) in enumerate(zip(batch.schema.names, batch.columns, strict=True)):
        if len(garbled_rows(column)):
            batch = batch.set_column(index, name, _as_bytes(column))
    return batch


def _as_bytes(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    nested = pa.types.is_nested(column.type)
    return column.cast(pa.list_(pa.large_binary()) if nested else pa.large_binary())


def _as_text(table: pa.Table, columns: Container[str]) -> pa.Table:
    for index, name in enumerate(table.schema.names):
        if name in columns:
            values = table.column(index).to_pylist()
            text = pa.array(
                [None if value is None else str(value) for value in values], pa.string()
            )
            table = table.set_column(index, name, text)
    return table


def _writer(path: Path, schema: pa.Schema, metadata: Mapping[str, str]) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        path,
        schema.with_metadata({**(schema.metadata or {}), **metadata}),
        compression="zstd",
        compression_level=1,
        use_dictionary=_worth_a_dictionary(schema),
    )


def _worth_a_dictionary(schema: pa.Schema) -> Sequence[str]:
    """Text repeats; scores and numeric keys hardly do, and looking for it costs time."""
    return [
        field.name
        for field in schema
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    ]
