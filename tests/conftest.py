"""Real services for the tests: databases, a registry, and the embedded stack.

Nothing is mocked. What is costly to start is started once a session and shared; every test gets a
ledger, a home and output folders of its own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from sqlalchemy import create_engine, text

from scoring.garbage import search_seldom
from scoring.ledger import Database, Ledger
from scoring.models.registry import artifact_location
from scoring.settings import Settings
from scoring.stack import Stack
from tests.postgres import start_server
from tests.stores import Bucket, new_bucket, options, store_server

LEASE = 60.0
"""Lease of the ledgers under test, in seconds; tests age leases instead of waiting."""

search_seldom()  # the test modules import every library there is

# Threads that wait do not spin: tests share the cores. Read when the first of its libraries loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Laws hold on busy machines too, where to draw an example may take a second.
hypothesis.settings.register_profile(
    "nightscore", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("nightscore")


LONGEST = (
    "test_readme",
    "test_variant_flavors",
    "test_finisher",
    "test_cli",
    "test_text",
    "test_sessions",
    "test_bad_models",
    "test_variants",
    "test_security_secrets",
    "test_stopping",
)
"""Files that begin first, so that none of them is what everything else waits for in the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs on PostgreSQL starts a server, so it is left out of the fast tests.

    Files with slow tests come first, and the longest before them.
    """
    for item in items:
        if "postgres" in item.name or "postgres_url" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def place(item: pytest.Item) -> tuple[int, bool]:
        name = item.path.stem
        return (LONGEST.index(name) if name in LONGEST else len(LONGEST), item.path not in slow)

    items.sort(key=place)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server of our own; its `template_ledger` database is migrated."""
    # Not below pytest's own folder: another session that begins makes that private again, and the
    # server, which runs as another user when we are root, dies of it.
    folder = tempfile.mkdtemp(prefix="nightscore-postgres-")
    with start_server(Path(folder), cleanup_mode="stop") as server:
        url = server.get_uri()
        _execute(url, "CREATE DATABASE template_ledger")
        template = Database(_database(url, "template_ledger"))
        template.upgrade()
        template.engine.dispose()
        yield url
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite ledger to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "ledger.db"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.engine.dispose()  # the last connection to close folds the WAL into the file
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh, migrated ledger; each test runs on both databases."""
    if request.param == "sqlite":
        path = tmp_path / "ledger.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server = request.getfixturevalue("postgres_url")
    name = f"ledger_{uuid.uuid4().hex}"
    _execute(server, f"CREATE DATABASE {name} TEMPLATE template_ledger")
    yield _database(server, name)
    _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    """An empty ledger."""
    opened = Ledger.open(database_url, LEASE)
    yield opened
    opened.database.engine.dispose()


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real MLflow registry, shared by the session: give models names of their own."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db"
    # Models that tests log land in an experiment with a place of its own, not in ./mlruns.
    MlflowClient(uri).create_experiment("tests", artifact_location(uri, "tests"))
    os.environ["MLFLOW_EXPERIMENT_NAME"] = "tests"
    return uri


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of an S3 server, shared by the session: make buckets of your own."""
    with store_server() as address:
        yield address


@pytest.fixture
def bucket(s3: str) -> Bucket:
    """An empty bucket."""
    return new_bucket(s3)


@pytest.fixture
def settings(tmp_path: Path, tracking_uri: str) -> Settings:
    """An installation in a folder of the test's own."""
    return make_settings(tmp_path / "home", tracking_uri)


@pytest.fixture(scope="session")
def stack_settings(
    tmp_path_factory: pytest.TempPathFactory, tracking_uri: str, s3: str
) -> Settings:
    """The installation that the session's embedded stack serves; it can reach the S3 server."""
    home = tmp_path_factory.mktemp("stack") / "home"
    # So long that no busy machine lets one run out: tests count the attempts.
    return make_settings(
        home, tracking_uri, storage_options={"s3://": options(s3)}, lease_seconds=10.0
    )


@pytest.fixture(scope="session")
def stack(stack_settings: Settings) -> Iterator[Settings]:
    """Real broker, worker and beat for the session; yields the settings to submit with."""
    with Stack(stack_settings) as running:
        addresses = running.ensure()
        yield stack_settings.model_copy(update={"broker_url": addresses.broker})


@pytest.fixture
def write_job(tmp_path: Path) -> Callable[..., Path]:
    """Writes a job file: ``write_job(name, model, input, output, more_toml)``."""

    def write(name: str, model: str, source: str, output: str, more: str = "") -> Path:
        path = tmp_path / f"{name}.toml"
        path.write_text(
            f'name = "{name}"\nmodel = "{model}"\n'
            f"{more if not more.lstrip().startswith('[') else ''}\n"
            f'[input]\npath = "{source}"\n[output]\npath = "{output}"\n'
            f"{more if more.lstrip().startswith('[') else ''}\n",
            encoding="utf-8",
        )
        return path

    return write


def make_settings(home: Path, tracking_uri: str, **more: object) -> Settings:
    """Settings with leases and sweeps short enough for a test to wait for."""
    values = {
        "home": home,
        "jobs": home / "jobs",
        "MLFLOW_TRACKING_URI": tracking_uri,
        "lease_seconds": 5.0,
        "sweep_seconds": 1.0,
        "workers": 2,
    }
    return Settings(**{**values, **more})  # type: ignore[arg-type]


def _execute(url: str, statement: str) -> None:
    engine = create_engine(
        url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def _database(url: str, name: str) -> str:
    """The same server, another database."""
    from sqlalchemy import make_url

    return make_url(url).set(database=name).render_as_string(hide_password=False)
