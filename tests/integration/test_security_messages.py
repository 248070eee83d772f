"""Whatever lies in a queue, a worker refuses it on one line and goes on; nothing of it runs."""

from __future__ import annotations

import base64
import inspect
import json
import os
import pickle
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.serialization import dumps, loads
from pydantic import BaseModel

from scoring.stack import _broker
from scoring.wake import START_RUN
from tasks.app import app
from tasks.messages import ARGUMENTS, MOST_BYTES
from tests.integration.processes import ROOT, SCRIPTS, Process, running, start
from tests.ports import free_port

pytestmark = pytest.mark.slow
REFUSED = "message_refused"


def envelope(
    body: bytes | str,
    headers: object,
    *,
    kind: str = "application/json",
    properties: Mapping[str, object] | None = None,
) -> str:
    """A message as kombu puts it into a list of Redis."""
    raw = body.encode() if isinstance(body, str) else body
    return json.dumps(
        {
            "body": base64.b64encode(raw).decode(),
            "content-encoding": "utf-8",
            "content-type": kind,
            "headers": headers,
            "properties": {
                "body_encoding": "base64",
                "delivery_info": {"exchange": "", "routing_key": "cpu"},
                "delivery_mode": 2,
                "delivery_tag": str(uuid.uuid4()),
                "priority": 0,
                **(properties or {}),
            },
        }
    )


def task(name: object, args: object = (), kwargs: object = None, **headers: object) -> str:
    """A call of a task as Celery sends it."""
    told = {"lang": "py", "task": name, "id": str(uuid.uuid4()), "argsrepr": "x", **headers}
    return envelope(json.dumps([args, kwargs or {}, {}]), told)


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


SWEEP: Mapping[str, object] = {"task": "scoring.sweep", "id": "one"}
PICKLE = "application/x-python-serialize"
REFUSALS: Mapping[str, str] = {
    # what is no JSON
    "yaml": envelope("- []\n- {}\n- {}", SWEEP, kind="application/x-yaml"),
    "msgpack": envelope(b"\x93\x90\x80\x80", SWEEP, kind="application/x-msgpack"),
    "text": envelope("hello", SWEEP, kind="text/plain"),
    "damaged JSON": envelope("{not json", SWEEP),
    "JSON without an end": envelope("[" * 100_000, SWEEP),
    "compressed": envelope(b"not gzip", {**SWEEP, "compression": "application/x-gzip"}),
    # bodies that are no call
    "null": envelope("null", SWEEP),
    "a number": envelope("5", SWEEP),
    "a table": envelope('{"a": 1}', SWEEP),
    "arguments by name first": task("scoring.sweep", {"a": 1}),
    # headers
    "no headers": envelope("[[], {}, {}]", {}),
    "headers of null": envelope("[[], {}, {}]", None),
    "a list of headers": envelope("[[], {}, {}]", [1]),
    "no id": envelope("[[], {}, {}]", {"task": "scoring.sweep"}),
    "an id that is a table": envelope("[[], {}, {}]", {**SWEEP, "id": {"a": 1}}),
    "a task that is a number": envelope("[[], {}, {}]", {**SWEEP, "task": 5}),
    "no such task": task("os.system", ["touch it"]),
    "a forged line": task("scoring.nothing\nFORGED: all is well", []),
    "retries": task("scoring.sweep", retries="many"),
    "a time limit": task("scoring.sweep", timelimit="x"),
    "an eta": task("scoring.sweep", eta="tomorrow"),
    "an expiry": task("scoring.sweep", expires="never"),
    # arguments
    "too many": task("scoring.score_chunk", ["run", 1, 2]),
    "too few": task("scoring.score_chunk", ["run"]),
    "an unknown name": task("scoring.score_chunk", [], {"run_id": "run", "number": 1, "x": 1}),
    "twice": task("scoring.score_chunk", ["run", 1], {"number": 1}),
    "a run that is a table": task("scoring.score_chunk", [{"a": 1}, 0]),
    "a negative chunk": task("scoring.score_chunk", ["run", -1]),
    "a huge chunk": task("scoring.score_chunk", ["run", 10**30]),
    "SQL for a chunk": task("scoring.score_chunk", ["run", "1; drop table runs"]),
    "a NUL": task("scoring.finish_run", ["run\x00"]),
    "half a character": task("scoring.finish_run", ["run\ud800"]),
    "escapes": task("scoring.finish_run", ["\x1b]0;owned\x07\x1b[2J"]),
    "a forged run": task("scoring.finish_run", ["run\nFORGED: all is well"]),
    "a list for a run": task("scoring.finish_run", [["run"]]),
    "a job that is a number": task("scoring.start_run", [5]),
    "a date that is a table": task("scoring.start_run", ["job"], {"date": {"a": 1}}),
    "a long run": task("scoring.finish_run", ["r" * 1_000]),
    "a huge message": task("scoring.finish_run", ["r" * 20_000_000]),
    # what is no message
    "no properties": json.dumps({"body": "x", "headers": {}}),
    "no tag": json.dumps({"body": "x", "headers": {}, "properties": {"delivery_info": {}}}),
    "a list": "[]",
    "nothing": "null",
    "a word": "hello",
    "half a table": "{",
    "bytes": "\x00\x01",
    "a date that is none": '{"__type__": "datetime", "__value__": "x"}',
}
HARMLESS: Mapping[str, str] = {
    "an unknown run": task("scoring.finish_run", ["no-such-run"]),
    "an unknown chunk": task("scoring.score_chunk", ["1' OR '1'='1", 0]),
    "an unknown job": task("scoring.start_run", ["../../etc/passwd"]),
    "no date": task("scoring.start_run", ["job"], {"date": "../../../tmp"}),
    "a chord that is none": envelope('[[], {}, {"chord": {"a": 1}}]', SWEEP),
}
"""Calls that a task answers itself."""
ECHO = re.compile(r"finish_run\[|probe-|no such run$")
"""Of the probes."""


