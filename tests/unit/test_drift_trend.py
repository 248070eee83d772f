"""A trend shows what earlier runs measured, on one scale, and no more of them than fit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scoring.drift.trend import RUNS, with_trend


def night(number: int, **columns: tuple[str, float | None]) -> dict[str, Any]:
    """A drift document: ``name=(measure, value)``."""
    return {
        "run_id": f"run-{number}",
        "slot": f"2026-11-{number:02d}",
        "created_at": None,
        "severity": "none",
        "score": number / 100,
        "columns": [
            {"role": "feature", "name": name, "measure": measure, "value": value}
            for name, (measure, value) in columns.items()
        ],
    }


def test_runs_stand_oldest_first_and_this_one_last():
    shown = with_trend(
        night(3, fare=("psi", 0.3)), [night(2, fare=("psi", 0.2)), night(1, fare=("psi", 0.1))]
    )

    assert [run["run_id"] for run in shown["trend"]] == ["run-1", "run-2", "run-3"]
    assert [run["score"] for run in shown["trend"]] == [0.01, 0.02, 0.03]
    assert shown["columns"][0]["trend"] == [0.1, 0.2, 0.3]


def test_a_run_without_the_column_or_led_by_another_measure_leaves_a_gap():
    before = [night(3, fare=("ks", 0.9)), night(2), night(1, fare=("psi", 0.1))]

    shown = with_trend(night(4, fare=("psi", 0.3)), before)

    assert shown["columns"][0]["trend"] == [0.1, None, None, 0.3]


def test_a_column_of_the_same_name_but_another_role_is_another_column():
    before = night(1, fare=("psi", 0.1))
    before["columns"][0]["role"] = "output"

    assert with_trend(night(2, fare=("psi", 0.2)), [before])["columns"][0]["trend"] == [None, 0.2]


def test_the_newest_runs_are_kept_when_there_are_too_many():
    before = [night(1, fare=("psi", 0.5))] * 40 + [night(2, fare=("psi", 0.1))]

    shown = with_trend(night(9, fare=("psi", 0.9)), before)

    assert len(shown["trend"]) == len(shown["columns"][0]["trend"]) == RUNS
    assert shown["columns"][0]["trend"] == [0.5] * (RUNS - 1) + [0.9]


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"columns": None, "score": "high", "slot": 7},
        {"columns": "fare", "score": [0.1]},
        {"columns": [None, 3, {}, {"name": "fare"}], "score": float("nan")},
        {"columns": [{"role": "feature", "name": "fare", "measure": "psi", "value": "0.1"}]},
        {"columns": [{"role": "feature", "name": ["fare"], "measure": "psi", "value": 1e999}]},
    ],
    ids=str,
)
def test_whatever_an_earlier_document_holds_tonight_is_reported(broken):
    shown = with_trend(night(2, fare=("psi", 0.2)), [broken])

    assert shown["columns"][0]["trend"] == [None, 0.2]
    assert shown["trend"][0]["score"] is None
    json.dumps(shown, allow_nan=False)


def test_a_document_of_an_earlier_release_is_a_gap_not_a_crash():
    old = {"run_id": "old", "severity": "none", "columns": [{"role": "feature", "name": "fare"}]}

    shown = with_trend(night(2, fare=("psi", 0.2)), [old])

    assert shown["columns"][0]["trend"] == [None, 0.2]
    assert shown["trend"][0]["score"] is None
