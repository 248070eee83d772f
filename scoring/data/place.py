"""Where input files lie: on a filesystem of this machine, or in an object store.

What differs between the two is behind one small interface; `source` reads from either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pyarrow.parquet as pq

HIDDEN = (".", "_")
"""Prefixes of files and folders that a search passes over, as Spark and Arrow do."""
SUFFIXES = (".parquet", ".pq", ".parq")
"""Names, in any case, of the files that a search of a folder finds."""


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
class Found:
    """A file as it is now."""

    path: str
    size: int
    """Bytes."""
    stamp: str
    """With ``size``, its identity: modification time in nanoseconds, or ETag."""


class Place(Protocol):
    """A kind of place that input is read from."""

    reads_one_version: bool
    """Whether a file that is open is never read as two versions of it, whatever happens to it."""

    def find(self, path: str) -> list[Found]:
        """The files that a path (a file, a folder or a glob) means, in the order of their paths.

        Raises:
            InputUnreadable: one of them cannot be looked at.
        """

    def look(self, path: str) -> Found:
        """The file as it is now. Raises: FileNotFoundError, OSError."""

    def open(self, file: Found | Frozen, read_ahead: int | None = None) -> pq.ParquetFile:
        """The file, to be read in pieces of about ``read_ahead`` bytes a column.

        Raises:
            OSError: it is gone, may not be read, or is another version where that can be told.
            pyarrow.ArrowException: it is not Parquet.
        """

    def describe(self, size: int, stamp: str) -> str:
        """A version of a file, for a message."""
