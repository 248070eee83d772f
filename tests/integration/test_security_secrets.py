"""Credentials planted in every setting are found nowhere: files, ledger, logs, pages, commands.

One installation whose broker, ledger, registry, webhook and stores all need a password runs what
there is to run, well and badly; then everything that it left or shows is searched.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import mlflow
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import redis
from sklearn.linear_model import LinearRegression
from sqlalchemy import MetaData, create_engine, make_url, select

from scoring import Settings, metrics, submit
from scoring.api import open_context
from scoring.errors import ModelUntrusted
from scoring.stack import Stack, _broker, _celery, _mlflow
from tests.conftest import _database, _execute
from tests.integration.files import contents
from tests.integration.in_process import rows
from tests.integration.models import register
from tests.integration.processes import PATIENCE, ROOT, Process, running, until
from tests.ports import free_port

pytestmark = pytest.mark.slow
NAMES = (
    *("broker", "ledger", "registry", "webhook", "signing", "store", "aws", "session", "trusted"),
    *("elsewhere", "endpoint"),
)
SECRETS = {name: f"{name}+{uuid.uuid4().hex[:12]}/x" for name in NAMES}
"""Each unlike any other text, and with characters that addresses must encode."""


def forms(secret: str) -> set[bytes]:
    """A secret as it may be written."""
    core = secret.partition("+")[2].partition("/")[0]  # in every form but base64
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")[:-1]
    with_name = base64.b64encode(f"planted:{secret}".encode()).decode().rstrip("=")[:-1]
    return {core.encode(), encoded.encode(), with_name.encode(), core.encode().hex().encode()}


NEEDLES = {form: name for name, secret in SECRETS.items() for form in forms(secret)}


def leaks(text: bytes | str) -> set[str]:
    """The settings of which a text holds the secret."""
    raw = text.encode(errors="surrogateescape") if isinstance(text, str) else text
    return {name for form, name in NEEDLES.items() if form in raw}


def written(name: str) -> str:
    """A secret as an address has it."""
    return quote(SECRETS[name], safe="")


Command = tuple[str, dict[str, str]]
"""Words of a command, and what its environment has otherwise."""
TYPED = """
import json, os, sys
from scoring.cli.main import main
usual = dict(os.environ)
for words, other in json.loads(sys.argv[1]):
    os.environ.update(other)
    sys.argv = ["scoring", "--verbose", *words.split()]
    try:
        main()
    except SystemExit as ended:
        sys.stdout.flush()
        print(f"===== {words} ended with {ended.code}", flush=True)
    os.environ.update(usual)
