"""Figures read off the bins agree with scipy on the raw values, within the errors they state, and
with Evidently where it means the same."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from scoring.drift.measures.figures import measure
from scoring.drift.measures.significance import ks_p
from scoring.drift.measures.wasserstein import wasserstein
from tests.unit.drift_sides import numbers, sides
from tests.unit.evidently_values import RECORDED, datasets, digest

SHAPES = {
    "normal": lambda rng, rows: rng.normal(size=rows),
    "uniform": lambda rng, rows: rng.random(rows),
    "lognormal": lambda rng, rows: rng.lognormal(sigma=1.5, size=rows),
    "heavy tails": lambda rng, rows: rng.standard_t(2, size=rows),
    "no mean at all": lambda rng, rows: rng.standard_cauchy(rows),
    "counts": lambda rng, rows: rng.poisson(3, rows).astype(float),
    "prices": lambda rng, rows: rng.choice([0.99, 9.99, 19.99, 249.0], rows),
    "ties": lambda rng, rows: rng.normal(size=rows).round(1),
    "flag": lambda rng, rows: (rng.random(rows) < 0.05).astype(float),
    "zero-inflated": lambda rng, rows: rng.lognormal(size=rows) * (rng.random(rows) < 0.2),
    "constant": lambda rng, rows: np.full(rows, 3.0),
    "saturated": lambda rng, rows: 1 / (1 + np.exp(-rng.normal(scale=20, size=rows))),
}
ROUNDING = 1e-9

shapes = st.sampled_from(sorted(SHAPES))
sizes = st.sampled_from([1, 2, 3, 7, 60, 400, 3_000])
shifts = st.sampled_from([0.0, 0.01, 0.5, 3.0, 1e6])
scales = st.sampled_from([1e-6, 0.7, 1.0, 1.0, 4.0])


@pytest.mark.filterwarnings("ignore:divide by zero")  # scipy's p-value of one row on each side
@settings(max_examples=200, deadline=None)
@given(shapes, shapes, sizes, sizes, shifts, scales, st.integers(0, 2**32 - 1))
@example("normal", "normal", 3_000, 3_000, 0.5, 1.0, 0)
@example("lognormal", "zero-inflated", 3_000, 400, 0.0, 4.0, 0)
def test_binned_distances_are_those_of_the_raw_values_within_their_errors(
    shape, other, rows, current_rows, shift, scale, seed
):
    rng = np.random.default_rng(seed)
    reference = SHAPES[shape](rng, rows)
    current = SHAPES[other](rng, current_rows) * scale + shift

    both = numbers(reference, current)

    found = measure(*both)
    distance = stats.ks_2samp(reference, current, method="asymp").statistic
    assert found.ks - ROUNDING <= distance <= found.ks + found.ks_error + ROUNDING
    check_wasserstein(both, reference, current)


def check_wasserstein(both: Any, reference: np.ndarray, current: np.ndarray) -> None:
    """Against scipy's distance of the winsorised raw values; exact where a side has one value."""
    found = wasserstein(*both)
    reference, current = (np.clip(side, found.low, found.high) for side in (reference, current))
    if np.isfinite(found.low):
        exact = stats.wasserstein_distance(reference, current) / np.std(reference)
        assert exact == pytest.approx(found.value, abs=found.error + ROUNDING * (1 + found.value))


def test_with_256_bins_the_errors_are_small():
    rng = np.random.default_rng(1)
    reference, current = rng.normal(size=20_000), rng.normal(0.5, 1.1, size=20_000)

    both = sides(reference, current)

    found, travelled = measure(*both), wasserstein(*both)
    assert found.ks_error < 0.005
    assert found.ks == pytest.approx(stats.ks_2samp(reference, current).statistic, abs=0.001)
    assert travelled.error < 0.06
    exact = stats.wasserstein_distance(reference, current) / reference.std()
    assert travelled.value == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("rows", [60, 400, 3_000])
def test_a_small_chance_is_never_understated(rows):
    rng = np.random.default_rng(2)
    shifts = rng.uniform(0, 6 / np.sqrt(rows), size=100)

    for shift in shifts:
        reference, current = rng.normal(size=rows), rng.normal(shift, size=rows)
        exact = stats.ks_2samp(reference, current).pvalue
        if exact < 0.05:
            assert measure(*numbers(reference, current)).ks_p >= exact * (1 - ROUNDING)


RECORDINGS = json.loads(RECORDED.read_text(encoding="utf-8"))["values"]


@pytest.fixture(scope="module")
def compared() -> dict[str, tuple[Any, Any, np.ndarray, np.ndarray]]:
    """Figures, Wasserstein's and the values of each data set that was recorded."""
    found = {}
    for name, _, reference, current in datasets():
        assert digest(reference, current) == RECORDINGS[name]["data"], "other data: record again"
        both = sides(reference, current)
        travelled = wasserstein(*both) if reference.dtype.kind == "f" else None
        found[name] = measure(*both), travelled, reference, current
    return found


def recorded(method: str) -> list[str]:
    return [name for name, found in RECORDINGS.items() if method in found]


@pytest.mark.parametrize("name", recorded("ks"))
def test_the_chance_by_kolmogorov_and_smirnov_is_evidentlys_within_the_grids_error(compared, name):
    """Evidently's is exact below 10,000 rows; ours is the limit for large samples."""
    found, _, reference, current = compared[name]
    least = ks_p(found.ks + found.ks_error, len(reference), len(current))
    evidently = RECORDINGS[name]["ks"]

    assert 0.8 * least**1.01 <= evidently <= found.ks_p


@pytest.mark.parametrize("name", recorded("wasserstein"))
def test_the_wasserstein_distance_is_evidentlys_within_its_error(compared, name):
    _, travelled, reference, _ = compared[name]
    evidently = RECORDINGS[name]["wasserstein"]

    assert travelled.low <= reference.min()
    assert reference.max() <= travelled.high
    assert abs(travelled.value - evidently) <= min(0.002, travelled.error + ROUNDING)


@pytest.mark.parametrize("name", recorded("jensenshannon"))
def test_the_jensen_shannon_distance_is_evidentlys(compared, name):
    assert compared[name][0].js == pytest.approx(RECORDINGS[name]["jensenshannon"], rel=1e-9)


@pytest.mark.parametrize("name", recorded("chisquare"))
def test_the_chance_by_chi_square_is_evidentlys_for_a_large_reference(compared, name):
    """Evidently takes the reference's shares for the truth; ours allows for its sample too."""
    evidently = RECORDINGS[name]["chisquare"]

    assert evidently <= compared[name][0].chi2_p <= evidently * 1.1


@pytest.mark.parametrize("name", ["categories", "flag"])
def test_psi_is_evidentlys_where_each_value_has_a_bin(compared, name):
    """The rest is smoothing: half a row a bin here, nothing for a bin with rows there."""
    assert compared[name][0].psi == pytest.approx(RECORDINGS[name]["psi"], abs=5e-4)
