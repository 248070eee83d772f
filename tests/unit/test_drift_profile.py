"""Profiles count every row exactly, and parts merge into the whole."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.drift.profile.columns import NAMED, CategoryProfile, NumberProfile
from scoring.drift.profile.frame import ColumnFrame, frames_for
from scoring.drift.profile.moments import Moments
from scoring.drift.profile.profile import Profile, Profiler, reference_from

SMALLEST = 5e-324
"""The least double above 0: squares among such numbers round by it."""
EDGES = (-2.5, -1.0, 0.0, 0.1, 0.5, 3.0, 1e6)
FRAMED = ColumnFrame(name="x", role="feature", kind="number", edges=EDGES)
OPEN = ColumnFrame(name="x", role="feature", kind="number")
OPEN_AT_TWO = ColumnFrame(name="x", role="feature", kind="number", origin=2.0)
NAMES = ColumnFrame(name="x", role="feature", kind="category")

doubles = st.floats(width=64) | st.sampled_from([*EDGES, 0.0, -0.0, math.nan, math.inf, 2.0])
numbers = st.lists(st.none() | doubles, max_size=60)


def profile(frame: ColumnFrame, *batches: pa.Array) -> NumberProfile | CategoryProfile:
    profiler = Profiler([frame])
    for batch in batches:
        profiler.add({frame.name: batch})
    return profiler.profile().columns[0]


def assert_same(one: Profile, two: Profile) -> None:
    """Equal, but for the rounding of mean and m2."""
    assert one.skipped == two.skipped
    for left, right in zip(one.columns, two.columns, strict=True):
        if isinstance(left, CategoryProfile) or left.moments is None:
            assert left == right
            continue
        assert isinstance(right, NumberProfile)
        assert right.moments is not None
        assert (left.rows, left.nulls, left.nans) == (right.rows, right.nulls, right.nans)
        assert (left.counts, left.frame) == (right.counts, right.frame)
        a, b = left.moments, right.moments
        assert (a.count, a.minimum, a.maximum) == (b.count, b.minimum, b.maximum)
        scale = max(abs(a.minimum), abs(a.maximum))
        assert a.mean == pytest.approx(b.mean, rel=1e-12, abs=1e-12 * scale)
        with np.errstate(over="ignore"):
            most = a.count * np.float64(scale) ** 2
        too_large = not np.isfinite(most) and math.inf in (a.m2, b.m2)
        assert too_large or a.m2 == pytest.approx(b.m2, rel=1e-9, abs=8 * a.count * SMALLEST)


@given(values=numbers, cuts=st.lists(st.integers(0, 60), max_size=5), seed=st.randoms())
@pytest.mark.parametrize("frame", [FRAMED, OPEN, OPEN_AT_TWO], ids=["edges", "grid", "origin"])
def test_profiles_of_any_split_in_any_order_merge_into_the_whole(frame, values, cuts, seed):
    array = pa.array(values, pa.float64())
    bounds = sorted({0, len(array), *(min(cut, len(array)) for cut in cuts)})
    parts = []
    for low, high in pairwise(bounds):
        profiler = Profiler([frame])
        profiler.add({"x": array[low:high]})
        parts.append(profiler.profile())
    seed.shuffle(parts)
    whole = Profiler([frame])
    whole.add({"x": array})

    assert_same(Profile.merged([*parts, Profiler([frame]).profile()]), whole.profile())


@given(st.lists(numbers, min_size=3, max_size=3))
def test_merging_commutes_to_the_last_bit_and_associates(three):
    a, b, c = (
        Profile(columns=(profile(OPEN, pa.array(values, pa.float64())),)) for values in three
    )

    assert a.merge(b) == b.merge(a)
    assert_same(a.merge(b).merge(c), a.merge(b.merge(c)))


@given(values=numbers)
@pytest.mark.parametrize("dtype", [pa.float64(), pa.float32(), pa.float16()], ids=str)
def test_every_float_is_in_the_bin_that_exact_comparison_gives(dtype, values):
    with np.errstate(over="ignore"):
        cast = [
            None if value is None else float(dtype.to_pandas_dtype()(value)) for value in values
        ]
    finite = [value for value in cast if value is not None and math.isfinite(value)]

    found = profile(FRAMED, pa.array(values, pa.float64()).cast(dtype))

    assert found.counts == Counter(bisect_right(EDGES, value) for value in finite)
    assert found.nulls == cast.count(None)
    assert found.nans == sum(value is not None and math.isnan(value) for value in cast)
    assert found.positive_infinities == cast.count(math.inf)
    assert found.negative_infinities == cast.count(-math.inf)
    assert found.rows == len(values)


@given(data=st.data())
@pytest.mark.parametrize(
    "dtype",
    ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"],
)
def test_every_integer_is_in_the_bin_that_exact_comparison_gives(dtype, data):
    limits = np.iinfo(dtype)
    whole = st.integers(int(limits.min), int(limits.max))
    near = st.integers(max(int(limits.min), -4), 4)
    values = data.draw(st.lists(whole, max_size=20) | st.lists(near, max_size=20))
    edges = tuple(sorted(set(data.draw(st.lists(st.floats(allow_nan=False), max_size=9)))))
    edges = tuple(sorted({*edges, *(float(v) for v in values[:3])}))  # 2**64 - 1 is no float

    found = profile(
        ColumnFrame(name="x", role="feature", kind="number", edges=edges), pa.array(values, dtype)
    )

    assert found.counts == Counter(bisect_right(edges, value) for value in values)


def test_a_double_that_rounds_onto_an_edge_as_float32_is_still_on_its_own_side():
    below, above = math.nextafter(0.1, 0), math.nextafter(0.1, 1)

    found = profile(FRAMED, pa.array([below, 0.1, above] * 1000))

    assert found.counts == {3: 1000, 4: 2000}


def test_doubles_with_values_on_most_edges_are_counted_as_exactly():
    edges = tuple(i / 100 for i in range(100))
    values = np.random.default_rng(0).integers(-5, 110, 5000) / 100
    frame = ColumnFrame(name="x", role="feature", kind="number", edges=edges)

    found = profile(frame, pa.array(values), pa.array(values))

    assert found.counts == Counter(bisect_right(edges, value) for value in [*values, *values])


def test_large_batches_agree_with_numpy():
    rng = np.random.default_rng(1)
    values = rng.normal(size=200_000) * 100
    reference = reference_from(lambda: [{"x": pa.array(values)}], [("x", "feature", pa.float64())])
    edges = np.array(reference.columns[0].frame.edges)

    (frame,) = frames_for(reference, [("x", "feature", pa.float64())], {})
    fresh = rng.normal(size=200_000) * 120
    found = profile(frame, pa.array(fresh))

    assert found.bins().tolist() == np.bincount(np.searchsorted(edges, fresh, "right")).tolist()
    assert found.moments.mean == pytest.approx(fresh.mean(), rel=1e-9)
    assert found.moments.sd == pytest.approx(fresh.std(), rel=1e-12)
    assert (found.moments.minimum, found.moments.maximum) == (fresh.min(), fresh.max())


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_moments_agree_with_numpy(values):
    array = np.array(values)
    rounding = 1e-12 * np.abs(array).max()

    moments = Moments.of(array, array.min(), array.max())

    assert moments.mean == pytest.approx(array.mean(), rel=1e-12, abs=rounding)
    assert moments.sd == pytest.approx(array.std(), rel=1e-9, abs=rounding + 1e-160)


def test_the_spread_of_large_close_numbers_is_not_lost():
    values = 1e12 + np.random.default_rng(2).normal(size=10_000)

    parts = [profile(OPEN, pa.array(values[i : i + 1000])).moments for i in range(0, 10_000, 1000)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)

    assert merged.sd == pytest.approx(np.std(values - 1e12), rel=1e-6)


def test_the_largest_doubles_neither_fail_nor_become_nan():
    found = profile(OPEN, pa.array([1.7e308, -1.7e308, 1.7e308]), pa.array([-1.7e308]))

    assert found.moments.m2 == math.inf
    assert -1.7e308 <= found.moments.mean <= 1.7e308
    assert Profile.from_json(Profile(columns=(found,)).to_json()).columns == (found,)


@settings(deadline=None)
@given(
    values=st.lists(doubles | st.integers(-1000, 1000).map(float), max_size=80),
    origin=st.sampled_from([0.0, 2.0, -5.0, 1e9, 0.1, 1e300]),
    bins=st.integers(2, 40),
    dtype=st.sampled_from([pa.float64(), pa.float32()]),
)
def test_edges_chosen_from_the_open_grid_keep_every_count_exact(values, origin, bins, dtype):
    array = pa.array(values, pa.float64()).cast(dtype)
    frame = ColumnFrame(name="x", role="feature", kind="number", origin=origin)

    reference = Profile(columns=(profile(frame, array),)).as_reference(bins)
    counted_again = profile(reference.columns[0].frame, array)

    assert_same(reference, Profile(columns=(counted_again,)))
    assert reference.as_reference() == reference


def test_the_open_grid_resolves_years_and_epochs_from_their_minimum():
    years = np.repeat(np.arange(1990, 2026), 50)
    frame = ColumnFrame(name="x", role="feature", kind="number", origin=1990.0)

    counts = profile(frame, pa.array(years)).as_reference(256).bins()

    assert counts.tolist() == [0, *[50] * 36, 0]


def test_each_hour_of_the_day_has_its_own_bin():
    hours = np.random.default_rng(3).integers(0, 24, 10_000)
    reference = reference_from(
        lambda: [{"h": pa.array(hours)}], [("h", "feature", pa.int64())], bins=256
    )

    assert reference.columns[0].frame.edges == tuple(range(25))
    assert reference.columns[0].bins().tolist() == [0, *np.bincount(hours), 0]


def test_a_common_value_in_continuous_data_has_its_own_bin():
    rng = np.random.default_rng(4)
    amounts = np.where(rng.random(50_000) < 0.6, 0.0, rng.exponential(size=50_000))
    reference = reference_from(
        lambda: [{"x": pa.array(amounts)}], [("x", "feature", pa.float64())], bins=50
    )

    counts = reference.columns[0].bins()
    assert counts[1] == (amounts == 0).sum()
    assert len(counts) <= 52


def test_a_constant_has_one_bin_and_every_other_value_lies_outside():
    reference = reference_from(
        lambda: [{"x": pa.array([0.1] * 9, pa.float32())}], [("x", "feature", pa.float32())]
    )
    frame = reference.columns[0].frame
    step = np.float32(0.1)
    values = [np.nextafter(step, np.float32(0)), step, np.nextafter(step, np.float32(1))]

    assert profile(frame, pa.array(values, pa.float32())).bins().tolist() == [1, 1, 1]


def test_a_column_that_the_reference_had_only_empty_still_profiles():
    reference = reference_from(
        lambda: [{"x": pa.nulls(5, pa.float64())}], [("x", "feature", pa.float64())]
    )

    assert reference.columns[0].frame.edges == ()
    assert profile(reference.columns[0].frame, pa.array([1.0, None])).counts == {0: 1}


def test_a_reference_does_not_depend_on_how_its_rows_are_batched():
    rng = np.random.default_rng(5)
    x = rng.normal(size=30_000)
    c = rng.choice(["a", "b", "c"], 30_000)
    columns = [("x", "feature", pa.float64()), ("c", "feature", pa.string())]

    def batches(rows: int):
        return lambda: (
            {"x": pa.array(x[i : i + rows]), "c": pa.array(c[i : i + rows])}
            for i in range(0, len(x), rows)
        )

    whole = reference_from(batches(30_000), columns, sample_rows=5_000)
    pieces = reference_from(batches(777), columns, sample_rows=5_000)

    assert_same(whole, pieces)
    assert whole.framed_by == pieces.framed_by
    assert sum(whole.column("x", "feature").counts.values()) == 30_000


@given(st.lists(st.none() | st.sampled_from("abcdef"), max_size=50), st.integers(0, 50))
def test_categories_and_nulls_are_counted_by_name(values, cut):
    array = pa.array(values, pa.string())
    expected = Counter(value for value in values if value is not None)

    for form in (array, array.cast(pa.large_string()), array.dictionary_encode()):
        found = profile(NAMES, form[:cut], form[cut:])
        assert found.counts == expected
        assert (found.nulls, found.rows, found.other) == (values.count(None), len(values), 0)


def test_booleans_and_coded_integers_are_categories():
    truth = profile(NAMES, pa.array([True, False, True, None]))
    codes = profile(NAMES, pa.array([7, 7, 9]).dictionary_encode())

    assert (truth.counts, truth.nulls) == ({"false": 1, "true": 2}, 1)
    assert codes.counts == {"7": 2, "9": 1}


def test_beyond_a_thousand_categories_splits_still_merge_into_the_whole():
    random.seed(6)
    names = [f"plane {random.randint(0, 5000)}" for _ in range(20_000)]
    frame = ColumnFrame(name="x", role="feature", kind="category", categories=("plane 1", "gone"))
    parts = [
        Profile(columns=(profile(frame, pa.array(names[i : i + 1500])),))
        for i in range(0, len(names), 1500)
    ]
    random.shuffle(parts)

    merged = Profile.merged(parts).columns[0]

    assert merged == profile(frame, pa.array(names))
    assert len(merged.counts) == NAMED - 1  # "gone" keeps its place
    true_counts = Counter(names)
    assert all(true_counts[name] == rows for name, rows in merged.counts.items())
    assert merged.counts["plane 1"] == true_counts["plane 1"]
    assert merged.other + sum(merged.counts.values()) == len(names)


def test_free_text_is_not_stored_as_categories():
    assert profile(NAMES, pa.array(["x" * 201, "y"])).counts == {"y": 1}


def test_dates_timestamps_and_decimals_are_numbers():
    moment = datetime(2026, 11, 23, tzinfo=UTC)
    columns = {
        "day": pa.array([date(1970, 1, 3), None]),
        "day64": pa.array([date(1970, 1, 3)], pa.date64()),
        "at": pa.array([moment], pa.timestamp("ms", "UTC")),
        "price": pa.array([Decimal("12.50")]),
    }
    frames = frames_for(None, [(n, "feature", c.type) for n, c in columns.items()], {})
    profiler = Profiler(frames)
    profiler.add(columns)

    means = {c.frame.name: c.moments.mean for c in profiler.profile().columns}
    assert means == {"day": 2.0, "day64": 2.0, "at": moment.timestamp(), "price": 12.5}
    assert {f.name: f.unit for f in frames} == {
        "day": "days",
        "day64": "days",
        "at": "seconds",
        "price": "plain",
    }


def test_a_vector_output_is_profiled_element_by_element():
    dtype = pa.list_(pa.float32(), 2)
    frames = frames_for(None, [("p", "output", dtype)], {})
    profiler = Profiler(frames)
    profiler.add({"p": pa.array([[0.25, 0.75], None, [0.5, 0.5]], dtype)[0:3]})

    first, second, winner = profiler.profile().columns
    assert (first.frame.name, first.moments.mean, first.nulls) == ("p[0]", 0.375, 1)
    assert (second.frame.name, second.moments.mean, second.rows) == ("p[1]", 0.625, 3)
    assert (winner.frame.name, winner.counts, winner.nulls) == ("p[class]", {"0": 1, "1": 1}, 1)


def test_columns_that_cannot_be_profiled_are_named_and_others_ignored():
    types = {"raw": pa.binary(), "place": pa.struct([("x", pa.float32())])}
    profiler = Profiler(frames_for(None, [(n, "feature", t) for n, t in types.items()], {}))

    profiler.add({name: pa.nulls(2, dtype) for name, dtype in types.items()})
    profiler.add({"key": pa.array([1, 2]), "tags": pa.array([["a"], None])})

    assert profiler.profile() == Profile(skipped=("place", "raw"))


def test_frames_follow_the_reference_only_where_the_kind_is_the_same():
    columns = [("x", "feature", pa.float64()), ("c", "feature", pa.string())]
    batch = {"x": pa.array([1.0, 2.0]), "c": pa.array(["a", "b"])}
    reference = reference_from(lambda: [batch], columns)

    same = frames_for(reference, columns, {"x": 5.0})
    changed = frames_for(
        reference, [("x", "feature", pa.string()), ("c", "feature", pa.int64())], {"c": 5.0}
    )

    assert same[0].edges == (1.0, 2.0, 3.0)
    assert same[1].categories == ("a", "b")
    x, *derived_of_x, c = changed
    assert (x.kind, x.categories) == ("category", None)
    assert {frame.of for frame in derived_of_x} == {"x"}
    assert (c.edges, c.origin) == (None, 5.0)


def test_a_feature_and_an_output_of_one_name_are_kept_apart_by_role():
    columns = [("x", "feature", pa.float64()), ("x", "output", pa.float64())]
    profiler = Profiler(frames_for(None, columns, {}))

    profiler.add({"x": pa.array([1.0])}, role="feature")
    profiler.add({"x": pa.chunked_array([[2.0], [4.0]])}, role="output")

    found = profiler.profile()
    assert found.column("x", "feature").moments.mean == 1.0
    assert found.column("x", "output").moments.mean == 3.0
    assert found.rows == 2


def test_chunks_counted_in_different_bins_do_not_merge():
    one, two = (Profile(columns=(profile(f, pa.array([1.0])),)) for f in (FRAMED, OPEN))

    with pytest.raises(ValueError, match="'x' was counted in different bins"):
        one.merge(two)


def test_a_column_of_another_kind_than_framed_is_refused():
    with pytest.raises(ValueError, match="'x' is framed as number, found string"):
        profile(FRAMED, pa.array(["a"]))


def test_edges_that_do_not_ascend_are_refused():
    with pytest.raises(ValueError, match="edges must ascend"):
        ColumnFrame(name="x", role="feature", kind="number", edges=(1.0, 1.0))


@given(values=numbers, names=st.lists(st.none() | st.text(max_size=5), max_size=20))
def test_a_profile_survives_json_to_the_last_bit(values, names):
    profiler = Profiler([OPEN_AT_TWO, ColumnFrame(name="c", role="output", kind="category")])
    profiler.add({"x": pa.array(values, pa.float64()), "c": pa.array(names, pa.string())})
    found = profiler.profile()

    for one in (found, found.as_reference(), Profile()):
        assert Profile.from_json(one.to_json()) == one


def test_a_profile_of_another_version_is_refused_with_advice():
    with pytest.raises(ValueError, match="scoring models profile"):
        Profile.from_json('{"version": 99}')


def test_only_a_framed_profile_has_an_id_and_it_is_its_reference_s():
    columns = [("x", "feature", pa.float64())]
    batch = {"x": pa.array([1.0, 2.0])}
    reference = reference_from(lambda: [batch], columns)
    framed, fresh = Profiler(frames_for(reference, columns, {})), Profiler([OPEN])

    assert framed.profile().framed_by == reference.framed_by is not None
    assert fresh.profile().framed_by is None
