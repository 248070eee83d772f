"""What fits the signature goes to the model with the signature's type; what does not is refused."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.data.validate import Expected, Validated, fits, validate

NAN, INF = math.nan, math.inf
INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64()]
UNSIGNED = [pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]


def expect(kind: pa.DataType, *, width: int = 1, null: bool = False) -> Expected:
    return Expected(name="x", type=kind, width=width, allow_null=null)


def check(values: Any, *expected: Expected) -> Validated:
    """Validate one column called x, or a batch."""
    batch = values if isinstance(values, pa.RecordBatch) else pa.record_batch({"x": values})
    assert all(fits(batch.schema.field(one.name).type, one) for one in expected)
    return validate(batch, expected)


def refused(validated: Validated) -> dict[str, list[int]]:
    return {one.reason: one.rows.tolist() for one in validated.rejected}


def kept(validated: Validated) -> list[Any]:
    values: list[Any] = validated.features.column(0).to_pylist()
    return values


# Without a fault


def test_columns_that_fit_are_passed_on_without_a_copy() -> None:
    batch = pa.record_batch({"x": pa.array([1.0, 2.0], pa.float32()), "word": ["a", "b"]})
    expected = [
        Expected(name="word", type=pa.string(), allow_null=False),
        Expected(name="x", type=pa.float32(), allow_null=False),
    ]

    validated = validate(batch, expected)

    assert (validated.kept, validated.rejected) == (None, ())
    assert validated.features.schema.names == ["word", "x"]
    for name in ("word", "x"):
        assert addresses(validated.features[name]) == addresses(batch[name])


def addresses(column: pa.Array) -> list[int | None]:
    return [buffer and buffer.address for buffer in column.buffers()]


def test_a_list_column_that_fits_is_passed_on_without_a_copy() -> None:
    lists = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))

    validated = check(lists, expect(pa.float32(), width=2))

    assert addresses(validated.features["x"]) == addresses(lists)


# Nulls


def test_a_null_in_a_required_column_is_refused() -> None:
    validated = check([1.0, None, 3.0, None], expect(pa.float64()))

    assert refused(validated) == {"null in column x": [1, 3]}
    assert kept(validated) == [1.0, 3.0]
    assert validated.kept is not None
    assert validated.kept.tolist() == [0, 2]


def test_a_null_in_an_optional_column_is_passed_on() -> None:
    validated = check([1.0, None], expect(pa.float64(), null=True))

    assert (validated.kept, kept(validated)) == (None, [1.0, None])


@pytest.mark.parametrize("kind", [pa.float32(), pa.int64(), pa.string(), pa.timestamp("ns")])
def test_a_column_of_nothing_but_nulls_has_the_wanted_type(kind: pa.DataType) -> None:
    optional = check(pa.nulls(2), expect(kind, null=True))
    required = check(pa.nulls(2), expect(kind))

    assert (kept(optional), optional.features.schema.types) == ([None, None], [kind])
    assert refused(required) == {"null in column x": [0, 1]}


def test_not_a_number_is_a_value() -> None:
    validated = check([NAN, 1.0], expect(pa.float32()))

    assert validated.rejected == ()
    assert math.isnan(kept(validated)[0])


def test_a_row_is_refused_once_for_the_first_column_that_is_wrong() -> None:
    batch = pa.record_batch({"x": [None, 1.5, 2.0, None], "y": [None, None, 3, 4]})
    expected = [
        Expected(name="x", type=pa.int64(), allow_null=False),
        Expected(name="y", type=pa.int64(), allow_null=False),
    ]

    validated = check(batch, *expected)

    assert refused(validated) == {
        "null in column x": [0, 3],
        "value in column x does not fit int64": [1],
    }
    assert validated.features.to_pylist() == [{"x": 2, "y": 3}]


@given(
    st.lists(
        st.tuples(st.none() | st.floats(width=32), st.none() | st.integers(-(2**40), 2**40)),
        max_size=50,
    )
)
def test_every_row_is_either_kept_or_refused_once(rows: list[tuple[Any, Any]]) -> None:
    batch = pa.record_batch(
        {
            "x": pa.array([x for x, _ in rows], pa.float64()),
            "y": pa.array([y for _, y in rows], pa.int64()),
        }
    )
    expected = [
        Expected(name="x", type=pa.int32(), allow_null=True),
        Expected(name="y", type=pa.int32(), allow_null=False),
    ]

    validated = validate(batch, expected)

    good = [
        number
        for number, (x, y) in enumerate(rows)
        if y is not None
        and -(2**31) <= y < 2**31
        and (x is None or (math.isfinite(x) and x == int(x) and -(2**31) <= x < 2**31))
    ]
    bad = [number for one in validated.rejected for number in one.rows.tolist()]
    found = list(range(len(rows))) if validated.kept is None else validated.kept.tolist()
    assert found == good
    assert sorted(bad) == sorted(set(range(len(rows))) - set(good))
    assert validated.features["y"].to_pylist() == [rows[number][1] for number in good]


# Conversions


@pytest.mark.parametrize("found", [*INTEGERS, *UNSIGNED, pa.decimal128(25, 2), pa.float16()])
@pytest.mark.parametrize("wanted", [pa.float32(), pa.float64()])
def test_numbers_become_floats(found: pa.DataType, wanted: pa.DataType) -> None:
    validated = check(pa.array([1, 2]).cast(found), expect(wanted))

    assert (kept(validated), validated.features.schema.types) == ([1.0, 2.0], [wanted])


def test_float64_is_rounded_to_the_float32_that_the_model_takes() -> None:
    validated = check([0.1, -1e-50, INF, NAN], expect(pa.float32()))

    assert validated.rejected == ()
    np.testing.assert_array_equal(
        validated.features["x"].to_numpy(), np.array([0.1, -1e-50, INF, NAN], np.float32)
    )


@pytest.mark.parametrize(
    ("values", "wanted"),
    [([1e300, 1.0, -1e39, INF], pa.float32()), ([70_000, 1, -70_000, 2], pa.float16())],
)
def test_a_number_that_would_become_infinite_is_refused(
    values: list[float], wanted: pa.DataType
) -> None:
    validated = check(values, expect(wanted))

    assert refused(validated) == {f"value in column x does not fit {wanted}": [0, 2]}


def test_whole_floats_become_integers_and_others_are_refused() -> None:
    values = [1.0, 2.5, -3.0, None, NAN, INF, 1e19, 2.0**63, -(2.0**63)]

    validated = check(values, expect(pa.int64(), null=True))

    assert refused(validated) == {"value in column x does not fit int64": [1, 4, 5, 6, 7]}
    assert kept(validated) == [1, -3, None, -(2**63)]


def test_decimals_become_integers_only_when_they_are_whole() -> None:
    values = pa.array([Decimal("1.50"), Decimal("2.00"), None, Decimal("-3.00")])

    validated = check(values, expect(pa.int32(), null=True))

    assert refused(validated) == {"value in column x does not fit int32": [0]}
    assert kept(validated) == [2, None, -3]


@pytest.mark.parametrize("wanted", [*INTEGERS, *UNSIGNED], ids=str)
@pytest.mark.parametrize("found", [*INTEGERS, *UNSIGNED], ids=str)
def test_an_integer_that_does_not_fit_is_refused_whatever_it_would_wrap_to(
    found: pa.DataType, wanted: pa.DataType
) -> None:
    mine, theirs = np.iinfo(found.to_pandas_dtype()), np.iinfo(wanted.to_pandas_dtype())
    edges = {mine.min, mine.max, theirs.min, theirs.max, theirs.min - 1, theirs.max + 1, -1, 0, 1}
    values = sorted(value for value in edges if mine.min <= value <= mine.max)

    validated = check(pa.array(values, found), expect(wanted))

    good = [value for value in values if theirs.min <= value <= theirs.max]
    assert kept(validated) == good
    assert sum(map(len, refused(validated).values())) == len(values) - len(good)


def test_timestamps_become_utc() -> None:
    local = datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    for kind in (pa.timestamp("us", "Europe/Berlin"), pa.timestamp("s", "+02:00")):
        validated = check(pa.array([local], kind), expect(pa.timestamp("ns")))

        assert kept(validated) == [datetime(2024, 5, 1, 10)]
        assert validated.features.schema.types == [pa.timestamp("ns")]


def test_dates_become_midnights() -> None:
    for kind in (pa.date32(), pa.date64()):
        validated = check(pa.array([date(2024, 5, 1)], kind), expect(pa.timestamp("ns")))

        assert kept(validated) == [datetime(2024, 5, 1)]


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("us"), pa.timestamp("us", "UTC")])
def test_a_time_outside_the_range_of_nanoseconds_is_refused(kind: pa.DataType) -> None:
    zone = UTC if getattr(kind, "tz", None) else None
    times = [datetime(1500, 1, 1, tzinfo=zone), datetime(2024, 1, 1, tzinfo=zone)]

    validated = check(pa.array(times, kind), expect(pa.timestamp("ns")))

    assert refused(validated) == {"value in column x does not fit timestamp[ns]": [0]}
    assert kept(validated) == [datetime(2024, 1, 1)]


@pytest.mark.parametrize(
    "found",
    [
        pa.array(["a", None, "b"]).dictionary_encode(),
        pa.array(["a", None, "b"], pa.large_string()),
        pa.array(["a", None, "b"], pa.string_view()),
    ],
    ids=lambda array: str(array.type),
)
def test_text_of_any_kind_becomes_strings(found: pa.Array) -> None:
    optional = check(found, expect(pa.string(), null=True))
    required = check(found, expect(pa.string()))

    assert (kept(optional), optional.features.schema.types) == (["a", None, "b"], [pa.string()])
    assert (kept(required), refused(required)) == (["a", "b"], {"null in column x": [1]})


@pytest.mark.parametrize("found", [pa.large_binary(), pa.binary(1)])
def test_bytes_of_any_kind_become_binary(found: pa.DataType) -> None:
    assert kept(check(pa.array([b"a"], found), expect(pa.binary()))) == [b"a"]


# Lists

LIST_TYPES = [pa.list_(pa.float64()), pa.large_list(pa.float64()), pa.list_(pa.float64(), 2)]


@pytest.mark.parametrize("kind", LIST_TYPES, ids=str)
def test_the_values_of_lists_are_converted_too(kind: pa.DataType) -> None:
    lists = pa.array([[9, 9], [1, 2], [3, 4]], kind).slice(1)

    validated = check(lists, expect(pa.float32(), width=2))

    assert kept(validated) == [[1.0, 2.0], [3.0, 4.0]]
    assert validated.features["x"].type.value_type == pa.float32()


@pytest.mark.parametrize("kind", LIST_TYPES, ids=str)
def test_a_list_with_a_value_that_does_not_fit_is_refused(kind: pa.DataType) -> None:
    lists = pa.array([[9, 9], [1, 2.5], [3, 4], [INF, 0], [5, 6]], kind).slice(1)

    validated = check(lists, expect(pa.int32(), width=2))

    assert refused(validated) == {"value in column x does not fit int32": [0, 2]}
    assert kept(validated) == [[3, 4], [5, 6]]


@pytest.mark.parametrize("kind", LIST_TYPES, ids=str)
def test_a_null_list_and_a_null_in_a_list_are_refused(kind: pa.DataType) -> None:
    lists = pa.array([[9, 9], [1, 2], None, [None, 4], [None, None]], kind).slice(1)

    validated = check(lists, expect(pa.float64(), width=2))

    assert refused(validated) == {
        "null in column x": [1],
        "null among the values of column x": [2, 3],
    }
    assert kept(validated) == [[1.0, 2.0]]


def test_a_list_of_another_length_is_refused() -> None:
    lists = pa.array([[1.0, 2.0], [], [3.0], [4.0, 5.0, 6.0]])

    validated = check(lists, expect(pa.float64(), width=2))

    assert refused(validated) == {"column x has not 2 values": [1, 2, 3]}


def test_fixed_lists_of_another_length_are_all_refused() -> None:
    lists = pa.array([[1.0, 2.0, 3.0]] * 2, pa.list_(pa.float64(), 3))

    validated = check(lists, expect(pa.float64(), width=2))

    assert refused(validated) == {"column x has not 2 values": [0, 1]}


def test_lists_of_any_length_fit_where_the_signature_leaves_it_open() -> None:
    lists = pa.array([[1.0], [2.0, 3.0]])

    assert check(lists, expect(pa.float64(), width=-1)).rejected == ()


def test_an_array_column_keeps_lists_of_any_length_and_refuses_values_that_do_not_fit() -> None:
    lists = pa.array([[1.0, 2.0], [], None, [2.5]])

    validated = check(lists, expect(pa.list_(pa.int64()), null=True))

    assert refused(validated) == {"value in column x does not fit int64": [3]}
    assert kept(validated) == [[1, 2], [], None]


# Types that can never fit


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (pa.string(), pa.float64()),
        (pa.float64(), pa.string()),
        (pa.bool_(), pa.int64()),
        (pa.int64(), pa.bool_()),
        (pa.timestamp("ns"), pa.int64()),
        (pa.int64(), pa.timestamp("ns")),
        (pa.list_(pa.float64()), pa.float64()),
        (pa.struct([("a", pa.int64())]), pa.int64()),
        (pa.dictionary(pa.int8(), pa.int64()), pa.string()),
        (pa.string(), pa.binary()),
    ],
    ids=str,
)
def test_a_type_without_a_lossless_conversion_does_not_fit(
    found: pa.DataType, wanted: pa.DataType
) -> None:
    assert not fits(found, expect(wanted))


def test_a_plain_column_is_no_list() -> None:
    assert not fits(pa.float64(), expect(pa.float64(), width=2))
    assert not fits(pa.float64(), expect(pa.list_(pa.float64())))
    assert not fits(pa.list_(pa.string()), expect(pa.float64(), width=2))
