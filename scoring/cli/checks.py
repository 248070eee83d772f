"""What `scoring doctor` looks at: each part of the installation, by using it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from rich.markup import escape

from scoring import address
from scoring.errors import BrokerNotConfigured, ScoringError
from scoring.job_files import load_jobs
from scoring.ledger import Ledger
from scoring.models import Registry
from scoring.settings import Settings, cores
from scoring.wake import Bell, without_password

Verdict = Literal["ok", "note", "bad"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One part and how it is."""

    name: str
    verdict: Verdict
    found: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def checks(settings: Settings) -> list[Check]:
    """Check every part; none stops another."""
    return [
        *_packages(),
        _guarded("home", lambda: _writable(settings.home)),
        _guarded("ledger", lambda: _ledger(settings)),
        _guarded("broker", lambda: _broker(settings)),
        _guarded("registry", lambda: _registry(settings)),
        _guarded("jobs", lambda: _jobs(settings)),
        _guarded("devices", lambda: _devices(settings)),
    ]


def _guarded(name: str, look: Callable[[], tuple[Verdict, str]]) -> Check:
    try:
        verdict, found = look()
    except (ScoringError, OSError) as error:
        return Check(name=name, verdict="bad", found=escape(str(error)))
    return Check(name=name, verdict=verdict, found=escape(found))


def _packages() -> Iterator[Check]:
    for name in ("nightscore", "celery", "mlflow", "pyarrow", "torch"):
        yield Check(name=name, verdict="ok", found=version(name))
    try:
        runtime = f"{version('onnxruntime-gpu')} (with CUDA provider)"
    except PackageNotFoundError:
        runtime = version("onnxruntime")
    yield Check(name="onnxruntime", verdict="ok", found=runtime)


def _writable(folder: Path) -> tuple[Verdict, str]:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return "ok", str(folder)


def _ledger(settings: Settings) -> tuple[Verdict, str]:
    database = Ledger.open(settings.database_url, settings.lease_seconds).database
    database.ready()
    return "ok", f"{database} at revision {database.revision()}"


def _broker(settings: Settings) -> tuple[Verdict, str]:
    try:
        url = address.broker_url(settings)
    except BrokerNotConfigured:
        return "note", "none: `scoring run` brings its own, `scoring up` keeps one running"
    Bell(lambda: url).check()
    return "ok", without_password(url)


def _registry(settings: Settings) -> tuple[Verdict, str]:
    count = Registry(settings.tracking_uri).count()
    return "ok" if count else "note", f"{settings.tracking_uri} with {count} registered models"


def _jobs(settings: Settings) -> tuple[Verdict, str]:
    if not settings.jobs.is_dir():
        return "note", f"{settings.jobs} is not there: jobs are found by path only"
    jobs, faults = load_jobs(settings.jobs)
    if faults:
        return "bad", "\n".join(str(fault) for fault in faults)
    scheduled = sum(job.schedule is not None for job in jobs)
    return "ok", f"{settings.jobs} with {len(jobs)} jobs, {scheduled} scheduled"


def _devices(settings: Settings) -> tuple[Verdict, str]:
    cpu = f"{cores()} cores, {settings.workers} worker children"
    if not Path("/dev/nvidiactl").exists():
        return "note", f"{cpu}; no NVIDIA GPU: device = 'cuda' would fail here"
    import onnxruntime

    onnxruntime.preload_dlls()
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "bad", f"{cpu}; a GPU is here, but this onnxruntime has no CUDA provider"
    return "ok", f"{cpu}; NVIDIA GPU"
