"""Quantile edges: bins of about equal mass, in which a common value has a bin to itself.

Plain quantiles of discrete data repeat (hour of day, counts, zero-inflated amounts). Here
edges never repeat: with few distinct values each has its own bin, otherwise each value that
holds a bin's mass or more is cut off on both sides.
"""

from __future__ import annotations

import math
import sys
from decimal import ROUND_FLOOR, Decimal
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["bin_starts", "quantile_edges", "spaced"]


def bin_starts(weights: NDArray[np.int64], bins: int) -> NDArray[np.intp]:
    """Which of some distinct ascending values begin a bin, given how often each occurs.

    Returns indices into `weights`, the first of them 0: at most `bins`, and one more for each
    value that must be cut off behind.
    """
    if len(weights) <= bins:
        return np.arange(len(weights))
    ends = np.cumsum(weights)
    ranks = np.arange(bins) * (ends[-1] / bins)
    quantiles = np.searchsorted(ends, ranks, side="right")
    heavy = np.flatnonzero(weights * bins >= ends[-1])
    starts = np.unique(np.concatenate([[0], quantiles, heavy, heavy + 1]))
    return starts[starts < len(weights)].astype(np.intp)


def quantile_edges(sample: NDArray[Any], bins: int) -> tuple[float, ...]:
    """Edges for a sample of finite numbers; none for an empty one.

    The first edge is the smallest value, the last lies just above the greatest. Those between
    are the shortest decimals that part two neighbouring values: they separate the sample as
    well as any, and read and store better than seventeen digits.
    """
    distinct, weights = np.unique(sample, return_counts=True)
    values = distinct.astype(np.float64)
    if not len(values):
        return ()
    starts = bin_starts(weights, bins)[1:]
    inner = [_shortest(float(values[i - 1]), float(values[i])) for i in starts]
    top = float(values[-1])
    with np.errstate(over="ignore"):
        step = float(np.diff(values).min(initial=np.inf))
    last = _shortest(
        top, max(top + step if len(values) > 1 else top, math.nextafter(top, math.inf))
    )
    edges = [float(values[0]), *inner, last]
    # Integers beyond 2**53 can meet in one float; an edge is then not needed.
    return tuple(edges[:1] + [high for low, high in pairwise(edges) if low < high])


def spaced(edges: tuple[float, ...], least: float) -> tuple[float, ...]:
    """The edges that lie ``least`` or more apart, the outermost moved out by as much.

    Values that move by less stay in their bin, or come no further than the next.
    """
    if least <= 0 or len(edges) < 2:
        return edges
    kept = [edges[0]]
    for edge in edges[1:-1]:
        if min(edge - kept[-1], edges[-1] - edge) >= least:
            kept.append(edge)
    first = max(kept[0] - least, -sys.float_info.max)
    return (first, *kept[1:], edges[-1] + least)


def _shortest(low: float, high: float) -> float:
    """The number of fewest digits x with low < x <= high."""
    if low < 0 <= high:
        return 0.0
    if not math.isfinite(high):
        return high
    exact = Decimal(high)
    for place in range(exact.adjusted(), exact.adjusted() - 17, -1):
        rounded = float(exact.quantize(Decimal(1).scaleb(place), ROUND_FLOOR))
        if rounded > low:
            return rounded
    return high
