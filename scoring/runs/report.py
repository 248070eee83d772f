"""The drift report of a run: what it measured, what follows, and where it stands among others.

Everything is written before anything is decided in the ledger, and can be written again: the
profile, ``drift.json`` and the page that shows it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from scoring import telemetry
from scoring.data import sink
from scoring.data.staged import Staging
from scoring.drift.page import page
from scoring.drift.policy import Decision, decide
from scoring.drift.profile.profile import Profile
from scoring.drift.report import compare
from scoring.drift.trend import RUNS, with_trend
from scoring.errors import ModelError
from scoring.job import Job, Severity
from scoring.ledger import ChunkRecord, RunRecord
from scoring.models.search_document import search_document
from scoring.models.search_result import SearchResult
from scoring.runs.context import Context, pinned_version
from scoring.runs.frame import read_frame
from scoring.runs.nights import other_nights
from scoring.runs.places import DRIFT_FILE, PAGE_FILE, PROFILE_FILE
from scoring.runs.times import iso_time

log = telemetry.logger(__name__)

VERSION = 2
"""Of drift.json, whose schema is ``scoring/drift/drift.schema.json``."""
NOT_DRAWN = (
    '<!doctype html>\n<html lang="en"><title>Drift report</title><p>This report could not be '
    "drawn; its figures are in drift.json beside it, and the worker's log says why.</p></html>\n"
)
REASONS_SHOWN = 20
MEASURED_STATES = ("published", "held", "failed", "cancelled")
"""States of earlier runs that may have a report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """The report as it was written, and what follows from it."""

    document: Mapping[str, Any]
    """What drift.json holds."""
    decision: Decision

    @property
    def severity(self) -> Severity | None:
        """None: nothing was measured."""
        return severity_of(self.document)


def make_report(
    context: Context,
    run: RunRecord,
    job: Job,
    chunks: Sequence[ChunkRecord],
    reasons: Counter[str],
) -> Reported:
    """Merge the chunks' profiles, compare with the reference, decide, and write it all down."""
    artifacts = Path(run.artifacts)
    frame = read_frame(artifacts, Path(str(run.staging)))
    current = _merged(chunks, context.staging(run), frame.reference)
    _warn_of_weights(job, current)
    measured = compare(frame.reference, current, job.drift)
    earlier = _earlier(context, run)
    decision = decide(
        measured.severity, job.drift, _severities(earlier), released=bool(run.released)
    )
    document = {
        "version": VERSION,
        **_identity(run),
        **measured.to_dict(),
        "compared_with": frame.compared_with,
        "persistence": {"wanted": job.drift.persistence, "in_a_row": decision.in_a_row},
        "actions": list(decision.actions),
        "outcome": decision.outcome,
        "decision": decided(run),
        "quarantine": [
            {"reason": reason, "rows": rows} for reason, rows in reasons.most_common(REASONS_SHOWN)
        ],
        "gate": _gate(context, run, job),
        "timing": _timing(run, chunks),
        "performance": None,
    }
    reports = (read_report(Path(one.artifacts)) for one in earlier)
    document = with_trend(document, [found for found in reports if found is not None])
    write(artifacts / PROFILE_FILE, current.to_json())
    write_report(artifacts, document)
    return Reported(document=document, decision=decision)


def severities_before(context: Context, run: RunRecord) -> list[Severity | None]:
    """Of the job's runs before this one, newest first; None: there was nothing to compare with."""
    return _severities(_earlier(context, run))


def severity_of(document: Mapping[str, Any]) -> Severity | None:
    """Of a report; None: nothing was measured."""
    severity: Severity = document["severity"]
    performance = document["performance"]
    judged = performance is not None and performance["metrics"][0]["drop"] is not None
    return severity if document["psi"] is not None or judged else None


def decided(run: RunRecord) -> dict[str, str | None] | None:
    """What a person decided about a run that was held, for the report."""
    if run.decision is None and run.state == "cancelled":
        return {"what": "cancelled", "by": None, "reason": None}
    if run.decision is None:
        return None
    return {"what": run.decision, "by": run.decided_by, "reason": run.decision_reason}


def read_report(artifacts: Path) -> dict[str, Any] | None:
    """The drift document of a run; None if it has none, or one that this release did not write."""
    path = artifacts / DRIFT_FILE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except (OSError, ValueError) as error:
        log.warning("drift_report_unreadable", path=str(path), error=str(error))
        return None
    return found if isinstance(found, dict) and found.get("version") == VERSION else None


def show_decision(context: Context, run_id: str) -> None:
    """Write the report of a run again, with what a person decided; the ledger knows it anyway."""
    run = context.ledger.runs.get(run_id)
    document = read_report(Path(run.artifacts))
    if document is None:
        return
    try:
        write_report(Path(run.artifacts), {**document, "decision": decided(run)})
    except OSError as error:
        log.warning("report_not_updated", run=run_id, error=str(error))


