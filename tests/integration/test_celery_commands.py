"""What Celery users type and send works without our command line, and leaves nothing behind."""

from __future__ import annotations

import inspect
import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from celery import Celery
from celery.app.amqp import AMQP
from celery.app.defaults import NAMESPACES, flatten
from celery.utils.nodenames import default_nodename
from kombu import Connection, Producer, Queue
from kombu.transport.redis import Channel
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from sqlalchemy import make_url

from scoring import get_run, latest_runs, submit
from scoring.settings import Settings
from scoring.stack import _broker
from scoring.wake import TRANSPORT_OPTIONS, Bell
from tasks import app as nightscore
from tests.chaos.proxy import Proxy
from tests.conftest import make_settings
from tests.integration import models
from tests.integration.processes import PATIENCE, ROOT, SCRIPTS, Process, running, start, until
from tests.ports import free_port

TASKS = {f"scoring.{name}" for name in ("score_chunk", "finish_run", "start_run", "start_due")}
TASKS |= {"scoring.sweep"}
DAY = "2013-07-01"
ROWS = 500
STUBBORN = "stubborn"
"""A job and its queue, which only the workers that are to be stopped serve."""
RETRY_OPTIONS = {"max_retries", "interval_start", "interval_step", "interval_max"}
"""Transport options that kombu's connection reads, beside the Redis channel's own."""
"""On Celery's page about Redis, although nothing in Celery reads it there."""


@dataclass(frozen=True, slots=True)
class Installation:
    """A ledger, a registry, a broker and job files, and how commands are told of them."""

    settings: Settings
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        ours = ("SCORING_", "MLFLOW_", "CELERY_", "FLOWER_")
        inherited = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
        return inherited | {
            "SCORING_HOME": str(self.settings.home),
            "SCORING_JOBS": str(self.settings.jobs),
            "SCORING_SWEEP_SECONDS": str(self.settings.sweep_seconds),
            "SCORING_BROKER_URL": self.settings.broker_url,
            "MLFLOW_TRACKING_URI": self.settings.tracking_uri,
        }

    def celery(self, *arguments: str) -> dict[str, Any]:
        """Keywords of a process that runs `celery -A tasks ...` at the root of the checkout."""
        return {
            "name": f"celery-{arguments[0]}-{time.monotonic_ns()}",
            "command": [str(SCRIPTS / "celery"), "-A", "tasks", *arguments],
            "env": self.environment | {"FLOWER_UNAUTHENTICATED_API": "true"},
            "cwd": ROOT,
            "logs": self.folder,
        }

    def job(self, name: str, model: str, queue: str = "cpu") -> None:
        """Write a job file that scores the day's rows in a queue."""
        self.settings.jobs.mkdir(parents=True, exist_ok=True)
        (self.settings.jobs / f"{name}.toml").write_text(
            f'name = "{name}"\nmodel = "{model}"\nkey = ["id"]\n'
            f'[input]\npath = "{self.folder}/rows/date={{date}}"\n'
            f'[output]\npath = "{self.folder}/scores/{name}/date={{date}}"\n'
            f'[execution]\nqueue = "{queue}"\n[precision]\nvariant = "native"\n',
            encoding="utf-8",
        )


def signature(kind: str = "float") -> ModelSignature:
    inputs = Schema([ColSpec("float", "a"), ColSpec("float", "b")])
    return ModelSignature(inputs=inputs, outputs=Schema([ColSpec(kind, "score")]))


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, tracking_uri: str
) -> Iterator[Installation]:
    """A broker that is empty, a registered model and a day of rows; nothing is running yet."""
    folder, port = tmp_path_factory.mktemp("celery"), free_port()
    rows = np.random.default_rng(1).random((ROWS, 2), np.float32)
    (folder / f"rows/date={DAY}").mkdir(parents=True)
    table = pa.table({"id": np.arange(ROWS), "a": rows[:, 0], "b": rows[:, 1]})
    pq.write_table(table, folder / f"rows/date={DAY}/part-0.parquet")
    weights = np.array([[2], [3]], np.float32)
    model = models.register(
        tracking_uri, mlflow.onnx.log_model, models.linear(weights), signature=signature()
    )
    broker = f"redis://127.0.0.1:{port}/0"
    settings = make_settings(folder / "home", tracking_uri, broker_url=broker)
    found = Installation(settings, folder)
    settings.home.mkdir()
    found.job("flights-delay", model)
    command = _broker(port, settings.home)
    with running("broker", command, env=os.environ, cwd=folder, logs=folder) as valkey:
        valkey.wait_for("Ready to accept connections")
        yield found


