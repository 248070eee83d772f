"""What an evaluation says: a run's performance beside the reference's, as the report holds it.

Pure. The severity of a run is never lowered by it: what was done because of drift has been done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scoring.drift.measures.lead import Tiers
from scoring.drift.performance.drop import HIGHER_IS_BETTER, IN_POINTS, NEGLIGIBLE, Drop, drop_of
from scoring.drift.performance.performance import Metric, Performance
from scoring.job import SEVERITIES, Severity

__all__ = ["NAMES", "Evaluated", "performance_document", "with_performance"]

NAMES = {
    "auc": "AUC",
    "accuracy": "accuracy",
    "brier": "Brier score",
    "log_loss": "logarithmic loss",
    "calibration_error": "calibration error",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R2",
    "bias": "bias",
}
NO_REFERENCE = (
    "Its version has no performance to compare with; `scoring models profile MODEL --from "
    "HELD_OUT --label COLUMN` gives it one"
)
OTHER_OUTPUT = (
    "The performance of its version is that of another output or another kind of label, so it is "
    "not compared"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What was evaluated, and when."""

    labels: str
    """Path of the labels."""
    label: str
    """Their column."""
    rows: int
    """Scored rows that have a label."""
    unmatched: int
    """Scored rows that have none yet."""
    evaluated_at: str
    """ISO 8601, UTC."""


def performance_document(
    evaluated: Evaluated, current: Performance, reference: Performance | None
) -> dict[str, Any]:
    """What drift.json holds of a run's performance, the leading metric first.

    A reference of another output, or of another kind of answer, is not compared.
    """
    same = reference is not None and _question(reference) == _question(current)
    before = reference if same else None
    drops = [drop_of(one, before.metric(one.name) if before else None) for one in current.metrics]
    return {
        "labels": evaluated.labels,
        "label": evaluated.label,
        "output": current.output,
        "kind": current.kind,
        "rows": evaluated.rows,
        "unmatched": evaluated.unmatched,
        "evaluated_at": evaluated.evaluated_at,
        "lead": current.metrics[0].name,
        "severity": drops[0].severity,
        "verdict": _verdict(current, reference, drops[0], evaluated.rows),
        "metrics": [
            {**asdict(metric), **asdict(drop)}
            for metric, drop in zip(current.metrics, drops, strict=True)
        ],
        "calibration": None
        if current.calibration is None
        else [asdict(one) for one in current.calibration],
    }


def with_performance(
    document: Mapping[str, Any], performance: Mapping[str, Any], asked: Sequence[str]
) -> dict[str, Any]:
    """A drift document with a run's performance in it, in place of one from before.

    Its severity is the worse of drift's and of this, its verdict says both, and what was `asked`
    because of it joins the actions.
    """
    before, verdict = document["performance"], document["verdict"]
    if before:
        verdict = verdict.removesuffix(f" {before['verdict']}")
    severity = max(_of_drift(document), performance["severity"], key=SEVERITIES.index)
    *earlier, this = document["trend"]
    return {
        **document,
        "severity": severity,
        "verdict": f"{verdict} {performance['verdict']}",
        "actions": list(dict.fromkeys([*document["actions"], *asked])),
        "performance": dict(performance),
        "trend": [*earlier, {**this, "severity": severity}],
    }


def _of_drift(document: Mapping[str, Any]) -> Severity:
    """The severity of drift alone, whatever an evaluation has made of the run's since."""
    score = document["score"]
    return "none" if score is None else Tiers(**document["thresholds"]).severity(score)


def _question(performance: Performance) -> tuple[str, str]:
    return performance.output, performance.kind


def _verdict(
    current: Performance, reference: Performance | None, found: Drop, labelled: int
) -> str:
    lead = current.metrics[0]
    judged = (
        f"{current.rows:,}" if current.rows == labelled else f"{current.rows:,} of {labelled:,}"
    )
    now = f"{_capital(NAMES[lead.name])} is {_figure(lead, lead.value)}{_within(lead)}"
    now += f" on {judged} labelled rows"
    known = reference.metric(lead.name) if reference else None
    if known is None or found.reference is None or found.drop is None:
        return f"{now}. {_why_not_compared(current, reference)}."
    before = f"the reference's {_figure(lead, found.reference)}"
    if found.severity != "none":
        points = lead.name in IN_POINTS
        worse = f"{100 * found.drop:.1f} points" if points else f"{found.drop:.1%}"
        way = "lower" if lead.name in HIGHER_IS_BETTER else "higher"
        return f"{now}, {worse} {way} than {before}: a {found.severity} drop."
    if found.drop <= 0:
        return f"{now}, no worse than {before}."
    if lead.low is None:
        return f"{now}, too few to tell from {before}."
    if known.low is None:
        return f"{now}, but {before} is of too few rows to tell from."
    near = "within chance of" if found.drop >= NEGLIGIBLE else "hardly different from"
    return f"{now}, {near} {before}."


def _why_not_compared(current: Performance, reference: Performance | None) -> str:
    if reference is None:
        return NO_REFERENCE
    if _question(reference) != _question(current):
        return OTHER_OUTPUT
    name = NAMES[current.metrics[0].name]
    return f"The performance of its version has no {name}, so it is not compared"


def _within(metric: Metric) -> str:
    if metric.low is None or metric.high is None:
        return ""
    return f" (95% interval {_figure(metric, metric.low)} to {_figure(metric, metric.high)})"


def _figure(metric: Metric, value: float) -> str:
    return f"{value:.3f}" if metric.name in IN_POINTS else f"{value:.4g}"


def _capital(name: str) -> str:
    return name[0].upper() + name[1:]
