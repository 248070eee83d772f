"""The clean command: remove what runs left behind and nobody needs."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from scoring import api
from scoring import runs as runs_of
from scoring.cli import show
from scoring.cli.run_commands import JsonOption
from scoring.drift.wording import visible
from scoring.runs.clean import Cleaned
from scoring.runs.leftover import DAY, Policy
from scoring.settings import Settings


def register(app: typer.Typer) -> None:
    """Add this command to the root."""
    app.command()(clean)


def clean(
    older_than: Annotated[
        float,
        typer.Option(min=0, metavar="DAYS", help="How long a failed or cancelled run keeps parts."),
    ] = 7.0,
    failed: Annotated[
        bool, typer.Option("--failed", help="Parts of failed and cancelled runs, however new.")
    ] = False,
    models: Annotated[
        float | None,
        typer.Option(min=0, metavar="DAYS", help="Also cached models unused for so long."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be removed.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Remove staged parts, variants and downloads that nobody needs any more.

    Safe while runs go on. Published output, quarantine and reports stay, and so does everything of
    a run that is running, finishing or held. A failed or cancelled run whose parts are removed can
    still be retried: all of it is scored anew then.
    """
    policy = Policy(
        older_seconds=older_than * DAY,
        failed=failed,
        models_seconds=None if models is None else models * DAY,
        who=runs_of.this_user(),
    )
    cleaned = runs_of.clean(api.open_context(Settings()), policy, dry_run=dry_run)
    if json:
        show.document(_document(cleaned, dry_run=dry_run))
    else:
        if cleaned.leftovers:
            show.table(_table(cleaned))
        show.say(_sum(cleaned, dry_run=dry_run))
    for problem in cleaned.problems:
        show.say(f"[bold red]error:[/] it stays where it is: {escape(visible(problem))}")
    raise typer.Exit(1 if cleaned.problems else 0)


def _document(cleaned: Cleaned, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "leftovers": [one.to_dict() for one in cleaned.leftovers],
        "bytes": cleaned.bytes,
        "problems": list(cleaned.problems),
    }


def _table(cleaned: Cleaned) -> Table:
    rows = show.listing("what", "where", ">size", "why")
    for one in cleaned.leftovers:
        rows.add_row(one.kind, escape(visible(one.where)), show.size(one.bytes), one.why)
    return rows


def _sum(cleaned: Cleaned, *, dry_run: bool) -> str:
    if not cleaned.leftovers:
        return "nothing is left over"
    count = len(cleaned.leftovers)
    things = "1 leftover" if count == 1 else f"{count:,} leftovers"
    done = "would be" if dry_run else "were" if count > 1 else "was"
    return f"{things} with {show.size(cleaned.bytes)} {done} removed"
