"""Migrations build exactly the declared tables, whoever runs them and however many at once."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Inspector, create_engine, inspect, make_url, text

from alembic import command
from scoring.ledger import Database, Ledger
from scoring.ledger.tables import REVISION, metadata
from tests.conftest import LEASE
from tests.contract.ledgers import start_run

ROOT = Path(__file__).parents[2]
TABLES = {*metadata.tables, "alembic_version"}
PROCESSES = 6


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database in which nothing was ever made."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/home/ledger.db"
        return
    server = make_url(request.getfixturevalue("postgres_url"))
    name = f"empty_{uuid.uuid4().hex}"
    engine = create_engine(
        server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield server.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


def config() -> Config:
    return Config(toml_file=str(ROOT / "pyproject.toml"))


def migrate(database: Database, direction: str, revision: str) -> None:
    settings = config()
    with database.transaction() as connection:
        settings.attributes["connection"] = connection
        getattr(command, direction)(settings, revision)


def tables(database: Database) -> set[str]:
    with database.reading() as connection:
        found: Inspector = inspect(connection)
        return set(found.get_table_names())


def differences(database: Database) -> list[object]:
    """What a new migration would have to change."""
    with database.reading() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        return list(compare_metadata(context, metadata))


def test_migrations_build_exactly_the_declared_tables(empty_url: str) -> None:
    database = Database(empty_url)

    assert database.upgrade() == REVISION

    assert tables(database) == TABLES
    assert differences(database) == []
    database.engine.dispose()


def test_the_comparison_would_see_a_missing_column_and_a_missing_index(empty_url: str) -> None:
    database = Database(empty_url)
    database.upgrade()
    with database.transaction() as connection:
        connection.execute(text("ALTER TABLE events DROP COLUMN detail"))
        connection.execute(text("DROP INDEX ix_runs_state"))

    assert len(differences(database)) == 2
    database.engine.dispose()


def test_the_revision_in_the_code_is_the_head_of_one_line_of_migrations() -> None:
    scripts = ScriptDirectory.from_config(config())

    assert scripts.get_heads() == [REVISION]


def test_an_upgrade_can_be_undone_and_done_again(empty_url: str) -> None:
    database = Database(empty_url)
    database.upgrade()

    migrate(database, "downgrade", "base")
    assert tables(database) == {"alembic_version"}
    assert database.revision() is None
    migrate(database, "upgrade", "head")

    assert tables(database) == TABLES
    assert differences(database) == []
    assert database.revision() == REVISION
    database.engine.dispose()


def test_an_upgrade_of_an_upgraded_ledger_changes_nothing(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    run = ledger.runs.get(run_id)

    ledger.database.upgrade()
    ledger.database.ready()

    assert ledger.runs.get(run_id) == run


def test_an_upgrade_that_fails_leaves_nothing_behind(empty_url: str) -> None:
    database = Database(empty_url)
    with database.transaction() as connection:
        connection.execute(text("CREATE TABLE inputs (ours integer)"))  # made last, so in the way

    with pytest.raises(Exception, match="inputs"):
        database.upgrade()

    assert tables(database) == {"inputs"}
    assert database.revision() is None
    database.engine.dispose()


def test_processes_that_upgrade_one_ledger_at_once_build_it_once(empty_url: str) -> None:
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as processes:
        found = processes.map(upgraded, [empty_url] * PROCESSES, chunksize=1)

    database = Database(empty_url)
    assert found == [REVISION] * PROCESSES
    assert differences(database) == []
    database.engine.dispose()


def upgraded(url: str) -> str | None:
    """Make a ledger ready as a starting process does; the revision that it then sees."""
    database = Database(url)
    if url.startswith("sqlite"):
        database.ready()
    else:
        database.upgrade()
    database.check()
    found = database.revision()
    database.engine.dispose()
    return found


@pytest.mark.parametrize("url", ["", "own"])
def test_alembics_own_command_works_from_a_checkout(tmp_path: Path, url: str) -> None:
    ledger = tmp_path / ("home/ledger.db" if not url else "elsewhere.db")
    environment = {
        **os.environ,
        "SCORING_HOME": str(tmp_path / "home"),
        "SCORING_DATABASE_URL": f"sqlite:///{ledger}" if url else "",
    }
    alembic = [sys.executable, "-m", "alembic", "-c", "pyproject.toml"]

    for arguments in (["upgrade", "head"], ["downgrade", "base"], ["upgrade", "head"]):
        done = subprocess.run(
            [*alembic, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    opened = Ledger.open(f"sqlite:///{ledger}", LEASE)
    opened.database.check()
    assert differences(opened.database) == []
    assert opened.runs.latest() == []
    opened.database.engine.dispose()
