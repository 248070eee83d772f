"""A registry that is an SQLite file: whether it can be asked, before MLflow is.

MLflow makes a new, empty registry where the file is gone, in which no model is, and tries for
minutes to open one that is damaged. Both are outages of a registry that was there before.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import make_url

from scoring.errors import RegistryUnreachable

LOCK_SECONDS = 2.0
"""How long one look waits for a lock; it is looked again."""


def check_file(uri: str, shown: str) -> None:
    """Raise `RegistryUnreachable` if the registry is an SQLite file that cannot be read."""
    if not uri.startswith("sqlite"):
        return
    path = make_url(uri).database
    if not path or path == ":memory:":
        return
    if not Path(path).is_file():
        raise RegistryUnreachable(shown, "there is no such file") from FileNotFoundError(path)
    try:
        address = f"file:{quote(str(Path(path).absolute()))}?mode=rw"
        with closing(sqlite3.connect(address, uri=True, timeout=LOCK_SECONDS)) as file:
            file.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise RegistryUnreachable(shown, str(error)) from error
