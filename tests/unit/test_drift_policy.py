"""Columns count by their weight, and only drift that has lasted is acted upon."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.drift.measures.lead import Tiers
from scoring.drift.policy import Decision, Overall, decide, overall
from scoring.job import SEVERITIES, Drift

TIERS = Tiers(small=0.10, moderate=0.15, severe=0.25)
COLUMNS = [("fare", 0.12), ("age", 0.3), ("city", 0.0)]
ACTIONS = Drift(
    on_small=["log"], on_moderate=["retrain", "review"], on_severe=["review", "hold"], persistence=2
)


def test_the_worst_column_speaks_for_the_run():
    found = overall(COLUMNS, {}, TIERS, "worst")

    assert found == Overall(severity="severe", score=0.3, worst="age")


def test_a_column_of_weight_zero_does_not_count():
    found = overall(COLUMNS, {"age": 0.0}, TIERS, "worst")

    assert found == Overall(severity="small", score=0.12, worst="fare")


def test_a_weight_scales_the_value_before_its_tier_is_told():
    found = overall(COLUMNS, {"fare": 3.0, "age": 0.5}, TIERS, "worst")

    assert found.worst == "fare"
    assert found.score == pytest.approx(0.36)
    assert found.severity == "severe"


def test_the_mean_weighs_all_columns():
    found = overall(COLUMNS, {"city": 2.0, "age": 0.5}, TIERS, "mean")

    assert found.score == pytest.approx((0.12 + 0.5 * 0.3) / 3.5)
    assert (found.severity, found.worst) == ("none", "age")


@pytest.mark.parametrize("summary", ["worst", "mean"])
@pytest.mark.parametrize("columns", [[], COLUMNS])
def test_without_a_column_that_counts_there_is_no_drift(summary, columns):
    weights = dict.fromkeys(["fare", "age", "city"], 0.0)

    assert overall(columns, weights, TIERS, summary) == Overall(
        severity="none", score=None, worst=None
    )


@given(st.lists(st.floats(0, 20), min_size=1, max_size=20), st.sampled_from(["worst", "mean"]))
def test_a_severity_is_the_tier_of_its_score(values, summary):
    columns = [(f"c{i}", value) for i, value in enumerate(values)]

    found = overall(columns, {}, TIERS, summary)

    assert found.severity == TIERS.severity(found.score)
    assert min(values) - 1e-12 <= found.score <= max(values) + 1e-12


def test_no_drift_is_published_without_a_word():
    found = decide("none", ACTIONS, ["severe"], released=False)

    assert found == Decision(actions=(), in_a_row=0, outcome="publish")


def test_what_to_do_follows_from_the_tier():
    once = ACTIONS.model_copy(update={"persistence": 1})

    assert decide("small", once, [], released=False).actions == ("log",)
    assert decide("moderate", once, [], released=False).actions == ("retrain", "review")
    assert decide("severe", once, [], released=False) == Decision(
        actions=("review", "hold"), in_a_row=1, outcome="hold"
    )


@pytest.mark.parametrize(
    ("severity", "before", "actions", "in_a_row"),
    [
        ("severe", [], (), 1),
        ("severe", ["none"], (), 1),
        ("severe", ["none", "severe"], (), 1),
        ("severe", ["severe"], ("review", "hold"), 2),
        ("severe", ["severe", "severe"], ("review", "hold"), 3),
        ("severe", ["small"], ("log",), 1),
        ("severe", ["moderate", "small"], ("retrain", "review"), 1),
        ("small", ["severe"], ("log",), 2),
        ("severe", [None, "severe"], (), 1),
    ],
)
def test_only_drift_that_has_lasted_is_acted_upon(severity, before, actions, in_a_row):
    found = decide(severity, ACTIONS, before, released=False)

    assert (found.actions, found.in_a_row) == (actions, in_a_row)


def test_a_tier_in_between_lasts_when_a_higher_one_has_not():
    three = ACTIONS.model_copy(update={"persistence": 3})

    assert decide("severe", three, ["moderate", "severe", "none"], released=False).actions == (
        "retrain",
        "review",
    )


def test_fail_prevails_over_hold():
    drift = Drift(on_severe=["hold", "fail"])

    assert decide("severe", drift, [], released=False).outcome == "fail"


@pytest.mark.parametrize("actions", [["hold"], ["hold", "fail"]])
def test_what_a_person_has_released_is_published(actions):
    drift = Drift(on_severe=actions)

    found = decide("severe", drift, [], released=True)

    assert (found.actions, found.outcome) == (tuple(actions), "publish")


severities = st.sampled_from(SEVERITIES)
histories = st.lists(st.one_of(st.none(), severities), max_size=6)


@given(severities, histories, st.integers(1, 5))
def test_a_longer_persistence_never_does_more(severity, before, persistence):
    def tier(persistence: int) -> int:
        drift = Drift(
            on_small=["log"], on_moderate=["review"], on_severe=["hold"], persistence=persistence
        )
        taken = decide(severity, drift, before, released=False).actions
        return [(), ("log",), ("review",), ("hold",)].index(taken)

    assert tier(persistence + 1) <= tier(persistence) <= SEVERITIES.index(severity)
