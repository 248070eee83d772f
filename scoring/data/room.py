"""A full disk, told as what it is: wherever the system says so, it becomes `OutputFull`."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scoring.errors import OutputFull

FULL = (errno.ENOSPC, errno.EDQUOT)
"""No room on the filesystem; no room left for this user."""


@contextmanager
def room_in(folder: Path | str) -> Iterator[None]:
    """What fails in the block for want of room there raises `OutputFull`.

    Raises:
        OutputFull: it can be tried again when there is room.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OutputFull(str(folder), os.strerror(error.errno)) from error
