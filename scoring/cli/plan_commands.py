"""The plan command: what would run, with nothing done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from scoring import api, runs
from scoring.cli import show
from scoring.cli.run_commands import DateOption, JobArgument, JsonOption
from scoring.job import Job
from scoring.job_files import find_job
from scoring.settings import Settings

NOTHING_YET = {
    "model": "nothing: the model has no reference profile, `scoring models profile` makes one",
    "previous": "nothing: no other run of this job was published yet",
    "weekday": "nothing: no earlier run of this weekday was published yet",
}


def register(app: typer.Typer) -> None:
    """Add these commands to the root."""
    app.command()(plan)


def plan(job: JobArgument, date: DateOption = None, json: JsonOption = False) -> None:
    """Show what a run would read, with which model, in which chunks; start nothing."""
    settings = Settings()
    found = find_job(job, settings.jobs)
    prepared = runs.prepare(api.open_context(settings), found, runs.on_date(date))
    document = runs.plan_document(prepared)
    if json:
        show.document(document)
        return
    chunks = [chunk["rows"] for chunk in document["chunks"]]
    shown = {name: document[name] for name in ("job", "slot", "model", "flavor", "input", "output")}
    shown |= {
        "files": len(document["files"]),
        "rows": document["rows_in"],
        "chunks": f"{len(chunks)} of {min(chunks):,} to {max(chunks):,} rows",
        "compared with": _compared_with(found, document["compared_with"]),
    }
    show.table(show.run_details(shown))


def _compared_with(job: Job, found: Mapping[str, Any] | None) -> str:
    """The reference in words; where there is none, what has to be there first."""
    if found is None:
        return NOTHING_YET.get(job.drift.reference, "nothing")
    where = {
        "model": "the model's reference profile",
        "previous": f"run {', '.join(found['runs'])}",
        "weekday": f"runs of the same weekday: {', '.join(found['runs'])}",
        "path": found["path"],
    }[found["kind"]]
    return f"{where} ({found['rows']:,} rows)"
