"""The embedded stack: it starts again what dies, gives up on what cannot run, leaves nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import redis

from scoring import Settings, address, stack
from scoring.errors import ServiceDied
from scoring.stack import SHORT_LIVES, Stack
from tests.integration.processes import PATIENCE, until
from tests.ports import free_port

pytestmark = pytest.mark.slow


def test_a_service_is_given_a_port_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = free_port(), free_port()
    with socket.socket() as held:
        held.bind(("127.0.0.1", taken))
        monkeypatch.setattr(stack, "PORTS", [taken] * 99 + [free])  # in any order

        assert stack._free_ports("broker") == {"broker": free}


def test_a_killed_service_is_started_again_at_the_same_address(settings: Settings) -> None:
    with Stack(settings) as stack:
        broker = redis.Redis.from_url(stack.ensure().broker)
        broker.set("kept", "no")

        for _ in range(SHORT_LIVES + 2):
            killed = stack.services["broker"].process
            kill(stack, "broker")
            until(lambda before=killed: stack.services["broker"].process is not before)
            until(lambda: answers(broker))

        assert broker.get("kept") is None
        stack.check()
        assert stack.ensure() == address.read(settings.home)


def test_a_service_that_cannot_run_is_given_up_and_the_others_go_on(settings: Settings) -> None:
    with Stack(settings) as stack:
        broker = redis.Redis.from_url(stack.ensure().broker)
        stack.services["beat"].command = [sys.executable, "-c", "raise SystemExit(1)"]
        kill(stack, "beat")

        def given_up() -> bool:
            try:
                stack.check()
            except ServiceDied:
                return True
            return False

        until(given_up)
        with pytest.raises(ServiceDied, match="the embedded beat keeps dying"):
            stack.ensure()
        assert answers(broker)


def test_one_home_has_one_stack_and_others_use_it(settings: Settings) -> None:
    with Stack(settings) as first:
        addresses = first.ensure()
        second = Stack(settings)

        assert second.ensure() == addresses
        assert not second.running
        second.stop()
        assert answers(redis.Redis.from_url(addresses.broker))

    assert address.read(settings.home) is None


def test_who_asks_while_a_stack_is_starting_is_given_that_stack(settings: Settings) -> None:
    first, second = Stack(settings), Stack(settings)
    with ThreadPoolExecutor(2) as people:
        asked = [people.submit(stack.ensure) for stack in (first, second)]
        addresses = [answer.result(timeout=PATIENCE) for answer in asked]
    try:
        assert addresses[0] == addresses[1]
        assert first.running != second.running
    finally:
        first.stop()
        second.stop()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_process_that_runs_the_stack(
    settings: Settings, end: signal.Signals
) -> None:
    program = (
        "import time\nfrom scoring import Settings\nfrom scoring.stack import Stack\n"
        "stack = Stack(Settings())\nstack.ensure()\ntime.sleep(600)\n"
    )
    environment = {**os.environ, "SCORING_HOME": str(settings.home)}
    environment["MLFLOW_TRACKING_URI"] = settings.tracking_uri
    owner = subprocess.Popen([sys.executable, "-c", program], env=environment)
    until(lambda: address.read(settings.home) is not None)
    worker = Path(settings.home / "logs" / "worker.log")
    until(lambda: "ready" in worker.read_text())
    services = psutil.Process(owner.pid).children(recursive=True)

    owner.send_signal(end)
    owner.wait(PATIENCE)

    _, alive = psutil.wait_procs(services, timeout=PATIENCE)
    assert [p.cmdline() for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
    assert address.read(settings.home) is None


def kill(stack: Stack, name: str) -> None:
    process = stack.services[name].process
    assert process is not None
    process.kill()


def answers(broker: redis.Redis) -> bool:
    try:
        return bool(broker.ping())
    except redis.ConnectionError:
        return False
