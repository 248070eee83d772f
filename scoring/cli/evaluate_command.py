"""The evaluate command: how good a run turned out to be, once the truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from scoring.cli import show
from scoring.cli.run_commands import JsonOption, RunArgument, find


def register(app: typer.Typer) -> None:
    """Add this command to the root."""
    app.command()(evaluate)


def evaluate(
    run: RunArgument,
    labels: Annotated[
        str, typer.Option(help="Parquet of the truth: the job's key and a label for each row.")
    ],
    label: Annotated[
        str | None, typer.Option(help="Column of the label; default: the only one beside the key.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Measure a published run on labels that have arrived since, against its reference."""
    found = find(run, replays=False)
    performance = found.evaluate(labels, label)
    if json:
        show.document(performance)
        return
    show.say(escape(performance["verdict"]))
    show.table(_metrics(performance))
    if performance["calibration"]:
        show.table(_calibration(performance))
    if performance["unmatched"]:
        show.say(f"{performance['unmatched']:,} scored rows have no label yet.")
    show.say(f"The page: {found.record.report}")


def _metrics(performance: Mapping[str, Any]) -> Table:
    from scoring.drift.page.metric_rows import metric_rows

    rows = show.listing("metric", ">value", ">95% interval", ">reference", ">drop", "severity")
    for *figures, severity in metric_rows(performance["metrics"]):
        known = severity in show.SEVERITY_STYLES
        rows.add_row(*figures, show.severity(severity) if known else severity)
    return rows


def _calibration(performance: Mapping[str, Any]) -> Table:
    rows = show.listing(">predicted", ">observed", ">95% interval", ">rows")
    for one in performance["calibration"]:
        rows.add_row(
            f"{one['predicted']:.3f}",
            f"{one['observed']:.3f}",
            f"{one['low']:.3f} to {one['high']:.3f}",
            f"{one['rows']:,}",
        )
    return rows
