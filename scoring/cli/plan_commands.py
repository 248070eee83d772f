"""The plan command: what would run, with nothing done."""

from __future__ import annotations

import typer

from scoring import api, runs
from scoring.cli import show
from scoring.cli.run_commands import DateOption, JobArgument, JsonOption
from scoring.job_files import find_job
from scoring.settings import Settings


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
        "drift reference": "yes" if document["reference"] else "none yet",
    }
    show.table(show.run_details(shown))
