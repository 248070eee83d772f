"""Bootstrap intervals for anything that is made of means over rows.

Rows are drawn anew, with replacement, as often as there are (Efron 1979). Where there are many, as
many small groups of them are drawn instead, into which the rows were dealt at random: a mean over
all rows varies with these as it does with single rows, so the cost does not grow with the rows.
Invariant: the same seed and the same rows give the same interval.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST_ROWS", "Means", "Resamples"]

RESAMPLES = 1_000
GROUPS = 4_096
"""Groups that rows are dealt into; their number leaves a standard error uncertain by 1%."""
FEWEST_ROWS = 30
"""Fewer rows than this say too little about how they vary."""
LEVELS = (2.5, 97.5)
"""Percentiles of a 95% interval."""

Means = NDArray[np.float64]
"""[1 + resample] A mean over all rows, then over each resample. Functions of several means work on
them element by element."""


class Resamples:
    """Resamples of some rows, the same ones for every column."""

    def __init__(self, rows: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        units = min(rows, GROUPS)
        self._groups = random.integers(0, units, rows) if rows > GROUPS else np.arange(rows)
        drawn = random.integers(0, units, (RESAMPLES, units))
        drawn += units * np.arange(RESAMPLES)[:, None]
        times = np.bincount(drawn.ravel(), minlength=RESAMPLES * units)
        self._times = times.reshape(RESAMPLES, units).astype(np.float64)
        self._rows = self._times @ np.bincount(self._groups, minlength=units)

    def means(self, column: NDArray[Any]) -> Means:
        """The means of a column [row] of numbers or booleans."""
        sums = np.bincount(self._groups, weights=column, minlength=self._times.shape[1])
        return np.concatenate([[column.mean(dtype=np.float64)], self._times @ sums / self._rows])

    def interval(self, figures: Means) -> tuple[float, float] | None:
        """The 95% percentile interval; None of too few rows, or where a resample has no figure."""
        if len(self._groups) < FEWEST_ROWS or not np.isfinite(figures).all():
            return None
        low, high = np.percentile(figures[1:], LEVELS)
        return float(low), float(high)
