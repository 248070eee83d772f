"""Measures of drift: pure functions of two profiles' counts.

All work on the same coarse bins (`deciles`): about ten of equal reference mass, beside which
missing values and values outside the reference's range have bins of their own. An outlier can
therefore not stretch the bins until a shift hides in one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scoring.drift.columns import CategoryProfile, NumberProfile
from scoring.drift.frame import Unit, readable

__all__ = ["SEVERITIES", "Severity", "comparable", "deciles", "psi", "severity"]

Severity = Literal["none", "small", "moderate", "severe"]
SEVERITIES: tuple[Severity, ...] = ("none", "small", "moderate", "severe")

Binned = tuple[list[str], list[int], list[int]]
"""Labels, reference rows and current rows of the bins, in order."""

BINS = 10
CATEGORIES = 20
# Added to each bin's rows (Krichevsky and Trofimov 1981), so that an empty bin weighs what half
# a row would and not what the smallest float would.
SMOOTHING = 0.5


def psi(
    reference_counts: Sequence[int] | NDArray[Any], current_counts: Sequence[int] | NDArray[Any]
) -> float:
    """Population stability index of two rows of bins (bin,): ``sum((q - p) * ln(q / p))``.

    `p` and `q` are the reference's and the current shares (count + 0.5) / (total + 0.5 * bins);
    bins empty on both sides are left out first. Siddiqi, Credit Risk Scorecards (2006); the same
    as the symmetrised Kullback-Leibler divergence (Jeffreys 1946). Never negative, never NaN;
    0.0 where either side has no rows, as nothing is then known.
    """
    reference = np.asarray(reference_counts, dtype=np.float64)
    current = np.asarray(current_counts, dtype=np.float64)
    used = (reference > 0) | (current > 0)
    if not (reference.sum() > 0 and current.sum() > 0):
        return 0.0
    p = (reference[used] + SMOOTHING) / (reference.sum() + SMOOTHING * used.sum())
    q = (current[used] + SMOOTHING) / (current.sum() + SMOOTHING * used.sum())
    return max(0.0, float(np.sum((q - p) * np.log(q / p))))


def severity(psi: float, small: float, moderate: float, severe: float) -> Severity:
    """The tier a PSI falls in; a threshold belongs to the tier that it opens."""
    if psi >= severe:
        return "severe"
    if psi >= moderate:
        return "moderate"
    return "small" if psi >= small else "none"


def comparable(
    reference: NumberProfile | CategoryProfile, current: NumberProfile | CategoryProfile
) -> bool:
    """Whether `deciles` can set the two side by side: they were counted in the same bins."""
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
    if not comparable(reference, current):
        raise ValueError(
            f"column {current.frame.name!r} was not counted in the bins of this reference: "
            "profile it with frames_for(reference, ...)"
        )
    if isinstance(reference, NumberProfile) and isinstance(current, NumberProfile):
        labels, before, now = _number_bins(reference, current)
        before.append(reference.nulls + reference.nans)
        now.append(current.nulls + current.nans)
    elif isinstance(reference, CategoryProfile) and isinstance(current, CategoryProfile):
        labels, before, now = _category_bins(reference, current)
        before.append(reference.nulls)
        now.append(current.nulls)
    return [*labels, "(missing)"], before, now


def _number_bins(reference: NumberProfile, current: NumberProfile) -> Binned:
    edges, unit = reference.frame.edges or (), reference.frame.unit
    sides = [_with_infinities(reference), _with_infinities(current)]
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


def _with_infinities(side: NumberProfile) -> NDArray[np.int64]:
    bins = side.bins()
    bins[0] += side.negative_infinities
    bins[-1] += side.positive_infinities
    return bins


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
    unknown = current.other + sum(
        rows for name, rows in current.counts.items() if name not in reference.counts
    )
    others = reference.other + sum(reference.counts[name] for name in rest)
    current_others = sum(current.counts.get(name, 0) for name in rest)
    labels = [*shown, "(other)", "(new)"]
    reference_rows = [*(reference.counts[name] for name in shown), others, 0]
    current_rows = [*(current.counts.get(name, 0) for name in shown), current_others, unknown]
    if reference.other:
        # It had more categories than it could name: an unnamed one may not be a new one.
        current_rows[-2:] = [current_others + unknown, 0]
    return labels, reference_rows, current_rows
