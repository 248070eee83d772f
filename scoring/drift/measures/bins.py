"""The bins in which two profiles of a column are set side by side.

Every row of either side is in exactly one bin: missing values and values outside the
reference's range have bins of their own, so an outlier cannot stretch the others until a shift
hides in one of them, and a column that went missing is seen as a column that moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from scoring.drift.profile.columns import CategoryProfile, NumberProfile
from scoring.drift.profile.frame import Unit, readable

__all__ = [
    "Binned",
    "comparable",
    "deciles",
    "every_category",
    "single_valued",
    "unknown_rows",
    "with_infinities",
]

Binned = tuple[Sequence[str], list[int], list[int]]
"""Labels, reference rows and current rows of the bins, in order."""

BINS = 10
CATEGORIES = 20
ROUNDING = 1e-12


def comparable(
    reference: NumberProfile | CategoryProfile, current: NumberProfile | CategoryProfile
) -> bool:
    """Whether the two can be set side by side: they were counted in the same bins."""
    if isinstance(reference, NumberProfile) and isinstance(current, NumberProfile):
        edges = reference.frame.edges
        same = edges == current.frame.edges and reference.frame.unit == current.frame.unit
        return edges is not None and same
    if isinstance(reference, CategoryProfile) and isinstance(current, CategoryProfile):
        known = reference.frame.categories
        return known is not None and (known == current.frame.categories or current.other == 0)
    return False


def deciles(
    reference: NumberProfile | CategoryProfile, current: NumberProfile | CategoryProfile
) -> Binned:
    """The coarse bins on which drift is measured: labels, reference rows, current rows.

    Numbers: about ten bins of equal reference mass, fewer or more where single values are
    common; below and above the reference's edges (infinities with them); missing (null and
    NaN). Categories: the reference's twenty largest; its others; those it does not know;
    missing. Raises ValueError unless the two are `comparable`.
    """
    if isinstance(reference, NumberProfile) and isinstance(current, NumberProfile):
        _check_comparable(reference, current)
        labels, before, now = _number_bins(reference, current)
        missing = reference.nulls + reference.nans, current.nulls + current.nans
    elif isinstance(reference, CategoryProfile) and isinstance(current, CategoryProfile):
        _check_comparable(reference, current)
        labels, before, now = _category_bins(reference, current)
        missing = reference.nulls, current.nulls
    else:
        raise incomparable(current)
    return [*labels, "(missing)"], [*before, missing[0]], [*now, missing[1]]


def every_category(
    reference: CategoryProfile, current: CategoryProfile
) -> tuple[list[int], list[int]]:
    """Reference and current rows by category: of every one that either side counted by name,
    then of their others, then missing.

    What only one side has is not put together, so that two samples of one long list of rare
    names look alike, each with some that the other lacks. Where the reference could not name all
    of its categories, those it does not know are among the others.
    """
    _check_comparable(reference, current)
    names = list(reference.counts)
    if not reference.other:
        names += [name for name in current.counts if name not in reference.counts]
    before = [reference.counts.get(name, 0) for name in names]
    now = [current.counts.get(name, 0) for name in names]
    others = current.other + sum(current.counts.values()) - sum(now)
    return [*before, reference.other, reference.nulls], [*now, others, current.nulls]


def with_infinities(side: NumberProfile) -> NDArray[np.int64]:
    """Rows of the fine bins (edges + 1,) that hold a number, infinities in the outermost."""
    bins = side.bins()
    bins[0] += side.negative_infinities
    bins[-1] += side.positive_infinities
    return bins


def single_valued(reference: NumberProfile, current: NumberProfile) -> NDArray[np.bool_]:
    """Which of the fine bins (edges + 1,) hold one value only, the same on either side."""
    frame = reference.frame
    edges = np.array(frame.edges or (), dtype=np.float64)
    low, high = edges[:-1], edges[1:]
    whole = frame.unit == "days" or frame.aspect in ("length", "words")
    with np.errstate(over="ignore"):
        inner = (np.ceil(low) + 1 if whole else np.nextafter(low, np.inf)) >= high
    if lie_at_starts(reference) and lie_at_starts(current):
        inner[:] = True
    return np.concatenate([[False], inner, [False]])[: len(edges) + 1]


def lie_at_starts(side: NumberProfile) -> bool:
    """Whether every finite value is the first of its bin, up to rounding, as of a column of few
    whole numbers: no value is less than its bin's start, so the mean of both is only then the
    same.
    """
    rows = side.bins()
    if side.moments is None or rows[0] or rows[-1]:
        return side.moments is None
    starts = np.array(side.frame.edges or (), dtype=np.float64)[:-1]
    furthest = max(-side.moments.minimum, side.moments.maximum)
    excess = side.moments.mean - float(rows[1:-1] / side.moments.count @ starts)
    return excess <= ROUNDING * furthest


def unknown_rows(reference: CategoryProfile, current: CategoryProfile) -> int:
    """Current rows in categories that the reference did not count by name."""
    known = sum(rows for name, rows in current.counts.items() if name in reference.counts)
    return current.other + sum(current.counts.values()) - known


def _check_comparable(
    reference: NumberProfile | CategoryProfile, current: NumberProfile | CategoryProfile
) -> None:
    if not comparable(reference, current):
        raise incomparable(current)


def incomparable(current: NumberProfile | CategoryProfile) -> ValueError:
    """What is raised for a column that cannot be set beside this reference's."""
    return ValueError(
        f"column {current.frame.name!r} was not counted in the bins of this reference: "
        "profile it with frames_for(reference, ...)"
    )


