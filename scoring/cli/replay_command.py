"""The replay command: a run's quarantined rows, scored again and added to it."""

from __future__ import annotations

from typing import Annotated

import typer

from scoring import api, runs
from scoring.cli import show
from scoring.cli.run_commands import JsonOption, RunArgument, find, leave, watch
from scoring.cli.stopping import embedded
from scoring.errors import NothingToReplay
from scoring.job import Job
from scoring.settings import Settings
from scoring.stack import QUEUES


def register(app: typer.Typer) -> None:
    """Add this command to the root."""
    app.command()(replay)


def replay(
    run: RunArgument,
    version: Annotated[
        str | None,
        typer.Option(help="Version of the model; default: the one the job's model names now."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Score the quarantined rows of a published run again, and add them to it.

    Waits for the end, as `scoring run` does. Rows that still cannot be scored stay in quarantine.
    """
    settings, found = Settings(), find(run, replays=False)
    try:
        runs.check_replayable(found.record)
        ended = _replayed(settings, found, version, json=json)
    except NothingToReplay as nothing:
        show.say(str(nothing))
        if json:
            show.document(found.to_dict())
        return
    made = ended.record
    if made.state == "published":
        left = f"{made.rows_quarantined:,} stay in quarantine"
        added = "1 row was" if made.rows_scored == 1 else f"{made.rows_scored:,} rows were"
        show.say(f"{added} added to {found.id}, {left}")
    leave(ended, json=json)


def _replayed(settings: Settings, found: api.Run, version: str | None, *, json: bool) -> api.Run:
    """The replay once it has ended; without a broker, on services of its own."""
    if settings.broker_url:
        return watch(found.replay(version), json=json)
    queue = Job.from_json(found.record.job_json).execution.queue
    with embedded(settings, queues=(*QUEUES, queue)) as stack:
        return watch(found.replay(version), json=json, stack=stack)
