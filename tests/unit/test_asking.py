"""Asking a registry: bounded, again after a pause, not while it is known to be down.

A web server on this machine plays a registry that is up, down, silent or unwilling.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from scoring.calls import LEFT_MOST
from scoring.errors import ModelNotFound, RegistryRefused, RegistryUnreachable
from scoring.models import Registry, Version
from scoring.models.asking import Circuit, circuit
from scoring.models.patience import Patience
from tests.loopback import dripping, refusing
from tests.receiver import Answer, Receiver, receiving

MODEL = "models:/m@production"
CREATED = {"created_at": "2026-11-23T02:30:00+00:00"}
NEVER = Patience(question=60.0, optional=60.0, retrying=0.2, pause=0.01, open=3600.0)
"""Tries little, and once a circuit is open it stays so."""


@pytest.fixture(autouse=True)
def _mlflow_tries_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What MLflow tries again by itself is slow, and not what is tested.

    No circuit is left over from a test whose server had the same port.
    """
    circuit.cache_clear()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def registry(receiver: Receiver, patience: Patience = NEVER) -> Registry:
    return Registry(receiver.address, patience)


def unreachable(found: Registry) -> str:
    with pytest.raises(RegistryUnreachable) as error:
        found.resolve(MODEL)
    return error.value.reason


# Again, or not


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_registry_in_trouble_is_asked_again_until_it_answers(status: int) -> None:
    patient = replace(NEVER, retrying=60.0)
    with receiving(*[Answer(status=status)] * 3, Answer(status=404)) as receiver:
        with pytest.raises(ModelNotFound):
            registry(receiver, patient).resolve(MODEL)

        assert len(receiver.posted) == 4


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, RegistryRefused),
        (401, RegistryRefused),
        (403, RegistryRefused),
        (404, ModelNotFound),
    ],
)
def test_an_answer_is_not_asked_for_again_and_is_no_outage(
    status: int, error: type[Exception]
) -> None:
    with receiving(Answer(status=status)) as receiver:
        found = registry(receiver)
        for _ in range(NEVER.failures + 1):
            with pytest.raises(error):
                found.resolve(MODEL)

        assert len(receiver.posted) == NEVER.failures + 1, "the circuit has opened"


@pytest.mark.parametrize(
    "call",
    [
        lambda it, of: it.log_drift(of, "job", "run", CREATED, Path("page")),
        lambda it, of: it.reference_sample(of, Path()),
    ],
)
def test_what_no_run_depends_on_is_tried_once(call: Callable[[Registry, Version], None]) -> None:
    version = Version(model=MODEL, name="m", version="1", source="s", profile_uri=None)
    with receiving(Answer(status=503)) as receiver:
        found = registry(receiver, replace(NEVER, retrying=60.0))
        with pytest.raises(RegistryUnreachable), structlog.testing.capture_logs() as lines:
            call(found, version)

    assert len(receiver.posted) == 1
    assert [line["event"] for line in lines] == ["registry_unreachable"]


# The circuit


def test_two_hundred_jobs_do_not_each_wait_for_a_registry_that_is_down() -> None:
    with receiving(Answer(status=503)) as receiver, structlog.testing.capture_logs() as lines:
        found = registry(receiver)
        reasons = [unreachable(found) for _ in range(NEVER.failures)]
        asked = len(receiver.posted)
        others = {unreachable(Registry(receiver.address, NEVER)) for _ in range(200)}

        assert len(receiver.posted) == asked, "it was asked while the circuit was open"

    assert set(reasons) == {"too many 503 error responses"}
    assert others == {"it did not answer before, and is asked again within 3600 s"}
    opened = [line for line in lines if line["event"] == "circuit_opened"]
    assert [(line["log_level"], line["registry"]) for line in opened] == [
        ("error", receiver.address)
    ]