def _number_bins(reference: NumberProfile, current: NumberProfile) -> Binned:
    edges, unit = reference.frame.edges or (), reference.frame.unit
    sides = [with_infinities(reference), with_infinities(current)]
    if not edges:
        return ["any value"], [int(sides[0].sum())], [int(sides[1].sum())]
    starts = _equal_mass_starts(sides[0][1:-1])
    groups = np.concatenate([[0], starts + 1, [len(edges)]])
    bounds = [*(edges[start] for start in starts), edges[-1]]
    labels = [
        f"below {readable(edges[0], unit)}",
        *(_interval(low, high, unit) for low, high in pairwise(bounds)),
        f"{readable(edges[-1], unit)} or more",
    ]
    rows = [np.add.reduceat(side, groups).tolist() for side in sides]
    return labels, rows[0], rows[1]


def _equal_mass_starts(rows: NDArray[np.int64]) -> NDArray[np.intp]:
    """Where each of about `BINS` groups of neighbouring bins begins.

    A bin goes to the tenth in which the middle of its mass lies; one that holds a tenth or more
    stands alone, so that a bin no reference row fell into is not hidden behind it.
    """
    if not rows.sum():
        return np.zeros(1 if len(rows) else 0, dtype=np.intp)
    share = rows / rows.sum()
    tenth = np.floor(BINS * (np.cumsum(share) - share / 2))
    heavy = share * BINS >= 1
    begins = (np.diff(tenth) != 0) | heavy[1:] | heavy[:-1]
    return np.concatenate([[0], np.flatnonzero(begins) + 1]).astype(np.intp)


def _interval(low: float, high: float, unit: Unit) -> str:
    shown = readable(low, unit), readable(high, unit)
    return shown[0] if shown[0] == shown[1] else f"[{shown[0]}, {shown[1]})"


def _category_bins(reference: CategoryProfile, current: CategoryProfile) -> Binned:
    ranked = sorted(reference.counts, key=lambda name: (-reference.counts[name], name))
    shown, rest = ranked[:CATEGORIES], ranked[CATEGORIES:]
    unknown = unknown_rows(reference, current)
    others = reference.other + sum(reference.counts[name] for name in rest)
    current_others = sum(current.counts.get(name, 0) for name in rest)
    labels = [*shown, "(other)", "(new)"]
    reference_rows = [*(reference.counts[name] for name in shown), others, 0]
    current_rows = [*(current.counts.get(name, 0) for name in shown), current_others, unknown]
    if reference.other:
        # It had more categories than it could name: an unnamed one may not be a new one.
        current_rows[-2:] = [current_others + unknown, 0]
    return labels, reference_rows, current_rows
