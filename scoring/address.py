"""Where the embedded services of a home answer, as the stack that runs them wrote it down."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from scoring.errors import BrokerNotConfigured
from scoring.processes import started
from scoring.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """What one stack serves."""

    pid: int
    """Of the process that runs the stack."""
    started: str
    """When that process began, so that a reused PID is not taken for it."""
    broker: str
    flower: str | None = None
    mlflow: str | None = None
    metrics: str | None = None


def note(home: Path) -> Path:
    """The file that holds the addresses."""
    return home / "stack.json"


def write(home: Path, addresses: Addresses) -> None:
    fresh = note(home).with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(asdict(addresses)), encoding="utf-8")
    os.replace(fresh, note(home))


def read(home: Path) -> Addresses | None:
    """The addresses of a stack that is running now."""
    try:
        found = Addresses(**json.loads(note(home).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return found if started(found.pid) == found.started else None


def broker_url(settings: Settings) -> str:
    """The configured broker, or that of the embedded stack of this home.

    Raises:
        BrokerNotConfigured: there is neither.
    """
    if settings.broker_url:
        return settings.broker_url
    found = read(settings.home)
    if found is None:
        raise BrokerNotConfigured(str(settings.home))
    return found.broker
