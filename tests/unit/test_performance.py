"""Performance on labelled rows: every metric against scikit-learn, intervals against repetition."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sklearn
from sklearn.calibration import calibration_curve

from scoring.data.keys import UNKNOWN, Numbered, common_type, places
from scoring.drift.performance.answers import Answers, Collected, Fit, Truth, fit
from scoring.drift.performance.calibration import calibration, calibration_error, wilson
from scoring.drift.performance.drop import Drop, drop_of
from scoring.drift.performance.evaluated import Evaluated, performance_document, with_performance
from scoring.drift.performance.performance import Metric, Performance, measured
from scoring.drift.performance.ranks import area
from scoring.drift.performance.resamples import GROUPS, Resamples

ROWS = 3_000


def binary(rows: int, seed: int, rounded: int = 6) -> tuple[NDArray[Any], NDArray[Any]]:
    """Probabilities with ties, and a truth that follows them."""
    random = np.random.default_rng(seed)
    given = random.beta(2, 3, rows).round(rounded)
    return given, (random.random(rows) < given).astype(np.float64)


def several(rows: int, seed: int, classes: int = 4) -> tuple[NDArray[Any], NDArray[Any]]:
    random = np.random.default_rng(seed)
    given = random.dirichlet(np.full(classes, 0.7), rows)
    chosen = np.minimum((given.cumsum(axis=1) < random.random((rows, 1))).sum(axis=1), classes - 1)
    return given, chosen.astype(np.float64)


def figures(answers: Answers, seed: int = 1) -> dict[str, float]:
    return {one.name: one.value for one in measured(answers, "score", seed).metrics}


# Metrics


@pytest.mark.parametrize("rounded", [6, 1])
def test_the_metrics_of_two_classes_are_those_of_scikit_learn(rounded: int) -> None:
    scores, truth = binary(ROWS, 1, rounded)

    found = measured(Answers(kind="binary", truth=truth, scores=scores), "score", 1)

    assert {one.name: one.value for one in found.metrics} == pytest.approx(
        {
            "auc": sklearn.roc_auc_score(truth, scores),
            "accuracy": sklearn.accuracy_score(truth, scores > 0.5),
            "brier": sklearn.brier_score_loss(truth, scores),
            "log_loss": sklearn.log_loss(truth, scores),
            "calibration_error": calibration_error(found.calibration or ()),
        },
        rel=1e-9,
    )
    assert found.metrics[0].name == "auc"


def test_the_metrics_of_more_classes_are_those_of_scikit_learn() -> None:
    scores, truth = several(ROWS, 2)
    narrow = scores.astype(np.float32)

    found = figures(Answers(kind="classes", truth=truth, scores=narrow))

    assert found == pytest.approx(
        {
            "accuracy": sklearn.accuracy_score(truth, narrow.argmax(axis=1)),
            "auc": sklearn.roc_auc_score(truth, scores, multi_class="ovr"),
            "brier": sklearn.brier_score_loss(truth, scores, scale_by_half=False),
            "log_loss": sklearn.log_loss(truth, scores),
        },
        rel=1e-5,
    )
    assert next(iter(found)) == "accuracy"


def test_the_metrics_of_numbers_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(3)
    truth = random.normal(1_000_000, 5, ROWS)
    scores = truth + random.normal(0.5, 2, ROWS)

    found = figures(Answers(kind="regression", truth=truth, scores=scores))

    assert found == pytest.approx(
        {
            "rmse": sklearn.root_mean_squared_error(truth, scores),
            "mae": sklearn.mean_absolute_error(truth, scores),
            "r2": sklearn.r2_score(truth, scores),
            "bias": np.mean(scores - truth),
        },
        rel=1e-7,
    )
    assert next(iter(found)) == "rmse"


@pytest.mark.parametrize("certain", [0.0, 1.0])
def test_a_certain_and_wrong_answer_costs_as_much_as_scikit_learn_says(certain: float) -> None:
    scores = np.full(40, certain, np.float32)
    truth = np.r_[np.full(39, certain), 1 - certain]

    found = figures(Answers(kind="binary", truth=truth, scores=scores))

    assert found["log_loss"] == pytest.approx(sklearn.log_loss(truth, scores), rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
def test_the_area_is_that_of_scikit_learn_whatever_is_tied(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in rows], float)
    positive = np.array([hit for _, hit in rows])

    found = area(scores, positive)

    if positive.all() or not positive.any():
        assert found is None
        return
    assert found is not None
    assert found.value == pytest.approx(sklearn.roc_auc_score(positive, scores))
    assert found.contributions.mean() == pytest.approx(0, abs=1e-12)


def test_scores_that_are_no_probabilities_are_only_ranked() -> None:
    scores, truth = binary(ROWS, 4)

    assert set(figures(Answers(kind="binary", truth=truth, scores=10 * scores - 5))) == {"auc"}
    assert set(figures(Answers(kind="classes", truth=truth, scores=np.c_[-scores, scores]))) == {
        "accuracy",
        "auc",
    }


def test_what_cannot_be_told_is_left_out() -> None:
    same = np.full(50, 0.1)

    assert "auc" not in figures(Answers(kind="binary", truth=np.zeros(50), scores=same))
    assert "r2" not in figures(Answers(kind="regression", truth=same, scores=same))
    with pytest.raises(ValueError, match="no row"):
        measured(Answers(kind="binary", truth=np.empty(0), scores=np.empty(0)), "score", 1)


# Calibration


@pytest.mark.parametrize("rounded", [6, 1])
def test_calibration_is_that_of_scikit_learn_on_bins_of_equal_mass(rounded: int) -> None:
    scores, truth = binary(ROWS, 5, rounded)

    bins = calibration(scores, truth == 1)

    observed, predicted = calibration_curve(truth, scores, n_bins=10, strategy="quantile")
    np.testing.assert_allclose([one.predicted for one in bins], predicted)
    np.testing.assert_allclose([one.observed for one in bins], observed)
    assert sum(one.rows for one in bins) == ROWS


def test_the_calibration_error_is_the_mean_gap() -> None:
    scores, truth = np.repeat([0.2, 0.9], 50), np.r_[np.ones(20), np.zeros(30), np.ones(50)]

    bins = calibration(scores, truth == 1)

    assert calibration_error(bins) == pytest.approx((0.2 + 0.1) / 2)


@pytest.mark.parametrize(("hits", "rows"), [(0, 12), (7, 12), (12, 12), (300, 4_000)])
def test_wilsons_interval_is_that_of_scipy(hits: int, rows: int) -> None:
    from scipy.stats import binomtest

    known = binomtest(hits, rows).proportion_ci(method="wilson")

    assert wilson(hits, rows) == pytest.approx((known.low, known.high), abs=1e-9)


# Intervals


def test_groups_of_rows_vary_as_the_rows_themselves() -> None:
    rows = 20 * GROUPS
    column = np.random.default_rng(6).exponential(size=rows)

    figures = Resamples(rows, 7).means(np.sort(column))  # sorted: groups must not follow order

    error = column.std() / np.sqrt(rows)
    assert figures[0] == pytest.approx(column.mean())
    assert figures[1:].std() == pytest.approx(error, rel=0.08)
    assert abs(figures[1:].mean() - figures[0]) < 0.2 * error


def test_the_area_varies_as_if_every_resample_were_ranked_anew() -> None:
    scores, truth = binary(400, 8, 2)
    random = np.random.default_rng(9)
    drawn = (random.integers(0, 400, 400) for _ in range(1_000))
    ranked = [sklearn.roc_auc_score(truth[rows], scores[rows]) for rows in drawn]

    (found,) = [
        one
        for one in measured(Answers(kind="binary", truth=truth, scores=scores), "", 1).metrics
        if one.name == "auc"
    ]

    assert [found.low, found.high] == pytest.approx(np.percentile(ranked, [2.5, 97.5]), abs=0.006)


@pytest.mark.parametrize(
    ("rows", "repetitions"), [(250, 150), pytest.param(3 * GROUPS, 50, marks=pytest.mark.slow)]
)
def test_intervals_hold_the_truth_about_as_often_as_they_say(rows: int, repetitions: int) -> None:
    """95% of 150 intervals are 142, give or take 3."""
    scores, truth = binary(2_000_000, 10)
    known = figures(Answers(kind="binary", truth=truth, scores=scores))
    held = dict.fromkeys(("auc", "accuracy", "brier", "log_loss"), 0)

    for seed in range(repetitions):
        scores, truth = binary(rows, 100 + seed)
        found = measured(Answers(kind="binary", truth=truth, scores=scores), "", seed)
        for name in held:
            one = found.metric(name)
            assert one is not None
            held[name] += one.low <= known[name] <= one.high

    assert min(held.values()) >= 0.89 * repetitions, held


def test_intervals_of_numbers_hold_the_truth_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(11)
    known = {"rmse": 2.0, "mae": 2 * np.sqrt(2 / np.pi), "r2": 1 - 4 / 25, "bias": 0.0}
    held = dict.fromkeys(known, 0)

    for seed in range(150):
        truth = random.normal(0, 5, 300)
        answers = Answers(kind="regression", truth=truth, scores=truth + random.normal(0, 2, 300))
        for one in measured(answers, "", seed).metrics:
            held[one.name] += one.low <= known[one.name] <= one.high

    assert min(held.values()) >= 133, held


def test_the_same_seed_gives_the_same_interval_and_another_another() -> None:
    scores, truth = binary(ROWS, 12)
    answers = Answers(kind="binary", truth=truth, scores=scores)

    assert measured(answers, "", 1) == measured(answers, "", 1)
    assert measured(answers, "", 1) != measured(answers, "", 2)


def test_few_rows_have_no_interval() -> None:
    scores, truth = binary(29, 13)
    rare = np.r_[np.ones(9), np.zeros(200)]

    few = measured(Answers(kind="binary", truth=truth, scores=scores), "", 1)
    one_sided = measured(Answers(kind="binary", truth=rare, scores=rare), "", 1)

    assert {one.low for one in few.metrics} == {None}
    assert one_sided.metric("auc") == Metric(name="auc", value=1.0)


def test_a_performance_survives_its_json() -> None:
    scores, truth = binary(ROWS, 14)
    found = measured(Answers(kind="binary", truth=truth, scores=scores), "score", 1)

    assert Performance.from_json(found.to_json()) == found
    with pytest.raises(ValueError, match="version 9"):
        Performance.from_json(json.dumps({"version": 9}))


# Which output, and how it is judged

NUMBERS, VECTOR, PAIR = pa.float32(), pa.list_(pa.float32(), 4), pa.list_(pa.float64(), 2)


@pytest.mark.parametrize(
    ("labels", "outputs", "expected"),
    [
        ([0, 1], {"score": NUMBERS}, ("score", "binary")),
        ([0, 0], {"score": NUMBERS}, ("score", "binary")),
        ([0, 2.5], {"score": NUMBERS}, ("score", "regression")),
        ([0, 1], {"label": pa.int64(), "probabilities": PAIR}, ("probabilities", "binary")),
        ([0, 3], {"label": pa.int64(), "probabilities": VECTOR}, ("probabilities", "classes")),
        ([0, 4], {"label": pa.int64(), "probabilities": VECTOR}, ("label", "classes")),
        ([-1, 3], {"label": pa.int64(), "probabilities": VECTOR}, ("label", "classes")),
        (["yes", "no"], {"score": NUMBERS, "said": pa.string()}, ("said", "classes")),
        ([0, 1], {"said": pa.bool_()}, ("said", "classes")),
        ([0, 1.5], {"rank": pa.int32()}, ("rank", "regression")),
        ([1, 7.5], {"price": NUMBERS, "delay": NUMBERS, "late": NUMBERS}, ("price", "regression")),
        ([1, 7.5], {"price": NUMBERS, "y": pa.float64()}, ("y", "regression")),
        (["yes"], {"score": NUMBERS}, None),
        ([0, 2], {"said": pa.bool_()}, None),
        ([0.5], {"probabilities": VECTOR, "at": pa.date32()}, None),
    ],
)
def test_the_output_that_answers_the_label_is_found(
    labels: list[Any], outputs: dict[str, Any], expected: tuple[str, str] | None
) -> None:
    words = isinstance(labels[0], str)
    truth = Truth.of(pa.array(labels, pa.large_string() if words else pa.float64()))

    found = fit(pa.schema(outputs.items()), truth, "y")

    assert (found and (found.output, found.kind)) == expected


def test_a_run_is_judged_as_its_reference_was() -> None:
    outputs = pa.schema([("score", NUMBERS), ("count", NUMBERS)])
    truth = Truth.of(pa.array([0.0, 1.0]))

    found = fit(outputs, truth, "y", like=("count", "regression"))
    absent = fit(outputs, truth, "y", like=("gone", "binary"))

    assert found == Fit(output="count", kind="regression")
    assert absent == Fit(output="score", kind="binary")


def collected(kind: Any, outputs: pa.Array, labels: list[Any], rows: int = 0) -> Collected:
    found = Collected(kind, outputs.type, rows, 1)
    found.add(outputs, pa.array(labels))
    return found


def test_rows_without_a_usable_answer_are_left_out() -> None:
    scores = pa.array([0.1, None, float("nan"), float("inf"), 0.9], pa.float32())
    pairs = pa.array([[0.4, 0.6], None, [0.5, None], [0.1, 0.9], [1.0, 0.0]], PAIR)
    words = pa.array(["a", None, "b", "c", "c"])

    numbers = collected("binary", scores, [0.0, 1.0, 1.0, 1.0, 1.0])
    vectors = collected("binary", pairs, [0.0, 1.0, 1.0, 1.0, 0.0])
    decisions = collected("classes", words, ["a", "b", "c", "c", "c"])

    assert numbers.answers().scores.tolist() == pytest.approx([0.1, 0.9])
    assert numbers.answers().truth.tolist() == [0, 1]
    assert (numbers.offered, numbers.answers().rows) == (5, 2)
    assert vectors.answers().scores.tolist() == [0.6, 0.9, 0.0]
    assert np.asarray(decisions.answers().hits).tolist() == [True, False, True, True]


def test_decisions_are_right_whatever_types_say_the_same() -> None:
    yes = collected("classes", pa.array([True, False, True]), [1.0, 0.0, 0.0])
    whole = collected("classes", pa.array([3, 4], pa.int16()), [3.0, 5.0])

    assert figures(yes.answers()) == {"accuracy": pytest.approx(2 / 3)}
    assert figures(whole.answers()) == {"accuracy": 0.5}


def test_of_very_many_rows_a_share_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scoring.drift.performance.answers.MOST_ROWS", 1_000)

    found = collected("regression", pa.array(np.arange(10_000.0)), list(range(10_000)), 10_000)

    assert found.offered == 10_000
    assert 900 < found.answers().rows < 1_100


# Drops


def metric(name: Any, value: float, reach: float | None = 0.0) -> Metric:
    if reach is None:
        return Metric(name=name, value=value)
    return Metric(name=name, value=value, low=value - reach, high=value + reach)


@pytest.mark.parametrize(
    ("name", "reference", "value", "drop", "severity"),
    [
        ("auc", 0.90, 0.896, 0.004, "none"),
        ("auc", 0.90, 0.89, 0.01, "small"),
        ("auc", 0.90, 0.879, 0.021, "moderate"),
        ("accuracy", 0.90, 0.84, 0.06, "severe"),
        ("accuracy", 0.84, 0.90, -0.06, "none"),
        ("rmse", 200.0, 203.0, 0.015, "small"),
        ("rmse", 200.0, 209.0, 0.045, "moderate"),
        ("mae", 2.0, 2.2, 0.1, "severe"),
        ("rmse", 2.2, 2.0, -1 / 11, "none"),
        ("rmse", 0.0, 0.03, 0.03, "moderate"),
        ("r2", 0.5, 0.4, 0.1, "severe"),
    ],
)
def test_a_drop_falls_in_the_tier_of_its_size(
    name: Any, reference: float, value: float, drop: float, severity: str
) -> None:
    found = drop_of(metric(name, value, 1e-6), metric(name, reference))

    assert found == Drop(reference=reference, drop=pytest.approx(drop), severity=severity)  # type: ignore[arg-type]


def test_a_drop_that_chance_explains_is_none() -> None:
    reference = metric("auc", 0.90)

    assert drop_of(metric("auc", 0.84, 0.05), reference).severity == "severe"
    assert drop_of(metric("auc", 0.84, 0.07), reference).severity == "none"
    assert drop_of(metric("auc", 0.84, None), reference).severity == "none"
    assert drop_of(metric("auc", 0.84, 0.01), metric("auc", 1.0, None)).severity == "none"
    assert drop_of(metric("rmse", 1.9, 0.01), metric("rmse", 1.0, None)).severity == "none"
    uncertain = metric("auc", 0.90, 0.05)
    assert drop_of(metric("auc", 0.84, 0.05), uncertain).severity == "none"
    assert drop_of(metric("rmse", 1.1, 0.05), metric("rmse", 1.0, 0.05)).severity == "severe"
    assert drop_of(metric("rmse", 1.1, 0.09), metric("rmse", 1.0, 0.09)).severity == "none"


@pytest.mark.parametrize("rows", [29, 40])
def test_a_perfect_reference_of_few_rows_proves_no_drop(rows: int) -> None:
    reference = decisions(rows, wrong=0)
    current = decisions(10_000, wrong=700)

    document = performance_document(EVALUATED, current, reference)

    assert document["metrics"][0]["drop"] == pytest.approx(0.07)
    assert document["severity"] == "none"
    assert ("too few rows" in document["verdict"]) == (rows < 30)
    proven = performance_document(EVALUATED, current, decisions(1_000, wrong=0))
    assert proven["severity"] == "severe"


def decisions(rows: int, wrong: int) -> Performance:
    hits = np.arange(rows) >= wrong
    return measured(
        Answers(kind="classes", truth=np.empty(0), scores=np.empty(0), hits=hits), "said", 1
    )


def test_a_perfect_order_is_as_uncertain_as_its_rarer_class_is_rare() -> None:
    truth = np.r_[np.ones(12), np.zeros(500)]

    found = measured(Answers(kind="binary", truth=truth, scores=5 * truth), "score", 1)

    assert found.metrics == (Metric(name="auc", value=1.0, low=wilson(12, 12)[0], high=1.0),)


def test_what_has_no_better_or_no_reference_does_not_drop() -> None:
    for name in ("bias", "calibration_error"):
        found = drop_of(metric(name, 9.0), metric(name, 0.0))
        assert found == Drop(reference=0.0, drop=None, severity="none")
    assert drop_of(metric("auc", 0.5), None) == Drop(reference=None, drop=None, severity="none")


# The document

EVALUATED = Evaluated(
    labels="truth.parquet",
    label="late",
    rows=1_000,
    unmatched=20,
    evaluated_at="2026-11-24T08:00:00+00:00",
)


def performance(value: float, reach: float = 0.001, **more: Any) -> Performance:
    found = Performance(
        output="score", kind="binary", rows=1_000, metrics=(metric("auc", value, reach),)
    )
    return replace(found, **more)


@pytest.mark.parametrize(
    ("current", "reference", "verdict"),
    [
        (
            performance(0.84),
            performance(0.9),
            "AUC is 0.840 (95% interval 0.839 to 0.841) on 1,000 labelled rows, 6.0 points lower "
            "than the reference's 0.900: a severe drop.",
        ),
        (performance(0.9), performance(0.84), "no worse than the reference's 0.840."),
        (performance(0.84, 0.1), performance(0.9), "within chance of the reference's 0.900."),
        (performance(0.897), performance(0.9), "hardly different from the reference's 0.900."),
        (
            performance(0.8, metrics=(metric("auc", 0.8, None),)),
            performance(0.9),
            "too few to tell from the reference's 0.900.",
        ),
        (
            performance(0.8),
            performance(0.9, metrics=(metric("auc", 0.9, None),)),
            "but the reference's 0.900 is of too few rows to tell from.",
        ),
        (
            performance(0.8),
            performance(0.9, metrics=(metric("accuracy", 0.9),)),
            "The performance of its version has no AUC, so it is not compared.",
        ),
        (
            performance(0.8, metrics=(metric("rmse", 1234.5, 10),), kind="regression"),
            performance(0.8, metrics=(metric("rmse", 1000, 10),), kind="regression"),
            "RMSE is 1234 (95% interval 1224 to 1244) on 1,000 labelled rows, 23.4% higher than "
            "the reference's 1000: a severe drop.",
        ),
        (performance(0.8, rows=900), None, "on 900 of 1,000 labelled rows. Its version has no"),
        (performance(0.8), performance(0.9, output="other"), "is that of another output"),
    ],
)
def test_the_verdict_is_a_sentence(
    current: Performance, reference: Performance | None, verdict: str
) -> None:
    document = performance_document(EVALUATED, current, reference)

    assert verdict in document["verdict"]
    assert document["verdict"].endswith(".")


def test_a_report_takes_an_evaluation_in_and_a_later_one_in_its_place() -> None:
    report = {
        "severity": "small",
        "score": 0.12,
        "thresholds": {"small": 0.1, "moderate": 0.15, "severe": 0.25},
        "verdict": "One column moved.",
        "actions": ["log"],
        "performance": None,
        "trend": [{"severity": "none"}, {"severity": "small"}],
    }
    worse = performance_document(EVALUATED, performance(0.8), performance(0.9))
    better = performance_document(EVALUATED, performance(0.9), performance(0.9))

    first = with_performance(report, worse, ["log", "review"])
    second = with_performance(first, better, [])

    assert (first["severity"], first["trend"][-1]["severity"]) == ("severe", "severe")
    assert first["verdict"] == f"One column moved. {worse['verdict']}"
    assert first["performance"] == worse
    assert second["verdict"] == f"One column moved. {better['verdict']}"
    assert second["severity"] == "small", "what drift alone says stands"
    assert first["actions"] == second["actions"] == ["log", "review"]
    assert report["performance"] is None


# Keys

KEYS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(0, 3)),
        st.one_of(st.none(), st.sampled_from(["", "a", "b", "\u00e9"])),
        st.one_of(st.none(), st.integers(-(2**62), 2**62), st.integers(0, 3)),
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(KEYS, KEYS)
def test_rows_are_found_exactly_by_their_whole_key(
    known: list[tuple[Any, ...]], rows: list[tuple[Any, ...]]
) -> None:
    kinds = [pa.int64(), pa.large_string(), pa.int64()]

    def columns(keys: list[tuple[Any, ...]]) -> list[pa.ChunkedArray]:
        return [
            pa.chunked_array([pa.array([key[n] for key in keys], kind)])
            for n, kind in enumerate(kinds)
        ]

    numbered = Numbered(columns(known))
    found = numbered.look_up(columns(rows)).tolist()
    numbers = numbered.numbers.tolist()

    assert numbered.look_up(columns(known)).tolist() == numbers
    for key, number in zip([*known, *rows], [*numbers, *found], strict=True):
        same = [None not in key and key == other for other in known]
        assert [UNKNOWN != number == other for other in numbers] == same
        assert number == UNKNOWN or number >= 0


def test_places_are_found_whatever_the_order() -> None:
    known, wanted = np.array([2, 5, 9]), np.array([9, 1, 5, 100, UNKNOWN, 2])

    assert places(known, wanted).tolist() == [2, -1, 1, -1, -1, 0]
    assert places(np.empty(0, np.int64), wanted).tolist() == [-1] * 6


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.int64(), pa.float64(), pa.float64()),
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.string_view(), pa.large_string()),
        (pa.date32(), pa.date32(), pa.date32()),
        (pa.uuid(), pa.binary(16), pa.binary(16)),
        (pa.int64(), pa.string(), None),
        (pa.date32(), pa.string(), None),
        (pa.decimal128(18, 0), pa.int64(), pa.decimal128(20, 0)),
        (pa.decimal32(5, 2), pa.decimal128(38, 0), pa.decimal256(40, 2)),
        (pa.float16(), pa.float32(), pa.float32()),
        (pa.list_(pa.int64()), pa.list_(pa.int64()), None),
    ],
)
def test_keys_of_different_types_are_compared_where_that_means_something(
    one: pa.DataType, other: pa.DataType, expected: pa.DataType | None
) -> None:
    assert common_type(one, other) == common_type(other, one) == expected
