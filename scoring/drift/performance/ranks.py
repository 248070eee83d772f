"""The area under the ROC curve, and what each row contributes to it.

One sort gives both. The contributions average to nothing and vary as the area itself would if the
rows were drawn anew, so that the area is resampled like a mean, without ranking every resample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Area", "area", "macro_area"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """An area under the ROC curve of some rows."""

    value: float
    """0 to 1; 0.5 is chance."""
    contributions: NDArray[np.float64]
    """[row] Each row's influence on it; their mean is 0."""


def area(scores: NDArray[Any], positive: NDArray[np.bool_]) -> Area | None:
    """The area for `scores` [row] of rows that are `positive` [row] or not, ties by mid-rank.

    The Mann-Whitney statistic over its maximum (Hanley and McNeil 1982). A contribution is the
    row's placement value, the share of the other class that it is ranked against rightly, less
    the area and over its class's share of the rows (DeLong, DeLong and Clarke-Pearson 1988).
    None where one class is missing.
    """
    rows, ones = len(scores), int(np.count_nonzero(positive))
    zeros = rows - ones
    if not ones or not zeros:
        return None
    order = np.argsort(scores)
    hits = positive[order]
    first = _first_of_ties(scores[order])
    tied_ones = np.add.reduceat(hits, first, dtype=np.int64)
    tied_zeros = np.diff(first, append=rows) - tied_ones
    of_ones = (np.cumsum(tied_zeros) - tied_zeros / 2) / zeros
    of_zeros = 1 - (np.cumsum(tied_ones) - tied_ones / 2) / ones
    value = float(tied_ones @ of_ones) / ones
    contributions = np.empty(rows)
    contributions[order[hits]] = np.repeat((of_ones - value) * (rows / ones), tied_ones)
    contributions[order[~hits]] = np.repeat((of_zeros - value) * (rows / zeros), tied_zeros)
    return Area(value=value, contributions=contributions)


def macro_area(scores: NDArray[Any], truth: NDArray[np.int64]) -> Area | None:
    """The mean over the classes of the area of each against the rest.

    `scores` [row, class] and `truth` [row], the number of each row's class. Classes that no row
    or every row has are left out; None where that leaves nothing.
    """
    each = (area(scores[:, known], truth == known) for known in np.unique(truth))
    total, classes, contributions = 0.0, 0, np.zeros(len(truth))
    for found in each:
        if found is not None:
            total, classes = total + found.value, classes + 1
            contributions += found.contributions
    if not classes:
        return None
    return Area(value=total / classes, contributions=contributions / classes)


def _first_of_ties(ranked: NDArray[Any]) -> NDArray[np.intp]:
    """Where each run of equal scores begins."""
    return np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
