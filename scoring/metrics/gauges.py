"""Each metric: its name, what it means, its labels. All are gauges, as nothing is counted here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from scoring.ledger import RunRecord
from scoring.ledger.overview import Overview
from scoring.ledger.records import DeliveryState

if TYPE_CHECKING:
    from prometheus_client import Metric

Samples = Iterable[tuple[Sequence[str | None], float | None]]
"""Values of the labels, and the value; ``None`` where there is none."""


def up(value: float) -> Metric:
    return _gauge("up", "Whether the ledger answers, 1 or 0.", (), [((), value)])


def of_fleet(found: Overview) -> Iterator[Metric]:
    by_state = ("job", "state")
    yield _gauge("jobs", "Jobs in the ledger.", (), [((), found.jobs)])
    yield _gauge("runs", "Runs in the ledger.", by_state, found.runs.items())
    yield _gauge("chunks", "Chunks of running runs.", by_state, found.chunks.items())
    states = [((state,), found.deliveries.get(state, 0)) for state in get_args(DeliveryState)]
    yield _gauge("deliveries", "Messages to receivers of drift.", ("state",), states)
    yield _gauge(
        "last_published_timestamp_seconds",
        "When a run was last published.",
        ("job",),
        _by_job(found.published_at),
    )
    yield _gauge(
        "run_deadline_timestamp_seconds",
        "The first deadline of the runs that have not ended.",
        ("job",),
        _by_job(found.deadlines),
    )
    yield _gauge(
        "schedules_considered_timestamp_seconds",
        "When somebody last looked whether a schedule is due.",
        (),
        [((), found.considered_until)],
    )


def of_last_runs(last: Mapping[str, RunRecord]) -> Iterator[Metric]:
    yield _gauge(
        "last_run_info",
        "The newest run that has ended; always 1.",
        ("job", "run", "state", "slot", "model", "model_version", "variant", "device"),
        [((job, *_identity(run)), 1.0) for job, run in last.items()],
    )
    for name, about, value in _LAST_RUN:
        values = {job: value(run) for job, run in last.items()}
        yield _gauge(
            f"last_run_{name}",
            f"Of the newest run that has ended: {about}",
            ("job",),
            _by_job(values),
        )


def of_drift(reports: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    yield _gauge(
        "drift_severity",
        "Drift of the newest measured run: 0 none, 1 small, 2 moderate, 3 severe.",
        ("job",),
        _by_job({job: one["severity"] for job, one in reports.items()}),
    )
    yield _gauge(
        "drift_score",
        "The figure of the newest measured run, in its job's measure.",
        ("job",),
        _by_job({job: one["score"] for job, one in reports.items()}),
    )
    columns = [(job, column) for job, one in reports.items() for column in one["columns"]]
    place = ("job", "role", "column")
    yield _gauge(
        "drift_value",
        "A column against the reference, in the measure that leads.",
        (*place, "measure"),
        [((job, c["role"], c["name"], c["measure"]), c["value"]) for job, c in columns],
    )
    yield _gauge(
        "drift_missing_change",
        "Share of a column's rows without a value, less that of the reference.",
        place,
        [((job, c["role"], c["name"]), c["missing_change"]) for job, c in columns],
    )


def _identity(run: RunRecord) -> Sequence[str | None]:
    model = run.model_name or run.model
    return run.id, run.state, run.slot, model, run.model_version, run.variant, run.device


def _duration(run: RunRecord) -> float | None:
    return None if run.finished_at is None else run.finished_at - run.created_at


_LAST_RUN: Sequence[tuple[str, str, Callable[[RunRecord], float | None]]] = (
    ("rows", "rows of its input.", lambda run: run.rows_in),
    ("quarantined_rows", "rows that were not scored.", lambda run: run.rows_quarantined),
    ("duration_seconds", "from its creation to its end.", _duration),
    ("finished_timestamp_seconds", "when it ended.", lambda run: run.finished_at),
)


def _by_job(values: Mapping[str, float | None]) -> Samples:
    return [((job,), value) for job, value in values.items()]


def _gauge(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    """One metric; what has no value has no sample."""
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(f"nightscore_{name}", text, labels=labels)
    for values, value in samples:
        if value is not None:
            family.add_metric([_label(one) for one in values], float(value))
    return family


def _label(value: str | None) -> str:
    """A label's text; half a surrogate pair, which JSON can hold and UTF-8 cannot, is replaced."""
    return (value or "").encode("utf-8", "replace").decode("utf-8")
