"""Count, mean, spread and range of finite numbers, mergeable."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Moments"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """The moments of at least one finite number."""

    count: int
    mean: float
    m2: float
    """Sum of squared deviations from the mean; infinite where float64 cannot hold it."""
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: NDArray[Any], low: Any, high: Any) -> Moments:
        """Measure finite `values`, whose least is `low` and greatest is `high`.

        Deviations are taken from zero where the data lie about it, else from the middle of the
        range. Either way they stay within twice the range, and as m2 is at least half the range
        squared, the correction cancels no more than ``8 * len(values)`` rounding errors.
        """
        minimum, maximum, count = float(low), float(high), len(values)
        far = max(-minimum, maximum) > 2 * (maximum - minimum)
        middle = minimum / 2 + maximum / 2 if far else 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            off = values.astype(np.float64, copy=False)
            off = off - middle if far else off
            drift = float(off.sum())
            squares = _sum_of_squares(off)
        if not math.isfinite(squares):
            mean, m2 = float(np.sum(values / count, dtype=np.float64)), math.inf
        else:
            mean, m2 = middle + drift / count, max(0.0, squares - drift * (drift / count))
        return cls(
            count=count,
            mean=min(max(mean, minimum), maximum),
            m2=m2,
            minimum=minimum,
            maximum=maximum,
        )

    def merge(self, other: Moments) -> Moments:
        """Both sides' numbers together: the pairwise update of Chan, Golub and LeVeque (1979).

        Taking the lesser side first makes the order of the two sides irrelevant to the last bit.
        """
        less, more = sorted((self, other), key=lambda side: (side.count, side.mean, side.m2))
        count = less.count + more.count
        delta = less.mean - more.mean
        minimum = min(less.minimum, more.minimum)
        maximum = max(less.maximum, more.maximum)
        return Moments(
            count=count,
            mean=min(max(more.mean + delta * (less.count / count), minimum), maximum),
            m2=less.m2 + more.m2 + delta * delta * (less.count * (more.count / count)),
            minimum=minimum,
            maximum=maximum,
        )

    @property
    def sd(self) -> float:
        """Standard deviation of the population (divides by `count`)."""
        return math.sqrt(self.m2 / self.count)


def _sum_of_squares(values: NDArray[np.float64]) -> float:
    """In rows short enough that BLAS does not start threads beside the model's."""
    whole = len(values) - len(values) % 8_192
    rows, rest = values[:whole].reshape(-1, 8_192), values[whole:]
    return float(np.vecdot(rows, rows).sum() + np.vecdot(rest, rest))
