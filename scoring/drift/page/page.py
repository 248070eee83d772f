"""The drift report as one page that needs nothing else: no script, no font, no network.

A pure function of a drift.json document. Whatever a name or a value of the data holds, it is
shown as text. Columns that moved, and the outputs, are drawn in full; the others are one line
each, with the same figures behind it, so that the eye finds what matters among hundreds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from scoring.drift import wording
from scoring.drift.page import charts, column_facts, run_charts
from scoring.drift.page.gate_rows import gate_rows
from scoring.drift.page.metric_rows import metric_rows
from scoring.drift.page.outcome import outcome

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render"]

FEW = 6
"""A report of no more columns than this draws all of them in full."""
MOST = 24
"""Columns that are named at the top, and drawn in full, at the most."""
OUTPUTS_IN_FULL = 4
"""Outputs that are drawn in full although they are quiet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A column and where the page's index finds it."""

    anchor: str
    column: Mapping[str, Any]

    @property
    def measured(self) -> bool:
        return self.column["value"] is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The outputs or the features, by how they are drawn; each in the document's order."""

    title: str
    full: tuple[Placed, ...]
    lines: tuple[Placed, ...]
    cut: bool
    """Whether there are columns among the lines that moved, as there was no room for more."""
    unmeasured: tuple[Placed, ...]


def render(document: Mapping[str, Any]) -> str:
    """The page of a drift.json document of version 2, as HTML."""
    columns = [Placed(anchor=f"c{i}", column=c) for i, c in enumerate(document["columns"])]
    weighed = [one for one in columns if one.measured and one.column["weight"] > 0]
    page = _environment().get_template("page.html.j2")
    return page.render(
        drift=document,
        groups=list(_groups(columns)),
        weighed=weighed,
        moved=[one for one in weighed if one.column["severity"] != "none"],
        unmeasured=sum(not one.measured for one in columns),
        outcome=outcome(document),
    )


def _groups(columns: Sequence[Placed]) -> Iterator[Group]:
    for title, role in (("Outputs", "output"), ("Features", "feature")):
        ours = [one for one in columns if one.column["role"] == role]
        if not ours:
            continue
        measured = [one for one in ours if one.measured]
        all_of_them = len(columns) <= FEW or (role == "output" and len(ours) <= OUTPUTS_IN_FULL)
        moved = [one for one in measured if all_of_them or one.column["severity"] != "none"]
        full = moved[:MOST]
        yield Group(
            title=title,
            full=tuple(full),
            lines=tuple(one for one in measured if one not in full),
            cut=len(moved) > MOST,
            unmeasured=tuple(one for one in ours if not one.measured),
        )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("scoring.drift.page", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_as_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "agreement": wording.agreement,
        "count": wording.count,
        "duration": wording.duration,
        "error": wording.error,
        "figure": wording.figure,
        "moment": wording.moment,
        "plain": "{:g}".format,
        "share": wording.share,
    }
    environment.globals |= {
        "charts": charts,
        "run_charts": run_charts,
        "facts_of": column_facts,
        "gate_rows": gate_rows,
        "metric_rows": metric_rows,
        "wording": wording,
        "FEW": FEW,
        "MOST": MOST,
    }
    return environment


def _as_text(value: object) -> object:
    """What a template prints: text without control characters, never a bare None."""
    if value is None:
        return wording.ABSENT
    return (
        value if isinstance(value, Markup) or not isinstance(value, str) else wording.visible(value)
    )
