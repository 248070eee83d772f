"""What `scoring doctor` looks at: each part of the installation, by using it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from rich.markup import escape

from scoring import address, devices
from scoring.errors import BrokerNotConfigured, ScoringError
from scoring.job_files import load_jobs
from scoring.ledger import Ledger
from scoring.models import Registry
from scoring.settings import Settings, cores
from scoring.telemetry import without_credentials
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
        _guarded("data roots", lambda: _roots(settings)),
        _guarded("jobs", lambda: _jobs(settings)),
        _guarded("cpu", lambda: _cpu(settings)),
        _guarded("gpu", _gpu),
        *_on_gpu(),
    ]


def _guarded(name: str, look: Callable[[], tuple[Verdict, str]]) -> Check:
    try:
        verdict, found = look()
    except (ScoringError, OSError, ImportError) as error:
        return Check(name=name, verdict="bad", found=escape(str(error)))
    return Check(name=name, verdict=verdict, found=escape(found))


def _packages() -> Iterator[Check]:
    for name in ("nightscore", "celery", "mlflow", "pyarrow", "torch"):
        yield Check(name=name, verdict="ok", found=version(name))
    try:
        runtime = f"{version('onnxruntime-gpu')}, built for CUDA and the CPU"
    except PackageNotFoundError:
        runtime = f"{version('onnxruntime')}, built for the CPU alone"
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
    shown = without_credentials(settings.tracking_uri)
    count = Registry(settings.tracking_uri).count()
    return "ok" if count else "note", f"{shown} with {count} registered models"


def _roots(settings: Settings) -> tuple[Verdict, str]:
    if settings.data_roots:
        return "ok", ", ".join(settings.data_roots)
    if settings.roots_missing:
        return "bad", "none: name the places that jobs may read and write in SCORING_DATA_ROOTS"
    return "note", "none: jobs may read and write wherever this user may"


def _jobs(settings: Settings) -> tuple[Verdict, str]:
    if not settings.jobs.is_dir():
        return "note", f"{settings.jobs} is not there: jobs are found by path only"
    jobs, faults = load_jobs(settings.jobs)
    if faults:
        return "bad", "\n".join(str(fault) for fault in faults)
    scheduled = sum(job.schedule is not None for job in jobs)
    return "ok", f"{settings.jobs} with {len(jobs)} jobs, {scheduled} scheduled"


def _cpu(settings: Settings) -> tuple[Verdict, str]:
    found = f"{devices.processor()}, {cores()} cores, {settings.workers} worker children"
    fast = devices.int8_instructions()
    if fast:
        return "ok", f"{found}; int8 is fast here: {', '.join(fast)}"
    return "note", f"{found}; it has no instructions for int8 (VNNI): int8 may not pay"


def _gpu() -> tuple[Verdict, str]:
    found = devices.gpus()
    if not found:
        return "note", f"{devices.missing_gpu()}: device = 'cuda' would fail here"
    return "ok", f"{', '.join(gpu.name for gpu in found)}: one worker child for each"


def _on_gpu() -> Iterator[Check]:
    """What only matters where there is a GPU, and takes seconds to load."""
    if not devices.has_driver() and not devices.gpus():
        return
    yield _guarded("cuda", _cuda)
    yield _guarded("torch on gpu", _torch)
    yield _guarded("tensorrt", _tensorrt)


def _cuda() -> tuple[Verdict, str]:
    from scoring.models.engines.libraries import has_cudnn
    from scoring.models.engines.trial import why_cuda_fails

    why = why_cuda_fails()
    if why:
        return "bad", f"onnxruntime cannot use the GPU: it got {why}"
    if not has_cudnn():
        return "note", "onnxruntime uses the GPU, but without cuDNN: convolutions will fail on it"
    return "ok", "onnxruntime uses the GPU"


def _torch() -> tuple[Verdict, str]:
    import torch

    built = f"torch {torch.__version__} for CUDA {torch.version.cuda}"
    if torch.cuda.is_available():
        return "ok", f"{built} uses the GPU"
    return "note", f"{built} cannot use the GPU: copies to it will not overlap with computing"


def _tensorrt() -> tuple[Verdict, str]:
    from scoring.models.engines.libraries import load_tensorrt, tensorrt_version

    missing = load_tensorrt()
    if missing:
        return "note", f"{', '.join(missing)} missing: tensorrt = true would mean CUDA"
    return "ok", f"TensorRT {tensorrt_version()}"
