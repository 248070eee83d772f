"""The drift report in a terminal: the verdict, and a line for each column, outputs first.

Names come from data: they are printed as text, never as markup or control sequences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from scoring.cli.show import SEVERITY_STYLES, listing, name
from scoring.drift.page.outcome import outcome
from scoring.drift.wording import ABSENT, MEASURES, change, figure, share, visible

__all__ = ["render"]

LIMIT = 40
"""Lines of a table that still fits a large screen."""
BLOCKS = "▁▂▃▄▅▆▇█"


def render(document: Mapping[str, Any], *, limit: int | None = LIMIT) -> Group:
    """A drift.json document for `rich` to print, with at most `limit` columns; None: with all."""
    columns: Sequence[Mapping[str, Any]] = document["columns"][:limit]
    return Group(*_head(document), "", _table(columns, document), *_rest(document, len(columns)))


def _head(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield Text(visible(document["verdict"]), style=f"bold {_style(document['severity'])}")
    found = outcome(document)
    yield Text.assemble(
        (f"{found.title}. ", "bold"), f"{visible(found.text)} {found.persistence}".rstrip()
    )
    for what, command in found.commands:
        yield Text.assemble(f"{what}: ", (visible(command), "bold"))


def _table(columns: Sequence[Mapping[str, Any]], document: Mapping[str, Any]) -> Table:
    found = listing(
        "column", "role", "measure", ">value", "severity", ">missing", ">change", ">new", "trend"
    )
    for column in columns:
        figures = column["figures"] or {}
        measured = column["value"] is not None
        found.add_row(
            name(column["name"]),
            column["role"],
            MEASURES[column["measure"]].name if measured else ABSENT,
            figure(column["value"]),
            Text(column["severity"], _style(column["severity"]))
            if measured
            else Text("not measured", "dim"),
            share(column["current"]["null_share"]),
            change(figures.get("missing_change")),
            share(figures.get("new_share")),
            _sparkline(column["trend"], document["thresholds"]["severe"]),
        )
    return found


def _rest(document: Mapping[str, Any], shown: int) -> Iterator[RenderableType]:
    rest = document["columns"][shown:]
    if rest:
        moved = sum(column["severity"] != "none" for column in rest)
        what = f"{moved} of them moved" if moved else "none of them moved"
        yield Text(f"and {len(rest)} more, {what}: --all shows them", style="dim")
    if document["skipped"]:
        names = ", ".join(map(visible, document["skipped"]))
        yield Text(f"not profiled, because of their type: {names}", style="dim")


def _sparkline(values: Sequence[float | None], severe: float) -> str:
    """A character a run; its full height is severe, or the largest value beyond that."""
    top = max([severe, *(value for value in values if value is not None)])
    return "".join(
        " " if value is None else BLOCKS[min(int(len(BLOCKS) * value / top), len(BLOCKS) - 1)]
        for value in values
    )


def _style(severity: str) -> str:
    return SEVERITY_STYLES.get(severity, "")
