"""Profiles that several runs left behind, together as one reference. Pure.

Column by column, the bins are those of the newest run, and every run that counted the column in
the same bins adds its rows. A run that had no reference counted on the open grid; the edges that
its profile has as a reference are the ones that the next run was counted in, so from the first
run on the bins stay, and later runs can be added to each other. Nothing is estimated: what was
counted in other bins is left out and named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from scoring.drift.profile.columns import CategoryProfile, Column, NumberProfile
from scoring.drift.profile.frame import ColumnFrame
from scoring.drift.profile.profile import BINS, Profile

__all__ = ["Pooled", "pooled"]

OUTGROWN = 0.5
"""Share of a column's finite values outside its edges from which the bins tell too little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """One reference, and what it was not made of; a run is named by its place among those given."""

    profile: Profile
    """Rows of all runs, with edges and known categories."""
    used: tuple[int, ...]
    """Runs that gave at least one column."""
    left_out: Mapping[int, tuple[str, ...]]
    """Columns of runs that had counted them in other bins than the newest run."""
    outgrown: tuple[str, ...]
    """Columns without a reference now, because their values have moved out of their old bins: the
    next run counts them on the open grid, and the one after that is compared with it."""


def pooled(profiles: Sequence[Profile]) -> Pooled:
    """Make one reference of the profiles of some runs, newest first."""
    by_place = [{(c.frame.role, c.frame.name): c for c in profile.columns} for profile in profiles]
    columns: list[Column] = []
    used: set[int] = set()
    left_out: dict[int, list[str]] = {}
    outgrown: list[str] = []
    for place in sorted({place for places in by_place for place in places}):
        found = {run: places[place] for run, places in enumerate(by_place) if place in places}
        column, agreeing = _together(found)
        for run in found.keys() - agreeing:
            left_out.setdefault(run, []).append(column.frame.name)
        if isinstance(column, NumberProfile) and _has_outgrown(column):
            outgrown.append(column.frame.name)
            continue
        used |= agreeing
        columns.append(column)
    return Pooled(
        profile=Profile(columns=tuple(columns)).as_reference(BINS),
        used=tuple(sorted(used)),
        left_out={run: tuple(names) for run, names in sorted(left_out.items())},
        outgrown=tuple(outgrown),
    )


def _together(found: Mapping[int, Column]) -> tuple[Column, set[int]]:
    """One column of some runs in one, and the runs that counted it in the newest one's bins."""
    framed = {run: _framed(column) for run, column in found.items()}
    bins = _bins(framed[min(framed)].frame)
    agreeing = {run for run, column in framed.items() if _bins(column.frame) == bins}
    if bins.kind == "number" or bins.free_text:
        columns: list[Any] = [framed[run] for run in sorted(agreeing)]
    else:
        columns = _named_alike([found[run] for run in sorted(agreeing)])
    merge: Callable[[Any, Any], Any] = type(columns[0]).merge
    return reduce(merge, columns), agreeing


def _framed(column: Column) -> Column:
    if isinstance(column, NumberProfile):
        return column.as_reference(BINS)
    return column.as_reference()


def _bins(frame: ColumnFrame) -> ColumnFrame:
    """What must agree for counts to add up: known categories need not, see `_named_alike`."""
    return frame if frame.free_text else replace(frame, categories=None)


def _named_alike(columns: list[Any]) -> list[Any]:
    """Categories of which every run counted all rows by name, the rest among the others.

    A run with more categories than are counted by name puts rows of some among the others, and
    another run, which knew other categories, may have counted those by name.
    """
    if len({column.frame.categories for column in columns}) == 1:
        return columns
    names: set[str] = set().union(*(column.counts for column in columns))
    for column in columns:
        if column.other:
            names &= {*column.counts, *(column.frame.categories or ())}
    return [_narrowed(column, names) for column in columns]


def _narrowed(column: CategoryProfile, names: set[str]) -> CategoryProfile:
    kept = {name: rows for name, rows in column.counts.items() if name in names}
    moved = sum(column.counts.values()) - sum(kept.values())
    frame = replace(column.frame, categories=None)
    return replace(column, frame=frame, counts=kept, other=column.other + moved)


def _has_outgrown(column: NumberProfile) -> bool:
    outside = {0, len(column.frame.edges or ())}
    rows = sum(column.counts.values())
    return sum(column.counts.get(place, 0) for place in outside) > OUTGROWN * rows
