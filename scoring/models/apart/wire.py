"""Messages between a worker and the process of its model: a few words of JSON, and rows.

Each has two lengths, then the words, then the rows as an Arrow IPC stream, if there are any. They
go through pipes of their own, as a model may well print to standard output.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from typing import Any

import pyarrow as pa

LENGTHS = struct.Struct(">IQ")
"""Bytes of the words and of the rows."""
AT_ONCE = 1 << 20
"""Bytes of one read."""
PIPE_BYTES = 1 << 16
"""Bytes of one write: what a pipe holds."""

Words = dict[str, Any]
Ready = Callable[[int, bool], None]
"""Returns when a descriptor can be read, or written if the second argument is true."""


class Wire:
    """Both directions as one side has them."""

    def __init__(
        self, reading: int, writing: int, ready: Ready = lambda descriptor, write: None
    ) -> None:
        self._reading, self._writing, self._ready = reading, writing, ready

    def send(self, words: Words, rows: pa.RecordBatch | None = None) -> None:
        """Raises: BrokenPipeError: the other side is gone."""
        text = json.dumps(words).encode("ascii")
        body = _stream(rows) if rows is not None else b""
        self._write(LENGTHS.pack(len(text), len(body)) + text)
        self._write(body)

    def receive(self) -> tuple[Words, pa.RecordBatch | None]:
        """The next message. Raises: EOFError: the other side is gone."""
        words, rows = LENGTHS.unpack(self._read(LENGTHS.size))
        return json.loads(self._read(words)), _batch(self._read(rows)) if rows else None

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)

    def _write(self, data: bytes | memoryview) -> None:
        left = memoryview(data)
        while left:
            self._ready(self._writing, True)
            left = left[os.write(self._writing, left[:PIPE_BYTES]) :]

    def _read(self, size: int) -> bytearray:
        data = bytearray()
        while len(data) < size:
            self._ready(self._reading, False)
            some = os.read(self._reading, min(size - len(data), AT_ONCE))
            if not some:
                raise EOFError
            data += some
        return data


def _stream(rows: pa.RecordBatch) -> memoryview:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_batch(rows)
    return memoryview(sink.getvalue())


def _batch(data: bytearray) -> pa.RecordBatch:
    with pa.ipc.open_stream(pa.py_buffer(data)) as stream:
        return stream.read_next_batch()
