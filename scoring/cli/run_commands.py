"""Commands on runs: run, submit, status, runs, report, retry, cancel, release, reject."""

from __future__ import annotations

import math
import time
import webbrowser
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from scoring import api
from scoring import runs as runs_of
from scoring.cli import report_table, show
from scoring.cli.stopping import embedded
from scoring.errors import RunNotFound
from scoring.job_files import find_job
from scoring.progress import follow
from scoring.runs.report import VERSION
from scoring.settings import Settings
from scoring.stack import QUEUES, Stack

LATEST = "latest"
PATIENCE_SECONDS = 20.0
"""How long a run may wait for its first worker before we wonder aloud."""
JobArgument = Annotated[str, typer.Argument(help="A job file, or the name of one in the folder.")]
RunArgument = Annotated[
    str, typer.Argument(help="A run's id, as `scoring runs` lists it, or `latest`.")
]
DateOption = Annotated[
    str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="Logical date of the run.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
ReasonOption = Annotated[str, typer.Option(metavar="TEXT", help="Why, for whoever looks later.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the root."""
    for command in (run, submit, status, runs, report, retry, cancel, release, reject):
        app.command()(command)


def run(job: JobArgument, date: DateOption = None, json: JsonOption = False) -> None:
    """Score a job now and wait for it, with a progress bar.

    Uses the configured broker; without one, starts the embedded services for as long as it takes.
    """
    settings = Settings()
    found = find_job(job, settings.jobs)
    runs_of.on_date(date)  # a wrong date is said before anything is started
    if settings.broker_url:
        leave(watch(api.submit(found, date=date), json=json), json=json)
    with embedded(settings, queues=(*QUEUES, found.execution.queue)) as stack:
        ended = watch(api.submit(found, date=date), json=json, stack=stack)
    leave(ended, json=json)


def submit(
    job: JobArgument,
    date: DateOption = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A second submission with the same key starts nothing.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Start a run and return at once; print its id."""
    submitted = api.submit(job, date=date, idempotency_key=idempotency_key)
    if json:
        show.document(submitted.to_dict())
    else:
        typer.echo(submitted.id)


def status(
    run: RunArgument,
    history: Annotated[bool, typer.Option("--history", help="Also what happened to it.")] = False,
    json: JsonOption = False,
) -> None:
    """Show one run, who is told of its drift, and with --history all that happened to it."""
    found = find(run)
    told, events = found.deliveries(), found.history() if history else []
    if json:
        more = {"history": events} if history else {}
        show.document({**found.to_dict(), "deliveries": told, **more})
        return
    show.table(show.run_details(found.to_dict()))
    if told:
        typer.echo()
        show.table(show.deliveries_table(told))
    if events:
        typer.echo()
        show.table(show.history_table(events))


def runs(
    job: Annotated[str | None, typer.Option(help="Only runs of this job.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    json: JsonOption = False,
) -> None:
    """List runs, newest first."""
    found = api.latest_runs(job=job, limit=limit)
    if json:
        show.document(api.run_documents(found))
    else:
        show.table(show.runs_table([one.record for one in found]))


def report(
    run: RunArgument,
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the report's page in a browser.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Every column, however many.")] = False,
    json: JsonOption = False,
) -> None:
    """Show the drift report of a run."""
    found = find(run)
    drift = found.report()
    page = Path(str(found.record.report))
    if json:
        show.document(drift)
    elif drift.get("version") != VERSION:
        show.say(f"{drift['verdict']} An earlier release made this report.")
        show.say(f"The page: {page}")
    else:
        show.table(report_table.render(drift, limit=None if every else report_table.LIMIT))
        show.say(f"The page: {page}")
    if open_page and not webbrowser.open(page.as_uri()):
        show.say("no browser could be started here; copy the page to where there is one")


def retry(run: RunArgument, json: JsonOption = False) -> None:
    """Go on with a failed or cancelled run; finished chunks are kept."""
    _changed(find(run).retry(runs_of.this_user()), json=json)


def cancel(run: RunArgument, json: JsonOption = False) -> None:
    """Stop a run; nothing of it is published."""
    _changed(find(run).cancel(runs_of.this_user()), json=json)


def release(run: RunArgument, reason: ReasonOption = "", json: JsonOption = False) -> None:
    """Publish a run that is held back."""
    _changed(find(run).release(runs_of.this_user(), reason), json=json)


def reject(run: RunArgument, reason: ReasonOption = "", json: JsonOption = False) -> None:
    """Drop a run that is held back, for good; the earlier output stands."""
    _changed(find(run).reject(runs_of.this_user(), reason), json=json)


def find(run: str, *, replays: bool = True) -> api.Run:
    """The run of an id, or the latest one, which is no replay unless ``replays`` count."""
    if run != LATEST:
        return api.get_run(run)
    newest = api.latest_runs(limit=1, replays=replays)
    if not newest:
        raise RunNotFound(run)
    return newest[0]


def _changed(found: api.Run, *, json: bool) -> None:
    if json:
        show.document(found.to_dict())
    else:
        show.say(f"{found.id} is {found.status}")


def watch(submitted: api.Run, *, json: bool, stack: Stack | None = None) -> api.Run:
    """Wait with a progress bar; keep some stack alive if the run depends on an embedded one."""
    patience = time.monotonic() + PATIENCE_SECONDS

    def look() -> None:
        nonlocal patience
        if stack is not None:
            stack.ensure()
        if time.monotonic() > patience and not submitted.is_worked_on():
            patience = math.inf
            show.say(
                f"no worker has taken a chunk of {submitted.id} yet: does one serve the queue "
                f"{submitted.record.queue!r}? It is safe to stop waiting with Ctrl-C."
            )

    try:
        follow(lambda: [submitted.record], show=not json, each=look)
    except KeyboardInterrupt:
        show.say(
            f"{submitted.id} is kept as it is: it goes on where a worker is (`scoring up`), "
            f"`scoring cancel {submitted.id}` drops it"
        )
        raise
    return submitted


def leave(run: api.Run, *, json: bool) -> NoReturn:
    """Print how the run ended, and leave with its exit code."""
    ended = run.record
    if json:
        show.document(run.to_dict())
    else:
        show.table(show.runs_table([ended]))
        if ended.state == "published":
            show.say(f"Scores: {ended.output}")
        if ended.report:
            show.say(f"Drift:  {ended.report}")
        if ended.state == "held":
            show.say(
                f"Held because of its drift. Publish it with: scoring release {ended.id}, "
                f"or drop it with: scoring reject {ended.id}"
            )
        if ended.error:
            show.say(f"[bold red]error:[/] {escape(ended.error)}")
    raise typer.Exit(show.EXIT_CODES[ended.state])
