"""Ends or freezes a process before its n-th change of the world, whatever code makes it.

A change is what another process could see afterwards: a file written, linked, renamed or removed
below a folder, a folder made or exchanged, a transaction begun to commit or committed. Python
tells of files itself (audit events), SQLAlchemy of transactions; nothing of the product is
replaced. Changes that other threads make are not counted: they come when they like. But no freeze
comes between the begin and the end of their transactions: a database that is locked by a process
that does nothing is another fault.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE_EVENTS = frozenset({"os.link", "os.rename", "os.mkdir", "os.remove", "os.rmdir"})
EXCHANGE = "renameat2"


@dataclass(slots=True)
class Steps:
    """Counts the changes of this process, and strikes before one of them."""

    folder: Path
    """Changes of files elsewhere are not counted."""
    ledger: str
    """Name of the database whose transactions are."""
    strike_before: int = 0
    """Number of the change, from 1; 0: only count."""
    how: int = signal.SIGKILL
    seen: list[str] = field(default_factory=list)
    """Names of the changes so far."""
    told: Callable[[str], None] | None = None
    """Called with each name before it happens."""
    _thread: int = field(default_factory=threading.get_ident)
    _elsewhere: threading.Lock = field(default_factory=threading.Lock)
    """Held while another thread changes the ledger."""

    def watch(self) -> None:
        """Begin; there is no end but the process's own."""
        from sqlalchemy import Engine, event

        sys.addaudithook(self._audited)
        event.listen(Engine, "commit", self._committing)
        event.listen(Engine, "checkin", self._checked_in)
        event.listen(Engine, "begin", self._begun)

    def _audited(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open":
            path, _, flags = arguments
            if flags & (os.O_WRONLY | os.O_RDWR) and self._ours(path):
                self._step(f"open {Path(os.fsdecode(path)).name}")
        elif name in FILE_EVENTS:
            if self._ours(arguments[0]):
                self._step(f"{name} {Path(os.fsdecode(arguments[0])).name}")
        elif name == "ctypes.dlsym" and arguments[1] == EXCHANGE:
            self._step("exchange")

    def _ours(self, path: Any) -> bool:
        if not isinstance(path, str | bytes):
            return False
        text = os.fsdecode(path)
        return not os.path.isabs(text) or text.startswith(f"{self.folder}/")

    def _begun(self, connection: Any) -> None:
        reading = connection.get_execution_options().get("reading", False)
        changing = not reading and self._is_ledger(connection)
        connection.info["changing"] = changing
        if changing and threading.get_ident() != self._thread:
            self._elsewhere.acquire()
            connection.info["elsewhere"] = True

    def _committing(self, connection: Any) -> None:
        if connection.info.get("changing"):
            self._step("before a commit")

    def _checked_in(self, _connection: Any, record: Any) -> None:
        if record.info.pop("elsewhere", False):
            self._elsewhere.release()
        if record.info.pop("changing", False):
            self._step("after a commit")

    def _is_ledger(self, connection: Any) -> bool:
        return bool(connection.engine.url.database == self.ledger)

    def _step(self, name: str) -> None:
        if threading.get_ident() != self._thread:
            return
        self.seen.append(name)
        if self.told is not None:
            self.told(name)
        if len(self.seen) == self.strike_before:
            with self._elsewhere if self.how == signal.SIGSTOP else nullcontext():
                os.kill(os.getpid(), self.how)
