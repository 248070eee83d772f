"""What follows from drift: the columns' severities as one, and what is done about it. Pure.

An action is taken only for drift that has lasted as long as the job wants, and what a person
has released is published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from scoring.drift.measures.lead import Tiers
from scoring.job import SEVERITIES, Action, Drift, Severity

__all__ = ["Decision", "Overall", "decide", "overall"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overall:
    """The drift of a run."""

    severity: Severity
    score: float | None
    """The columns' values as one, by which `severity` was told; None: no column counts."""
    worst: str | None
    """The column that counts most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is done about a run's drift."""

    actions: tuple[Action, ...]
    """Those of the highest tier that has lasted long enough, in the job's order."""
    in_a_row: int
    """Runs in a row, this one included, that drifted at least as far as this one; 0 where it did
    not drift."""
    outcome: Literal["publish", "hold", "fail"]
    """What becomes of the run."""


def overall(
    columns: Sequence[tuple[str, float]],
    weights: Mapping[str, float],
    tiers: Tiers,
    summary: Literal["worst", "mean"],
) -> Overall:
    """Make one severity of what was found of the columns: (name, value).

    A column's weight (1 where `weights` does not name it) scales its value, so that a weight of
    2 makes it severe at half the distance; columns of weight 0 do not count. "worst" takes the
    greatest scaled value, "mean" the weighted mean of the values.
    """
    counted = [
        (name, value, weights.get(name, 1.0))
        for name, value in columns
        if weights.get(name, 1.0) > 0
    ]
    if not counted:
        return Overall(severity="none", score=None, worst=None)
    name, value, weight = max(counted, key=lambda column: column[1] * column[2])
    score = value * weight
    if summary == "mean":
        score = sum(v * w for _, v, w in counted) / sum(w for *_, w in counted)
    return Overall(severity=tiers.severity(score), score=score, worst=name)


def decide(
    severity: Severity, drift: Drift, before: Sequence[Severity | None], released: bool
) -> Decision:
    """What to do about a run of this severity.

    `before` holds the severities of the job's earlier runs, newest first; None, a run whose drift
    was not measured, ends a row. A tier has lasted if this run and the ``persistence - 1`` before
    it were at least as severe. Of hold and fail, fail prevails; a run that a person has
    `released` is published.
    """
    actions: tuple[Action, ...] = ()
    for tier in reversed(SEVERITIES[1 : SEVERITIES.index(severity) + 1]):
        if _in_a_row(tier, severity, before) >= drift.persistence:
            actions = _actions(drift, tier)
            break
    outcome: Literal["publish", "hold", "fail"] = "publish"
    if not released and {"hold", "fail"} & set(actions):
        outcome = "fail" if "fail" in actions else "hold"
    return Decision(
        actions=actions, in_a_row=_in_a_row(severity, severity, before), outcome=outcome
    )


def _in_a_row(tier: Severity, severity: Severity, before: Sequence[Severity | None]) -> int:
    if tier == "none":
        return 0
    lasting = SEVERITIES[SEVERITIES.index(tier) :]
    return len(list(takewhile(lambda found: found in lasting, [severity, *before])))


def _actions(drift: Drift, tier: Severity) -> tuple[Action, ...]:
    tiers: Mapping[Severity, tuple[Action, ...]] = {
        "small": drift.on_small,
        "moderate": drift.on_moderate,
        "severe": drift.on_severe,
    }
    return tiers.get(tier, ())
