"""Rejecting a held run: it is given up in the ledger first, then its parts are removed.

Whoever dies in between leaves parts that nobody can publish any more, and the sweep removes them.
Reports, profiles and quarantine stay among the run's artifacts.
"""

from __future__ import annotations

from pathlib import Path

from scoring import telemetry, urls
from scoring.data import publish
from scoring.errors import StoreRefused, StoreUnreachable
from scoring.ledger import RunRecord
from scoring.runs.context import Context
from scoring.runs.report import show_decision

log = telemetry.logger(__name__)


def reject(context: Context, run_id: str, who: str, reason: str = "") -> None:
    """Give a held run up for good. Nothing of it is published; the earlier output stands.

    Raises:
        RunNotFound, RunNotInState: the run is not held.
    """
    context.ledger.decisions.reject(run_id, who, reason)
    show_decision(context, run_id)
    _remove_parts(context, run_id)


def remove_rejected(context: Context) -> int:
    """Remove the parts of rejected runs that are still there; return of how many runs."""
    left = context.ledger.decisions.with_parts()
    return sum(_remove_parts(context, run_id) for run_id in left)


def _remove_parts(context: Context, run_id: str) -> bool:
    """Remove a run's parts. False while they are not known to be gone: the sweep tries again."""
    run = context.ledger.runs.get(run_id)
    if run.staging is None:
        return False
    if urls.is_url(run.staging):
        return _remove_from_store(context, run)
    staging = Path(run.staging)
    if not (_may_be_there(staging.parent) or _may_be_there(Path(run.output))):
        return False  # nothing of that filesystem is here: another host may have the parts
    try:
        publish.discard(staging)
    except OSError as error:
        log.warning("folder_not_removed", run=run_id, error=str(error))
    if _may_be_there(staging):
        log.warning("parts_not_removed", run=run_id, path=str(staging))
        return False
    return context.ledger.decisions.parts_removed(run_id)


def _remove_from_store(context: Context, run: RunRecord) -> bool:
    try:
        context.staging(run).discard()
    except (StoreRefused, StoreUnreachable) as error:
        log.warning("parts_not_removed", run=run.id, path=str(run.staging), error=str(error))
        return False
    return context.ledger.decisions.parts_removed(run.id)


def _may_be_there(path: Path) -> bool:
    """False only if there is no such file or folder for certain."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
