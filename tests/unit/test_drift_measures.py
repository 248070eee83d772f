"""Each measure agrees with its definition elsewhere, and no bin can hide a shift or blow one up."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr

from scoring.drift.measures.bins import every_category
from scoring.drift.measures.distances import LEAST_SHARE, chi2, js, ks, psi
from scoring.drift.measures.figures import Figures, deciles, measure
from scoring.drift.measures.wasserstein import wasserstein
from tests.unit.drift_sides import named, normal, numbers, sides

counts = st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12)), max_size=30)
BILLION = 10**9


def drift(reference: pa.Array, current: pa.Array) -> float:
    _, before, now = deciles(*sides(reference, current))
    return psi(before, now)


def binned(reference: pa.Array, current: pa.Array) -> dict[str, tuple[int, int]]:
    labels, before, now = deciles(*sides(reference, current))
    assert len(set(labels)) == len(labels)
    return {label: (r, c) for label, r, c in zip(labels, before, now, strict=True) if r or c}


@given(counts)
def test_psi_is_the_kullback_leibler_divergence_both_ways(pairs):
    p = np.array([r for r, c in pairs if r or c]) + 0.5
    q = np.array([c for r, c in pairs if r or c]) + 0.5
    p, q = np.maximum(p / p.sum(), LEAST_SHARE), np.maximum(q / q.sum(), LEAST_SHARE)
    found = psi([r for r, _ in pairs], [c for _, c in pairs])

    if sum(r for r, _ in pairs) and sum(c for _, c in pairs):
        both_ways = np.sum(rel_entr(p, q) + rel_entr(q, p))
        assert found == pytest.approx(both_ways, rel=1e-9, abs=1e-12)
    else:
        assert found == 0.0


@given(counts)
def test_psi_is_symmetric_finite_and_never_negative(pairs):
    reference, current = [r for r, _ in pairs], [c for _, c in pairs]

    assert math.isfinite(psi(reference, current))
    assert psi(reference, current) >= 0.0
    assert psi(reference, current) == pytest.approx(psi(current, reference))
    assert psi(reference, reference) == 0.0


def test_psi_by_hand():
    # (0.75 - 0.25) * ln 3 + (0.25 - 0.75) * ln(1/3), with 0.5 added to each bin
    assert psi([1, 4], [4, 1]) == pytest.approx(2 * 0.5 * math.log(3))


def test_an_empty_bin_weighs_half_a_row():
    assert psi([50_000, 50_000, 0], [49_990, 49_990, 20]) < 0.002
    assert psi([10_000] * 10, [11_111] * 9 + [0]) < 1.5


def test_an_empty_bin_weighs_no_more_in_a_billion_rows_than_in_ten_thousand():
    """Half a row of a billion would be nothing again."""
    reference, current = [5_000, 5_000, 0], [4_950, 4_950, 100]
    million = 100_000

    grown = psi([r * million for r in reference], [c * million for c in current])

    assert psi(reference, current) == pytest.approx(0.045, abs=0.005)
    assert grown == pytest.approx(psi(reference, current), abs=0.002)


@given(counts)
def test_psi_has_a_greatest_value_whatever_the_rows(pairs):
    assert psi([r for r, _ in pairs], [c for _, c in pairs]) <= -2 * math.log(LEAST_SHARE)


def test_bins_empty_on_both_sides_add_nothing_however_uneven_the_totals():
    assert psi([10**6, 10**6, 0, 0], [50, 50, 0, 0]) == pytest.approx(0.0, abs=1e-12)


def test_deciles_hold_about_a_tenth_of_the_reference_each():
    values = pa.array(np.random.default_rng(0).normal(size=50_000))

    rows = [r for r, _ in binned(values, values).values()]

    assert len(rows) == 10
    assert all(4_500 < r < 5_500 for r in rows)


def test_the_same_distribution_does_not_drift():
    rng = np.random.default_rng(1)
    assert drift(pa.array(rng.normal(size=50_000)), pa.array(rng.normal(size=20_000))) < 0.005


def test_a_shift_of_half_a_deviation_agrees_with_theory():
    rng = np.random.default_rng(2)
    reference, current = rng.normal(size=200_000), rng.normal(0.5, size=200_000)

    # Both ways, the divergence of N(0.5, 1) and N(0, 1) is 0.5**2; ten bins lose a little of it.
    assert 0.22 < drift(pa.array(reference), pa.array(current)) < 0.25


def test_an_outlier_cannot_stretch_the_bins_until_a_shift_is_hidden():
    rng = np.random.default_rng(3)
    reference = np.append(rng.normal(size=20_000), 1e12)
    current = np.append(rng.normal(1.0, size=20_000), -1e12)

    assert drift(pa.array(reference), pa.array(current)) > 0.5


def test_nulls_have_their_own_bin_and_nan_shares_it():
    values = np.random.default_rng(4).normal(size=1_000)
    reference = pa.array([*values, None])
    current = pa.array([*values, *[None] * 300, *[math.nan] * 200])

    assert binned(reference, current)["(missing)"] == (1, 500)
    assert drift(reference, current) > 0.25


def test_values_outside_the_reference_s_range_have_their_own_bins():
    reference = pa.array([float(i) for i in range(1000)])
    current = pa.array([-1.0, -math.inf, 5.0, 1000.0, math.inf, 1e9])

    found = binned(reference, current)

    assert found["below 0"] == (0, 2)
    assert found["1000 or more"] == (0, 3)


def test_a_column_of_few_values_is_measured_value_by_value():
    reference = pa.array([0] * 700 + [1] * 299 + [7])
    current = pa.array([0] * 300 + [1] * 690 + [2] * 10)

    assert binned(reference, current) == {
        "[0, 1)": (700, 300),
        "[1, 7)": (299, 700),
        "[7, 8)": (1, 0),
    }


def test_a_constant_that_changes_is_severe():
    assert binned(pa.array([3.0] * 500), pa.array([4.0] * 500)) == {
        "3": (500, 0),
        "3 or more": (0, 500),
    }
    assert drift(pa.array([3.0] * 500), pa.array([4.0] * 500)) > 5


def test_values_in_a_column_that_was_always_missing_are_drift():
    reference = pa.nulls(500, pa.float64())

    assert binned(reference, pa.array([1.0] * 500)) == {
        "any value": (0, 500),
        "(missing)": (500, 0),
    }


def test_dates_are_labelled_as_dates():
    days = pa.array(range(20_000, 20_004), pa.int32()).cast(pa.date32())

    assert "[2024-10-04, 2024-10-05)" in binned(days, days)


def test_each_common_category_has_its_own_bin_and_a_new_one_is_seen():
    reference = pa.array(["a"] * 600 + ["b"] * 398 + [None] * 2)
    current = pa.array(["a"] * 500 + ["b"] * 200 + ["c"] * 300)

    assert binned(reference, current) == {
        "a": (600, 500),
        "b": (398, 200),
        "(new)": (0, 300),
        "(missing)": (2, 0),
    }


def test_categories_beyond_the_twenty_largest_share_a_bin():
    names = [f"c{i:02}" for i in range(30) for _ in range(100 - i)]

    found = binned(pa.array(names), pa.array(names[::2]))

    assert len(found) == 21
    assert found["(other)"][0] == sum(100 - i for i in range(20, 30))


def test_where_the_reference_could_not_name_all_an_unnamed_category_is_not_new():
    names = [f"plane {i}" for i in range(3000) for _ in range(3)]

    found = binned(pa.array(names), pa.array(names))

    assert "(new)" not in found
    assert drift(pa.array(names), pa.array(names)) == 0.0


def test_columns_counted_in_different_bins_are_not_compared():
    one, _ = sides(pa.array([1.0, 2.0]), pa.array([1.0]))
    two, _ = sides(pa.array([1.0, 5.0]), pa.array([1.0]))

    with pytest.raises(ValueError, match="'x' was not counted in the bins"):
        deciles(one, two)


def test_another_precision_of_a_saturated_classifier_is_no_drift() -> None:
    """Most of its scores lie within 1e-9 of 0 or 1, where float32 and int8 have one value."""
    logits = np.random.default_rng(6).normal(scale=15, size=20_000)
    exact = 1 / (1 + np.exp(-logits))
    moved = np.clip(exact + np.random.default_rng(7).normal(scale=0.002, size=20_000), 0, 1)
    shifted = 1 / (1 + np.exp(-(logits + 15)))

    def drift(scores: np.ndarray) -> float:
        _, *counts = deciles(*sides(exact, scores, "output"))
        return psi(*counts)

    assert drift(exact.astype(np.float32).astype(float)) < 0.01
    assert drift(moved) < 0.05
    assert drift(shifted) > 0.25


@given(counts)
def test_jensen_shannon_is_scipys(pairs):
    reference, current = [r for r, _ in pairs], [c for _, c in pairs]

    found = js(reference, current)

    assert 0 <= found <= math.sqrt(math.log(2)) + 1e-12
    if sum(reference) and sum(current):
        theirs = jensenshannon(reference, current)  # NaN: a root of what rounding made negative
        assert found**2 == pytest.approx(np.nan_to_num(theirs) ** 2, abs=1e-12)
    else:
        assert found == 0.0


@given(st.lists(st.tuples(st.integers(20, 10**6), st.integers(20, 10**6)), min_size=2, max_size=30))
def test_chi_square_is_scipys(pairs):
    table = np.array(pairs).T
    table[1] = np.maximum(20, table[1] * (table[0].sum() / table[1].sum())).astype(int)

    v, p = chi2(*table)
    test = stats.chi2_contingency(table, correction=False)

    assert p == pytest.approx(test.pvalue, rel=1e-6, abs=1e-300)
    if table[0].sum() == table[1].sum():
        assert v == pytest.approx(stats.contingency.association(table), rel=1e-6, abs=1e-9)
    assert 0 <= v <= 1


def test_cramers_v_of_samples_of_one_size_is_that_of_the_table():
    table = np.array([[300, 500, 200], [400, 350, 250]])

    assert chi2(*table)[0] == pytest.approx(stats.contingency.association(table), rel=1e-12)


def test_cramers_v_does_not_fall_when_the_reference_is_a_thousand_times_larger():
    even, larger = chi2([600, 400], [400, 600])[0], chi2([600_000, 400_000], [400, 600])[0]

    assert even == pytest.approx(0.2)
    assert larger == pytest.approx(even, rel=1e-9)


def test_bins_of_few_rows_are_pooled_before_they_are_tested():
    rare = [1, 0] * 20

    assert chi2([500, 500, *rare], [500, 500, *rare[::-1]]) == pytest.approx(
        chi2([500, 500, 20], [500, 500, 20])
    )
    assert chi2([3, 2], [2, 3]) == (0.0, 1.0)


@given(counts)
def test_chi_square_is_a_number_whatever_the_counts(pairs):
    v, p = chi2([r for r, _ in pairs], [c for _, c in pairs])

    assert 0 <= v <= 1
    assert 0 <= p <= 1


def test_kolmogorov_smirnov_by_hand():
    assert ks([5, 5, 0], [0, 5, 5]) == (0.5, 0.5)
    assert ks([10, 0], [0, 10]) == (1.0, 0.0)
    assert ks([4, 0, 6], [4, 0, 6], np.array([True, True, True])) == (0.0, 0.0)
    assert ks([0, 0], [1, 2]) is None


@given(counts)
def test_the_error_of_kolmogorov_smirnov_is_at_most_what_both_have_in_one_bin(pairs):
    reference, current = np.array(pairs, dtype=float).reshape(-1, 2).T
    found = ks(reference, current)

    if found is None:
        assert not (reference.sum() and current.sum())
    else:
        shared = np.minimum(reference / reference.sum(), current / current.sum())
        assert 0 <= found[0] <= 1
        assert 0 <= found[1] <= shared.max() + 1e-12


def test_kolmogorov_smirnov_counts_infinities_and_leaves_missing_values_out():
    values = np.random.default_rng(8).normal(size=1_000)
    found = measure(*sides(values, np.append(values, [math.inf] * 500 + [math.nan] * 300)))

    assert found.ks == pytest.approx(1 / 3, abs=1e-3)
    assert found.missing_change == pytest.approx(300 / 1_800)


def test_a_column_of_few_whole_numbers_is_measured_without_error():
    rng = np.random.default_rng(9)
    flags = [(rng.random(5_000) < share).astype(float) for share in (0.3, 0.4)]

    found = measure(*sides(*flags))

    assert found.ks_error == 0.0
    assert found.ks == pytest.approx(abs(flags[0].mean() - flags[1].mean()), abs=1e-12)
    assert wasserstein(*sides(*flags)).error == 0.0


def test_wasserstein_of_a_shift_is_its_length_in_standard_deviations():
    values = np.random.default_rng(10).normal(100, 7, size=20_000)

    assert measure(*sides(values, values + 3.5)).wasserstein == pytest.approx(0.5, abs=0.01)
    assert measure(*sides(values, values)).wasserstein == 0.0


def test_wasserstein_of_a_constant_is_the_share_of_rows_that_left_it():
    assert measure(*sides([3.0] * 500, [3.0] * 400 + [4.0] * 100)).wasserstein == pytest.approx(0.2)
    assert measure(*sides([3.0] * 500, [1e300] * 500)).wasserstein == 1.0
    assert measure(*sides([3.0], [4.0])).wasserstein == 1.0


def test_a_column_that_moved_out_of_reach_counts_as_moved_to_the_limit():
    reference = np.random.default_rng(11).normal(size=20_000)

    near, far = (measure(*sides(reference, reference + shift)).wasserstein for shift in (50, 1e9))

    assert 4 < near <= far < 9


MOVED = ("psi", "ks", "wasserstein", "js", "cramers_v")
"""The figures that can lead."""


def value(found: Figures, name: str) -> float:
    return getattr(found, name)


@pytest.mark.parametrize("name", MOVED)
@pytest.mark.parametrize("side", ["reference", "current"])
@pytest.mark.parametrize("rows", [100, 20_000])
def test_a_single_outlier_neither_hides_a_shift_nor_makes_one(name, side, rows):
    rng = np.random.default_rng(12)
    reference, shifted = rng.normal(size=rows), rng.normal(1.0, size=rows)
    clean = value(measure(*numbers(reference, shifted)), name)
    still = value(measure(*numbers(reference, reference)), name)

    def with_outlier(current: np.ndarray, outlier: float) -> float:
        if side == "reference":
            return value(measure(*numbers(np.append(reference, outlier), current)), name)
        return value(measure(*numbers(reference, np.append(current, outlier))), name)

    for outlier in (1e12, -1e300):
        assert with_outlier(shifted, outlier) > 0.6 * clean
        assert with_outlier(reference, outlier) - still < 0.1


@pytest.mark.parametrize("name", ["psi", "js", "cramers_v"])
def test_an_empty_bin_does_not_explode(name):
    letters = [f"c{i}" for i in range(10)]
    reference = named(dict.fromkeys(letters, BILLION), letters)
    lost = named(dict.fromkeys(letters[:-1], BILLION), letters)
    stray = named({**dict.fromkeys(letters, BILLION), "new": 10_000_000}, letters)

    assert value(measure(reference, lost), name) < 1
    assert value(measure(lost, reference), name) < 1
    assert value(measure(reference, stray), name) < 0.05


@pytest.mark.parametrize("name", MOVED)
def test_a_billion_rows_make_no_drift_of_a_thousandth(name):
    for current in (normal(BILLION, mean=0.001), normal(BILLION, missing=0.001)):
        found = measure(normal(BILLION), current)

        assert value(found, name) < 0.05
        assert found.chi2_p < 1e-12  # significant beyond doubt, and of no consequence


def test_what_is_missing_and_what_is_new_are_told_apart():
    reference = named({"a": 600, "b": 400}, ["a", "b"])
    current = named({"a": 300, "b": 200, "c": 100}, ["a", "b"], nulls=400)

    found = measure(reference, current)

    assert found.missing_change == pytest.approx(0.4)
    assert found.new_share == pytest.approx(0.1)
    assert (found.ks, found.ks_p, found.wasserstein) == (None, None, None)


def test_a_new_category_cannot_be_told_where_the_reference_could_not_name_all():
    names = [f"plane {i}" for i in range(1_500) for _ in range(9)]

    assert measure(*sides(names, names)).new_share is None


def test_two_samples_of_a_long_list_of_rare_names_look_alike():
    rng = np.random.default_rng(13)
    names = np.array([f"shop {i}" for i in range(400)])
    reference, current = rng.choice(names, 600), rng.choice(names, 600)

    found = measure(named(*_counted(reference)), named(*_counted(current, reference)))

    assert found.js == pytest.approx(found.js_chance, rel=0.1)
    assert found.chi2_p > 0.05


def _counted(values: np.ndarray, known: np.ndarray | None = None) -> tuple[dict[str, int], list]:
    found, rows = np.unique(values, return_counts=True)
    names = found if known is None else np.unique(known)
    return dict(zip(found.tolist(), rows.tolist(), strict=True)), names.tolist()


def test_every_category_has_a_place_and_every_row_is_counted_once():
    reference = named({"a": 5, "b": 3}, ["a", "b"], nulls=2)
    current = named({"b": 1, "c": 7}, ["a", "b"], nulls=1)

    assert every_category(reference, current) == ([5, 3, 0, 0, 2], [0, 1, 7, 0, 1])


columns = st.lists(
    st.one_of(st.floats(), st.none(), st.sampled_from([0.0, 1.0, -1e300, 1e300, 5e-324])),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(columns, columns)
def test_no_figure_is_ever_not_a_number_or_negative(reference, current):
    found = measure(*sides(pa.array(reference, pa.float64()), pa.array(current, pa.float64())))

    for name, figure in asdict(found).items():
        assert figure is None or math.isfinite(figure), name
        assert figure is None or figure >= 0 or name == "missing_change", name


def test_no_rows_are_no_drift():
    empty = pa.array([], pa.float64())
    for reference, current in ((empty, empty), (empty, pa.array([1.0])), (pa.array([1.0]), empty)):
        found = measure(*sides(reference, current))

        assert (found.psi, found.js, found.cramers_v, found.chi2_p) == (0.0, 0.0, 0.0, 1.0)
        assert (found.ks, found.ks_p, found.wasserstein) == (None, None, None)


def test_columns_of_different_kinds_are_not_measured():
    number, category = sides([1.0], [1.0])[0], named({"a": 1}, ["a"])

    with pytest.raises(ValueError, match="'x' was not counted in the bins"):
        measure(number, category)
