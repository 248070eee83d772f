"""Count, mean, spread and range of finite numbers, mergeable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
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
    """Sum of squared deviations from the mean; infinite where float64 cannot hold the squares."""
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

    @classmethod
    def merged(cls, parts: Sequence[Moments]) -> Moments:
        """All parts' numbers together: the update of Chan, Golub and LeVeque (1979), for many.

        Every term depends on its own part and the whole, and terms are summed without rounding
        (Shewchuk 1997), so the order of the parts is irrelevant to the last bit.

        Raises:
            ValueError: there is no part.
        """
        if len(parts) == 1:
            return parts[0]
        count = sum(part.count for part in parts)
        minimum = min(part.minimum for part in parts)
        maximum = max(part.maximum for part in parts)
        largest = max(parts, key=lambda part: (part.count, part.mean, part.m2)).mean
        with_sign = [part.count / count * (part.mean - largest) for part in parts]
        mean = largest + _exact_sum(with_sign)
        if not math.isfinite(mean):  # numbers near the ends of float64
            mean = float(sum(Fraction(part.mean) * part.count for part in parts) / count)
        mean = min(max(mean, minimum), maximum)
        spread = [part.m2 for part in parts]
        spread += [part.count * (part.mean - mean) * (part.mean - mean) for part in parts]
        return cls(count=count, mean=mean, m2=_exact_sum(spread), minimum=minimum, maximum=maximum)

    def merge(self, other: Moments) -> Moments:
        """Both sides' numbers together, see `merged`."""
        return Moments.merged((self, other))

    @property
    def sd(self) -> float:
        """Standard deviation of the population (divides by `count`)."""
        return math.sqrt(self.m2 / self.count)


def _exact_sum(terms: Sequence[float]) -> float:
    """The sum, rounded once; not finite where float64 cannot hold it."""
    if not all(map(math.isfinite, terms)):
        return math.inf
    try:
        return math.fsum(terms)
    except OverflowError:
        return math.inf


def _sum_of_squares(values: NDArray[np.float64]) -> float:
    """In rows short enough that BLAS does not start threads beside the model's."""
    whole = len(values) - len(values) % 8_192
    rows, rest = values[:whole].reshape(-1, 8_192), values[whole:]
    return float(np.vecdot(rows, rows).sum() + np.vecdot(rest, rest))
