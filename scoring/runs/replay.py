"""Replaying a run: the rows it left in quarantine are scored again, by a run of their own.

The replay goes the way of every run, with the version that the job's model names now or one that
a person names; its input is the quarantine, and `addition` publishes what it scored as further
parts of the run that it replays. It is no night of its job: rows that still cannot be scored stay
in quarantine, however many they are, and its drift holds, fails and tells nothing.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from scoring import telemetry
from scoring.errors import (
    InputColumnsMissing,
    InputError,
    InputTypeMismatch,
    JobError,
    ModelError,
    NoInputFiles,
    NothingToReplay,
    QuarantineUnusable,
    RunNotInState,
)
from scoring.job import Job
from scoring.ledger import RunRecord
from scoring.runs.baseline import Baseline, find_baseline
from scoring.runs.context import Context
from scoring.runs.create import start
from scoring.runs.outstanding import in_place, outstanding, quarantine_folder
from scoring.runs.places import Occasion, Places, check_within
from scoring.runs.prepare import Prepared, new_run_id, plan_at

log = telemetry.logger(__name__)

TRIGGER = "replay"


def replay(
    context: Context, run_id: str, version: str | None = None, who: str | None = None
) -> RunRecord:
    """Start scoring a published run's quarantined rows again, and return the replay.

    Raises:
        RunNotFound, RunNotInState: the run is not published, or a later one replaced its output.
        NothingToReplay: no row of it is in quarantine.
        QuarantineUnusable: its rows cannot be scored as they lie there.
        ReplayOvertaken: another replay is being published.
        JobError, ModelError: the version cannot be used.
        BrokerUnreachable: the replay is recorded, and the sweep will wake it.
    """
    run = context.ledger.runs.get(run_id)
    check_replayable(run)
    job = replay_job(run, version)
    replay_id = new_run_id(job)
    in_place(context, run, replay_id)
    prepared = _prepare(context, run, job, replay_id)
    return start(context, prepared, TRIGGER, who=who).run


def replay_job(run: RunRecord, version: str | None) -> Job:
    """The job as the run froze it, without an error budget and what drift sets off.

    Raises:
        JobFileInvalid: the version is none.
    """
    values = json.loads(run.job_json)
    if version is not None:
        values["model"] = f"models:/{run.model_name}/{version}"
    values["execution"]["error_budget"] = 1.0
    for tier in ("on_small", "on_moderate", "on_severe"):
        values["drift"][tier] = ["log"]
    return Job.from_json(json.dumps(values))


def check_replayable(run: RunRecord) -> None:
    """Raise unless the run is published and has rows in quarantine."""
    if run.replay_of is not None:
        of = run.replay_of
        raise RunNotInState(run.id, f"a replay of {of}", f"no replay: `scoring replay {of}`")
    if run.state != "published":
        raise RunNotInState(run.id, run.state, f"published{_INSTEAD.get(run.state, '')}")
    if not run.rows_quarantined:
        raise NothingToReplay(run.id)


_INSTEAD = {
    "running": " (wait for its end)",
    "finishing": " (wait for its end)",
    "held": " (`scoring release` publishes it)",
    "failed": " (`scoring retry` goes on with it; with more rows in quarantine than its job "
    "allows, mend the rows or the model, or raise error_budget, and start a new run)",
    "cancelled": " (`scoring retry` goes on with it, unless it was rejected)",
}
"""What to do first with a run in another state."""


def _prepare(context: Context, run: RunRecord, job: Job, replay_id: str) -> Prepared:
    base = outstanding(context, run)
    folder = quarantine_folder(base)
    check_within(run.output, "output.path", context.settings.data_roots)
    occasion = Occasion(date=run.slot[:10] if run.slot else None, slot=run.slot)
    where = Places(
        input=str(folder),
        output=run.output,
        staging=str(run.staging).removesuffix(run.id) + replay_id,
        artifacts=context.settings.artifacts / job.name / replay_id,
    )
    try:
        planned = plan_at(context, job, occasion, replay_id, where, roots=())
    except InputError as error:
        raise QuarantineUnusable(run.id, str(folder), _reason(error)) from error
    if planned.rows != base.rows_quarantined:
        found = f"it holds {planned.rows} rows, and {base.id} left {base.rows_quarantined}"
        raise QuarantineUnusable(run.id, str(folder), found)
    baseline = _baseline(context, job, occasion, planned)
    return replace(planned, baseline=baseline, replay_of=run.id)


def _reason(error: InputError) -> str:
    """Why quarantined rows cannot be read, to stand inside a sentence."""
    match error:
        case NoInputFiles():
            return "its files are gone"
        case InputColumnsMissing():
            columns = ", ".join(error.missing)
            return (
                f"{Path(error.path).name} lacks {columns}, which this version needs and the run's "
                "did not read"
            )
        case InputTypeMismatch(found="string"):
            return (
                f"column {error.column} of {Path(error.path).name} is text, as the input files "
                f"disagreed about its type, and the model wants {error.wanted}"
            )
    return str(error).partition(". ")[0].rstrip(".")


def _baseline(context: Context, job: Job, occasion: Occasion, planned: Prepared) -> Baseline | None:
    """What the report compares with; a replay does without rather than not at all."""
    try:
        return find_baseline(context, job, occasion, planned.version, planned.resolution)
    except (JobError, ModelError) as error:
        log.warning("replay_without_reference", error=str(error))
        return None
