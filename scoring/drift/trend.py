"""The trend of a job: what the runs before this one measured, column by column.

Pure; it reads the drift.json documents that the earlier runs left, so nothing is kept twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

RUNS = 30
"""Runs that a trend shows, this one included."""


def with_trend(document: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The drift document of a run with the trend in it.

    ``earlier`` are the documents of the job's runs before, newest first. A column's trend has one
    value for each run of the trend, oldest first: None where that run did not measure it, or led
    with another measure, whose values are not on the same scale.
    """
    runs = [*reversed(earlier[: RUNS - 1]), document]
    columns = [_by_place(run) for run in runs]
    return {
        **document,
        "trend": [_entry(run) for run in runs],
        "columns": [
            {**column, "trend": [_value(found.get(_place(column)), column) for found in columns]}
            for column in document["columns"]
        ],
    }


def _entry(run: Mapping[str, Any]) -> dict[str, Any]:
    texts = ("run_id", "slot", "created_at", "severity")
    found = {name: run.get(name) for name in texts}
    return {
        **{name: text if isinstance(text, str) else None for name, text in found.items()},
        "score": _number(run.get("score")),
    }


def _by_place(document: Mapping[str, Any]) -> dict[tuple[Any, Any], Mapping[str, Any]]:
    columns = document.get("columns")
    listed = columns if isinstance(columns, list) else []
    return {_place(column): column for column in listed if isinstance(column, dict)}


def _place(column: Mapping[str, Any]) -> tuple[str, str]:
    return str(column.get("role")), str(column.get("name"))


def _value(then: Mapping[str, Any] | None, now: Mapping[str, Any]) -> float | None:
    if then is None or then.get("measure") != now["measure"]:
        return None
    return _number(then.get("value"))


def _number(value: object) -> float | None:
    """What an earlier run's file holds may be anything; only a number can be drawn."""
    finite = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if finite else None  # type: ignore[arg-type]  # a number, as just asked
