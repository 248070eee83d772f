"""Who asks for a run: the name that is on record with it, and that submissions are counted by.

It is what callers say of themselves: it tells who it was and keeps a loop that went wrong from
flooding the workers, and is no defence against somebody who gives another name each time.
"""

from __future__ import annotations

import getpass
import os
import socket

__all__ = ["sender", "this_caller", "this_user"]

LONGEST = 200
"""Characters of a name that are kept."""


def this_user() -> str:
    """Who runs this process; a container's user may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def this_caller() -> str:
    """Who submits from this process, as ``user@host``."""
    return _kept(f"{this_user()}@{socket.gethostname()}")


def sender(origin: object, caller: object = None) -> str:
    """Who sent a message: the ``caller`` that it names, or the host in its origin header.

    Celery writes the header as ``gen123@host``; the process is left out, so that a caller is
    the same from one process to the next.
    """
    if caller:
        return _kept(str(caller))
    return _kept(str(origin or "").rpartition("@")[2]) or "unknown"


def _kept(name: str) -> str:
    """One line of text that any database takes."""
    shown = "".join(one if one.isprintable() else "?" for one in name)
    return shown[:LONGEST]
