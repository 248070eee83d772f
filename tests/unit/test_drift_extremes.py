"""Whatever numbers a column holds, it can be profiled, written, read and measured."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scoring.drift.measures.figures import measure
from scoring.drift.profile.frame import ColumnFrame, frames_for
from scoring.drift.profile.moments import Moments
from scoring.drift.profile.number_profile import NumberProfile
from scoring.drift.profile.profile import Profile, Profiler, reference_from
from scoring.drift.report import compare
from scoring.job import Drift

GREATEST, LEAST = float(np.finfo(np.float64).max), 5e-324
ENDS = [GREATEST, -GREATEST, 1e308, -1e308, LEAST, -LEAST, 0.0, -0.0, math.inf, -math.inf, math.nan]
values = st.one_of(st.none(), st.sampled_from(ENDS), st.floats(), st.floats(-10, 10))
columns = st.one_of(
    st.lists(values, max_size=30),
    st.lists(st.sampled_from(ENDS), max_size=8),
    st.builds(lambda value, rows: [value] * rows, values, st.integers(0, 60)),
)
SPREAD = [-GREATEST] * 9 + [GREATEST] * 9


def profile(reference: Profile | None, found: list[float | None], role: Any) -> Profile:
    profiler = Profiler(frames_for(reference, [("x", role, pa.float64())], {}))
    profiler.add({"x": pa.array(found, pa.float64())}, role)
    return profiler.profile()


@settings(deadline=None)  # scipy is loaded at its first use
@given(columns, columns, st.sampled_from(["feature", "output"]), st.booleans())
@example([math.inf, 1e308], [1e308], "feature", False)
@example([GREATEST], [-GREATEST], "feature", True)
@example(SPREAD, [0.0], "output", True)
@example([LEAST, -3.4e38], [GREATEST], "feature", False)
def test_any_numbers_can_be_measured_and_no_figure_is_nan(before, now, role, sampled):
    if sampled:
        batch = {"x": pa.array(before, pa.float64())}
        reference = reference_from(lambda: [batch], [("x", role, pa.float64())])
    else:
        reference = profile(None, before, role).as_reference()
    current = profile(reference, now, role)

    assert Profile.from_json(reference.to_json()) == reference
    assert Profile.from_json(current.to_json()) == current
    for column in current.columns:
        known = reference.column(column.frame.name, role)
        if known is not None:
            figures = asdict(measure(known, column))
            assert all(math.isfinite(figure) for figure in figures.values() if figure is not None)
    json.dumps(compare(reference, current, Drift()).to_dict(), allow_nan=False)


def test_a_reference_without_a_finite_edge_has_no_distance_to_measure():
    frame = ColumnFrame(name="x", role="output", kind="number", edges=(-math.inf, math.inf))
    moments = Moments(count=2, mean=0.0, m2=math.inf, minimum=-1e308, maximum=1e308)
    side = NumberProfile(frame=frame, rows=2, moments=moments, counts={1: 2})

    found = measure(side, side)

    assert (found.wasserstein, found.psi, found.ks) == (None, 0.0, 0.0)


def test_edges_of_outputs_that_span_more_than_a_float_holds_stay_apart():
    batch = {"x": pa.array(SPREAD)}

    reference = reference_from(lambda: [batch], [("x", "output", pa.float64())])

    column = reference.column("x", "output")
    assert column is not None
    edges = column.frame.edges
    assert edges is not None
    assert edges[0] == pytest.approx(-GREATEST)
    assert column.counts == {1: 9, 2: 9}
