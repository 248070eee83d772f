"""One installation under chaos: ledger, broker, two workers, beat, each behind a proxy.

The chaos itself reads the ledger past the proxies. What dies is started again, as a service
manager would, unless a fault holds it down.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from scoring.ledger import Ledger, RunRecord
from scoring.settings import Settings
from scoring.stack import QUEUES
from tests.chaos.proxy import Proxy
from tests.chaos.services import ROOT, Broker, Postgres, Service, celery, migrated

LEASE_SECONDS = 3.0
SWEEP_SECONDS = 1.0
Kind = Literal["sqlite", "postgresql"]


@dataclass(slots=True, kw_only=True)
class Installation:
    """Everything that a fault may hit."""

    kind: Kind
    root: Path
    settings: Settings
    """As the services have them: through the proxies."""
    ledger: Ledger
    """Past the proxies."""
    broker: Broker
    broker_proxy: Proxy
    postgres: Postgres | None
    ledger_proxy: Proxy | None
    services: list[Service]
    volumes: dict[str, Path]
    """Small filesystems that can be filled, by what lies on them: parts, ledger, cache."""
    extra: list[Service] = field(default_factory=list)
    """Beats and workers that a fault added for a while."""

    @property
    def workers(self) -> list[Service]:
        return [one for one in self.services if one.name.startswith("worker")]

    @property
    def beat(self) -> Service:
        return next(one for one in self.services if one.name == "beat")

    @property
    def output(self) -> Path:
        return self.root / "lake" / "scores"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def run(self, run_id: str) -> RunRecord:
        return self.ledger.runs.get(run_id)

    def tend(self) -> None:
        """Start again what has died."""
        for service in (self.broker.service, *self.services, *self.extra):
            service.tend()

    def children(self) -> list[psutil.Process]:
        """The workers' children, those that score."""
        found = [one.process for one in self.workers]
        children = []
        for worker in filter(None, found):
            with suppress(psutil.NoSuchProcess):
                children += [one for one in worker.children() if _scores(one)]
        return children

    def searches(self) -> list[psutil.Process]:
        """Processes that look for variants."""
        family = [one for worker in self.workers for one in worker.family()]
        return [one for one in family if "scoring.models" in command_of(one)]


def command_of(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def _scores(process: psutil.Process) -> bool:
    """Whether it is a child of the pool, not the one that counts what multiprocessing leaks."""
    return "spawn_main" in " ".join(command_of(process))


@contextmanager
def installed(
    kind: Kind, root: Path, tracking_uri: str, *, volumes: bool = True
) -> Iterator[Installation]:
    """An installation in an empty folder, its services running; nothing of it outlives the block.

    ``volumes``: whether to mount small filesystems, where that is allowed.
    """
    for folder in ("logs", "home", "jobs", "lake", "ledger", "home/models"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    mounted = _mount(root) if volumes else {}
    postgres: Postgres | None = None
    proxies: list[Proxy] = []
    running: list[Service] = []
    found: Installation | None = None
    try:
        broker = Broker(root / "broker", root / "logs")
        running.append(broker.service)
        broker.start()
        proxies.append(Proxy(("127.0.0.1", broker.port)))
        if kind == "postgresql":
            postgres = Postgres(root / "postgresql")
            proxies.append(Proxy(str(postgres.socket)))
            url, direct = postgres.url_through(proxies[1].port), migrated(postgres.url)
        else:
            url = direct = migrated(f"sqlite:///{root}/ledger/ledger.db")
        settings = Settings(
            home=root / "home",
            jobs=root / "jobs",
            database_url=url,
            broker_url=f"redis://127.0.0.1:{proxies[0].port}/0",
            MLFLOW_TRACKING_URI=tracking_uri,
            lease_seconds=LEASE_SECONDS,
            sweep_seconds=SWEEP_SECONDS,
        )
        services = _services(settings, root / "logs")
        running.extend(services)
        for service in services:
            service.start()
        found = Installation(
            kind=kind,
            root=root,
            settings=settings,
            ledger=Ledger.open(direct, LEASE_SECONDS),
            broker=broker,
            broker_proxy=proxies[0],
            postgres=postgres,
            ledger_proxy=proxies[1] if postgres else None,
            services=services,
            volumes=mounted,
        )
        yield found
    finally:
        for proxy in proxies:
            proxy.mode = "pass"
        for service in reversed([*running, *(found.extra if found else [])]):
            service.end()
        for proxy in proxies:
            proxy.close()
        if found is not None:
            found.ledger.database.engine.dispose()
        if postgres is not None:
            postgres.close()
        for path in mounted.values():
            subprocess.run(["umount", "--lazy", str(path)], check=False)


def environment_of(settings: Settings) -> dict[str, str]:
    """What the services are told."""
    return {
        "SCORING_HOME": str(settings.home),
        "SCORING_JOBS": str(settings.jobs),
        "SCORING_DATABASE_URL": settings.database_url,
        "SCORING_BROKER_URL": settings.broker_url,
        "SCORING_LEASE_SECONDS": str(settings.lease_seconds),
        "SCORING_SWEEP_SECONDS": str(settings.sweep_seconds),
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "OMP_NUM_THREADS": "1",
    }


def worker(name: str, settings: Settings, logs: Path, *, children: int = 2) -> Service:
    command = celery(
        "worker",
        *("--without-gossip", "--without-mingle", f"--concurrency={children}"),
        *(f"--queues={','.join(QUEUES)}", f"--hostname={name}@%h", "--loglevel=INFO"),
    )
    return Service(name, command, environment_of(settings), logs)


def beat(name: str, settings: Settings, logs: Path) -> Service:
    return Service(name, celery("beat", "--loglevel", "INFO"), environment_of(settings), logs)


def _services(settings: Settings, logs: Path) -> list[Service]:
    return [
        worker("worker-1", settings, logs),
        worker("worker-2", settings, logs, children=1),
        beat("beat", settings, logs),
    ]


VOLUMES = {"parts": ("lake", 48), "ledger": ("ledger", 32), "cache": ("home/models", 96)}
"""What lies on a small filesystem: its folder, and MiB."""


def _mount(root: Path) -> dict[str, Path]:
    """Mount small filesystems; none where that is not allowed."""
    mounted = {}
    for what, (folder, size) in VOLUMES.items():
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(root / folder)]
        with suppress(OSError):
            done = subprocess.run(command, capture_output=True, check=False)
            if done.returncode == 0:
                mounted[what] = root / folder
    return mounted


def scoring(installation: Installation, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The product's own command, on this installation and past the proxies."""
    direct = {"database_url": installation.ledger.database.url}
    settings = installation.settings.model_copy(update=direct)
    return subprocess.run(
        [sys.executable, "-c", "from scoring.cli import main; main()", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment_of(settings)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
