"""The connection under the ledger: SQLite on one machine, PostgreSQL on a fleet.

One ``transaction()`` is one unit of truth. SQLite takes its write lock at BEGIN, so that two
writers queue instead of failing half way; PostgreSQL runs READ COMMITTED, and every statement
that depends on a state says so in its own WHERE.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from tenacity import retry, retry_if_exception_message, stop_after_delay, wait_random

from scoring.errors import LedgerOutdated, LedgerUnreachable
from scoring.ledger.bounded import ANSWER_SECONDS, CONNECT_ARGS, LOCK_SECONDS, bound, unbound
from scoring.ledger.tables import REVISION

T = TypeVar("T")

STATEMENT_VALUES = 500
"""How many values one statement is given: SQLite takes only so many."""
POOL_SECONDS = 30
"""How long a thread waits until another of its process gives a connection back."""
UPGRADE_SECONDS = 300.0
"""How long a process waits while another one makes or changes the tables of an SQLite file."""
UPGRADE_LOCK = 0x4E53  # "NS"
"""PostgreSQL's advisory lock that one upgrade holds at a time."""


def in_statements(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """The values in pieces, each as many as one statement may be given."""
    for start in range(0, len(values), STATEMENT_VALUES):
        yield values[start : start + STATEMENT_VALUES]


class Database:
    """An engine with our transaction rules and our errors."""

    def __init__(
        self,
        url: str,
        *,
        answer_seconds: float = ANSWER_SECONDS,
        pool_seconds: float = POOL_SECONDS,
        upgrade_seconds: float = UPGRADE_SECONDS,
    ) -> None:
        self._url = make_url(url)
        self._upgrade_seconds = upgrade_seconds
        if self._url.get_backend_name() == "postgresql" and self._url.drivername != (
            "postgresql+psycopg"
        ):
            self._url = self._url.set(drivername="postgresql+psycopg")
        self.engine = _engine(self._url, answer_seconds, pool_seconds)

    def __str__(self) -> str:
        return self._url.render_as_string(hide_password=True)

    @property
    def url(self) -> str:
        """The full URL, password included: for a connection, never for a message."""
        return self._url.render_as_string(hide_password=False)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One write transaction; committed at the end of the block, undone on any error."""
        with self._answering(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent read that takes no lock."""
        with (
            self._answering(),
            self.engine.connect().execution_options(reading=True) as connection,
        ):
            yield connection

    def check(self) -> None:
        """Raise unless the tables are those of this version."""
        found = self.revision()
        if found != REVISION:
            raise LedgerOutdated(str(self), found or "nothing yet", REVISION)

    def ready(self) -> None:
        """Make sure that the tables are there: SQLite is upgraded, a server only checked.

        Raises:
            LedgerOutdated: a person has to run `scoring db upgrade`.
        """
        if self._url.get_backend_name() != "sqlite":
            self.check()
        elif self.revision() != REVISION:
            self.upgrade()

    def revision(self) -> str | None:
        """The migration the database is at; ``None`` before the first."""
        with self.reading() as connection:
            if not self.engine.dialect.has_table(connection, "alembic_version"):
                return None
            found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
            return found

    def upgrade(self) -> str:
        """Bring the tables to this version, one process at a time; return the revision."""
        if self._url.get_backend_name() == "sqlite" and self._url.database:
            Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{self._url.database}.upgrade.lock", timeout=self._upgrade_seconds)
            try:
                lock.acquire()
            except Timeout:
                why = f"another process has been upgrading it for {self._upgrade_seconds:g} s"
                raise LedgerUnreachable(str(self), why) from None
            try:
                self._migrate()
            finally:
                lock.release()
        else:
            self._migrate()
        return REVISION

    def _migrate(self) -> None:
        from alembic.config import Config

        from alembic import command

        config = Config()
        config.set_main_option("script_location", str(_migrations()))
        with self.transaction() as connection:
            if self._url.get_backend_name() == "postgresql":
                unbound(connection)
                connection.execute(select(func.pg_advisory_xact_lock(UPGRADE_LOCK)))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except DatabaseError as error:
            if _lacks_tables(error):
                raise LedgerOutdated(str(self), "nothing yet", REVISION) from error
            if isinstance(error, OperationalError) or type(error) is DatabaseError:  # or damaged
                raise LedgerUnreachable(str(self), _first_line(error)) from error
            raise
        except PoolTimeout as error:
            why = "no connection came free: the others of this process do not come back"
            raise LedgerUnreachable(str(self), why) from error
        except InterfaceError as error:
            raise LedgerUnreachable(str(self), _first_line(error)) from error


def _engine(url: Any, answer_seconds: float, pool_seconds: float) -> Engine:
    if url.get_backend_name() != "sqlite":
        engine = create_engine(
            url,
            pool_pre_ping=True,
            pool_size=4,
            pool_timeout=pool_seconds,
            connect_args=CONNECT_ARGS,
        )
        bound(engine, answer_seconds)
        return engine
    if url.database:
        try:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerUnreachable(str(url), str(error)) from error
    engine = create_engine(url, pool_timeout=pool_seconds, connect_args={"timeout": LOCK_SECONDS})
    event.listen(engine, "connect", _sqlite_connected)
    event.listen(engine, "begin", _sqlite_begin)
    return engine


def _sqlite_connected(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # BEGIN is ours, below
    _write_ahead(connection)
    for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


@retry(
    retry=retry_if_exception_message(match="database is locked"),
    wait=wait_random(0.01, 0.1),
    stop=stop_after_delay(LOCK_SECONDS),
    reraise=True,
)
def _write_ahead(connection: Any) -> None:
    """Of processes that open a new file at once one wins; the others are not told to wait."""
    connection.execute("PRAGMA journal_mode=WAL")


def _sqlite_begin(connection: Connection) -> None:
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _migrations() -> Path:
    """Migrations lie in ``alembic/`` of a checkout and inside the package of a wheel."""
    packaged = Path(__file__).parent / "migrations"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "alembic"


def _lacks_tables(error: DBAPIError) -> bool:
    missing = "no such table" in str(error.orig)  # SQLite
    return missing or type(error.orig).__name__ == "UndefinedTable"  # PostgreSQL


def _first_line(error: DBAPIError) -> str:
    return str(error.orig or error).strip().splitlines()[0]
