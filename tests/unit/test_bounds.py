"""Nothing waits for ever: services that accept and are silent, that never finish, that are gone.

Each is a real server on this machine; what is minutes in production is set lower. A test that
waited for ever would be ended by its own time limit.
"""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from scoring.calls import LEFT_MOST
from scoring.data import publish
from scoring.data.stores import Options, Patience, Stores
from scoring.errors import BrokerUnreachable, LedgerUnreachable, OutputBusy, StoreUnreachable
from scoring.ledger import Database
from scoring.metrics import endpoint
from scoring.wake import RING_SECONDS, SILENT_SECONDS, Bell
from tests.conftest import make_settings
from tests.loopback import dripping, refusing, silent

BULK = b"$100000\r\n"
"""How Redis begins a long text."""


# The broker


def ring(port: int, **bounds: float) -> str:
    with pytest.raises(BrokerUnreachable) as error:
        Bell(lambda: f"redis://:s3cret@127.0.0.1:{port}/0", **bounds).check()
    assert "s3cret" not in str(error.value)
    return error.value.reason


def test_a_broker_that_is_silent_is_left_after_a_while() -> None:
    with silent() as port:
        assert "Timeout" in ring(port, silent_seconds=0.2)


def test_a_broker_that_never_finishes_its_answer_is_left_after_a_while() -> None:
    with dripping(BULK) as port:
        assert ring(port, seconds=0.2) == "it had not answered after 0.3 s"


def test_a_broker_that_is_gone_is_said_at_once() -> None:
    with refusing() as port:
        assert "refused" in ring(port)


def test_rings_that_never_come_back_do_not_pile_up() -> None:
    with dripping(BULK) as port:
        bell = Bell(lambda: f"redis://127.0.0.1:{port}/0", seconds=0.0)
        for _ in range(LEFT_MOST):
            with pytest.raises(BrokerUnreachable, match="had not answered"):
                bell.check()
        with pytest.raises(BrokerUnreachable, match=f"{LEFT_MOST} earlier calls"):
            bell.check()


def test_the_doorbell_is_silent_for_less_than_it_may_ring() -> None:
    assert (SILENT_SECONDS, RING_SECONDS) == (10.0, 30.0)


# Object stores


def store(port: int) -> Stores:
    given = {
        "endpoint": f"http://127.0.0.1:{port}",
        "access_key_id": "k",
        "secret_access_key": "s3cret",
        "region": "us-east-1",
    }
    return Stores(
        options=(("s3://bucket", Options(tuple(given.items()))),),
        patience=Patience(connect=0.2, request=0.3, retries=1, retrying=0.5),
    )


BEGUN = b"HTTP/1.1 200 OK\r\nETag: 1\r\nContent-Length: 100000\r\n"
CALLS: list[Callable[[Stores], object]] = [
    lambda of: of.read_bytes("s3://bucket/one"),
    lambda of: of.put("s3://bucket/one", b"x"),
    lambda of: of.find("s3://bucket/folder"),
    lambda of: of.copy("s3://bucket/one", "s3://bucket/two"),
    lambda of: of.delete(["s3://bucket/one"]),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_store_that_is_silent_is_left_after_a_while(call: Callable[[Stores], object]) -> None:
    with silent() as port, pytest.raises(StoreUnreachable, match="did not answer in time"):
        call(store(port))


@pytest.mark.parametrize(
    "first",
    [b"HTTP/1.1 200 OK\r\n", BEGUN + b"Last-Modified: Mon, 23 Nov 2026 02:30:00 GMT\r\n\r\n"],
)
def test_a_store_that_never_finishes_its_answer_is_left_after_a_while(first: bytes) -> None:
    with dripping(first) as port, pytest.raises(StoreUnreachable):
        store(port).read_bytes("s3://bucket/one")


def test_a_store_that_is_gone_is_said() -> None:
    with refusing() as port, pytest.raises(StoreUnreachable, match="no connection"):
        store(port).head("s3://bucket/one")


# Locks


def test_a_finisher_that_is_frozen_while_it_swaps_does_not_stop_the_others_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "LOCK_SECONDS", 0.1)
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(OutputBusy, match="it may be frozen"):
            publish.publish(tmp_path / "ready", tmp_path / "out", lambda: True)
    finally:
        os.close(handle)


def test_an_upgrade_that_is_frozen_does_not_stop_the_others_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    with (
        FileLock(f"{path}.upgrade.lock"),
        pytest.raises(LedgerUnreachable, match=r"upgrading it for 0\.1 s"),
    ):
        Database(f"sqlite:///{path}", upgrade_seconds=0.1).upgrade()


def test_connections_that_never_come_back_are_not_waited_for_for_ever(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'ledger.db'}", pool_seconds=0.1)
    held = [database.engine.connect() for _ in range(15)]
    try:
        with pytest.raises(LedgerUnreachable, match="no connection came free"):
            database.revision()
    finally:
        for one in held:
            one.close()
        database.engine.dispose()


# Who asks us


def test_who_asks_for_metrics_and_then_says_nothing_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(endpoint, "SILENT_SECONDS", 0.1)
    before = set(threading.enumerate())
    served = endpoint.serve(make_settings(tmp_path / "home", "sqlite://"))
    host, _, port = served.address.removeprefix("http://").partition("/")[0].partition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            assert connection.recv(1) == b""
    finally:
        served.close()

    assert "Traceback" not in capfd.readouterr().err
    for thread in set(threading.enumerate()) - before:  # of other tests' servers, or none at all
        thread.join(60)
        assert not thread.is_alive()
