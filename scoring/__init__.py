"""Nightscore: batch scoring that is exactly-once, pinned, and watched for drift.

    from scoring import submit
    run = submit("flights-delay", date="2013-07-01")
    run.wait(progress=True)
    run.scores().to_table().to_pandas()

Names are imported when first used, so that ``import scoring`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scoring.api import Run, get_run, latest_runs, submit
    from scoring.errors import ScoringError
    from scoring.job import Job
    from scoring.settings import Settings

__all__ = ["Job", "Run", "ScoringError", "Settings", "get_run", "latest_runs", "submit"]

_HOMES = {
    "Job": "scoring.job",
    "Run": "scoring.api",
    "ScoringError": "scoring.errors",
    "Settings": "scoring.settings",
    "get_run": "scoring.api",
    "latest_runs": "scoring.api",
    "submit": "scoring.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'scoring' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
