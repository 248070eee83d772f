"""Columns of the wrong type and values that do not fit: what is refused whole, what row by row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.integration.bad_inputs import PAIR, Bench, garbled, write

pytestmark = pytest.mark.slow

NAN, INF = math.nan, math.inf
DAY = datetime(2024, 5, 1)
FAR = datetime(9999, 12, 31)
FLOATS = pa.list_(pa.float32())
FIXED = pa.list_(pa.float32(), 2)
UUIDS = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef"], pa.binary(16)))


@dataclass(frozen=True, slots=True)
class Values:
    """A column ``x``, the type that the model wants of it, and what becomes of its rows."""

    case: str
    wanted: str
    given: pa.Array
    said: Sequence[Any] = ()
    """What the model was given of the rows that were scored."""
    refused: dict[int, str] = field(default_factory=dict)
    """Rows in quarantine, and why."""


def unfit(*rows: int, kind: str) -> dict[int, str]:
    return dict.fromkeys(rows, f"value in column x does not fit {kind}")


def null(*rows: int) -> dict[int, str]:
    return dict.fromkeys(rows, "null in column x")


def no_text(*rows: int) -> dict[int, str]:
    return dict.fromkeys(rows, "text in column x is not UTF-8")


HALVES = pa.array(np.array([1, 2], np.float16))
PRICES = [Decimal("1.00"), Decimal("1.50")]
HUGE = pa.array([Decimal("9" * 70), Decimal(3)], pa.decimal256(76, 0))
UNSIGNED = pa.array([2**64 - 1, 3], pa.uint64())
ROW_BY_ROW = [
    Values(
        "a null where the signature forbids it", "double", pa.array([1.0, None]), [1.0], null(1)
    ),
    Values("nan is a value", "double", pa.array([NAN, 1.0]), [None, 1.0]),
    Values("infinities are values", "double", pa.array([INF, -INF]), [INF, -INF]),
    Values("minus zero keeps its sign", "double", pa.array([-0.0, 0.0]), [-0.0, 0.0]),
    Values("denormals are kept", "double", pa.array([5e-324, -5e-324]), [5e-324, -5e-324]),
    Values("whole numbers become floats", "double", pa.array([1, 2]), [1.0, 2.0]),
    Values("beyond 2^53 they are rounded", "double", pa.array([2**53 + 1]), [2.0**53]),
    Values("the largest unsigned is rounded too", "double", UNSIGNED, [2.0**64, 3.0]),
    Values("decimals become floats", "double", pa.array(PRICES), [1.0, 1.5]),
    Values("wide decimals become floats", "double", HUGE, [1e70, 3.0]),
    Values("halves become floats", "double", HALVES, [1.0, 2.0]),
    Values(
        "a dictionary of numbers",
        "double",
        pa.array([2.5, None]).dictionary_encode(),
        [2.5],
        null(1),
    ),
    Values("too large for float32", "float", pa.array([1e300, 2.0]), [2.0], unfit(0, kind="float")),
    Values("too small for float32 is zero", "float", pa.array([1e-300]), [0.0]),
    Values(
        "too large for int32",
        "integer",
        pa.array([1, 2**31, -(2**31) - 1]),
        [1],
        unfit(1, 2, kind="int32"),
    ),
    Values("too large and unsigned", "integer", UNSIGNED, [3], unfit(0, kind="int32")),
    Values("too large a decimal", "integer", HUGE, [3], unfit(0, kind="int32")),
    Values("a decimal with a fraction", "integer", pa.array(PRICES), [1], unfit(1, kind="int32")),
    Values(
        "floats that are not whole",
        "integer",
        pa.array([1.0, 2.5, NAN, INF, -0.0]),
        [1, 0],
        unfit(1, 2, 3, kind="int32"),
    ),
    Values("a null truth", "boolean", pa.array([True, None, False]), [True, False], null(1)),
    Values(
        "text in a dictionary", "string", pa.array(["a", None]).dictionary_encode(), ["a"], null(1)
    ),
    Values("large text", "string", pa.array(["a"], pa.large_string()), ["a"]),
    Values("text by view", "string", pa.array(["a"], pa.string_view()), ["a"]),
    Values("text as bytes", "string", pa.array([b"a", b"\xff"]), ["a"], no_text(1)),
    Values("text that is not UTF-8", "string", garbled(b"a", b"\xff\xfe"), ["a"], no_text(1)),
    Values("a lone surrogate", "string", garbled(b"\xed\xa0\x80", b"b"), ["b"], no_text(0)),
    Values(
        "text that is not UTF-8, in a dictionary",
        "string",
        garbled(b"a", b"\xff", b"a").dictionary_encode(),
        ["a", "a"],
        no_text(1),
    ),
    Values("an embedded nul", "string", pa.array(["a\0b", ""]), ["a\0b", ""]),
    Values("control characters", "string", pa.array(["\x1b[31m\a\r\n"]), ["\x1b[31m\a\r\n"]),
    Values("emoji and right to left", "string", pa.array(["😀", "\u202eabc"]), ["😀", "\u202eabc"]),
    Values("seconds", "datetime", pa.array([DAY], pa.timestamp("s")), [DAY]),
    Values("milliseconds", "datetime", pa.array([DAY], pa.timestamp("ms")), [DAY]),
    Values(
        "a time with a zone",
        "datetime",
        pa.array([DAY.replace(tzinfo=UTC)], pa.timestamp("us", "Europe/Berlin")),
        [DAY],
    ),
    Values(
        "a zone that is none", "datetime", pa.array([DAY], pa.timestamp("us", "Mars/Base")), [DAY]
    ),
    Values("a date", "datetime", pa.array([DAY.date()], pa.date32()), [DAY]),
    Values("a date in milliseconds", "datetime", pa.array([DAY.date()], pa.date64()), [DAY]),
    Values(
        "a time beyond nanoseconds",
        "datetime",
        pa.array([FAR, DAY], pa.timestamp("us")),
        [DAY],
        unfit(0, kind="timestamp[ns]"),
    ),
    Values("any bytes", "binary", pa.array([b"\xff\0", None]), [b"\xff\0"], null(1)),
    Values("bytes of fixed size", "binary", pa.array([b"ab"], pa.binary(2)), [b"ab"]),
    Values("bytes by view", "binary", pa.array([b"ab"], pa.binary_view()), [b"ab"]),
    Values("lists", PAIR, pa.array([[1, 2], [3, 4]], FLOATS), [5.0, 11.0]),
    Values(
        "lists of the wrong length",
        PAIR,
        pa.array([[1, 2], [3], [], [1, 2, 3]], FLOATS),
        [5.0],
        dict.fromkeys([1, 2, 3], "column x has not 2 values"),
    ),
    Values(
        "a null list and a null in one",
        PAIR,
        pa.array([[1, None], None, [1, 2]], FLOATS),
        [5.0],
        {0: "null among the values of column x", 1: "null in column x"},
    ),
    Values(
        "a null among lists of fixed size",
        PAIR,
        pa.array([None, [1, None], [1, 2]], FIXED),
        [5.0],
        {0: "null in column x", 1: "null among the values of column x"},
    ),
    Values("the end of an array of lists", PAIR, pa.array([[9], [1, 2]], FLOATS).slice(1), [5.0]),
    Values(
        "a value in a list that does not fit",
        PAIR,
        pa.array([[1e300, 1.0], [1.0, 2.0]]),
        [5.0],
        unfit(0, kind="float"),
    ),
]


@pytest.mark.parametrize("values", ROW_BY_ROW, ids=lambda values: values.case)
def test_a_bad_value_costs_its_row(bench: Bench, tmp_path: Path, values: Values) -> None:
    rows = {"id": range(len(values.given)), "x": values.given}
    path = write(tmp_path / "in" / "a.parquet", rows)

    ended = bench.run(tmp_path, values.wanted)

    ended.assert_published(list(values.said), dict(values.refused))
    assert [row["id"] for row in ended.refused] == [row["_row"] for row in ended.refused]
    assert {row["_input_file"] for row in ended.refused} <= {str(path)}


MOMENT = time(12, 30)
NEVER = [
    Values("truth for a number", "double", pa.array([True])),
    Values("text for a number", "double", pa.array(["1.5"])),
    Values("a date for a number", "double", pa.array([date(2024, 1, 1)])),
    Values("a time for a number", "double", pa.array([DAY])),
    Values("a time of day for a number", "double", pa.array([MOMENT])),
    Values("a duration for a number", "double", pa.array([timedelta(days=1)])),
    Values("a list for a number", "double", pa.array([[1.0]])),
    Values("a large list for a number", "double", pa.array([[1.0]], pa.large_list(pa.float64()))),
    Values("a struct for a number", "double", pa.array([{"a": 1.0}])),
    Values("a map for a number", "double", pa.array([[("a", 1)]], pa.map_("string", "int64"))),
    Values("an extension type for a number", "double", UUIDS),
    Values("truth for a whole number", "integer", pa.array([True])),
    Values("a number for truth", "boolean", pa.array([1])),
    Values("text for truth", "boolean", pa.array(["true"])),
    Values("a number for text", "string", pa.array([1])),
    Values("a struct for text", "string", pa.array([{"a": "b"}])),
    Values("a number for a time", "datetime", pa.array([1])),
    Values("text for a time", "datetime", pa.array(["2024-05-01"])),
    Values("a time of day for a time", "datetime", pa.array([MOMENT])),
    Values("text for bytes", "binary", pa.array(["a"])),
    Values("an extension type for bytes", "binary", UUIDS),
    Values("a number for a list", PAIR, pa.array([1.0])),
    Values("a list of lists for a list", PAIR, pa.array([[[1.0, 2.0]]])),
    Values("a list of text for a list", PAIR, pa.array([["a", "b"]])),
    Values("a struct for a list", PAIR, pa.array([{"a": 1.0, "b": 2.0}])),
]


@pytest.mark.parametrize("values", NEVER, ids=lambda values: values.case)
def test_a_type_that_can_never_fit_is_refused_before_the_run(
    bench: Bench, tmp_path: Path, values: Values
) -> None:
    path = write(tmp_path / "in" / "a.parquet", {"id": [1], "x": values.given})

    ended = bench.run(tmp_path, values.wanted)

    found = str(values.given.type).replace("item: ", "element: ").partition("<")[0]
    ended.assert_refused(f"input file {path}: column x is {found}", "the model's signature wants")


def test_a_year_that_int96_holds_and_nanoseconds_do_not_costs_its_row(
    bench: Bench, tmp_path: Path
) -> None:
    """Left to its defaults, pyarrow reads the year 9999 as 1816."""
    times = pa.array([DAY, FAR], pa.timestamp("us"))
    how = {"use_deprecated_int96_timestamps": True}
    write(tmp_path / "in" / "a.parquet", {"id": [0, 1], "x": times}, **how)

    bench.run(tmp_path, "datetime").assert_published([DAY], unfit(1, kind="timestamp[ns]"))


def test_a_key_that_int96_holds_and_nanoseconds_do_not_is_published_as_it_is(
    bench: Bench, tmp_path: Path
) -> None:
    rows = {"id": pa.array([FAR], pa.timestamp("us")), "x": [1.0]}
    write(tmp_path / "in" / "a.parquet", rows, use_deprecated_int96_timestamps=True)

    assert bench.run(tmp_path).scores["id"].to_pylist() == [FAR]


def test_a_key_that_is_not_utf8_costs_its_row_and_its_bytes_are_kept(
    bench: Bench, tmp_path: Path
) -> None:
    """One such key in a part, and readers would refuse the whole part."""
    write(tmp_path / "in" / "a.parquet", {"id": garbled(b"ok", b"\xff"), "x": [1.0, 2.0]})

    ended = bench.run(tmp_path)

    assert ended.scores.to_pylist() == [{"id": "ok", "said_x": 1.0}]
    assert ended.reasons() == {1: "text in column id is not UTF-8"}
    assert ended.refused[0]["id"] == b"\xff"


def test_a_list_of_fixed_size_is_passed_through_with_its_nulls(
    bench: Bench, tmp_path: Path
) -> None:
    lists = pa.array([[1, 2], None, [3, None]], FIXED)
    write(tmp_path / "in" / "a.parquet", {"id": [1, 2, 3], "x": [1.0, 2.0, 3.0], "e": lists})

    ended = bench.run(tmp_path, passthrough=("e",))

    assert ended.scores["e"].to_pylist() == [[1.0, 2.0], None, [3.0, None]]


def test_a_list_of_fixed_size_without_nulls_is_passed_through_with_its_type(
    bench: Bench, tmp_path: Path
) -> None:
    lists = pa.array([[1, 2], [3, 4]], FIXED)
    write(tmp_path / "in" / "a.parquet", {"id": [1, 2], "x": [1.0, 2.0], "e": lists})

    found = bench.run(tmp_path, passthrough=("e",)).scores["e"]

    assert (found.type, found.to_pylist()) == (FIXED, [[1.0, 2.0], [3.0, 4.0]])


def test_a_file_in_which_every_list_is_missing_costs_only_its_rows(
    bench: Bench, tmp_path: Path
) -> None:
    write(tmp_path / "in" / "a.parquet", {"id": [1], "x": pa.nulls(1)})
    write(tmp_path / "in" / "b.parquet", {"id": [2], "x": pa.array([[1, 2]], FLOATS)})

    bench.run(tmp_path, PAIR).assert_published([5.0], null(0))


def test_a_run_of_nothing_but_bad_rows_publishes_nothing(bench: Bench, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.parquet", {"id": [1, 2], "x": pa.nulls(2)})

    ended = bench.run(tmp_path)

    ended.assert_refused("2 of 2 rows could not be scored", "null in column x", state="failed")
    assert ended.reasons() == null(0, 1)
