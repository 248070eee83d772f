"""The metrics of a run's performance as rows of text: pure functions of its part of drift.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scoring.drift.performance.drop import IN_POINTS
from scoring.drift.performance.evaluated import NAMES
from scoring.drift.wording import ABSENT, change

__all__ = ["metric_rows"]

Metric = Mapping[str, Any]


def metric_rows(metrics: Sequence[Metric]) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Name, value, interval, reference, drop and severity of each metric, the leading one first."""
    for metric in metrics:
        name = NAMES[metric["name"]]
        known = metric["low"] is not None and metric["high"] is not None
        yield (
            name[0].upper() + name[1:],
            _shown(metric, "value"),
            f"{_shown(metric, 'low')} to {_shown(metric, 'high')}" if known else ABSENT,
            _shown(metric, "reference"),
            _drop(metric),
            ABSENT if metric["drop"] is None else str(metric["severity"]),
        )


def _shown(metric: Metric, key: str) -> str:
    number = metric[key]
    if number is None:
        return ABSENT
    return f"{number:.3f}" if metric["name"] in IN_POINTS else f"{number:.4g}"


def _drop(metric: Metric) -> str:
    drop = metric["drop"]
    if drop is None or metric["name"] in IN_POINTS:
        return change(drop)
    return f"{drop:+.1%}".replace("-", "\N{MINUS SIGN}")
