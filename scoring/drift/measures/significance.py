"""What chance alone does: p-values, false discoveries, and the drift that sampling feigns.

With few rows two samples of one population differ, by as much as a threshold even; with a
billion any difference is beyond chance and says nothing about its size. So these numbers guard
small runs only, and never say how far a column has moved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "chi2_p",
    "false_discovery",
    "js_by_chance",
    "ks_p",
    "least_p",
    "psi_by_chance",
    "rate_p",
]

# Rows expected of a bin up to which chance is counted out instead of approximated.
FEW = 10


def ks_p(distance: float, reference_rows: int, current_rows: int) -> float:
    """Chance of a Kolmogorov-Smirnov distance of `distance` or more without drift.

    The limit for large samples (Kolmogorov 1933, Smirnov 1939), ``P(K >= D sqrt(n m / (n + m)))``.
    Below 0.05 it errs towards no drift: for small samples, for values with ties, and for
    a distance read off a grid, which is never more than the true one.
    """
    from scipy.special import kolmogorov

    if not (reference_rows and current_rows):
        return 1.0
    pairs = 1.0 / (1.0 / reference_rows + 1.0 / current_rows)
    return float(kolmogorov(distance * math.sqrt(pairs)))


def chi2_p(statistic: float, freedom: int) -> float:
    """Chance of a chi-square of `statistic` or more, with that many degrees of freedom."""
    from scipy.special import chdtrc

    return float(chdtrc(freedom, statistic)) if freedom > 0 else 1.0


def rate_p(reference: tuple[float, float], current: tuple[float, float]) -> float:
    """Chance, without drift, of two shares this different: (rows that count, all rows) of a side.

    Given how many count in all, those of one side are a binomial number (Przyborowski and
    Wilenski 1940): exact while they are rare, and then it sees a few rows of a kind that a large
    reference has none of, which chi-square must pool; for larger shares it errs towards no drift.
    """
    from scipy.special import bdtr, bdtrc

    (before, n), (now, m) = reference, current
    if before + now > (n + m) / 2:
        before, now = n - before, m - now
    total = before + now
    if not (n and m and total):
        return 1.0
    at_most = float(bdtr(now, int(total), m / (n + m)))
    at_least = float(bdtrc(now - 1, int(total), m / (n + m))) if now else 1.0
    return min(1.0, 2 * min(at_most, at_least))


def least_p(chances: Sequence[float]) -> float:
    """Chance that the least of some tests comes out as it did (Bonferroni 1936); 1.0 of none."""
    return min([1.0, *(len(chances) * chance for chance in chances)])


def false_discovery(chances: Sequence[float]) -> list[float]:
    """The q-value of each p-value: the share of false alarms among all columns up to it.

    Benjamini and Hochberg (1995); it holds for columns that rise and fall together as well
    (Benjamini and Yekutieli 2001).
    """
    count = len(chances)
    order = sorted(range(count), key=lambda i: chances[i], reverse=True)
    found = [1.0] * count
    least = 1.0
    for rank, i in zip(range(count, 0, -1), order, strict=True):
        least = min(least, chances[i] * count / rank)
        found[i] = least
    return found


def psi_by_chance(
    reference: NDArray[np.float64], current: NDArray[np.float64], once: int = 0
) -> float:
    """The PSI to be expected without drift, of counts (bin,): ``(bins - 1) (1 / n + 1 / m)``.

    PSI over ``1 / n + 1 / m`` has a chi-square distribution of as many degrees of freedom
    (Yurdakul 2018, Statistical Properties of Population Stability Index). Bins empty on both
    sides do not count; 0.0 where either side has no rows. Categories that the reference has
    `once` foretell new ones, of a share ``e = once / n`` together (Good 1953), which add
    ``e ln(2 n e)`` beside the half row that the reference is granted for them.
    """
    n, m = float(reference.sum()), float(current.sum())
    if not (n and m):
        return 0.0
    bins = int(((reference + current) > 0).sum())
    return (bins - 1) * (1 / n + 1 / m) + (once / n * math.log(2 * once) if once else 0.0)


def js_by_chance(reference: NDArray[np.float64], current: NDArray[np.float64]) -> float:
    """The Jensen-Shannon distance to be expected without drift, of counts (bin,).

    To second order the divergence is an eighth of PSI (both are f-divergences, whose curvatures
    at 1 are 1/4 and 2: Csiszar 1967), so a bin of share r adds ``(1 - r) (1 / n + 1 / m) / 8``.
    Where the lesser side is expected to have few rows that is too little, and what a bin adds is
    the mean over all ways in which its rows can fall to the sides. 0.0 where either has no rows.
    """
    n, m = sorted((float(reference.sum()), float(current.sum())))
    if not n:
        return 0.0
    rows = reference + current
    expected = rows * (n / (n + m))
    many = rows[expected > FEW]
    rare, bins = np.unique(rows[(rows > 0) & (expected <= FEW)], return_counts=True)
    added = float((1 - many / (n + m)).sum()) / 8 * (1 / n + 1 / m)
    return math.sqrt(added + float(bins @ _js_of_rare(rare, n, m)))


def _js_of_rare(rows: NDArray[np.float64], n: float, m: float) -> NDArray[np.float64]:
    """What bins of so many rows (bin,) add to the divergence on average, if they fall by chance."""
    ours = np.arange(4 * FEW)  # rows of a bin that fall to the lesser side: a binomial number
    left = np.maximum(0.0, rows[:, None] - ours)
    steps = left[:, :-1] * (n / m) / ours[1:]
    chance = np.cumprod(np.column_stack([np.ones(len(rows)), steps]), axis=1)
    chance = chance / chance.sum(axis=1, keepdims=True)
    p, q = ours / n, left / m
    parts = _x_log_x(p) + _x_log_x(q) - 2 * _x_log_x((p + q) / 2)
    added: NDArray[np.float64] = (chance * parts).sum(axis=1) / 2
    return added


def _x_log_x(share: NDArray[np.float64]) -> NDArray[np.float64]:
    return share * np.log(np.where(share > 0, share, 1.0))