@dataclass(frozen=True, slots=True)
class Queue:
    """The list of a queue, and the worker at its end."""

    client: redis.Redis
    worker: Process

    def said_of(self, message: str | bytes) -> list[str]:
        """What the worker says from when a message is put there until one behind it is done."""
        before, after = len(self.worker.said), f"probe-{uuid.uuid4().hex}"
        self.client.lpush("cpu", message)
        self.client.lpush("cpu", task("scoring.finish_run", [after]))
        self.worker.wait_for(lambda: after in self.worker.said[before:])
        lines = self.worker.said[before:].splitlines()
        return [line for line in lines if not ECHO.search(line)]


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queue]:
    folder, port = tmp_path_factory.mktemp("messages"), free_port()
    ours = ("SCORING_", "MLFLOW_", "CELERY_")
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    settings = {
        "SCORING_HOME": str(folder / "home"),
        "SCORING_JOBS": str(folder / "jobs"),
        "SCORING_BROKER_URL": f"redis://127.0.0.1:{port}/0",
    }
    (folder / "home").mkdir()
    command = _broker(port, folder / "home")
    options = ["--concurrency=1", "-l", "INFO", "--without-mingle", "--without-gossip"]
    with running("broker", command, env=os.environ, cwd=folder, logs=folder) as broker:
        broker.wait_for("Ready to accept connections")
        worker = start(
            "worker",
            [str(SCRIPTS / "celery"), "-A", "tasks", "worker", *options],
            env=inherited | settings,
            cwd=ROOT,
            logs=folder,
        )
        try:
            worker.wait_for("ready.")
            found = Queue(redis.Redis(port=port), worker)
            found.said_of(task("scoring.finish_run", ["probe-first"]))  # loads what is needed
            yield found
            worker.end()
        finally:
            worker.kill(worker.family())


def test_a_pickle_is_refused_and_no_code_of_it_runs(queue: Queue, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    pickled = pickle.dumps([[Evil(trace)], {}, {}])
    disguised = envelope(pickled, SWEEP)  # what says that it is JSON is read as JSON

    refused = queue.said_of(envelope(pickled, SWEEP, kind=PICKLE))
    unread = queue.said_of(disguised)

    assert [REFUSED in line for line in (*refused, *unread)] == [True, True], (refused, unread)
    assert "application/json" in refused[0]
    assert not trace.exists()


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_no_message_of_ours_is_refused_on_one_line(queue: Queue, name: str) -> None:
    said = queue.said_of(REFUSALS[name])

    assert len(said) == 1, said
    assert REFUSED in said[0]
    assert len(said[0]) < 1_000
    assert said[0].isprintable()
    assert settled(queue)


@pytest.mark.parametrize("name", HARMLESS)
def test_a_call_for_what_there_is_not_does_no_harm(queue: Queue, name: str) -> None:
    said = queue.said_of(HARMLESS[name])

    assert not [line for line in said if "FORGED" in line]
    assert settled(queue)


def settled(queue: Queue) -> bool:
    """Whether no message is left, neither waiting nor taken and not acknowledged."""
    left: Sequence[Any] = [queue.client.llen("cpu"), queue.client.hlen("unacked")]
    return queue.worker.popen.poll() is None and left[0] == 0 and left[1] <= 1  # the last probe


def test_lines_of_celery_cannot_be_forged_and_hold_no_password(queue: Queue) -> None:
    sent = task(
        "scoring.start_run",
        ["redis://somebody:planted@host/0"],
        shadow="scoring.start_run\nFORGED \x1b[2J",
        origin="gen1@evil\nFORGED",
    )

    said = queue.said_of(sent)

    assert said
    assert not any(line.startswith("FORGED") for line in said)
    assert not re.search(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]|\x1b\[2J|planted", "\n".join(said))


def test_the_arguments_that_are_checked_are_those_of_the_tasks() -> None:
    app.loader.import_default_modules()
    ours = {name for name in app.tasks if name.startswith("scoring.")}
    assert ours == set(ARGUMENTS)
    for name, expected in ARGUMENTS.items():
        taken = inspect.signature(app.tasks[name].run).parameters
        assert list(taken) == list(expected.model_fields), name
        assert issubclass(expected, BaseModel)
    assert MOST_BYTES > 100_000


def test_an_application_may_send_a_date_as_a_date() -> None:
    kind, encoding, body = dumps({"job": "tumours", "date": date(2026, 11, 26)}, "json")

    taken = ARGUMENTS[START_RUN].model_validate(loads(body, kind, encoding))

    assert taken.model_dump()["date"] == date(2026, 11, 26)
