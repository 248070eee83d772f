"""Documents like drift.json (version 2), built by hand: whatever a run may have in its report."""

from __future__ import annotations

import json
import math
from importlib.resources import files
from typing import Any

THRESHOLDS = {"small": 0.1, "moderate": 0.15, "severe": 0.25}
RUN_ID = "flights-delay-20131224-9f3c"
HOSTILE = {
    "markup": "<script>alert(1)</script>",
    "quotes": "'\"><img src=x onerror=alert(2)>",
    "endless": "a_very_long_name_" * 18,
    "hebrew": "מחיר[length]",
    "override": "\u202egnp.exe",
    "emoji": "👩‍👩‍👧 mood 🌧️",
    "newline": "two\nlines\tand\x1b[31m red",
    "template": "{{ 7 * 7 }}{% raw %}",
}


def schema() -> dict[str, Any]:
    """The published schema of drift.json."""
    text = files("scoring.drift").joinpath("drift.schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def severity_of(value: float | None) -> str:
    if value is None:
        return "none"
    reached = [tier for tier, start in THRESHOLDS.items() if value >= start]
    return reached[-1] if reached else "none"


def summary(**given: Any) -> dict[str, Any]:
    return {
        "rows": 27_004,
        "nulls": 12,
        "nans": 3,
        "null_share": 15 / 27_004,
        "mean": 12.639,
        "sd": 40.21,
        "minimum": -43.0,
        "maximum": 1301.0,
        "distinct": None,
    } | given


def number(name: str, value: float = 0.02, runs: int = 30, **given: Any) -> dict[str, Any]:
    """A column of numbers that has moved by this PSI, more or less."""
    tilt = min(math.sqrt(value), 1.5)
    before = [0.1] * 10 + [0.002]
    now = [0.1 * math.exp(tilt * (i - 4.5) / 4) for i in range(10)] + [0.004]
    bins = [f"[{i * 6 - 15}, {i * 6 - 9})" for i in range(10)] + ["(missing)"]
    return _column(name, "number", value, runs, bins, before, now, **given)


def category(name: str, value: float = 0.02, runs: int = 30, **given: Any) -> dict[str, Any]:
    """A column of categories that has moved by this PSI, more or less."""
    names = ["UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E", "WN", "(other)", "(new)", "(missing)"]
    before = [0.18, 0.16, 0.16, 0.14, 0.1, 0.08, 0.06, 0.05, 0.04, 0.03, 0.0, 0.0]
    now = [p * (1 + min(value, 1) * (-1) ** i) for i, p in enumerate(before)]
    now[-2] = min(value, 0.2) / 2
    sides = {"mean": None, "sd": None, "minimum": None, "maximum": None, "nans": 0}
    return _column(
        name,
        "category",
        value,
        runs,
        names,
        before,
        now,
        **{
            "measure": "js",
            "current": summary(**sides, distinct=16),
            "reference": summary(**sides, distinct=15, rows=166_158),
            "new": [{"name": "HA", "share": 0.011}, {"name": "ZZ", "share": 0.0002}],
            "vanished": [{"name": "OO", "share": 0.0001}],
        }
        | given,
    )


def varied(name: str, value: float) -> dict[str, Any]:
    """A column of categories with as many names as a report shows at the most."""
    labels = [*(f"category number {i}" for i in range(20)), "(other)", "(new)", "(missing)"]
    bins = [
        {"label": label, "reference": 1 / 23, "current": 2 * i / (23 * 22)}
        for i, label in enumerate(labels)
    ]
    some = [{"name": f"another category {i}", "share": 0.001} for i in range(10)]
    return category(name, value) | {"bins": bins, "new": some, "vanished": some}


def unmeasured(name: str, note: str = "", **given: Any) -> dict[str, Any]:
    """A column without anything to compare it with."""
    column = number(name, 0.0, **given)
    column |= {"value": None, "measure": None, "psi": None, "figures": None, "bins": []}
    return column | {"reference": None, "note": note, "trend": [None] * len(column["trend"])}


def report(
    columns: list[dict[str, Any]], *, runs: int = 30, trend: list[Any] | None = None, **given: Any
) -> dict[str, Any]:
    """The document of a run with these columns."""
    measured = [c for c in columns if c["value"] is not None and c["weight"] > 0]
    worst = max(measured, key=lambda c: c["value"], default=None)
    score = worst["value"] if worst else None
    severity = severity_of(score)
    history = [0.06 + 0.05 * math.sin(i) for i in range(runs - 1)] + [score]
    history = history if trend is None else trend
    return {
        "version": 2,
        "job": "flights-delay",
        "slot": "2013-12-24T02:30:00-05:00",
        "run_id": RUN_ID,
        "model": "models:/flights-delay@production",
        "model_version": "7",
        "variant": "int8",
        "engine": "onnx",
        "device": "cpu",
        "rows_in": 27_016,
        "rows_scored": 27_004,
        "rows_quarantined": 12,
        "output": "/srv/scores/flights-delay/date=2013-12-24",
        "created_at": "2013-12-24T07:30:04+00:00",
        "severity": severity,
        "worst": worst["name"] if worst else None,
        "psi": max((c["psi"] for c in measured), default=None),
        "score": score,
        "summary": "worst",
        "measure": "auto",
        "verdict": _verdict(severity, measured, worst),
        "reference": "3f9ac27be1" if worst else None,
        "rows": 27_004,
        "thresholds": dict(THRESHOLDS),
        "compared_with": {"kind": "model", "rows": 166_158, "runs": [], "path": None}
        if worst
        else None,
        "persistence": {"wanted": 1, "in_a_row": 1 if severity != "none" else 0},
        "actions": ["log"] if severity != "none" else [],
        "outcome": "publish",
        "decision": None,
        "quarantine": [],
        "gate": None,
        "timing": {
            "seconds": 12.4,
            "rows_per_second": 2_177.7,
            "chunks": 4,
            "steps": {"predict": 14.2, "read": 3.1, "write": 1.2, "profile": 0.9},
        },
        "trend": [
            {
                "run_id": f"flights-delay-{i:02}",
                "slot": f"2013-12-{i % 28 + 1:02}T02:30:00-05:00",
                "created_at": f"2013-12-{i % 28 + 1:02}T07:30:04+00:00",
                "severity": severity_of(one),
                "score": one,
            }
            for i, one in enumerate(history)
        ],
        "performance": None,
        "columns": columns,
        "skipped": [],
    } | given


def held(columns: list[dict[str, Any]], **given: Any) -> dict[str, Any]:
    """A run that waits for a person, with all that a report can hold."""
    return report(
        columns,
        **{
            "actions": ["log", "review", "hold"],
            "outcome": "hold",
            "persistence": {"wanted": 2, "in_a_row": 2},
            "quarantine": [
                {"reason": "dep_delay: NaN is not allowed", "rows": 9},
                {"reason": "carrier: a text, the model expects a number", "rows": 3},
            ],
            "gate": gate(),
        }
        | given,
    )


def performance(**given: Any) -> dict[str, Any]:
    """How good the run's scores were, once labels arrived."""
    metrics = (
        ("auc", 0.871, 0.862, 0.88, 0.904, 0.033, "moderate"),
        ("accuracy", 0.842, 0.835, 0.849, 0.866, 0.024, "moderate"),
        ("brier", 0.1181, 0.1142, 0.122, 0.1042, 0.1334, "severe"),
        ("log_loss", 0.381, None, None, None, None, "none"),
        ("calibration_error", 0.031, None, None, 0.008, 0.023, "none"),
    )
    keys = ("name", "value", "low", "high", "reference", "drop", "severity")
    return {
        "labels": "/srv/labels/2013-12-24.parquet",
        "label": "late",
        "output": "probability_late",
        "kind": "binary",
        "rows": 26_611,
        "unmatched": 14,
        "evaluated_at": "2013-12-26T09:12:44+00:00",
        "lead": "auc",
        "severity": "moderate",
        "verdict": (
            "AUC is 0.871 (95% interval 0.862 to 0.880) on 26,611 labelled rows, 3.3 points lower "
            "than the reference's 0.904: a moderate drop."
        ),
        "metrics": [dict(zip(keys, metric, strict=True)) for metric in metrics],
        "calibration": [
            {
                "predicted": p,
                "observed": p**1.2,
                "low": max(p**1.2 - 0.03, 0.0),
                "high": min(p**1.2 + 0.03, 1.0),
                "rows": 2_661,
            }
            for p in (0.02, 0.05, 0.09, 0.14, 0.2, 0.28, 0.39, 0.55, 0.74, 0.93)
        ],
    } | given


def gate(*, searched: bool = True) -> dict[str, Any]:
    """The choice of a variant, with the table of its search or without."""
    chosen = _variant("int8", 61_400.0, mean_error=0.00112, chosen=True)
    refused = {"admitted": False, "reasons": ["agreement 0.9712, below min_agreement 0.995"]}
    return {
        "variant": "int8",
        "recipe": "static, percentile",
        "batch_rows": 1024,
        "rows_per_second": 61_400.0,
        "native_rows_per_second": 9_200.0,
        "why": "the fastest admitted, 6.7 times native",
        "gate": {
            "rows": 4_000,
            "finite": True,
            "mean_error": 0.00112,
            "max_error": 0.021,
            "relative": False,
            "agreement": 0.9984,
            "determination": 0.9997,
            "batch_error": 0.0,
            "labels": None,
        },
        "engine": "onnx",
        "folder": "int8",
        "digest": "d" * 64,
        "refused": [],
        "bounded": [],
        "variants": [
            _variant("native", 9_200.0),
            _variant("fp32", 21_000.0, mean_error=1e-7) | refused,
            chosen,
        ]
        if searched
        else [],
    }


def _variant(
    name: str, speed: float, mean_error: float | None = None, *, chosen: bool = False
) -> dict[str, Any]:
    compared = mean_error is not None
    return {
        "variant": name,
        "recipe": "static",
        "size_bytes": 120_000,
        "mean_error": mean_error,
        "max_error": 20 * mean_error if mean_error else None,
        "relative": False if compared else None,
        "agreement": 0.9984 if compared else None,
        "r2": 0.9997 if compared else None,
        "batch_error": 0.0 if compared else None,
        "labels": None,
        "batch_rows": 1024,
        "rows_per_second": speed,
        "timings": [{"batch_rows": 1024, "rows_per_second": speed}],
        "admitted": True,
        "reasons": [],
        "chosen": chosen,
    }


def _column(
    name: str,
    kind: str,
    value: float,
    runs: int,
    labels: list[str],
    before: list[float],
    now: list[float],
    **given: Any,
) -> dict[str, Any]:
    shares = [[p / sum(side) for p in side] for side in (before, now)]
    numeric = kind == "number"
    history = [abs(0.3 * value * math.sin(i + len(name))) for i in range(runs - 1)] + [value]
    return {
        "name": name,
        "role": "feature",
        "kind": kind,
        "unit": "plain",
        "of": None,
        "aspect": "",
        "severity": severity_of(value),
        "measure": "psi",
        "value": value,
        "test": None,
        "q": None,
        "weight": 1.0,
        "psi": value,
        "figures": {
            "psi": value,
            "psi_chance": 0.0004,
            "ks": value / 2 if numeric else None,
            "ks_error": 0.001 if numeric else None,
            "ks_p": 0.0003 if numeric else None,
            "wasserstein": value if numeric else None,
            "js": value / 3,
            "js_chance": 0.0071,
            "cramers_v": value / 2,
            "chi2_p": 0.2,
            "missing_change": 0.0012,
            "new_share": None if numeric else 0.0112,
            "categories": None if numeric else 15,
            "p": 0.0006,
        },
        "note": "",
        "current": summary(),
        "reference": summary(rows=166_158, mean=11.2, sd=38.4),
        "bins": [
            {"label": label, "reference": p, "current": q}
            for label, p, q in zip(labels, *shares, strict=True)
        ],
        "new": [],
        "vanished": [],
        "trend": history[-runs:],
    } | given


def _verdict(severity: str, measured: list[dict[str, Any]], worst: dict[str, Any] | None) -> str:
    if worst is None:
        return "Drift was not measured, because there is no reference profile yet."
    moved = sum(c["severity"] != "none" for c in measured)
    if not moved:
        return f"No drift: none of {len(measured)} columns moved as far as the first threshold."
    return (
        f"{severity.capitalize()} drift: {moved} of {len(measured)} columns moved, most of all "
        f"{worst['name']} (PSI {worst['value']:.3f}); the scores did not."
    )


def wide(columns: int = 200) -> dict[str, Any]:
    """A run of many columns, of which every twelfth has moved."""
    made = [number("probability_late", 0.03, role="output")]
    for i in range(columns - 1):
        value = 0.9 * (0.93 ** (i / 2)) if i < columns // 12 else 0.09 * (0.98**i)
        build = category if i % 4 == 3 else number
        made.append(build(f"feature_{i:03}_of_the_customer", value))
    return held(made)
