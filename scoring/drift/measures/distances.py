"""How differently rows fall into the same bins: formulas on two rows of counts.

None is ever NaN or negative, whatever the counts, and none but the p-value grows with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.drift.measures.significance import chi2_p

__all__ = ["Counts", "Floats", "as_floats", "chi2", "js", "ks", "psi"]

Counts = Sequence[int] | NDArray[Any]
Floats = NDArray[np.float64]

# Added to each bin's rows (Krichevsky and Trofimov 1981), so that an empty bin weighs what half
# a row would and not what the smallest float would.
SMOOTHING = 0.5
# Half a row of a billion is as good as nothing again: a bin's share counts as this at the least,
# so that what an empty bin weighs does not grow with the rows of the others.
LEAST_SHARE = 1e-4
# Expected rows from which a bin may stand alone in the chi-square test.
LEAST_EXPECTED = 5


def psi(reference_counts: Counts, current_counts: Counts) -> float:
    """Population stability index of two rows of bins (bin,): ``sum((q - p) * ln(q / p))``.

    `p` and `q` are the reference's and the current shares (count + 0.5) / (total + 0.5 * bins),
    counted as 0.0001 where they are less; bins empty on both sides are left out first. Siddiqi,
    Credit Risk Scorecards (2006); without the smoothing the same as the symmetrised
    Kullback-Leibler divergence (Jeffreys 1946). Never negative, never NaN, at most
    ``2 ln 10000 = 18.4`` whatever the rows; 0.0 where either side has no rows, as nothing is
    then known.
    """
    reference, current = as_floats(reference_counts, current_counts)
    if not (reference.sum() > 0 and current.sum() > 0):
        return 0.0
    used = (reference > 0) | (current > 0)
    p, q = (
        np.maximum((side[used] + SMOOTHING) / (side.sum() + SMOOTHING * used.sum()), LEAST_SHARE)
        for side in (reference, current)
    )
    return float(np.sum((q - p) * np.log(q / p)))


def js(reference_counts: Counts, current_counts: Counts) -> float:
    """Jensen-Shannon distance, in nats, of two rows of bins (bin,).

    The root of the mean divergence of either side from the middle of both (Lin 1991), which is a
    metric (Endres and Schindelin 2003): 0 to sqrt(ln 2) = 0.833. Needs no smoothing, as the
    middle is empty nowhere. 0.0 where either side has no rows.
    """
    reference, current = as_floats(reference_counts, current_counts)
    if not (reference.sum() > 0 and current.sum() > 0):
        return 0.0
    p, q = reference / reference.sum(), current / current.sum()
    divergence = (_divergence(p, (p + q) / 2) + _divergence(q, (p + q) / 2)) / 2
    return math.sqrt(max(0.0, divergence))


def chi2(reference_counts: Counts, current_counts: Counts) -> tuple[float, float]:
    """Cramer's V and the p-value of the chi-square test of two rows of bins (bin,).

    Pearson (1900), on the two sides as rows of a contingency table; bins in which either side
    is expected to have fewer than five rows are pooled (Cochran 1954). V is the root of
    chi-square over its maximum (Cramer 1946), of the two sides weighing alike,
    ``sqrt(sum((p - q)^2 / (p + q)) / 2)``: for equal numbers of rows that is
    ``sqrt(chi2 / rows)``, and it does not fall when one side has a thousand times more rows.
    (0.0, 1.0) where either side has no rows.
    """
    reference, current = _pooled(*as_floats(reference_counts, current_counts))
    n, m = float(reference.sum()), float(current.sum())
    if not (n > 0 and m > 0):
        return 0.0, 1.0
    p, q = reference / n, current / m
    squares = (p - q) ** 2
    statistic = float(np.sum(squares / (reference + current))) * n * m
    v = math.sqrt(float(np.sum(squares / (p + q))) / 2)
    return min(1.0, v), chi2_p(statistic, len(p) - 1)


def ks(
    reference_counts: Counts,
    current_counts: Counts,
    single: NDArray[np.bool_] | None = None,
) -> tuple[float, float] | None:
    """Kolmogorov-Smirnov distance of two rows of fine bins (bin,), and its error.

    ``D = max |F - G|`` over the bins' edges (Smirnov 1939), where both distribution functions are
    exact; infinities are in the outermost bins. Between edges F - G is largest if all reference
    values of the bin come before all current ones, and least the other way round, so the true
    distance is at most ``max(d + p, q - d)`` over the bins, `d` being F - G at the bin's start
    and `p` and `q` its shares; the error is that less D. As ``d + p`` is also the difference at
    the bin's end plus `q`, it is never more than the greatest min(p, q): 0.4 % with 256 bins of
    equal mass. Bins that hold a single value (`single`) add no error. None where either side has
    no values.
    """
    reference, current = as_floats(reference_counts, current_counts)
    if not (reference.sum() > 0 and current.sum() > 0):
        return None
    p, q = reference / reference.sum(), current / current.sum()
    after = np.cumsum(reference) / reference.sum() - np.cumsum(current) / current.sum()
    start = np.concatenate([[0.0], after[:-1]])
    distance = float(np.abs(after).max())
    inside = np.maximum(start + p, q - start)
    if single is not None:
        inside = inside[~single]
    return min(1.0, distance), max(0.0, min(1.0, float(inside.max(initial=0.0))) - distance)


def as_floats(reference: Counts, current: Counts) -> tuple[Floats, Floats]:
    """Both rows of counts as float64."""
    return np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)


def _divergence(p: Floats, q: Floats) -> float:
    """Kullback and Leibler's (1951), in nats."""
    used = p > 0
    return float(np.sum(p[used] * np.log(p[used] / q[used])))


def _pooled(reference: Floats, current: Floats) -> tuple[Floats, Floats]:
    """Join the bins of too few expected rows into one, and that to the next rarest if need be."""
    both = reference + current
    order = np.argsort(-both, kind="stable")[: int((both > 0).sum())]
    if not len(order):
        return reference, current
    expected = both[order] * min(reference.sum(), current.sum()) / both.sum()
    kept = int((expected >= LEAST_EXPECTED).sum())
    if 0 < kept < len(order) and expected[kept:].sum() < LEAST_EXPECTED:
        kept -= 1
    starts = np.arange(min(kept + 1, len(order)))
    return np.add.reduceat(reference[order], starts), np.add.reduceat(current[order], starts)
