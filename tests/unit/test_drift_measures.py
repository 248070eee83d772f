"""PSI agrees with its definition elsewhere, and no bin can hide a shift or blow one up."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from scoring.drift.frame import frames_for
from scoring.drift.measures import deciles, psi, severity
from scoring.drift.profile import Profiler, reference_from

counts = st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12)), max_size=30)


def sides(reference: pa.Array, current: pa.Array):
    """Both columns' profiles, the second counted in the bins of the first."""
    columns = [("x", "feature", reference.type)]
    framing = reference_from(lambda: [{"x": reference}], columns)
    profiler = Profiler(frames_for(framing, columns, {}))
    profiler.add({"x": current})
    return framing.columns[0], profiler.profile().columns[0]


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
    found = psi([r for r, _ in pairs], [c for _, c in pairs])

    if sum(r for r, _ in pairs) and sum(c for _, c in pairs):
        assert found == pytest.approx(entropy(p, q) + entropy(q, p), rel=1e-9, abs=1e-12)
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


def test_bins_empty_on_both_sides_add_nothing_however_uneven_the_totals():
    assert psi([10**6, 10**6, 0, 0], [50, 50, 0, 0]) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("value", "tier"),
    [(0.0, "none"), (0.0999, "none"), (0.1, "small"), (0.15, "moderate"), (0.25, "severe")],
)
def test_a_threshold_belongs_to_the_tier_that_it_opens(value, tier):
    assert severity(value, 0.1, 0.15, 0.25) == tier


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
    columns = [("score", "output", pa.float64())]
    reference = reference_from(lambda: [{"score": pa.array(exact)}], columns)

    def drift(scores: np.ndarray) -> float:
        profiler = Profiler(frames_for(reference, columns, {}))
        profiler.add({"score": pa.array(scores)})
        (before,), (now,) = reference.columns, profiler.profile().columns
        _, *counts = deciles(before, now)
        return psi(*counts)

    assert drift(exact.astype(np.float32).astype(float)) < 0.01
    assert drift(moved) < 0.05
    assert drift(shifted) > 0.25