"""


@dataclass(frozen=True, slots=True)
class Installation:
    """What runs, with what it is told, and what it has said."""

    folder: Path
    environment: dict[str, str]
    processes: list[Process]
    flower: str
    said: list[bytes]

    @property
    def settings(self) -> Settings:
        with pytest.MonkeyPatch.context() as patch:
            for name, text in self.environment.items():
                patch.setenv(name, text)
            return Settings()

    def scoring(self, *commands: Command) -> bytes:
        """What commands say at their most talkative, all typed in one process."""
        done = subprocess.run(
            [sys.executable, "-c", TYPED, json.dumps(commands)],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            timeout=300,
        )
        assert done.stdout.count(b"===== ") == len(commands), done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, tracking_uri: str, postgres_url: str, model: str
) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("secrets")
    ledger = f"ledger_{uuid.uuid4().hex}"
    _execute(postgres_url, f"CREATE DATABASE {ledger} TEMPLATE template_ledger")
    ports = {name: free_port() for name in ("broker", "flower")}
    home, local = folder / "home", "127.0.0.1"
    for place in (home, folder / "jobs", folder / "out"):
        place.mkdir()
    ours = ("SCORING_", "MLFLOW_", "CELERY_", "FLOWER_", "AWS_")
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    hook = f"http://planted:{written('webhook')}@{local}:1/{written('webhook')}"
    store = {"access_key_id": "planted", "secret_access_key": SECRETS["store"]}
    address = make_url(_database(postgres_url, ledger)).set(password=SECRETS["ledger"])
    environment = inherited | {
        "PYTHONPATH": str(ROOT),
        "SCORING_HOME": str(home),
        "SCORING_JOBS": str(folder / "jobs"),
        "SCORING_BROKER_URL": f"redis://:{written('broker')}@{local}:{ports['broker']}/0",
        "SCORING_DATABASE_URL": address.render_as_string(hide_password=False),
        "MLFLOW_TRACKING_URI": f"http://planted:{written('registry')}@{local}:1",
        "SCORING_STORAGE_OPTIONS": json.dumps({"s3://planted": store}),
        "SCORING_WEBHOOKS": f"mlops={hook}",
        "SCORING_WEBHOOK_SECRET": SECRETS["signing"],
        "SCORING_TRUSTED_REGISTRIES": f"http://planted:{written('trusted')}@{local}:1",
        "AWS_ACCESS_KEY_ID": "planted",
        "AWS_SECRET_ACCESS_KEY": SECRETS["aws"],
        "AWS_SESSION_TOKEN": SECRETS["session"],
        "AWS_ENDPOINT_URL": f"http://planted:{written('endpoint')}@{local}:1",
        "SCORING_SWEEP_SECONDS": "1",
        "SCORING_WORKERS": "1",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "FLOWER_UNAUTHENTICATED_API": "true",
    }
    pickled = register(
        tracking_uri,
        mlflow.sklearn.log_model,
        LinearRegression().fit([[0.0, 0.0]], [0.0]),
        signature=mlflow.models.infer_signature(
            pd.DataFrame(np.zeros((4, 2), np.float32), columns=["a", "b"]), np.zeros(4)
        ),
    )
    write_jobs(folder, model, pickled)
    with ExitStack() as stack:

        def run(name: str, command: list[str], **more: str) -> Process:
            return stack.enter_context(
                running(name, command, env={**environment, **more}, cwd=ROOT, logs=folder)
            )

        broker = stack.enter_context(
            running(
                "broker", _broker(ports["broker"], home), env=inherited, cwd=folder, logs=folder
            )
        )
        broker.wait_for("Ready to accept connections")
        redis.Redis(port=ports["broker"]).config_set("requirepass", SECRETS["broker"])
        usual = ("worker", "--concurrency=1", "--loglevel=DEBUG", "--events")
        worker = run("worker", _celery(*usual, "--hostname=text@%h"))
        worker.wait_for("ready.")
        beat = run("beat", _celery("beat", "--loglevel=DEBUG"), SCORING_LOG="json")
        at = (f"--address={local}", f"--port={ports['flower']}", "--logging=debug")
        flower = run("flower", _celery("flower", *at))
        shown = f"http://{local}:{ports['flower']}"
        flower.wait_for(lambda: answers(f"{shown}/healthcheck"))
        yield Installation(folder, environment, [worker, beat, flower], shown, [])
    _execute(postgres_url, f"DROP DATABASE {ledger} WITH (FORCE)")


def write_jobs(folder: Path, model: str, pickled: str) -> None:
    """A job that is published and tells of its drift, and two that fail early and late."""
    rows(folder / "in" / "rows.parquet")
    nothing = pa.table({"id": [1], "a": pa.array([None], pa.float32()), "b": [1.0]})
    pq.write_table(nothing, folder / "nulls.parquet")
    tiers = "".join(f'on_{tier} = ["review"]\n' for tier in ("small", "moderate", "severe"))
    for name, source in (("well", "in"), ("pickle", "in"), ("badly", "nulls.parquet")):
        (folder / "jobs" / f"{name}.toml").write_text(
            f'name = "{name}"\nmodel = "{pickled if name == "pickle" else model}"\nkey = ["id"]\n'
            f'[input]\npath = "{folder}/{source}"\n[output]\npath = "{folder}/out/{name}"\n'
            f'[precision]\nvariant = "native"\n'
            f'[drift]\nreference = "previous"\n{tiers}review.webhook = "mlops"\n',
            encoding="utf-8",
        )


def drifted(table: pa.Table) -> pa.Table:
    """The same rows, far away."""
    for name in ("a", "b"):
        moved = pc.add(table[name], pa.scalar(100, pa.float32()))
        table = table.set_column(table.schema.get_field_index(name), name, moved)
    return table


def answers(address: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(address, timeout=5) as response:
        return bool(response.status == 200)
    return False


@pytest.fixture(scope="module")
def ran(installation: Installation, tracking_uri: str) -> Installation:
    """The installation after all kinds of runs and failures.

    Runs are planned by the registry that there is; workers are given one that does not answer.
    """
    settings = installation.settings
    planning = settings.model_copy(update={"tracking_uri": tracking_uri})
    context = open_context(planning)

    def run(job: str) -> str:
        run_id = submit(job, settings=planning).id
        until(lambda: context.ledger.runs.get(run_id).state in ("published", "failed"))
        return run_id

    source = installation.folder / "in" / "rows.parquet"
    made = [run("well"), run("badly")]
    pq.write_table(drifted(pq.read_table(source)), source)
    made.append(run("well"))
    assert [context.ledger.runs.get(one).state for one in made] == [
        "published",
        "failed",
        "published",
    ]
    told = context.ledger.deliveries
    until(lambda: any(one.last_error for one in told.of(made[-1])), otherwise=str)
    with pytest.raises(ModelUntrusted) as refused:
        submit("pickle", settings=planning)
    installation.said.append(f"{refused.value} {refused.value!r}".encode())
    nowhere = f"planted:{written('elsewhere')}@127.0.0.1:1"
    broken = {
        "SCORING_BROKER_URL": f"redis://{nowhere}/0",
        "SCORING_DATABASE_URL": f"postgresql://{nowhere}/ledger",
        "MLFLOW_TRACKING_URI": f"http://{nowhere}",
    }
    invalid = (*broken, "SCORING_STORAGE_OPTIONS", "SCORING_WEBHOOKS")
    commands: list[Command] = [
        *((f"status {one} --history", {}) for one in made),
        *((f"status {one} --json", {}) for one in made),
        *((words, {}) for words in ("runs", "audit log", "audit verify")),
        ("doctor", {"MLFLOW_TRACKING_URI": tracking_uri}),
        (f"retry {made[1]}", {"SCORING_BROKER_URL": broken["SCORING_BROKER_URL"]}),
        ("submit well", {"SCORING_DATABASE_URL": broken["SCORING_DATABASE_URL"]}),
        ("submit well", {"MLFLOW_TRACKING_URI": broken["MLFLOW_TRACKING_URI"]}),  # waits for long
        ("doctor", broken),  # the registry is not asked again so soon
        *(("runs", {name: f"!{SECRETS['elsewhere']}"}) for name in invalid),
        ("runs", {"SCORING_LOG": "json", "SCORING_DATABASE_URL": broken["SCORING_DATABASE_URL"]}),
    ]
    installation.said.append(installation.scoring(*commands))
    context.ledger.database.engine.dispose()
    return installation


def test_nothing_that_is_written_or_said_holds_a_secret(ran: Installation) -> None:
    files = contents(ran.folder)
    found = {name: leaks(text) for name, text in files.items()}
    found |= {f"said {number}": leaks(text) for number, text in enumerate(ran.said)}

    assert {"worker.log", "beat.log", "flower.log", "drift.html", "_manifest.json"} <= {
        Path(name).name for name in files
    }
    assert {name: told for name, told in found.items() if told} == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_secret_would_be_found_in_any_form(name: str) -> None:
    secret = SECRETS[name]
    encoded = base64.b64encode(secret.encode())
    for text in (secret, quote(secret, safe=""), repr(secret), json.dumps(secret)):
        assert leaks(f"redis://:{text}@host/0") == {name}
    assert leaks(b"Basic " + base64.b64encode(f"planted:{secret}".encode())) == {name}
    assert leaks(encoded) == {name}


def test_the_ledger_holds_no_secret(ran: Installation) -> None:
    engine = create_engine(
        ran.environment["SCORING_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
    )
    tables = MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        dump = {
            table.name: [tuple(row) for row in connection.execute(select(table))]
            for table in tables.sorted_tables
        }
    engine.dispose()

    assert len(dump["events"]) > 4
    assert leaks(repr(dump)) == set()


def test_no_command_line_holds_a_secret(ran: Installation) -> None:
    family = [psutil.Process(one.popen.pid) for one in ran.processes]
    family += [child for one in ran.processes for child in one.family()]
    lines = [process.cmdline() for process in family if process.is_running()]

    assert len(lines) > len(ran.processes)
    assert leaks(repr(lines)) == set()
    assert leaks(repr([Stack(ran.settings), _mlflow(1)])) == set()


def test_flower_and_metrics_show_no_secret(ran: Installation) -> None:
    workers = fetched(f"{ran.flower}/api/workers?refresh=true")
    pages = ["", "workers", "tasks", "broker", "metrics", "api/tasks", "api/queues/length"]
    pages += [f"worker/{name}" for name in json.loads(workers)]
    shown = {page: fetched(f"{ran.flower}/{page}") for page in pages} | {"api/workers": workers}
    endpoint = metrics.serve(ran.settings)
    shown["our metrics"] = fetched(endpoint.address)
    endpoint.close()

    assert len(json.loads(workers)) == 1
    assert {page: leaks(text) for page, text in shown.items() if leaks(text)} == {}


def test_no_value_shows_a_secret_when_it_is_printed(ran: Installation) -> None:
    settings = ran.settings
    context = open_context(settings)
    values = (settings, context, context.registry, context.ledger.database, context.trust)
    texts = [f"{value!r} {value!s}" for value in values]
    texts += [repr(submit), settings.model_dump_json(include={"storage_options", "webhooks"})]
    context.ledger.database.engine.dispose()

    assert [leaks(text) for text in texts] == [set()] * len(texts)


def fetched(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=PATIENCE) as response:
        return bytes(response.read())
