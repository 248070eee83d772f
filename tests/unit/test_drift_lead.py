"""Large runs are judged by how far columns moved, small ones only where chance is ruled out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scoring.drift.measures.figures import measure
from scoring.drift.measures.lead import SMALL_ROWS, Judged, Measurement, Tiers, judge
from scoring.drift.measures.significance import false_discovery
from scoring.drift.profile.edges import quantile_edges
from tests.unit.drift_sides import categories, counted, named, normal, numbers

TIERS = Tiers(small=0.10, moderate=0.15, severe=0.25)
MEASURES = ["psi", "ks", "wasserstein", "js", "chi2"]
BILLION = 10**9
LETTERS = np.array([f"c{i:03}" for i in range(256)])


def measurement(sides: tuple[Any, Any]) -> Measurement:
    reference, current = sides
    return Measurement(
        figures=measure(reference, current),
        kind=current.frame.kind,
        aspect=current.frame.aspect,
        reference_rows=reference.rows,
        current_rows=current.rows,
    )


def judged(*columns: tuple[Any, Any], by: Any = "auto") -> list[Judged]:
    return judge([measurement(column) for column in columns], by, TIERS)


def normals(rng: np.random.Generator, rows: int, shift: float = 0.0) -> tuple[Any, Any]:
    return numbers(rng.normal(size=rows), rng.normal(shift, size=rows))


def letters(rng: np.random.Generator, count: int, rows: int, aspect: Any = "") -> tuple[Any, Any]:
    """Categories of which the first is the commonest, as words are (Zipf)."""
    share = 1 / np.arange(1, count + 1)
    drawn = (rng.choice(LETTERS[:count], rows, p=share / share.sum()) for _ in range(2))
    reference, current = categories(*drawn)
    return tuple(replace(s, frame=replace(s.frame, aspect=aspect)) for s in (reference, current))


@pytest.mark.parametrize(
    ("value", "tier"),
    [(0.0, "none"), (0.0999, "none"), (0.1, "small"), (0.15, "moderate"), (0.25, "severe")],
)
def test_a_threshold_belongs_to_the_tier_that_it_opens(value, tier):
    assert TIERS.severity(value) == tier


def test_a_number_of_many_rows_is_led_by_psi():
    (found,) = judged((normal(100_000), normal(50_000, mean=0.5)))

    assert (found.measure, found.test, found.q, found.severity) == ("psi", None, None, "moderate")
    assert found.value == measure(normal(100_000), normal(50_000, mean=0.5)).psi


def test_few_categories_are_led_by_psi_and_many_by_jensen_shannon():
    rng = np.random.default_rng(0)

    few, many = judged(letters(rng, 20, 50_000), letters(rng, 21, 50_000))

    assert (few.measure, many.measure) == ("psi", "js")


def test_words_are_led_by_jensen_shannon():
    (found,) = judged(letters(np.random.default_rng(1), 5, 50_000, aspect="tokens"))

    assert found.measure == "js"


def test_few_rows_are_asked_about_chance_first():
    rng = np.random.default_rng(2)

    number, category = judged(normals(rng, 300), letters(rng, 5, 300))

    assert (number.test, number.measure) == ("ks", "psi")
    assert (category.test, category.measure) == ("chi2", "psi")
    assert number.q is not None
    assert category.q is not None


@pytest.mark.parametrize(("rows", "asked"), [(SMALL_ROWS, True), (SMALL_ROWS + 1, False)])
def test_the_lesser_side_decides_whether_rows_are_few(rows, asked):
    for sides in ((normal(rows), normal(BILLION)), (normal(BILLION), normal(rows))):
        (found,) = judged(sides)
        assert (found.q is not None) == asked


def test_many_categories_need_more_rows_before_chance_is_no_question():
    rng = np.random.default_rng(3)

    small, large = judged(letters(rng, 100, 4_000), letters(rng, 100, 6_000))

    assert small.q is not None
    assert large.q is None


def test_what_chance_accounts_for_has_a_value_of_zero():
    (found,) = judged(normals(np.random.default_rng(4), 50))

    assert found.q > 0.05
    assert (found.value, found.severity) == (0.0, "none")


def test_a_value_of_few_rows_is_less_what_chance_adds_to_it():
    column = measurement(normals(np.random.default_rng(5), 300, shift=1.0))

    (found,) = judge([column], "auto", TIERS)

    assert found.value == pytest.approx(column.figures.psi - 9 * 2 / 300, abs=0.03)


def test_missing_values_are_seen_in_small_runs_too():
    (found,) = judged((normal(800), normal(800, missing=0.4)))

    assert found.severity == "severe"


def test_a_column_that_lost_all_values_has_drifted():
    (found,) = judged((normal(800), normal(800, missing=1.0)))

    assert found.severity == "severe"


def test_a_few_rows_of_a_kind_that_a_large_reference_lacks_are_seen():
    """Chi-square would have to pool them: it expects but one."""
    rng = np.random.default_rng(9)
    known = {f"c{i}": 1_000 for i in range(5)}
    new = named({**dict.fromkeys(known, 56), "new": 20}, list(known))
    still = [normals(rng, 300) for _ in range(18)]

    missing, category, *_ = judged(
        (normal(5_000), normal(300, missing=0.07)), (named(known, list(known)), new), *still
    )

    assert missing.severity != "none"
    assert category.severity != "none"


@given(st.lists(st.floats(0, 1), max_size=50))
def test_the_false_discovery_rate_is_scipys(chances):
    expected = stats.false_discovery_control(chances) if chances else []

    assert false_discovery(chances) == pytest.approx(list(expected))


@pytest.mark.parametrize(("rows", "larger"), [(50, 1), (100, 1), (300, 1), (300, 10)])
def test_small_runs_without_a_shift_seldom_raise_an_alarm(rows, larger):
    """Twenty columns, forty runs; plain PSI calls drift in almost every one of them."""
    rng = np.random.default_rng(rows)
    runs = [
        [measurement(column) for column in _unmoved(rng, rows * larger, rows)] for _ in range(40)
    ]

    alarms = sum(any(j.severity != "none" for j in judge(run, "auto", TIERS)) for run in runs)
    plain = sum(any(column.figures.psi >= TIERS.small for column in run) for run in runs)

    assert alarms <= 4  # one in twenty, and as many again for so few runs
    assert plain > 30


def _unmoved(rng: np.random.Generator, reference_rows: int, rows: int) -> list[tuple[Any, Any]]:
    sizes = (reference_rows, rows)
    return [
        *(numbers(*(rng.normal(size=size) for size in sizes)) for _ in range(6)),
        *(numbers(*(rng.lognormal(size=size) for size in sizes)) for _ in range(3)),
        *(numbers(*(rng.poisson(2, size).astype(float) for size in sizes)) for _ in range(3)),
        *(categories(*(rng.choice(LETTERS[:6], size) for size in sizes)) for _ in range(4)),
        *(categories(*(_rare(rng, size) for size in sizes)) for _ in range(4)),
    ]


def _rare(rng: np.random.Generator, rows: int) -> np.ndarray:
    share = 1 / np.arange(1, len(LETTERS) + 1)
    return rng.choice(LETTERS, rows, p=share / share.sum())


@pytest.mark.parametrize(
    ("rows", "shift", "found"), [(50, 1.0, 20), (300, 0.5, 27), (300, 1.0, 30)]
)
def test_a_real_shift_is_found_in_small_runs(rows, shift, found):
    """One of twenty columns, in at least so many of thirty runs."""
    rng = np.random.default_rng(rows)
    still = [measurement(normals(rng, rows)) for _ in range(60)]
    moved = 0
    for _ in range(30):
        others = [still[i] for i in rng.choice(60, 19, replace=False)]
        column, *_ = judge([measurement(normals(rng, rows, shift)), *others], "auto", TIERS)
        moved += column.severity != "none"

    assert moved >= found


def test_a_shift_within_a_normal_week_is_not_lost_in_a_large_reference():
    rng = np.random.default_rng(6)
    edges = quantile_edges(rng.normal(size=50_000), 256)
    reference = counted(rng.normal(size=50_000), edges)

    (found,) = judged((reference, counted(rng.normal(0.7, size=200), edges)))

    assert found.severity == "severe"


@pytest.mark.parametrize("by", ["auto", *MEASURES])
def test_a_billion_rows_do_not_make_a_thousandth_a_drift(by):
    known = dict.fromkeys(LETTERS.tolist(), BILLION // 256)
    moved = {**known, "c000": known["c000"] + BILLION // 1000, "c001": BILLION // 400 - 1}
    few = {"a": BILLION // 2, "b": BILLION // 2}
    columns = [
        (normal(BILLION), normal(BILLION, mean=0.001)),
        (normal(BILLION), normal(BILLION, missing=0.001)),
        (named(few, ["a", "b"]), named({**few, "new": BILLION // 1000}, ["a", "b"])),
        (named(known, list(known)), named(moved, list(known))),
        (named(known, list(known), aspect="tokens"), named(moved, list(known), aspect="tokens")),
    ]

    assert {found.severity for found in judged(*columns, by=by)} == {"none"}


@pytest.mark.parametrize("by", ["auto", *MEASURES])
@pytest.mark.parametrize("rows", [300, 20_000])
def test_an_outlier_neither_hides_a_shift_nor_makes_one(by, rows):
    rng = np.random.default_rng(7)
    reference, same, shifted = (
        rng.normal(size=rows),
        rng.normal(size=rows),
        rng.normal(1, size=rows),
    )

    for outlier in (1e12, -1e300, math.inf):
        (still,) = judged(_sides(reference, same, outlier, None), by=by)
        assert still.severity in ("none", judged(_sides(reference, same), by=by)[0].severity)
        for ours, theirs in ((outlier, None), (None, outlier), (outlier, -outlier)):
            (found,) = judged(_sides(reference, shifted, ours, theirs), by=by)
            assert found.severity == "severe"


def _sides(
    reference: np.ndarray,
    current: np.ndarray,
    ours: float | None = None,
    theirs: float | None = None,
) -> tuple[Any, Any]:
    """Both sides, an outlier (or an infinity) added to the reference and to the current."""

    def added(values: np.ndarray, outlier: float | None) -> np.ndarray:
        finite = outlier is not None and math.isfinite(outlier)
        return np.append(values, outlier) if finite else values

    def infinite(side: Any, outlier: float | None) -> Any:
        if outlier is None or math.isfinite(outlier):
            return side
        above = outlier > 0
        return replace(
            side,
            rows=side.rows + 1,
            positive_infinities=int(above),
            negative_infinities=int(not above),
        )

    both = numbers(added(reference, ours), added(current, theirs))
    return infinite(both[0], ours), infinite(both[1], theirs)


@pytest.mark.parametrize("by", ["auto", *MEASURES])
def test_an_empty_bin_does_not_explode_whatever_leads(by):
    """A value in a thousand of which the reference has none, in samples of any size."""
    for rows in (2_000, 2_000_000, 2 * BILLION):
        reference = named({"a": rows // 2, "b": rows // 2}, ["a", "b"])
        current = named({"a": rows // 2, "b": rows // 2, "c": rows // 1000}, ["a", "b"])

        (found,) = judged((reference, current), by=by)

        assert found.severity == "none"


@pytest.mark.parametrize(
    ("by", "figure"),
    [
        ("psi", "psi"),
        ("ks", "ks"),
        ("wasserstein", "wasserstein"),
        ("js", "js"),
        ("chi2", "cramers_v"),
    ],
)
def test_a_measure_that_is_named_leads_whatever_the_size(by, figure):
    for rows in (100, 100_000):
        column = (normal(rows), normal(rows, mean=0.4))

        (found,) = judged(column, by=by)

        assert (found.measure, found.q, found.test) == (by, None, None)
        assert found.value == getattr(measure(*column), figure)
        assert found.severity == TIERS.severity(found.value)


@pytest.mark.parametrize("by", ["ks", "wasserstein"])
def test_psi_stands_in_for_a_distance_of_numbers(by):
    category = (named({"a": 5_000}, ["a"]), named({"a": 3_000, "b": 2_000}, ["a"]))
    empty = (normal(5_000), normal(5_000, missing=1.0))

    for found in judged(category, empty, by=by):
        assert (found.measure, found.severity) == ("psi", "severe")


def test_the_columns_of_a_run_keep_their_order():
    rng = np.random.default_rng(8)
    columns = [normals(rng, rows, shift) for rows, shift in ((300, 0), (5_000, 0.5), (300, 2))]

    assert [found.severity for found in judged(*columns)] == ["none", "moderate", "severe"]
    assert judged() == []
