"""Rejecting a held run: it is given up in the ledger first, then its parts are removed.

Whoever dies in between leaves parts that nobody can publish any more, and the sweep removes them.
Reports, profiles and quarantine stay among the run's artifacts.
"""

from __future__ import annotations

import json
from pathlib import Path

from scoring import telemetry
from scoring.data import publish
from scoring.runs.context import Context
from scoring.runs.report import DRIFT_FILE, decided, write_report

log = telemetry.logger(__name__)


def reject(context: Context, run_id: str, who: str, reason: str = "") -> None:
    """Give a held run up for good. Nothing of it is published; the earlier output stands.

    Raises:
        RunNotFound, RunNotInState: the run is not held.
    """
    context.ledger.decisions.reject(run_id, who, reason)
    _say_so(context, run_id)
    _remove_parts(context, run_id)


def remove_rejected(context: Context) -> int:
    """Remove the parts of rejected runs that are still there; return of how many runs."""
    left = context.ledger.decisions.with_parts()
    for run_id in left:
        _remove_parts(context, run_id)
    return len(left)


def _remove_parts(context: Context, run_id: str) -> None:
    staging = context.ledger.runs.get(run_id).staging
    if staging is not None:
        publish.discard(Path(staging))
        context.ledger.decisions.parts_removed(run_id)


def _say_so(context: Context, run_id: str) -> None:
    """The report says who decided; without it, the ledger still does."""
    run = context.ledger.runs.get(run_id)
    artifacts = Path(run.artifacts)
    if not (artifacts / DRIFT_FILE).is_file():
        return
    try:
        document = json.loads((artifacts / DRIFT_FILE).read_text(encoding="utf-8"))
        write_report(artifacts, {**document, "decision": decided(run)})
    except (OSError, ValueError) as error:
        log.warning("report_not_updated", run=run_id, error=str(error))
