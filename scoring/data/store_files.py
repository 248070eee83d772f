"""Some objects of a store as a filesystem for pyarrow's datasets.

Each object is read as the version that was listed; one that is replaced meanwhile fails the read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSystemHandler, FileType, PyFileSystem

from scoring.data.stores import Entry, Stores


def store_files(entries: Sequence[Entry], stores: Stores) -> PyFileSystem:
    """A filesystem that holds these objects under their URLs."""
    return PyFileSystem(_Objects(entries, stores))


class _Objects(FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """Reading only."""

    def __init__(self, entries: Sequence[Entry], stores: Stores) -> None:
        self._entries = {entry.url: entry for entry in entries}
        self._stores = stores

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Objects) and self._entries == other._entries

    def __hash__(self) -> int:
        return hash(frozenset(self._entries))

    def get_type_name(self) -> str:
        return "nightscore"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: Sequence[str]) -> list[FileInfo]:
        return [self._info(path) for path in paths]

    def open_input_file(self, path: str) -> pa.PythonFile:
        entry = self._entries.get(path)
        if entry is None:
            raise FileNotFoundError(path)
        reader = self._stores.reader(entry.url, size=entry.size, stamp=entry.stamp)
        return pa.PythonFile(reader, mode="r")

    def open_input_stream(self, path: str) -> pa.PythonFile:
        return self.open_input_file(path)

    def _info(self, path: str) -> FileInfo:
        entry = self._entries.get(path)
        if entry is None:
            return FileInfo(path, FileType.NotFound)
        return FileInfo(path, FileType.File, size=entry.size)

    def _refused(self, *_: Any, **__: Any) -> NoReturn:
        raise PermissionError("published scores are read here, and nothing else")

    get_file_info_selector = create_dir = delete_dir = delete_dir_contents = _refused
    delete_root_dir_contents = delete_file = move = copy_file = _refused
    open_output_stream = open_append_stream = _refused