@pytest.fixture(scope="module")
def worker(installation: Installation) -> Iterator[Process]:
    """`celery -A tasks worker`, ready."""
    with running(**installation.celery("worker", "--concurrency=2", "--loglevel=INFO")) as started:
        started.wait_for("ready.")
        yield started


@pytest.fixture(scope="module")
def flower(installation: Installation, worker: Process) -> Iterator[str]:
    """The address of `celery -A tasks flower`, which answers and hears the worker."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = installation.celery("flower", "--address=127.0.0.1", f"--port={port}")
    with running(**command) as started:
        started.wait_for(lambda: answers(f"{address}/healthcheck"))
        started.wait_for(lambda: fetched(f"{address}/api/workers?status=true") != {})
        yield address


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def fetched(address: str) -> dict[str, Any]:
    """What Flower answers; nothing if it is too busy to."""
    try:
        with urllib.request.urlopen(address, timeout=30) as response:
            return dict(json.load(response))
    except OSError:
        return {}


def published(installation: Installation, run_id: str) -> bool:
    """Whether a run is; with the reason, if it never will be."""
    run = get_run(run_id, settings=installation.settings)
    assert run.status not in ("failed", "held", "cancelled"), run.error
    return run.status == "published"


@pytest.mark.slow
@pytest.mark.usefixtures("worker")
def test_inspect_registered_lists_our_tasks(installation: Installation) -> None:
    it = f"--destination={default_nodename(None)}"  # whose answer ends the wait
    asked = installation.celery("inspect", "registered", "--timeout=60", it, "-j")
    with running(**asked) as command:
        assert command.popen.wait(PATIENCE) == 0, command

    (registered,) = json.loads(command.said[command.said.index("{") :]).values()
    assert set(registered) >= TASKS
    assert {name for name in registered if name.startswith("scoring.")} == TASKS


@pytest.mark.slow
@pytest.mark.usefixtures("worker")
def test_an_application_that_cannot_import_us_starts_a_run_by_name(
    installation: Installation, flower: str
) -> None:
    before = {run.id for run in latest_runs(settings=installation.settings)}
    foreign = Celery(broker=installation.settings.broker_url, set_as_current=False)

    foreign.send_task("scoring.start_run", kwargs={"job": "flights-delay", "date": DAY})

    def started() -> list[str]:
        return [
            run.id for run in latest_runs(settings=installation.settings) if run.id not in before
        ]

    until(lambda: bool(started()))
    (run_id,) = started()
    until(lambda: published(installation, run_id))
    scores = get_run(run_id, settings=installation.settings).scores().to_table()
    rows = pq.read_table(installation.folder / f"rows/date={DAY}")
    truth = rows["a"].to_numpy() * 2 + rows["b"].to_numpy() * 3
    np.testing.assert_allclose(scores["score"].to_numpy(), truth, rtol=1e-6)

    def shown() -> dict[str, tuple[str, str]]:
        tasks = fetched(f"{flower}/api/tasks").values()
        return {task["name"]: (task["args"], task["state"]) for task in tasks if task["name"]}

    until(
        lambda: (
            shown().get("scoring.score_chunk") == (f"flights-delay {DAY} chunk 1/1", "SUCCESS")
            and shown().get("scoring.finish_run") == (f"flights-delay {DAY} finish", "SUCCESS")
            and shown().get("scoring.start_run", ("", ""))[1] == "SUCCESS"
        ),
        otherwise=lambda: str(shown()),
    )


@pytest.mark.slow
@pytest.mark.usefixtures("flower")
def test_beat_rings_and_leaves_no_file_behind(installation: Installation, worker: Process) -> None:
    before = set(ROOT.iterdir())
    with running(**installation.celery("beat", "--loglevel=INFO")) as beat:
        beat.wait_for("Sending due task sweep")
        worker.wait_for("Task scoring.sweep[")

    new = {path.name for path in set(ROOT.iterdir()) - before}
    assert not {name for name in new if name.startswith("celerybeat")}


@pytest.mark.slow
def test_a_beat_that_waits_for_the_broker_hears_that_it_is_to_stop(
    installation: Installation,
) -> None:
    port = int(str(make_url(installation.settings.broker_url).port))
    proxy = Proxy(("127.0.0.1", port))
    command = installation.celery("beat", "--loglevel=INFO")
    command["env"] |= {"SCORING_BROKER_URL": f"redis://127.0.0.1:{proxy.port}/0"}
    beat = start(**command)
    try:
        beat.wait_for("Sending due task sweep")
        proxy.mode = "silent"
        beat.wait_for(lambda: proxy.withheld)

        assert beat.end() == 0
    finally:
        beat.kill(beat.family())
        proxy.close()


@pytest.mark.slow
def test_a_pickled_message_is_refused_and_the_worker_lives(
    installation: Installation, worker: Process, tmp_path: Path
) -> None:
    trace = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(trace),)

    with Connection(installation.settings.broker_url) as connection:
        Producer(connection).publish(
            [[Evil()], {}, {}],
            exchange="",
            routing_key="cpu",
            serializer="pickle",
            declare=[Queue("cpu", routing_key="cpu")],
            headers={"task": "scoring.score_chunk", "id": "evil", "lang": "py"},
        )

    worker.wait_for("message_refused")
    run = submit("flights-delay", date=DAY, settings=installation.settings)
    run.wait(timeout=PATIENCE)
    assert not trace.exists()
    assert run.status == "published"
    assert worker.said.count("message_refused") == 1, "it was not put back"


@pytest.mark.slow
def test_a_worker_told_to_stop_ends_what_it_began(
    installation: Installation, tracking_uri: str, tmp_path: Path
) -> None:
    job = busy_job(installation, tracking_uri, tmp_path)
    begun, may_end = tmp_path / "begun", tmp_path / "may_end"
    command = installation.celery("worker", "--concurrency=2", "-l", "INFO", "-Q", STUBBORN)
    worker = start(**command)
    try:
        worker.wait_for("ready.")
        run = submit(job, date=DAY, settings=installation.settings)
        worker.wait_for(begun.exists)

        worker.popen.send_signal(signal.SIGTERM)
        worker.wait_for("Warm shutdown")
        may_end.touch()

        assert worker.ended() == 0
        assert run.record.chunks_done == 1
    finally:
        worker.kill(worker.family())


@pytest.mark.slow
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_worker_that_is_killed_takes_its_children_with_it(
    installation: Installation, tracking_uri: str, tmp_path: Path, busy: bool
) -> None:
    command = installation.celery("worker", "--concurrency=2", "-l", "INFO", "-Q", STUBBORN)
    worker = start(**command)
    try:
        worker.wait_for("ready.")
        until(lambda: len(worker.family()) >= 3)  # two children and a tracker of semaphores
        if busy:
            job = busy_job(installation, tracking_uri, tmp_path)
            submit(job, date=DAY, settings=installation.settings)
            worker.wait_for((tmp_path / "begun").exists)

        worker.end(signal.SIGKILL)
    finally:
        (tmp_path / "may_end").touch()
        worker.kill(worker.family())


def busy_job(installation: Installation, tracking_uri: str, folder: Path) -> str:
    """A job in a queue of its own, whose model begins and does not end before it may."""
    model = models.register(
        tracking_uri, mlflow.pyfunc.log_model, models.Waiting(folder), signature=signature("double")
    )
    installation.job(STUBBORN, model, queue=STUBBORN)
    return STUBBORN


def test_every_celery_setting_we_give_is_one_that_celery_has() -> None:
    known = {name for name, _ in flatten(NAMESPACES)}
    given = set(nightscore.conf.changes) - {"deprecated_settings"}  # Celery's own note

    assert given - known == set()
    assert {"task_acks_late", "worker_soft_shutdown_timeout"} <= given


def test_every_transport_option_we_give_is_one_that_kombu_reads() -> None:
    read = {*Channel.from_transport_options, *RETRY_OPTIONS}

    assert set(TRANSPORT_OPTIONS) - read == set()
    assert set(nightscore.conf.broker_transport_options) - read == set()


@pytest.mark.slow
@pytest.mark.usefixtures("worker")
def test_every_option_we_send_with_is_one_that_celery_has(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, set[str]]] = []
    original = Celery.send_task

    def send(app: Celery, name: str, *args: Any, **options: Any) -> Any:
        sent.append((name, set(options)))
        return original(app, name, *args, **options)

    monkeypatch.setattr(Celery, "send_task", send)
    run = submit("flights-delay", date=DAY, settings=installation.settings)
    Bell(lambda: installation.settings.broker_url).finish(run.record)
    entries = nightscore.conf.beat_schedule.values()
    sent += [(entry["task"], set(entry["options"])) for entry in entries]

    assert {name for name, _ in sent} >= {"scoring.score_chunk", "scoring.finish_run"}
    assert set().union(*(options for _, options in sent)) - send_options() == set()
    run.wait(timeout=PATIENCE)


def send_options() -> set[str]:
    """What `send_task` and the functions that it hands its options to have a parameter for."""
    takers = [Celery.send_task, AMQP.as_task_v2, nightscore.amqp.send_task_message]
    takers += [Producer.publish]
    named = {name for taker in takers for name in inspect.signature(taker).parameters}
    return named - {"self", "options", "kwargs", "properties"} | {"kwargs"}
