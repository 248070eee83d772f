"""An object as a file that pyarrow can read: each read is one request for a range of bytes.

Invariant: all bytes are of one version of the object. Every request names the version's ETag, so
an object that is replaced meanwhile fails the read instead of mixing two.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable

READ_AHEAD = 2**20
"""Bytes of a request at least: columns of a small row group lie side by side."""

Fetch = Callable[[int, int], memoryview]
"""Bytes of the object from here to there, the end excluded."""


class StoreFile(io.RawIOBase):
    """A file of ``size`` bytes that ``fetch`` brings."""

    def __init__(self, size: int, fetch: Fetch) -> None:
        super().__init__()
        self._size = size
        self._fetch = fetch
        self._position = 0
        self._ahead_from = 0
        self._ahead = memoryview(b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def size(self) -> int:
        """Bytes of the object."""
        return self._size

    def read(self, size: int | None = -1) -> bytes:
        start = self._position
        left = max(0, self._size - start)
        count = left if size is None or size < 0 else min(size, left)
        if not count:
            return b""
        found = self._from(start, count)
        self._position = start + count
        return bytes(found)

    def readall(self) -> bytes:
        return self.read(-1)

    def readinto(self, buffer: object) -> int:
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # any writable buffer
        found = self.read(len(target))
        target[: len(found)] = found
        return len(found)

    def _from(self, start: int, count: int) -> memoryview:
        behind = start - self._ahead_from
        if behind < 0 or behind + count > len(self._ahead):
            stop = min(self._size, start + max(count, READ_AHEAD))
            self._ahead_from, self._ahead = start, self._fetch(start, stop)
            behind = 0
        return self._ahead[behind : behind + count]
