"""The connection: what is said when the database is away, or its tables are not ours."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from scoring.errors import LedgerOutdated, LedgerUnreachable
from scoring.ledger import Database, Ledger
from scoring.ledger.tables import REVISION
from tests.chaos.proxy import Proxy
from tests.conftest import LEASE
from tests.contract.ledgers import NIGHT, StoppedClock, new_run, planned, start_run, together
from tests.loopback import refusing

PATIENCE = 15.0
"""Seconds in which an answer must come, with a wide margin for a busy machine."""


@pytest.fixture
def empty_postgres_url(postgres_url: str) -> str:
    """A database on the server in which nothing was ever made."""
    name = f"empty_{uuid.uuid4().hex}"
    server = make_url(postgres_url).set(drivername="postgresql+psycopg")
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return make_url(postgres_url).set(database=name).render_as_string(hide_password=False)


def test_a_postgresql_that_is_down_is_named_within_seconds_without_its_password() -> None:
    with refusing() as port:
        ledger = Ledger.open(f"postgresql://operator:s3cret@127.0.0.1:{port}/ledger", LEASE)
        began = time.monotonic()

        with pytest.raises(LedgerUnreachable) as unreachable:
            ledger.chunks.claim("run", 0, "worker")

    message = str(unreachable.value)
    assert time.monotonic() - began < PATIENCE
    assert f"127.0.0.1:{port}/ledger did not answer" in message
    assert "Connection refused" in message
    assert "operator" in message
    assert "s3cret" not in message
    assert "s3cret" not in repr(unreachable.value)


def test_a_postgresql_that_accepts_and_says_nothing_is_given_up_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        ledger = Ledger.open(f"postgresql://operator:s3cret@127.0.0.1:{port}/ledger", LEASE)
        began = time.monotonic()

        with pytest.raises(LedgerUnreachable, match="timeout"):
            ledger.runs.latest()

        assert time.monotonic() - began < PATIENCE


@pytest.fixture
def between(postgres_url: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy before the real server, and the URL that leads through it."""
    url = make_url(postgres_url)
    proxy = Proxy(f"{url.query['host']}/.s.PGSQL.5432")
    through = url.set(host="127.0.0.1", port=proxy.port, query={"gssencmode": "disable"})
    yield proxy, through.render_as_string(hide_password=False)
    proxy.close()


@pytest.mark.parametrize("write", [False, True])
def test_a_postgresql_that_falls_silent_in_the_middle_is_given_up_on_and_used_again(
    between: tuple[Proxy, str], write: bool
) -> None:
    proxy, url = between
    database = Database(url, answer_seconds=0.3)

    def ask() -> None:
        with database.transaction() if write else database.reading() as connection:
            connection.execute(text("SELECT 1"))
            proxy.mode = "silent"
            connection.execute(text("SELECT 1"))

    with pytest.raises(LedgerUnreachable, match=r"no answer within 0\.3 s"):
        ask()
    proxy.mode = "pass"

    patient = Database(url)
    assert patient.revision() is None
    for one in (database, patient):
        one.engine.dispose()


def test_a_worker_that_is_frozen_in_a_transaction_lets_go_of_its_locks(postgres_url: str) -> None:
    database = Database(postgres_url)
    with database.reading() as connection:
        told = {
            name: connection.execute(text(f"SHOW {name}")).scalar_one()
            for name in (
                *("lock_timeout", "statement_timeout"),
                "idle_in_transaction_session_timeout",
            )
        }
    database.engine.dispose()

    assert told == {
        "lock_timeout": "30s",
        "statement_timeout": "45s",
        "idle_in_transaction_session_timeout": "1min",
    }


def test_every_way_of_naming_postgresql_uses_the_driver_that_we_install() -> None:
    for scheme in ("postgresql", "postgresql+psycopg", "postgresql+psycopg2"):
        database = Database(f"{scheme}://operator:s3cret@db:5432/ledger")

        assert database.engine.dialect.driver == "psycopg"
        assert str(database) == "postgresql+psycopg://operator:***@db:5432/ledger"
        assert "s3cret" in database.url


def test_a_ledger_file_that_is_a_folder_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db", LEASE)

    with pytest.raises(LedgerUnreachable, match=r"ledger\.db did not answer: unable to open"):
        ledger.runs.latest()


