"""Calibration: whether what is given a probability of 0.3 happens in 3 cases of 10."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CalibrationBin", "calibration", "calibration_error", "wilson"]

BINS = 10
NORMAL_95 = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin:
    """Rows of similar probability."""

    predicted: float
    """Their mean probability."""
    observed: float
    """The share of them that is positive."""
    low: float
    high: float
    """95% interval of `observed`."""
    rows: int


def calibration(
    probabilities: NDArray[Any], positive: NDArray[np.bool_]
) -> tuple[CalibrationBin, ...]:
    """About ten bins of equal mass, of the least probabilities first.

    `probabilities` [row] and `positive` [row]. Equal probabilities share a bin, so there are fewer
    bins where some are common.
    """
    edges = np.quantile(probabilities, np.linspace(0, 1, BINS + 1)[1:-1])
    bins = np.searchsorted(edges, probabilities)
    rows = np.bincount(bins, minlength=BINS)
    predicted = np.bincount(bins, weights=probabilities, minlength=BINS)
    hits = np.bincount(bins, weights=positive, minlength=BINS)
    return tuple(
        _bin(float(predicted[number]), int(hits[number]), int(rows[number]))
        for number in np.flatnonzero(rows)
    )


def calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Expected calibration error: mean gap between predicted and observed, weighted by rows.

    Naeini, Cooper and Hauskrecht 2015, on bins of equal mass (Nguyen and O'Connor 2015).
    """
    rows = sum(one.rows for one in bins)
    return sum(one.rows * abs(one.predicted - one.observed) for one in bins) / rows


def wilson(hits: int, rows: int) -> tuple[float, float]:
    """The 95% score interval of a share (Wilson 1927)."""
    squared = NORMAL_95**2
    centre = (hits + squared / 2) / (rows + squared)
    reach = NORMAL_95 * sqrt(hits * (rows - hits) / rows + squared / 4) / (rows + squared)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def _bin(predicted: float, hits: int, rows: int) -> CalibrationBin:
    low, high = wilson(hits, rows)
    return CalibrationBin(
        predicted=predicted / rows, observed=hits / rows, low=low, high=high, rows=rows
    )
