"""Input in an object store: an object, all objects below a prefix, or those that a glob matches.

A file is read as the version that was looked at, to the end or not at all: each request names its
ETag. Stores have no folders, so a glob is matched against the names of all objects below its first
segment that holds a wildcard.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pyarrow.parquet as pq

from scoring import urls
from scoring.data.parquet import open_parquet
from scoring.data.place import HIDDEN, SUFFIXES, Found, Frozen
from scoring.data.stores import Entry, Stores

Names = Sequence[str]
"""Segments of a key."""


@dataclass(frozen=True, slots=True)
class StoreInput:
    """Objects of any of the stores."""

    stores: Stores

    reads_one_version = True

    def find(self, path: str) -> list[Found]:
        try:
            return [_found(self.stores.head(path))] if _names(path) else self._below(path)
        except FileNotFoundError:
            return self._below(path) or self._matching(path)

    def look(self, path: str) -> Found:
        return _found(self.stores.head(path))

    def open(self, file: Found | Frozen, read_ahead: int | None = None) -> pq.ParquetFile:
        reader = self.stores.reader(file.path, size=file.size, stamp=file.stamp)
        return open_parquet(reader, read_ahead)

    def describe(self, size: int, stamp: str) -> str:
        return f"{size} bytes with ETag {stamp}"

    def _below(self, prefix: str) -> list[Found]:
        depth = len(_names(prefix))
        found = self.stores.find(prefix)
        return [_found(one) for one in found if _is_input(_names(one.url)[depth:])]

    def _matching(self, path: str) -> list[Found]:
        if not glob.has_magic(path):
            return []
        pattern = _names(path)
        fixed = next(n for n, name in enumerate(pattern) if glob.has_magic(name))
        root = urls.join("://".join(urls.parts(path)[:2]), *pattern[:fixed]).rstrip("/")
        found = [one for one in self.stores.find(root) if one.size]  # else it stands for a folder
        return [_found(one) for one in found if _is_meant(_names(one.url), pattern)]


def _names(url: str) -> tuple[str, ...]:
    return urls.parts(url)[2:]


def _found(entry: Entry) -> Found:
    return Found(path=entry.url, size=entry.size, stamp=entry.stamp)


def _is_input(below: Names) -> bool:
    """Whether a search of the folder that these segments lie below finds them."""
    return below[-1].lower().endswith(SUFFIXES) and not any(
        name.startswith(HIDDEN) for name in below
    )


def _is_meant(names: Names, pattern: Names) -> bool:
    """Whether a glob matches an object, or a folder in which a search finds it."""
    if any(name.startswith(HIDDEN) and name not in pattern for name in names):
        return False
    if _matches(names, pattern):
        return True
    folders = range(1, len(names))
    return names[-1].lower().endswith(SUFFIXES) and any(
        _matches(names[:n], pattern) for n in folders
    )


def _matches(names: Names, pattern: Names) -> bool:
    """Whether a glob, in which ``**`` stands for any number of folders, matches these names."""
    if not pattern:
        return not names
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        return any(_matches(names[n:], rest) for n in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], first) and _matches(names[1:], rest)
