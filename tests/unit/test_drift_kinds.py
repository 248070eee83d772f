"""Whatever type a column has, it is profiled or named as skipped, and never stops a chunk."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from scoring.drift.profile.frame import frames_for
from scoring.drift.profile.profile import Profile, Profiler, reference_from


def ticks(dtype: pa.DataType) -> pa.Array:
    width = pa.int32() if dtype.bit_width == 32 else pa.int64()
    return pa.array([2_000, None, 4_000], width).cast(dtype)


def decimals(dtype: pa.DataType) -> pa.Array:
    return pa.array([Decimal("1.50"), None, Decimal("-0.50")], dtype)


STRUCT = pa.struct([("a", pa.int64())])
NUMBERS = {  # name: array, its mean, its unit
    "int8": (pa.array([1, None, -5], pa.int8()), -2, "plain"),
    "uint64": (pa.array([2**64 - 1, None, 1], pa.uint64()), 2.0**63, "plain"),
    "int64": (pa.array([2**62, None, -(2**62)]), 0, "plain"),
    "halffloat": (pa.array([1.5, None, 2.5], pa.float16()), 2, "plain"),
    "date32": (pa.array([date(1970, 1, 3), None, date(1970, 1, 5)]), 3, "days"),
    "date64": (pa.array([86_400_005, None, 3 * 86_400_000], pa.date64()), 2, "days"),
    "timestamp": (ticks(pa.timestamp("ms", "America/New_York")), 3, "seconds"),
    "time32": (ticks(pa.time32("ms")), 3, "plain"),
    "time64": (ticks(pa.time64("us")), 0.003, "plain"),
    "duration": (ticks(pa.duration("s")), 3_000, "plain"),
    "decimal32": (decimals(pa.decimal32(9, 2)), 0.5, "plain"),
    "decimal128": (decimals(pa.decimal128(38, 10)), 0.5, "plain"),
    "decimal256": (decimals(pa.decimal256(76, 2)), 0.5, "plain"),
    "dictionary": (pa.array([1.5, None, 2.5]).dictionary_encode(), 2, "plain"),
    "dictionary of dates": (pa.array([date(1970, 1, 3), None] * 2).dictionary_encode(), 2, "days"),
}
CATEGORIES = {  # name: array, its counts
    "bool": (pa.array([True, None, False, True]), {"true": 2, "false": 1}),
    "string": (pa.array(["a", None, "", "a"]), {"a": 2, "": 1}),
    "large_string": (pa.array(["a", None, "", "a"], pa.large_string()), {"a": 2, "": 1}),
    "string_view": (pa.array(["a", None, "", "a"], pa.string_view()), {"a": 2, "": 1}),
    "coded strings": (pa.array(["a", None, "", "a"]).dictionary_encode(), {"a": 2, "": 1}),
    "coded views": (
        pa.array(["a", None, "", "a"], pa.string_view()).dictionary_encode(),
        {"a": 2, "": 1},
    ),
    "coded integers": (pa.array([7, None, 9, 7]).dictionary_encode(), {"7": 2, "9": 1}),
    "coded nulls and twins": (
        pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 2]), pa.array(["a", None, "a"])),
        {"a": 3},
    ),
}
DERIVED = {  # name: array, what of it is profiled
    "list": (pa.array([["a"], None, []]), ["x[length]"]),
    "list of structs": (pa.array([[{"a": 1}], None], pa.list_(STRUCT)), ["x[length]"]),
    "list view": (pa.array([[1], None], pa.list_view(pa.int8())), ["x[length]"]),
    "vector": (pa.array([[1, None], None], pa.list_(pa.int8(), 2)), ["x[0]", "x[1]"]),
    "names": (pa.array([["a", "b"], None], pa.list_(pa.string(), 2)), ["x[0]", "x[1]"]),
    "long vector": (pa.array([[1] * 17, None], pa.list_(pa.int8(), 17)), ["x[norm]"]),
}
SKIPPED = {
    "binary": pa.array([b"a", None]),
    "binary view": pa.array([b"a", None], pa.binary_view()),
    "fixed-size binary": pa.array([b"ab", None], pa.binary(2)),
    "coded binary": pa.array([b"a", None]).dictionary_encode(),
    "struct": pa.array([{"a": 1}, None], STRUCT),
    "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
    "null": pa.nulls(2),
    "run-end encoded": pa.RunEndEncodedArray.from_arrays(pa.array([2]), pa.array([1.5])),
    "vector of structs": pa.array([[{"a": 1}]] * 2, pa.list_(STRUCT, 1)),
    "empty vector": pa.array([[], None], pa.list_(pa.int8(), 0)),
    "long vector of names": pa.array([["a"] * 17, None], pa.list_(pa.string(), 17)),
}
EVERY = {
    **{name: case[0] for name, case in (NUMBERS | CATEGORIES | DERIVED).items()},
    **SKIPPED,
}


def profile(array: pa.Array, reference: Profile | None = None) -> Profile:
    profiler = Profiler(frames_for(reference, [("x", "feature", array.type)], {}))
    profiler.add({"x": array})
    return profiler.profile()


@pytest.mark.parametrize("name", NUMBERS)
def test_what_can_be_ordered_is_a_number(name):
    array, mean, unit = NUMBERS[name]

    (found,) = profile(array).columns

    assert (found.frame.kind, found.frame.unit) == ("number", unit)
    assert (found.rows, found.nulls) == (len(array), len(array) - found.moments.count)
    assert found.moments.mean == mean


@pytest.mark.parametrize("name", CATEGORIES)
def test_what_can_be_named_is_a_category(name):
    array, counts = CATEGORIES[name]

    found = profile(array).column("x", "feature")

    assert (found.frame.kind, found.counts, found.nulls) == ("category", counts, 1)
    assert (found.rows, found.other) == (4, 0)


@pytest.mark.parametrize("name", DERIVED)
def test_what_is_neither_is_profiled_by_its_places_or_what_is_derived(name):
    array, expected = DERIVED[name]

    found = profile(array)

    assert [column.frame.name for column in found.columns] == expected
    assert all(column.nulls for column in found.columns)
    assert found.skipped == ()


@pytest.mark.parametrize("name", SKIPPED)
def test_what_cannot_be_counted_is_skipped_by_name(name):
    assert profile(SKIPPED[name]) == Profile(skipped=("x",))


@pytest.mark.parametrize("name", EVERY)
def test_any_type_makes_a_reference_that_frames_the_next_rows_of_it(name):
    array = EVERY[name]

    reference = reference_from(lambda: [{"x": array}], [("x", "feature", array.type)])
    again = profile(array, reference)

    assert again.as_reference() == reference
    assert again.framed_by == reference.framed_by
    for rows in (array[:0], array[1:]):
        found = profile(rows, reference)
        assert all(column.rows == len(rows) for column in found.columns)
        assert found.merge(again).rows == (found.rows + again.rows)


def test_a_batch_of_nothing_but_nulls_counts_as_nulls_whatever_is_framed():
    dtypes = {
        "x": pa.float64(),
        "c": pa.string(),
        "tags": pa.list_(pa.string()),
        "odds": pa.list_(pa.float32(), 2),
        "wide": pa.list_(pa.float32(), 17),
    }
    columns = [(name, "output", dtype) for name, dtype in dtypes.items()]
    profiler = Profiler(frames_for(None, columns, {}))

    profiler.add({name: pa.nulls(3) for name in dtypes})

    found = profiler.profile()
    assert {c.frame.name for c in found.columns if (c.rows, c.nulls) != (3, 3)} == {"c[tokens]"}
    assert (len(found.columns), found.skipped) == (13, ())


def test_integers_beyond_int64_keep_to_their_side_of_an_edge():
    array = pa.array([2**63 - 1, 2**63, 2**64 - 1], pa.uint64())
    reference = reference_from(lambda: [{"x": array}], [("x", "feature", array.type)])

    (found,) = profile(array, reference).columns

    assert sum(found.counts.values()) == 3
    assert all(low < high for low, high in pairwise(found.frame.edges))
    assert found.moments.maximum == float(np.uint64(2**64 - 1))
