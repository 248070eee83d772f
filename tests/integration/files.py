"""What lies in a folder that living services write to."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder by its path, without those that go meanwhile."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            with suppress(FileNotFoundError):
                found[str(path)] = path.read_bytes()
    return found