def write_report(artifacts: Path, document: Mapping[str, Any]) -> None:
    """Write a drift document and the page that shows it.

    The page only shows what the document says, so what it cannot show does not stop a run.
    """
    write(artifacts / DRIFT_FILE, json.dumps(document, indent=1, allow_nan=False) + "\n")
    try:
        shown = page.render(document)
    except Exception:
        log.exception("page_not_drawn", document=str(artifacts / DRIFT_FILE))
        shown = NOT_DRAWN
    write(artifacts / PAGE_FILE, shown)


def show_in_registry(context: Context, run: RunRecord, document: Mapping[str, Any]) -> None:
    """Show the report where the model is at home; a registry that is away costs only this."""
    page_file = Path(run.artifacts) / PAGE_FILE
    try:
        context.registry.log_drift(pinned_version(run), run.job, run.id, document, page_file)
    except Exception as error:  # whatever MLflow raises: the run has ended well
        known = isinstance(error, ModelError)
        log.warning("drift_not_in_registry", run=run.id, error=str(error), exc_info=not known)
        context.ledger.runs.note(run.id, "drift_not_in_registry", error=str(error))


def write(path: Path, text: str) -> None:
    """Replace a file whole, so that nobody reads half of it."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)


def _warn_of_weights(job: Job, current: Profile) -> None:
    """A weight for a column that is not there is a slip of the pen that nobody would notice."""
    known = {name for c in current.columns for name in (c.frame.name, c.frame.of)}
    unknown = sorted(set(job.drift.weights) - known)
    if unknown:
        log.warning("weights_without_a_column", columns=unknown)


def _merged(chunks: Sequence[ChunkRecord], staging: Staging, reference: Profile | None) -> Profile:
    names = (sink.profile_name(str(chunk.part)) for chunk in chunks)
    return Profile.from_chunks((staging.text(name) for name in names), reference).settled()


def _identity(run: RunRecord) -> dict[str, str | int | None]:
    return {
        "job": run.job,
        "slot": run.slot,
        "run_id": run.id,
        "model": run.model,
        "model_version": run.model_version,
        "variant": run.variant,
        "engine": run.engine,
        "device": run.device,
        "rows_in": run.rows_in,
        "rows_scored": run.rows_scored,
        "rows_quarantined": run.rows_quarantined,
        "output": run.output,
        "created_at": iso_time(run.created_at),
    }


def _earlier(context: Context, run: RunRecord) -> list[RunRecord]:
    """The job's runs before this one that drift was measured in, newest first, one for a night.

    Of a night that was scored again, what counts is what was made of it last. A replay is no
    night, and has none before it.
    """
    if run.replay_of is not None:
        return []
    found = context.ledger.runs.latest(
        job=run.job,
        states=MEASURED_STATES,
        limit=3 * RUNS,
        before=run.created_at,
        replays=False,
    )
    nights = other_nights((one for one in found if one.report), than=run.slot)
    return list(islice(nights, RUNS - 1))


def _severities(runs: Sequence[RunRecord]) -> list[Severity | None]:
    return [run.drift_severity for run in runs]  # type: ignore[misc]  # text to the ledger


def _gate(context: Context, run: RunRecord, job: Job) -> dict[str, Any] | None:
    """Which variant scored, why, and what the others would have been."""
    if run.precision is None:
        return None
    found = context.ledger.searches.result(run.search) if run.search else None
    try:
        table = search_document(SearchResult.from_json(found), job.precision) if found else {}
    except (ValueError, LookupError, TypeError) as error:  # an older release's; only shown here
        log.warning("search_unreadable", run=run.id, search=run.search, error=str(error))
        table = {}
    rows = [{**row, "chosen": row["variant"] == run.variant} for row in table.get("variants", [])]
    return {**json.loads(run.precision), "variants": rows}


def _timing(run: RunRecord, chunks: Sequence[ChunkRecord]) -> dict[str, Any]:
    """Seconds from the first claim to the last commit, and what the chunks spent them on."""
    steps: Counter[str] = Counter()
    for chunk in chunks:
        steps.update(json.loads(chunk.timings or "{}"))
    began = min((chunk.claimed_at for chunk in chunks if chunk.claimed_at), default=0.0)
    ended = max((chunk.committed_at for chunk in chunks if chunk.committed_at), default=0.0)
    seconds = max(0.0, ended - began)
    return {
        "seconds": round(seconds, 3),
        "rows_per_second": round(run.rows_in / seconds, 1) if seconds else None,
        "chunks": len(chunks),
        "steps": {step: round(spent, 3) for step, spent in steps.most_common()},
    }
