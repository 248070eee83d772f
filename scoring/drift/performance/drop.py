"""How much worse a model has become: each metric on labelled rows against the reference's.

A drop counts only where chance does not explain it and somebody would notice it. What it is
measured in depends on the metric: shares of rows and AUC in points, errors as a share of the
reference's.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, inf

from scoring.drift.performance.performance import Metric
from scoring.job import Severity

__all__ = ["HIGHER_IS_BETTER", "IN_POINTS", "Drop", "drop_of"]

NEGLIGIBLE, MODERATE, SEVERE = 0.005, 0.02, 0.05
"""Drops at which a small, a moderate and a severe one begin. Of ten million rows even a drop of
0.001 is no chance, and still none that anybody retrains a model for."""
HIGHER_IS_BETTER = frozenset({"auc", "accuracy", "r2"})
IN_POINTS = HIGHER_IS_BETTER | {"calibration_error"}
NOT_JUDGED = frozenset({"bias", "calibration_error"})
"""Neither more nor less of it is better, or nothing says what chance alone makes of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """One metric against the reference's."""

    reference: float | None
    """None: it has no such metric."""
    drop: float | None
    """How much worse, in points or as a share of the reference; negative is better. None: there is
    no reference, or it is not judged."""
    severity: Severity


def drop_of(metric: Metric, before: Metric | None) -> Drop:
    """How much worse `metric` is than `before`, and how severe that is.

    The interval of the difference comes from the intervals of both (Newcombe 1998: the squares of
    the distances to the nearer bounds add up). Severity is "none" where it holds 0, or where
    either has no interval: nothing says what chance makes of so few rows.
    """
    if before is None:
        return Drop(reference=None, drop=None, severity="none")
    if metric.name in NOT_JUDGED:
        return Drop(reference=before.value, drop=None, severity="none")
    sign = 1.0 if metric.name in HIGHER_IS_BETTER else -1.0
    difference = sign * (before.value - metric.value)
    share = metric.name not in IN_POINTS and before.value != 0
    drop = difference / before.value if share else difference
    certain = difference > _chance(metric, before, sign)
    return Drop(reference=before.value, drop=drop, severity=_severity(drop) if certain else "none")


def _chance(metric: Metric, before: Metric, sign: float) -> float:
    """The difference that chance alone explains; infinite where nothing is known of it."""
    best, worst = (metric.high, before.low) if sign > 0 else (metric.low, before.high)
    if best is None or worst is None:
        return inf
    return hypot(best - metric.value, before.value - worst)


def _severity(drop: float) -> Severity:
    if drop > SEVERE:
        return "severe"
    if drop >= MODERATE:
        return "moderate"
    return "small" if drop >= NEGLIGIBLE else "none"
