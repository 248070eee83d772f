"""The audit commands: prove that the log of events is what was written, and read it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from scoring import api
from scoring.cli import show
from scoring.cli.run_commands import JsonOption, find
from scoring.drift.wording import visible
from scoring.ledger import Fault, Verdict
from scoring.runs import iso_time
from scoring.settings import Settings

DIGEST = re.compile(r"[0-9a-f]{64}")
audit_app = typer.Typer(no_args_is_help=True, help="The log of everything that was done.")


def register(app: typer.Typer) -> None:
    """Add these commands to the root."""
    app.add_typer(audit_app, name="audit")


@audit_app.command()
def verify(
    since: Annotated[
        str | None,
        typer.Option(metavar="HASH", help="A hash printed before: the log must still contain it."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Walk the whole log; say what was changed, removed, inserted or moved, if anything was.

    Keep the hash that it prints where the database's owner cannot change it: with --since it
    proves later that nothing up to there was written anew.
    """
    if since is not None and DIGEST.fullmatch(since.lower()) is None:
        raise typer.BadParameter("give the 64 hexadecimal digits that an earlier verify printed")
    audit = api.open_context(Settings()).ledger.audit
    verdict = audit.verify(since.lower() if since else None)
    if json:
        show.document(_document(verdict))
    elif verdict.intact:
        show.table(show.run_details(_summary(verdict)))
    else:
        show.table(_faults(verdict.faults))
        show.say(f"[bold red]error:[/] {_told(verdict)}")
    raise typer.Exit(0 if verdict.intact else 1)


@audit_app.command()
def log(
    run: Annotated[str | None, typer.Option(help="Only events of this run, or `latest`.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest.")] = 50,
    json: JsonOption = False,
) -> None:
    """List events of all runs, oldest first, each with its place in the log."""
    run_id = find(run).id if run else None
    logged = api.open_context(Settings()).ledger.audit.log(run_id=run_id, limit=limit)
    if json:
        show.document([{**asdict(one), "at": iso_time(one.at)} for one in logged])
        return
    rows = show.listing(">position", "at", "run", "event", "detail")
    for one in logged:
        said = show.event_detail(one.detail)
        run_name = visible(one.run_id or "-")
        rows.add_row(str(one.position), iso_time(one.at), escape(run_name), one.event, escape(said))
    show.table(rows)


def _document(verdict: Verdict) -> dict[str, Any]:
    return {
        "intact": verdict.intact,
        **_summary(verdict),
        "since_position": verdict.since_position,
        "faults_found": verdict.faults_found,
        "faults": [asdict(fault) for fault in verdict.faults],
    }


def _summary(verdict: Verdict) -> dict[str, Any]:
    return {
        "events": verdict.events,
        "first_at": iso_time(verdict.first_at),
        "last_at": iso_time(verdict.last_at),
        "hash": verdict.head,
    }


def _faults(faults: Sequence[Fault]) -> Table:
    found = show.listing(">position", "run", "event", "what is wrong")
    for one in faults:
        where = "-" if one.position is None else str(one.position)
        named = (escape(visible(str(text or "-"))) for text in (one.run_id, one.event, one.what))
        found.add_row(where, *named)
    return found


def _told(verdict: Verdict) -> str:
    more = "" if verdict.faults_found == len(verdict.faults) else ", the first of which are above"
    things = "one thing is" if verdict.faults_found == 1 else f"{verdict.faults_found:,} things are"
    return (
        f"the log of events is not what was written: {things} wrong with it{more}. Published "
        "output is not touched by this. Find out who wrote to the ledger's database, and compare "
        "it with a backup; runs go on as they do."
    )
