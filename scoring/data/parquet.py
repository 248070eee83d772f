"""Parquet files as we open them, so that what is wrong in one is an error and never a wrong value.

Left to itself, pyarrow passes over checksums that do not match, wraps INT96 times that nanoseconds
cannot hold, cannot read a list of fixed size that is null, and ends the process when it looks at
the footer of an encrypted column.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from scoring.data.store_reader import StoreFile

File = BinaryIO | StoreFile
ARROW_SCHEMA = b"ARROW:schema"
"""Key under which a footer keeps the Arrow types that the columns were written from."""
MAGIC = b"PAR1"
TAIL_BYTES = 2**16
"""Read at first from the end of a file, as pyarrow does: most footers lie in it."""
SIGNATURE_BYTES = 28
"""After a footer in plain text whose columns are encrypted: nonce and tag of AES-GCM."""


class Encrypted(pa.ArrowInvalid):  # type: ignore[misc]  # pyarrow has no types
    """Some columns of a file are encrypted; the footer is not."""


def open_parquet(source: str | File, buffer_size: int | None = None) -> pq.ParquetFile:
    """Open a path or a file to be read in pieces of ``buffer_size``.

    Columns of lists of fixed size that may hold nulls come as plain lists.

    Raises: pa.ArrowException, OSError.
    """
    footer = _footer(source)
    metadata = pq.read_metadata(source)
    if len(footer) - metadata.serialized_size == SIGNATURE_BYTES:
        raise Encrypted("its columns are encrypted, and there is no key")
    unreadable = _unreadable(metadata)
    if unreadable:
        metadata = _with_lists(footer, metadata, unreadable)
    return pq.ParquetFile(
        source,
        metadata=metadata,
        buffer_size=buffer_size or 0,
        pre_buffer=False,
        page_checksum_verification=True,
        coerce_int96_timestamp_unit="us",  # years 1 to 9999 fit; in nanoseconds they would wrap
    )


def why(error: Exception) -> str:
    """What a library says is wrong with a file, as a part of one sentence."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split()).rstrip(".") or type(error).__name__


def _footer(source: str | File) -> bytes:
    """The footer, or nothing where there can be none: pyarrow finds out why."""
    if isinstance(source, str):
        with Path(source).open("rb") as file:
            return _footer(file)
    size = source.seek(0, os.SEEK_END)
    tail = _last(source, min(size, TAIL_BYTES))
    length = int.from_bytes(tail[-8:-4], "little")
    if length + 8 > size:
        return b""
    return (tail if length + 8 <= len(tail) else _last(source, length + 8))[-8 - length : -8]


def _last(file: File, count: int) -> bytes:
    file.seek(-count, os.SEEK_END)
    return file.read(count)


def _unreadable(metadata: pq.FileMetaData) -> frozenset[str]:
    """Columns of lists of fixed size that, by the footer, may hold nulls."""
    schema = metadata.schema.to_arrow_schema()
    fixed = {field.name for field in schema if _holds_fixed_lists(field.type)}
    return frozenset(name for name in fixed if _may_hold_nulls(metadata, name))


def _may_hold_nulls(metadata: pq.FileMetaData, name: str) -> bool:
    paths = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
    places = [index for index, path in enumerate(paths) if path.split(".")[0] == name]
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for found in (group.column(index).statistics for index in places):
            if found is None or not found.has_null_count or found.null_count:
                return True
    return False


def _holds_fixed_lists(kind: pa.DataType) -> bool:
    if types.is_fixed_size_list(kind):
        return True
    return types.is_nested(kind) and any(
        _holds_fixed_lists(kind.field(index).type) for index in range(kind.num_fields)
    )


def _with_lists(footer: bytes, metadata: pq.FileMetaData, names: frozenset[str]) -> pq.FileMetaData:
    """The same footer, but that its Arrow schema has plain lists in these columns."""
    hint = metadata.metadata[ARROW_SCHEMA]
    schema = pa.ipc.read_schema(pa.BufferReader(base64.b64decode(hint)))
    fields = [f.with_type(_as_lists(f.type)) if f.name in names else f for f in schema]
    wanted = pa.schema(fields, schema.metadata).serialize().to_pybytes()
    said, instead = _counted(hint), _counted(base64.b64encode(wanted))
    if footer.count(said) != 1:
        return metadata
    changed = footer.replace(said, instead)
    file = MAGIC + changed + len(changed).to_bytes(4, "little") + MAGIC
    return pq.read_metadata(pa.BufferReader(file))


def _as_lists(kind: pa.DataType) -> pa.DataType:
    if types.is_fixed_size_list(kind) or types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_as_lists(kind.value_type)))
    if types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_as_lists(kind.value_type)))
    if types.is_struct(kind):
        return pa.struct([field.with_type(_as_lists(field.type)) for field in kind])
    return kind


def _counted(text: bytes) -> bytes:
    """A byte string as Thrift's compact protocol writes it: its length, 7 bits a byte, before."""
    length, prefix = len(text), bytearray()
    while length > 127:
        prefix.append(length & 127 | 128)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + text
