"""PostgreSQL connections on which nothing waits for ever.

The server ends what takes too long there. Should the server itself fall silent, with the network
still saying that it lives, nothing in libpq would end the wait for its answer: here it ends, and
the connection with it, as nobody knows what became of its transaction. Every write of the ledger is
conditional, so it can be made again.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, event, text

CONNECT_SECONDS = 5
"""How long the server may take to accept a connection."""
LOCK_SECONDS = 30
"""How long a statement waits for a lock."""
STATEMENT_SECONDS = 45
"""How long a statement may take in all."""
IDLE_SECONDS = 60
"""How long a transaction may stand still: a worker that is frozen in one lets go of its locks."""
ANSWER_SECONDS = 60.0
"""How long to wait for an answer, on this side."""

CONNECT_ARGS = {
    "connect_timeout": CONNECT_SECONDS,
    "options": f"-c lock_timeout={LOCK_SECONDS}s -c statement_timeout={STATEMENT_SECONDS}s"
    f" -c idle_in_transaction_session_timeout={IDLE_SECONDS}s",
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds
}
"""What libpq and the server are told."""


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that waits so long for an answer, and then is closed."""

    answer_seconds: float | None = ANSWER_SECONDS
    """``None``: as long as it takes."""

    def wait(self, gen: Any, *how: Any, **more: Any) -> Any:
        if self.answer_seconds is not None:
            gen = self._bounded(gen, self.answer_seconds)
        return super().wait(gen, *how, **more)

    def _bounded(self, gen: Any, seconds: float) -> Generator[Any, Any, Any]:
        """The same dialogue with the socket, broken off in time."""
        until = time.monotonic() + seconds
        ready = None
        while True:
            try:
                wanted = gen.send(ready)
            except StopIteration as end:
                return end.value
            ready = yield wanted
            if time.monotonic() > until:
                self.close()
                raise psycopg.OperationalError(f"no answer within {seconds:g} s")


def bound(engine: Engine, answer_seconds: float) -> None:
    """Let an engine open such connections."""

    def connect(_dialect: Any, _record: Any, arguments: Any, named: Any) -> BoundedConnection:
        opened = BoundedConnection.connect(*arguments, **named)
        opened.answer_seconds = answer_seconds
        return opened

    event.listen(engine, "do_connect", connect)


def unbound(connection: Connection) -> None:
    """Let the rest of this transaction, a migration, take as long as it does, but for locks."""
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    opened: Any = connection.connection.dbapi_connection
    opened.answer_seconds = None
    connection.detach()  # closed after use, so that the pool has bounded ones only
