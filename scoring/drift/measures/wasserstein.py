"""The mean distance that a row has moved: Wasserstein's, from binned counts.

Both sides are winsorised first: what lies further out than the reference's bulk is wide, beyond
its ends, counts as lying there. Without it one reference value of 1e12 makes a standard deviation
beside which every shift is nothing, and one current value of 1e12 makes a shift of its own. The
price: a column that moved beyond those limits counts as moved to them, which for a normal
distribution is about eight standard deviations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scoring.drift.measures.bins import lie_at_starts, with_infinities
from scoring.drift.profile.columns import NumberProfile

__all__ = ["Transport", "wasserstein"]

# Shares of the reference's rows that may lie beyond the bulk, on either side, tried in turn.
BEYOND_BULK = (0.005, 0.0)

# Values beyond it, in units of about the furthest finite edge, count as this: its square, times
# any number of rows, is still a float64.
FURTHEST = 1e150

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """How far the rows of one distribution lie from those of another."""

    value: float
    """Mean distance, in standard deviations of the winsorised reference."""
    error: float
    """By how much the same of the winsorised raw values may differ from `value`."""
    low: float
    """Lesser values count as this."""
    high: float
    """Greater values count as this."""


def wasserstein(reference: NumberProfile, current: NumberProfile) -> Transport | None:
    """Normalised Wasserstein distance of two profiles counted between the same edges.

    ``W = integral of |F - G|`` (Vallender 1974) over the population's standard deviation of the
    reference, both winsorised at `low` and `high` (Dixon 1960). All values of a bin are taken to
    lie at one place in it, as far from its start as the reference's mean says; `error` allows
    for any other place. A reference with as good as one value only has no spread to measure by:
    its `value` is then the share of rows that left its bin, 0 to 1. None where either side has
    no values, or the reference no finite ones.
    """
    edges = np.array(reference.frame.edges or (), dtype=np.float64)
    before, now = (with_infinities(side).astype(np.float64) for side in (reference, current))
    if len(edges) < 2 or not (before.sum() and now.sum()):
        return None
    p, q = before / before.sum(), now / now.sum()
    finite = edges[np.isfinite(edges)]
    if not len(finite):
        return None
    # A power of two, by which all is divided without rounding.
    unit = float(np.ldexp(0.5, np.frexp(np.abs(finite).max())[1]))
    with np.errstate(over="ignore"):
        bounds = np.clip(_bounds(reference, current) / unit, -FURTHEST, FURTHEST)
    known = lie_at_starts(reference) and lie_at_starts(current)
    place = 0.0 if known else _place(reference, before, bounds[1:-1], unit)
    limits = _limits(before, bounds, place)
    if limits is None:
        moved = float(np.abs(p - q).sum()) / 2
        return Transport(value=moved, error=0.0, low=-math.inf, high=math.inf)
    width = np.diff((np.clip(bounds, *limits) - limits[0]) / (limits[1] - limits[0]))
    far = width * max(place, 1 - place)  # from where a bin's values are taken to be
    if known:
        far[1:-1] = 0.0
    moved = _moved(p, q, width, place)
    sd, sd_error = _exact_sd(reference, limits, unit) or _binned_sd(p, width, place, far)
    return Transport(
        value=moved / sd,
        error=_ratio_error(moved, float(far @ (p + q)), sd, sd_error),
        low=limits[0] * unit,
        high=limits[1] * unit,
    )


def _bounds(reference: NumberProfile, current: NumberProfile) -> Floats:
    """The edges, and the least and greatest value of either side about them (edges + 2,)."""
    edges = reference.frame.edges or ()
    lows, highs = [edges[0]], [edges[-1]]
    for side in (reference, current):
        if side.moments:
            lows.append(side.moments.minimum)
            highs.append(side.moments.maximum)
        lows += [-math.inf] * bool(side.negative_infinities)
        highs += [math.inf] * bool(side.positive_infinities)
    return np.array([min(lows), *edges, max(highs)], dtype=np.float64)


def _place(reference: NumberProfile, before: Floats, edges: Floats, unit: float) -> float:
    """How far into its bin the reference's values lie on average, 0 to 1.

    About the middle for a continuous column; the start for whole numbers, however uneven.
    """
    rows = before[1:-1]
    room = float(rows @ np.diff(edges))
    if reference.moments is None or not room > 0:
        return 0.5
    found = (reference.moments.mean / unit * float(rows.sum()) - float(rows @ edges[:-1])) / room
    return float(min(max(found, 0.0), 1.0))


def _limits(before: Floats, bounds: Floats, place: float) -> tuple[float, float] | None:
    """How far out values count: the width of the reference's bulk beyond either end of it.

    The bulk leaves out the outermost half percent of the reference's rows on either side, and
    always one row; None where it is a single bin.
    """
    inner, rows = bounds[1:-1], float(before.sum())
    at = np.concatenate([[inner[0]], inner[:-1] + place * np.diff(inner), [inner[-1]]])
    for share in BEYOND_BULK:
        beyond = max(1.0, share * rows)
        if rows <= beyond:
            return None
        low = at[np.argmax(np.cumsum(before) > beyond)]
        high = at[::-1][np.argmax(np.cumsum(before[::-1]) > beyond)]
        if high > low:
            wide = high - low
            limits = max(low - wide, bounds[0]), min(high + wide, bounds[-1])
            return float(limits[0]), float(limits[1])
    return None


def _exact_sd(
    reference: NumberProfile, limits: tuple[float, float], unit: float
) -> tuple[float, float] | None:
    """The reference's own standard deviation, as a share of the way between the limits, and its
    error, which is none; None where it has values beyond them, or float64 could not hold it.
    """
    moments = reference.moments
    if moments is None or reference.negative_infinities or reference.positive_infinities:
        return None
    low, high = limits
    sd = moments.sd / unit / (high - low)
    inside = low <= moments.minimum / unit and moments.maximum / unit <= high
    return (sd, 0.0) if inside and 0 < sd < math.inf else None


def _binned_sd(p: Floats, width: Floats, place: float, far: Floats) -> tuple[float, float]:
    """The same of the winsorised reference; its error is at most the root mean square of `far`."""
    at = np.cumsum(width) - (1 - place) * width
    return math.sqrt(float(p @ (at - p @ at) ** 2)), math.sqrt(float(p @ far**2))


def _moved(p: Floats, q: Floats, width: Floats, place: float) -> float:
    """The integral of |F - G|, which steps once in each bin."""
    difference = np.abs(np.concatenate([[0.0], np.cumsum(p - q)]))
    return float(width @ (place * difference[:-1] + (1 - place) * difference[1:]))


def _ratio_error(moved: float, moved_error: float, sd: float, sd_error: float) -> float:
    """How far ``moved / sd`` can be off if its parts are off by their errors."""
    if sd_error >= sd:
        return math.inf
    return (moved_error + moved / sd * sd_error) / (sd - sd_error)
