"""How commands print: JSON on standard output, tables for people, problems on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from scoring.drift.wording import visible
from scoring.ledger import RunRecord

STATE_STYLES = {
    "published": "green",
    "held": "yellow",
    "failed": "red",
    "cancelled": "magenta",
    "running": "cyan",
    "finishing": "cyan",
}
SEVERITY_STYLES = {"none": "green", "small": "yellow", "moderate": "dark_orange", "severe": "red"}
DELIVERY_STYLES = {"waiting": "yellow", "delivered": "green", "failed": "red"}
WIDEST = 10_000
NAME_LENGTH = 40
EXIT_CODES = {"published": 0, "failed": 1, "held": 3, "cancelled": 4}


def document(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def table(rows: RenderableType) -> None:
    """Something on standard output; a narrow terminal wraps its lines, cells are never cut."""
    needed = Console(width=WIDEST).measure(rows).maximum
    Console(highlight=False, width=max(Console().width, needed)).print(rows)


def say(text: str) -> None:
    """A line for a person, on standard error."""
    Console(stderr=True).print(text, highlight=False, soft_wrap=True)


def problem(error: Exception) -> None:
    """What went wrong, on standard error."""
    Console(stderr=True).print(
        f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True
    )


def runs_table(runs: Sequence[RunRecord]) -> Table:
    """Runs, one a line."""
    more = ["replay of"] if any(run.replay_of for run in runs) else []
    known = ("run", "slot", "state", "version", "drift", ">chunks", ">rows", ">quarantined")
    found = listing(*known, *more)
    for run in runs:
        found.add_row(
            run.id,
            slot(run.slot),
            f"[{STATE_STYLES.get(run.state, '')}]{run.state}[/]",
            run.model_version or "-",
            severity(run.drift_severity),
            f"{run.chunks_done}/{run.chunks}",
            f"{run.rows_scored:,}/{run.rows_in:,}",
            f"{run.rows_quarantined:,}",
            *[run.replay_of or "-" for _ in more],
        )
    return found


def listing(*columns: str) -> Table:
    """An empty table; a column whose name begins with > is aligned to the right."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.startswith(">")
        found.add_column(column.lstrip(">"), justify="right" if right else "left", no_wrap=True)
    return found


def name(text: str) -> Text:
    """A name out of the data as text: no markup, no control sequences, cut where it is long."""
    shown = visible(text)
    return Text(
        shown if len(shown) <= NAME_LENGTH else f"{shown[: NAME_LENGTH - 1]}\N{HORIZONTAL ELLIPSIS}"
    )


def slot(text: str | None) -> str:
    """A slot to the minute, in the schedule's own time."""
    return "-" if text is None else text[:16].replace("T", " ")


def run_details(found: Mapping[str, Any]) -> Table:
    """One run, a field a line."""
    details = Table(box=None, pad_edge=False, show_header=False)
    details.add_column(style="bold")
    details.add_column(no_wrap=True)
    for name, value in found.items():
        if isinstance(value, Mapping):  # numbers of the choice, all in --json; here why it was made
            value = value.get("why")
        if isinstance(value, list):
            value = ", ".join(value) or None
        if value is not None:
            text = f"{value:,}" if isinstance(value, int) else escape(visible(str(value)))
            details.add_row(name.replace("_", " "), text)
    return details


def deliveries_table(deliveries: Sequence[Mapping[str, Any]]) -> Table:
    """Who is told of a run's drift, one a line."""
    found = listing("told to", "for", "state", ">attempts", "when", "error")
    for one in deliveries:
        found.add_row(
            f"{one['channel']} {one['target']}",
            one["action"],
            f"[{DELIVERY_STYLES[one['state']]}]{one['state']}[/]",
            str(one["attempts"]),
            one["delivered_at"] or one["next_at"] or "-",
            escape(visible(one["error"] or "-")),
        )
    return found


def history_table(events: Sequence[Mapping[str, Any]]) -> Table:
    """What happened to a run, one event a line; its lists and tables are in --json only."""
    found = listing("at", "event", "detail")
    for one in events:
        found.add_row(one["at"], one["event"], escape(event_detail(one["detail"])))
    return found


def event_detail(detail: Mapping[str, Any]) -> str:
    """What an event tells, on one line."""
    told = ", ".join(
        f"{name}: {value}"
        for name, value in detail.items()
        if value not in (None, "") and not isinstance(value, (dict, list))
    )
    return visible(told)


def share(value: float | None) -> str:
    """A share of rows; a run without rows has none."""
    return "-" if value is None else f"{value:.1%}"


def figure(value: float | None) -> str:
    """An error, in three digits."""
    return "-" if value is None else f"{value:.3g}"


def count(value: float | None) -> str:
    """A number of rows."""
    return "-" if value is None else f"{value:,.0f}"


def size(size_bytes: int | None) -> str:
    """A file's size."""
    return "-" if size_bytes is None else f"{size_bytes / 2**20:,.1f} MiB"


def severity(name: str | None) -> str:
    """A drift severity in its colour."""
    return "-" if name is None else f"[{SEVERITY_STYLES.get(name, '')}]{name}[/]"
