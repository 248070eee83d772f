"""What MLflow is told of a run's drift: pure names and figures, within what MLflow takes.

MLflow allows few characters in the name of a metric and 250 of them, and some databases under it
do not tell upper case from lower: every column gets a name of its own, and the same one in every
run that has the same columns, so that a figure can be followed over the nights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

from scoring.job import SEVERITIES

__all__ = ["RUN_TAG", "logged_at", "metrics", "params", "performance", "tags"]

RUN_TAG = "nightscore.run"
"""Tag of an MLflow run: the scoring run that it shows."""
MEASURES = ("psi", "ks", "wasserstein", "js", "cramers_v", "missing_change", "new_share")
"""Figures of a column that are logged; error bounds and p-values are left to drift.json."""
LONGEST_NAME = 200
"""Characters of a column's name, so that what stands around it fits too."""
PINNED = ("model", "model_version", "variant", "engine", "device", "slot")


def metrics(document: Mapping[str, Any]) -> dict[str, float]:
    """Figures of the run and of its columns, by metric name; what was not measured is left out."""
    timing = document.get("timing") or {}
    found = {
        "drift.score": document.get("score"),
        "drift.psi": document.get("psi"),
        "drift.severity": SEVERITIES.index(document["severity"]),
        "rows": document.get("rows_in"),
        "rows_quarantined": document.get("rows_quarantined"),
        "seconds": timing.get("seconds"),
    }
    for name, column in _named(document):
        figures = column.get("figures") or {}
        found |= {f"drift.{name}.{measure}": figures.get(measure) for measure in MEASURES}
    return {name: float(value) for name, value in found.items() if value is not None}


def performance(document: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
    """When the run was evaluated, in milliseconds, and what was found then, by metric name.

    MLflow shows the newest value of a metric, and of two that are of one age the greater.
    """
    found = document.get("performance")
    if not found:
        return 0, {}
    values = {f"performance.{one['name']}": one["value"] for one in found["metrics"]}
    at = int(datetime.fromisoformat(found["evaluated_at"]).timestamp() * 1000)
    return at, {name: float(value) for name, value in values.items() if value is not None}


def params(document: Mapping[str, Any]) -> dict[str, str]:
    """What a run is pinned to; MLflow never lets it change."""
    return {name: str(document[name]) for name in PINNED if document.get(name) is not None}


def tags(run_id: str, document: Mapping[str, Any]) -> dict[str, str]:
    """What a person looks for, and what may change when a held run is released."""
    compared_with = document.get("compared_with") or {}
    found = {
        RUN_TAG: run_id,
        "nightscore.job": document.get("job"),
        "nightscore.severity": document["severity"],
        "nightscore.outcome": document.get("outcome"),
        "nightscore.worst": document.get("worst"),
        "nightscore.reference": compared_with.get("kind"),
        "nightscore.verdict": document["verdict"],
        "mlflow.note.content": document["verdict"],  # what the page of the MLflow run shows
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def logged_at(document: Mapping[str, Any]) -> int:
    """When the run was created, in milliseconds: the same however often its drift is logged."""
    created = document.get("created_at")
    moment = datetime.fromisoformat(created) if created else datetime.now(UTC)
    return int(moment.timestamp() * 1000)


def _named(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Columns with names that MLflow takes, outputs first: no two alike, however they are cased."""
    taken: set[str] = set()
    places = ((column["role"] == "feature", column["name"]) for column in document["columns"])
    for (_, name), column in sorted(
        zip(places, document["columns"], strict=True), key=lambda one: one[0]
    ):
        plain = re.sub(r"[^\w. -]", "_", name.replace("[", ".").replace("]", ""))
        if len(plain) > LONGEST_NAME or plain.casefold() in taken:
            mark = crc32(f"{column['role']} {name}".encode())
            plain = f"{plain[: LONGEST_NAME - 9]}-{mark:08x}"
        taken.add(plain.casefold())
        yield plain, column
