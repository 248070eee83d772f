"""Files that disagree about their columns, and names, partitions and encodings of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.integration.bad_inputs import Bench, write

pytestmark = pytest.mark.slow

FIRST = {"id": [1, 2], "x": [1.0, 2.0]}
STRICT = pa.schema([pa.field("id", pa.int64(), False), pa.field("x", pa.float64(), False)])
ODD = "i\0\u202e'\"<script>😀 \n{date}%s"

# A second file that differs from the first

AGREES: dict[str, tuple[str, Any, Any, list[Any]]] = {
    "a column more": ("double", FIRST, {"id": [3], "x": [3.0], "y": ["?"]}, [1.0, 2.0, 3.0]),
    "another order": ("double", FIRST, {"x": [3.0], "id": [3]}, [1.0, 2.0, 3.0]),
    "int, then float": ("double", {"id": [1], "x": [1]}, {"id": [3], "x": [1.5]}, [1.0, 1.5]),
    "float, then int": ("integer", FIRST, {"id": [3], "x": [3]}, [1, 2, 3]),
    "float, then decimal": (
        "double",
        FIRST,
        {"id": [3], "x": pa.array([3], pa.decimal128(5, 2))},
        [1.0, 2.0, 3.0],
    ),
    "text, then a dictionary of it": (
        "string",
        {"id": [1], "x": ["a"]},
        {"id": [2], "x": pa.array(["b"]).dictionary_encode()},
        ["a", "b"],
    ),
    "nullable, then required": (
        "double",
        FIRST,
        pa.table({"id": [3], "x": [3.0]}, schema=STRICT),
        [1.0, 2.0, 3.0],
    ),
    "rows, then none": ("double", FIRST, pa.table(FIRST).slice(0, 0), [1.0, 2.0]),
}


@pytest.mark.parametrize("case", AGREES)
def test_files_that_differ_without_loss_are_scored_as_one_input(
    bench: Bench, tmp_path: Path, case: str
) -> None:
    kind, first, second, said = AGREES[case]
    write(tmp_path / "in" / "1.parquet", first)
    write(tmp_path / "in" / "2.parquet", second)

    bench.run(tmp_path, kind).assert_published(said)


NO_COLUMNS = pa.table({"y": [1]}).select([])
TWICE = pa.table([[3], [3.0], [4.0]], names=["id", "x", "x"])
DIFFERS: dict[str, tuple[str, Any, Any, str]] = {
    "a column is missing": ("double", FIRST, {"id": [3]}, "lacks x; it has id"),
    "every column is missing": ("double", FIRST, NO_COLUMNS, "lacks id, x; it has no columns"),
    "a column is there twice": ("double", FIRST, TWICE, "it has 2 columns named 'x'"),
    "a column in capitals": ("double", FIRST, {"id": [3], "X": [3.0]}, "lacks x; it has id, X"),
    "float, then text": ("double", FIRST, {"id": [3], "x": ["3"]}, "column x is string"),
    "text, then int": (
        "string",
        {"id": [1], "x": ["a"]},
        {"id": [3], "x": [3]},
        "column x is int64, the model's signature wants string",
    ),
    "a key of text": (
        "double",
        FIRST,
        {"id": ["3"], "x": [3.0]},
        "column id is string, but int64 in ",
    ),
    "a narrower key": (
        "double",
        FIRST,
        {"id": pa.array([3], pa.int32()), "x": [3.0]},
        "Key and passthrough columns are published as they are",
    ),
}


@pytest.mark.parametrize("case", DIFFERS)
def test_a_file_that_differs_too_much_is_named(bench: Bench, tmp_path: Path, case: str) -> None:
    kind, first, second, told = DIFFERS[case]
    write(tmp_path / "in" / "1.parquet", first)
    path = write(tmp_path / "in" / "2.parquet", second)

    bench.run(tmp_path, kind).assert_refused(f"input file {path}", told)


# Files without rows


def test_a_file_without_row_groups_publishes_an_empty_output(bench: Bench, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.parquet", pa.table(FIRST).slice(0, 0))

    ended = bench.run(tmp_path)

    ended.assert_published([])
    assert ended.scores.schema.names == ["id", "said_x"]


# Partitions


@pytest.mark.parametrize(
    ("folder", "value"),
    [
        ("k=a%2Fb%20c", "a/b c"),
        ("k=50%", "50%"),
        ("k=a=b", "a=b"),
        ("k=", ""),
        ("k=😀 'x' #?", "😀 'x' #?"),
        ("k=a%0Ab%00", "a\nb\0"),
        ("k=%FF", "\ufffd"),
        ("k=__HIVE_DEFAULT_PARTITION__", None),
        ("k=1/k=2", "2"),
        ("%6B=x", "x"),
    ],
)
def test_a_partition_value_is_read_as_it_was_meant(
    bench: Bench, tmp_path: Path, folder: str, value: str | None
) -> None:
    write(tmp_path / "in" / folder / "a.parquet", FIRST)

    ended = bench.run(tmp_path, passthrough=("k",))

    assert ended.scores["k"].to_pylist() == [value, value]


def test_a_null_partition_costs_its_rows_where_the_model_needs_it(
    bench: Bench, tmp_path: Path
) -> None:
    for name in ("x=__HIVE_DEFAULT_PARTITION__", "x=b"):
        write(tmp_path / "in" / name / "a.parquet", {"id": [1, 2]})

    ended = bench.run(tmp_path, "string")

    ended.assert_published(["b", "b"], dict.fromkeys([0, 1], "null in column x"))


def test_a_column_of_the_file_is_read_and_not_the_partition_of_its_name(
    bench: Bench, tmp_path: Path
) -> None:
    write(tmp_path / "in" / "x=77" / "a.parquet", FIRST)

    bench.run(tmp_path).assert_published([1.0, 2.0])


@pytest.mark.parametrize(
    ("place", "told"), [("x=5", "column x is string"), ("=5", "lacks x"), (".", "lacks x")]
)
def test_a_partition_is_text_and_not_guessed(
    bench: Bench, tmp_path: Path, place: str, told: str
) -> None:
    path = write(tmp_path / "in" / place / "a.parquet", {"id": [1]})

    bench.run(tmp_path).assert_refused(str(path), told)


# Names


@pytest.mark.parametrize(
    "name",
    [
        *("a b", "50%20", "a#b?c=d&e", "q'\"`$(x)", "new\nline", "\x1b[31m", "ünï-数据", "😀"),
        *("\u202etxt", "[x]", "a*b?", "a\\b", "{date}", "~", "--help", "s3:"),
    ],
)
def test_any_name_is_read_and_stands_in_the_quarantine_as_it_is(
    bench: Bench, tmp_path: Path, name: str
) -> None:
    path = write(tmp_path / "in" / name / f"x{name}.parquet", {"id": [1, 2], "x": [1.0, None]})

    ended = bench.run(tmp_path)

    ended.assert_published([1.0], {1: "null in column x"})
    assert ended.refused[0]["_input_file"] == str(path)


@pytest.mark.parametrize("name", ["new\nline", "\x1b[31mred", "\u202etxt", "\x7f"])
def test_a_message_shows_a_name_without_obeying_it(bench: Bench, tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "in" / f"{name}.parquet", FIRST)
    path.write_bytes(b"PAR1")

    ended = bench.run(tmp_path)

    ended.assert_refused("in/" + name.encode("unicode_escape").decode() + ".parquet")
    assert ended.error.isprintable()


def test_any_column_name_and_any_key_come_out_as_they_went_in(bench: Bench, tmp_path: Path) -> None:
    keys = ["\0", "\u202eabc", "'; drop table runs; --", "😀"]
    write(tmp_path / "in" / "a.parquet", {ODD: keys, "x": [1.0, 2.0, None, 4.0]})

    ended = bench.run(tmp_path, key=(ODD,))

    assert ended.scores.to_pylist() == [
        {ODD: keys[0], "said_x": 1.0},
        {ODD: keys[1], "said_x": 2.0},
        {ODD: keys[3], "said_x": 4.0},
    ]
    assert ended.refused[0][ODD] == keys[2]


def test_a_column_that_is_not_there_is_named_with_the_ones_that_are(
    bench: Bench, tmp_path: Path
) -> None:
    write(tmp_path / "in" / "a.parquet", {"ID": [1], "x": [1.0]})

    bench.run(tmp_path, key=("id",)).assert_refused("lacks id; it has ID, x")


# Ways to write the same rows


WRITTEN: dict[str, dict[str, Any]] = {
    **{codec: {"compression": codec} for codec in ("snappy", "gzip", "brotli", "zstd", "lz4")},
    "not compressed": {"compression": "none"},
    "data pages of version 1": {"version": "1.0", "data_page_version": "1.0"},
    "data pages of version 2": {"version": "2.6", "data_page_version": "2.0"},
    "deltas": {"use_dictionary": False, "column_encoding": {"id": "DELTA_BINARY_PACKED"}},
    "streams of bytes": {"use_dictionary": False, "column_encoding": {"x": "BYTE_STREAM_SPLIT"}},
    "a page index": {"write_page_index": True},
    "checksums": {"write_page_checksum": True},
    "no statistics": {"write_statistics": False},
    "no Arrow schema": {"store_schema": False},
    "no dictionary": {"use_dictionary": False},
    "row groups of one row": {"row_group_size": 1},
}
TEXTS = ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "PLAIN"]


@pytest.mark.parametrize("case", WRITTEN)
def test_the_way_that_a_file_is_written_does_not_matter(
    bench: Bench, tmp_path: Path, case: str
) -> None:
    write(tmp_path / "in" / "a.parquet", {"id": [1, 2], "x": [1.5, None]}, **WRITTEN[case])

    bench.run(tmp_path).assert_published([1.5], {1: "null in column x"})


@pytest.mark.parametrize("encoding", TEXTS)
def test_the_way_that_text_is_written_does_not_matter(
    bench: Bench, tmp_path: Path, encoding: str
) -> None:
    rows = {"id": [1, 2], "x": ["abc", "abd"]}
    how = {"use_dictionary": False, "column_encoding": {"x": encoding}}
    write(tmp_path / "in" / "a.parquet", rows, **how)

    bench.run(tmp_path, "string").assert_published(["abc", "abd"])


def test_a_bloom_filter_does_not_matter(bench: Bench, tmp_path: Path) -> None:
    how = {"bloom_filter_options": {"id": {"ndv": 10, "fpp": 0.1}}}
    write(tmp_path / "in" / "a.parquet", FIRST, **how)

    bench.run(tmp_path).assert_published([1.0, 2.0])


# Links


def test_a_link_is_read_under_its_own_name(bench: Bench, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a.parquet", {"id": [1, 2], "x": [1.0, None]})
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.parquet").symlink_to(tmp_path / "elsewhere" / "a.parquet")

    ended = bench.run(tmp_path)

    ended.assert_published([1.0], {1: "null in column x"})
    assert ended.refused[0]["_input_file"] == str(tmp_path / "in" / "link.parquet")


def test_a_link_that_leads_out_of_the_roots_is_refused(bench: Bench, tmp_path: Path) -> None:
    write(tmp_path / "secret" / "a.parquet", FIRST)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.parquet").symlink_to(tmp_path / "secret" / "a.parquet")

    with bench.roots(tmp_path / "in", tmp_path / "scores"):
        ended = bench.run(tmp_path, output="scores/out")

    ended.assert_refused("outside the places that jobs may read", str(tmp_path / "in/a.parquet"))