def test_after_a_while_one_call_is_let_through_on_trial_and_closes_the_circuit() -> None:
    with receiving(Answer(status=503)) as receiver:
        found = registry(receiver, replace(NEVER, open=0.0, failures=1))
        unreachable(found)
        before = len(receiver.posted)
        unreachable(found)
        assert len(receiver.posted) == before + 1

        receiver.answers = [Answer(status=404)]
        with structlog.testing.capture_logs() as lines, pytest.raises(ModelNotFound):
            found.resolve(MODEL)

    assert [line["event"] for line in lines] == ["circuit_closed"]


def test_on_trial_it_is_asked_once_however_patient_one_is() -> None:
    circuit = Circuit("r", replace(NEVER, open=0.0, retrying=60.0, failures=1))
    tries = []

    def question() -> None:
        tries.append(1)
        raise RegistryUnreachable("r", "it is down")

    with pytest.raises(RegistryUnreachable):
        circuit.ask(question, 60.0, once=True)
    with pytest.raises(RegistryUnreachable):
        circuit.ask(question, 60.0)

    assert len(tries) == 2


def test_a_failure_in_between_does_not_open_the_circuit() -> None:
    circuit = Circuit("r", replace(NEVER, retrying=0.0))

    def fails() -> None:
        raise RegistryUnreachable("r", "it is down")

    for _ in range(3 * NEVER.failures):
        with pytest.raises(RegistryUnreachable, match="it is down"):
            circuit.ask(fails, 60.0)
        assert circuit.ask(lambda: "up", 60.0) == "up"


# In limited time


def test_a_registry_that_is_silent_is_left_after_a_while() -> None:
    with receiving(Answer(hangs=True)) as receiver:
        reason = unreachable(registry(receiver, replace(NEVER, question=0.2)))

    assert reason == "it had not answered after 0.2 s"


def test_a_registry_that_drips_its_answer_is_left_after_a_while() -> None:
    with dripping(b"HTTP/1.1 200 OK\r\n") as port:
        found = Registry(f"http://127.0.0.1:{port}", replace(NEVER, question=0.2))
        reason = unreachable(found)

    assert reason == "it had not answered after 0.2 s"


def test_a_registry_that_refuses_connections_is_named() -> None:
    with refusing() as port:
        reason = unreachable(Registry(f"http://127.0.0.1:{port}", NEVER))

    assert reason == "[Errno 111] Connection refused"


def test_calls_that_never_come_back_do_not_pile_up() -> None:
    circuit = Circuit("r", replace(NEVER, retrying=0.0, failures=10**6))
    asked, begun, over = [], threading.Semaphore(0), threading.Event()

    def hangs() -> None:
        asked.append(threading.current_thread())
        begun.release()
        over.wait(60)

    for number in range(LEFT_MOST + 3):
        with pytest.raises(RegistryUnreachable):
            circuit.ask(hangs, 0.01)
        assert number >= LEFT_MOST or begun.acquire(timeout=60)
    over.set()
    for thread in asked:
        thread.join()

    assert len(asked) == LEFT_MOST
    assert circuit.ask(lambda: "up", 60.0) == "up", "they have come back"


def test_the_whole_of_a_call_is_bounded_as_the_documentation_says() -> None:
    usual = Patience()

    assert usual.retrying + usual.question == 45.0
    assert (usual.optional, usual.failures, usual.open) == (20.0, 2, 60.0)


# A registry that is a file


def test_a_registry_whose_file_is_gone_is_down_and_not_made_anew(tmp_path: Path) -> None:
    found = Registry(f"sqlite:///{tmp_path}/mlflow.db", replace(NEVER, retrying=60.0))

    assert unreachable(found) == "there is no such file"
    assert list(tmp_path.iterdir()) == []


def test_a_registry_whose_file_is_damaged_is_down(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database " * 100)
    found = Registry(f"sqlite:///{tmp_path}/mlflow.db", replace(NEVER, retrying=60.0))

    assert unreachable(found) == "file is not a database"


def test_a_registry_whose_file_is_locked_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scoring.models.registry_file.LOCK_SECONDS", 0.01)
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.commit()
        connection.execute("BEGIN EXCLUSIVE")
        reason = unreachable(Registry(f"sqlite:///{path}", NEVER))
    connection.close()

    assert reason == "database is locked"