def test_a_ledger_whose_folder_is_a_file_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a folder")

    with pytest.raises(LedgerUnreachable, match=r"home/ledger\.db did not answer"):
        Ledger.open(f"sqlite:///{tmp_path}/home/ledger.db", LEASE).runs.latest()


def test_a_ledger_file_that_is_no_database_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("not a database, but long enough to look like one\n" * 99)
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db", LEASE)

    with pytest.raises(LedgerUnreachable, match="did not answer: file is not a database"):
        ledger.runs.latest()


def test_a_new_file_that_many_open_at_once_answers_them_all(tmp_path: Path) -> None:
    for index in range(100):
        url = f"sqlite:///{tmp_path}/{index}/ledger.db"
        opened = [Database(url) for _ in range(6)]

        found = together([database.revision for database in opened])

        assert found == [None] * 6
        for database in opened:
            database.engine.dispose()


def test_opening_a_ledger_connects_nothing(tmp_path: Path) -> None:
    Ledger.open("postgresql://someone@127.0.0.1:1/ledger", LEASE)
    Ledger.open(f"sqlite:///{tmp_path}/home/ledger.db", LEASE)

    assert not (tmp_path / "home/ledger.db").exists()


def test_an_empty_postgresql_asks_for_the_upgrade_and_is_left_alone(
    empty_postgres_url: str,
) -> None:
    ledger = Ledger.open(empty_postgres_url, LEASE)

    for ask in (ledger.database.ready, ledger.database.check, ledger.runs.latest):
        with pytest.raises(LedgerOutdated, match="Run `scoring db upgrade`") as outdated:
            ask()
        assert (outdated.value.found, outdated.value.needed) == ("nothing yet", REVISION)

    assert ledger.database.revision() is None
    ledger.database.upgrade()
    ledger.database.ready()
    assert ledger.runs.latest() == []
    ledger.database.engine.dispose()


def test_an_empty_sqlite_asks_for_the_upgrade_when_read_and_is_made_ready(tmp_path: Path) -> None:
    ledger = Ledger.open(f"sqlite:///{tmp_path}/home/ledger.db", LEASE)

    with pytest.raises(LedgerOutdated, match="is at revision nothing yet"):
        ledger.runs.latest()

    ledger.database.ready()
    assert ledger.runs.latest() == []


def test_tables_of_another_revision_are_refused(ledger: Ledger) -> None:
    with ledger.database.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(LedgerOutdated, match=f"is at revision 9999, this version needs {REVISION}"):
        ledger.database.check()


def test_a_transaction_that_raises_leaves_nothing_behind(ledger: Ledger) -> None:
    run_id = start_run(ledger)

    with suppress(ZeroDivisionError), ledger.database.transaction() as connection:
        connection.execute(text("UPDATE runs SET state = 'failed'"))
        raise ZeroDivisionError

    assert ledger.runs.get(run_id).state == "running"


def test_reading_waits_for_no_writer(ledger: Ledger) -> None:
    run_id = start_run(ledger)

    with ledger.database.transaction() as connection:
        connection.execute(text("UPDATE runs SET state = 'failed'"))
        assert ledger.runs.get(run_id).state == "running"

    assert ledger.runs.get(run_id).state == "failed"


def test_times_are_seconds_since_the_epoch_by_the_databases_own_clock(ledger: Ledger) -> None:
    before, now, after = time.time(), ledger.slots.now(), time.time()
    assert before - 1.0 <= now <= after + 1.0

    StoppedClock(ledger, NIGHT)
    run_id = start_run(ledger, deadline_seconds=60.0)

    run = ledger.runs.get(run_id)
    assert run.created_at == pytest.approx(NIGHT.timestamp(), abs=0.001)
    assert run.deadline_at == pytest.approx(NIGHT.timestamp() + 60.0, abs=0.001)


def test_a_database_that_comes_back_is_used_again(ledger: Ledger) -> None:
    start_run(ledger)
    if ledger.database.engine.dialect.name == "postgresql":
        with ledger.database.transaction() as connection:  # as a restart does: every session ends
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )

    assert ledger.runs.create(new_run(), *planned(1)).new
