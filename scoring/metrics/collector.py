"""The fleet as the ledger and the newest drift reports say it is, read when it is asked for.

A look is kept for a few seconds, so that several who ask cost one; nothing counts by itself, so
any number of collectors agree and a restart loses nothing. A ledger that does not answer is
``nightscore_up 0`` and no error: the alert is what tells.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoring import telemetry
from scoring.errors import ServiceError
from scoring.job import SEVERITIES
from scoring.ledger import Database, RunRecord
from scoring.ledger.overview import look
from scoring.metrics import gauges
from scoring.runs.places import DRIFT_FILE

if TYPE_CHECKING:
    from prometheus_client import Metric

log = telemetry.logger(__name__)

KEPT_SECONDS = 5.0
"""How long a look at the ledger is kept for whoever asks next."""
MOST_COLUMNS = 200
"""Columns of a job that are shown: outputs, then the features that drifted most."""

Stamp = tuple[int, int] | None
"""Modification time in nanoseconds and size of a file; ``None``: it is not there."""


class Collector:
    """Makes the metrics when they are asked for; safe to ask from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._kept: tuple[float, list[Metric]] | None = None
        self._reports: dict[Path, tuple[Stamp, Mapping[str, Any] | None]] = {}

    def collect(self) -> list[Metric]:
        """Every metric as it is now, or was a few seconds ago."""
        with self._lock:
            now = time.monotonic()
            if self._kept is None or now - self._kept[0] > KEPT_SECONDS:
                self._kept = now, list(self._look())
            return self._kept[1]

    def _look(self) -> Iterator[Metric]:
        try:
            found = look(self._database)
        except ServiceError as error:
            log.warning("ledger_unreachable", error=str(error))
            yield gauges.up(0.0)
            return
        yield gauges.up(1.0)
        yield from gauges.of_fleet(found)
        yield from gauges.of_last_runs(found.last)
        yield from gauges.of_drift(self._drift(found.measured))

    def _drift(self, measured: Mapping[str, RunRecord]) -> dict[str, Mapping[str, Any]]:
        """The newest drift.json of each job; a file that has not changed is not read again."""
        paths = {job: Path(run.artifacts) / DRIFT_FILE for job, run in measured.items()}
        self._reports = {path: self._report(path) for path in paths.values()}
        found = {job: self._reports[path][1] for job, path in paths.items()}
        return {job: document for job, document in found.items() if document is not None}

    def _report(self, path: Path) -> tuple[Stamp, Mapping[str, Any] | None]:
        stamp, known = _stamp(path), self._reports.get(path)
        if known is not None and known[0] == stamp:
            return known
        try:
            return stamp, _shown(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            log.warning("drift_report_unreadable", path=str(path), error=str(error))
            return stamp, None


def _shown(document: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a drift.json; a report of an earlier version has PSI alone."""
    measured = document["psi"] is not None or document.get("performance") is not None
    return {
        "severity": float(SEVERITIES.index(document["severity"])) if measured else None,
        "score": _number(document.get("score", document["psi"])),
        "columns": [_column(column) for column in document["columns"][:MOST_COLUMNS]],
    }


def _column(column: Mapping[str, Any]) -> dict[str, Any]:
    figures = column.get("figures") or {}
    return {
        "role": column["role"],
        "name": column["name"],
        "measure": column.get("measure") or "psi",
        "value": _number(column.get("value", column["psi"])),
        "missing_change": _number(figures.get("missing_change")),
    }


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
