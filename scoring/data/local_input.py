"""Input on a filesystem of this machine, own or mounted."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from scoring.data.parquet import open_parquet, why
from scoring.data.place import HIDDEN, SUFFIXES, Found, Frozen
from scoring.errors import InputUnreadable


class LocalInput:
    """Files and folders; links are followed."""

    reads_one_version = False

    def find(self, path: str) -> list[Found]:
        try:
            paths = _find(path)
        except OSError as error:
            raise InputUnreadable(str(error.filename or path), why(error)) from error
        return [self._found(one) for one in paths]

    def look(self, path: str) -> Found:
        status = os.stat(path)
        return Found(path=path, size=status.st_size, stamp=str(status.st_mtime_ns))

    def open(self, file: Found | Frozen, read_ahead: int | None = None) -> pq.ParquetFile:
        return open_parquet(file.path, read_ahead)

    def describe(self, size: int, stamp: str) -> str:
        return f"{size} bytes written at {stamp} ns"

    def _found(self, path: str) -> Found:
        if not _is_text(path):
            raise InputUnreadable(
                path.encode("utf-8", "backslashreplace").decode(), "its name is not UTF-8"
            )
        try:
            found, mode = self.look(path), os.stat(path).st_mode
        except OSError as error:
            raise InputUnreadable(path, why(error)) from error
        if not stat.S_ISREG(mode):
            raise InputUnreadable(path, "it is not a file but a pipe, a socket or a device")
        return found


def _is_text(path: str) -> bool:
    """Whether ledger, quarantine and messages can hold the path."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _find(path: str) -> list[str]:
    place = Path(path)
    if place.is_dir():
        return sorted(_walk(place))
    if os.path.lexists(place):
        return [str(place)]  # a link that leads nowhere is an input that cannot be read
    if not glob.has_magic(path):
        return []
    _check_folders(place)
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


def _check_folders(pattern: Path) -> None:
    """Raise `OSError` for a folder that may not be listed: a glob would pass it over."""
    parts = pattern.parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    for end in range(first, len(parts)):
        for folder in glob.iglob(str(Path(*parts[:end])), recursive=True):
            if os.path.isdir(folder):
                os.scandir(folder).close()


def _refuse(error: OSError) -> None:
    raise error


def _walk(folder: Path) -> Iterator[str]:
    for where, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        here = Path(where).resolve()
        folders[:] = [
            name
            for name in folders
            if not name.startswith(HIDDEN)
            and not here.is_relative_to((here / name).resolve())  # a link back up has no end
        ]
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith(HIDDEN):
                yield os.path.join(where, name)
