"""Chunks of any columns, merged in any order and any groups, are the whole."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.drift.profile.category_profile import NAMED
from scoring.drift.profile.frame import ColumnFrame, Role, frames_for
from scoring.drift.profile.moments import Moments
from scoring.drift.profile.profile import (
    CategoryProfile,
    NumberProfile,
    Profile,
    Profiler,
    reference_from,
)

SMALLEST = 5e-324
"""The least double above 0: squares among such numbers round by it."""
TOKYO = pa.timestamp("us", "Asia/Tokyo")
COLUMNS: list[tuple[str, Role, pa.DataType]] = [
    ("amount", "feature", pa.float64()),
    ("count", "feature", pa.int64()),
    ("id", "feature", pa.uint64()),
    ("price", "feature", pa.decimal128(12, 2)),
    ("at", "feature", TOKYO),
    ("flag", "feature", pa.bool_()),
    ("code", "feature", pa.dictionary(pa.int8(), pa.string())),
    ("note", "feature", pa.string()),
    ("tags", "feature", pa.list_(pa.string())),
    ("place", "feature", pa.list_(pa.float32(), 2)),
    ("odds", "output", pa.list_(pa.float64(), 3)),
    ("score", "output", pa.float32()),
    ("blob", "output", pa.binary()),
]
moments_ = st.datetimes(datetime(1800, 1, 1), datetime(2200, 1, 1)).map(
    lambda at: at.replace(tzinfo=UTC)
)
small = st.floats(width=32)
ROWS = st.fixed_dictionaries(
    {
        "amount": st.none() | st.floats(),
        "count": st.none() | st.integers(-(2**63), 2**63 - 1),
        "id": st.none() | st.integers(0, 2**64 - 1),
        "price": st.none() | st.decimals(-(10**9), 10**9, places=2),
        "at": st.none() | moments_,
        "flag": st.none() | st.booleans(),
        "code": st.none() | st.sampled_from(["AA", "DL", ""]),
        "note": st.none()
        | st.text(max_size=20)
        | st.sampled_from(["crew late", "日本 の", "x" * 300]),
        "tags": st.none() | st.lists(st.text(max_size=3), max_size=4),
        "place": st.none() | st.lists(st.none() | small, min_size=2, max_size=2),
        "odds": st.none() | st.lists(st.none() | st.floats(0, 1), min_size=3, max_size=3),
        "score": st.none() | small,
        "blob": st.none() | st.binary(max_size=3),
    }
)
KNOWN = [
    {
        "amount": float(i),
        "count": i * 10**15,
        "id": i,
        "price": Decimal(i),
        "at": datetime(2020, 1, 1 + i, tzinfo=UTC),
        "flag": i > 2,
        "code": "AA",
        "note": f"gate {i} " * i,
        "tags": ["a"] * i,
        "place": [i, 1.0],
        "odds": [i / 9, 0.1, 0.2],
        "score": i / 9,
        "blob": b"",
    }
    for i in range(9)
]


def table(rows: list[dict]) -> dict[str, pa.Array]:
    return {name: pa.array([row[name] for row in rows], dtype) for name, _, dtype in COLUMNS}


def profile(rows: list[dict], reference: Profile | None) -> Profile:
    profiler = Profiler(frames_for(reference, COLUMNS, {"amount": -3.0}))
    if rows:
        profiler.add(table(rows))
    return profiler.profile()


REFERENCE = reference_from(lambda: [table(KNOWN * 20)], COLUMNS)


def without_rounding(found: Profile) -> dict:
    """Everything but mean and spread, which are rounded."""
    document = json.loads(found.to_json())
    for column in document["columns"]:
        if column.get("moments"):
            del column["moments"]["mean"], column["moments"]["m2"]
    return document


def assert_alike(one: Profile, two: Profile) -> None:
    assert without_rounding(one) == without_rounding(two)
    for left, right in zip(one.columns, two.columns, strict=True):
        if not isinstance(left, NumberProfile) or left.moments is None:
            continue
        a, b = left.moments, right.moments
        reach = max(abs(a.minimum), abs(a.maximum))
        assert a.mean == pytest.approx(b.mean, rel=1e-12, abs=1e-12 * reach)
        with np.errstate(over="ignore"):
            tiny = a.count * (np.float64(1e-12 * reach) ** 2 + 8 * SMALLEST)
            most = a.count * np.float64(reach) ** 2
        too_large = not np.isfinite(most) and math.inf in (a.m2, b.m2)
        assert too_large or a.m2 == pytest.approx(b.m2, rel=1e-8, abs=float(tiny))


@settings(deadline=None, max_examples=30)
@given(
    rows=st.lists(ROWS, max_size=24), cuts=st.lists(st.integers(0, 24), max_size=4), data=st.data()
)
@pytest.mark.parametrize("reference", [None, REFERENCE], ids=["open", "framed"])
def test_chunks_of_any_split_merge_into_the_whole_in_any_order_and_grouping(
    reference, rows, cuts, data
):
    bounds = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    parts = [profile(rows[low:high], reference) for low, high in pairwise(bounds)]
    parts.append(profile([], reference))
    shuffled = data.draw(st.permutations(parts))
    at = data.draw(st.integers(0, len(parts)))

    merged = Profile.merged(parts)
    grouped = Profile.merged(shuffled[:at]).merge(Profile.merged(shuffled[at:]))

    assert Profile.merged(shuffled) == merged
    assert_alike(merged, profile(rows, reference))
    assert_alike(merged, grouped)
    assert Profile.merged([merged, Profile()]) == merged


@settings(deadline=None, max_examples=15)
@given(st.lists(ROWS, max_size=12), st.lists(ROWS, max_size=12))
def test_merging_two_commutes_to_the_last_bit_and_so_does_what_follows(left, right):
    one, two = profile(left, None), profile(right, None)

    assert one.merge(two) == two.merge(one)
    assert one.merge(two).settled() == two.merge(one).settled()
    assert one.merge(two).as_reference() == two.merge(one).as_reference()


@settings(deadline=None, max_examples=15)
@given(st.lists(ROWS, max_size=20))
@pytest.mark.parametrize("reference", [None, REFERENCE], ids=["open", "framed"])
def test_what_is_kept_of_any_rows_is_a_reference_and_survives_json(reference, rows):
    found = profile(rows, reference)

    for kept in (found, found.settled(), found.as_reference()):
        assert Profile.from_json(kept.to_json()) == kept
        assert kept.as_reference().as_reference() == kept.as_reference()
        assert kept.settled().settled() == kept.settled()
    frames = {frame.name for frame in frames_for(found.as_reference(), COLUMNS, {})}
    assert {column.frame.name for column in found.as_reference().columns} <= frames


@given(
    st.lists(
        st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5),
        min_size=1,
        max_size=6,
    ),
    st.randoms(),
)
def test_moments_of_parts_do_not_depend_on_their_order_to_the_last_bit(parts, random):
    found = [Moments.of(np.array(part), min(part), max(part)) for part in parts]
    merged = Moments.merged(found)
    random.shuffle(found)

    assert Moments.merged(found) == merged
    assert merged.minimum <= merged.mean <= merged.maximum
    assert merged.m2 >= 0
    assert merged.count == sum(map(len, parts))


def test_moments_of_many_parts_agree_with_numpy():
    rng = np.random.default_rng(0)
    parts = [rng.normal(1e9, 1, size) for size in rng.integers(1, 2_000, 300)]
    whole = np.concatenate(parts)

    merged = Moments.merged([Moments.of(part, part.min(), part.max()) for part in parts])

    assert merged.mean == pytest.approx(whole.mean(), rel=1e-15)
    assert merged.sd == pytest.approx(whole.std(), rel=1e-9)


def test_a_constant_has_no_spread_however_many_parts_it_comes_in():
    part = Moments.of(np.full(7, 0.1), 0.1, 0.1)

    merged = Moments.merged([part] * 1_000)

    assert (merged.mean, merged.m2, merged.count) == (0.1, 0.0, 7_000)


def test_parts_at_the_ends_of_float64_have_a_mean_and_an_infinite_spread():
    high, low = (Moments.of(np.full(2, x), x, x) for x in (1.7e308, -1.7e308))

    merged = Moments.merged([high, low, high])

    assert merged.mean == pytest.approx(1.7e308 / 3)
    assert merged.m2 == math.inf


def test_names_that_are_shed_on_the_way_do_not_change_the_sum():
    frame = ColumnFrame(name="x", role="feature", kind="category", categories=("n7", "gone"))
    names = [f"n{i}" for i in range(12 * NAMED)]
    parts = [
        CategoryProfile(frame=frame, rows=600, counts=dict.fromkeys(names[i : i + 600], 1))
        for i in range(0, len(names), 300)
        if i + 600 <= len(names)
    ]

    forwards = Profile.merged(Profile(columns=(part,)) for part in parts).columns[0]
    backwards = parts[-1]
    for part in reversed(parts[:-1]):
        backwards = part.merge(backwards)

    assert backwards == forwards
    assert (len(forwards.counts), forwards.counts["n7"]) == (NAMED - 1, 1)
    assert forwards.other + sum(forwards.counts.values()) == forwards.rows
