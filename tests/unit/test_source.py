"""Which files a path means, what planning reads of them, and which rows a span means."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.data.source import Scanned, check_columns, read, scan
from scoring.errors import (
    InputChanged,
    InputColumnsMissing,
    InputUnreadable,
    NoInputFiles,
)
from scoring.plan import Span, cut

TABLE = pa.table({"id": range(10), "name": [f"n{n}" for n in range(10)]})


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes a Parquet file below ``tmp_path``; returns its path."""

    def write_file(name: str, table: pa.Table = TABLE, **how: Any) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, **how)
        return str(path)

    return write_file


def whole(one: Scanned) -> Span:
    groups = one.file.row_groups
    return Span(file=0, first_group=0, groups=len(groups), skip=0, rows=one.file.rows, first_row=0)


def rows(one: Scanned, *columns: str, batch_rows: int = 1_000) -> list[dict[str, Any]]:
    batches = read(one.file, whole(one), columns, batch_rows)
    return [row for batch in batches for row in batch.to_pylist()]


def found(path: Path | str) -> list[str]:
    return [one.file.path for one in scan(str(path), [])]


Writer = Callable[..., str]

# Finding


def test_a_path_may_be_a_file_a_folder_or_a_glob(write: Writer, tmp_path: Path) -> None:
    one, two, other = write("d/1.parquet"), write("d/2.parquet"), write("d/x.pq")

    assert found(one) == [one]
    assert found(tmp_path / "d") == [one, two, other]
    assert found(tmp_path / "d" / "*.parquet") == [one, two]
    assert found(tmp_path / "*") == [one, two, other]


def test_a_folder_is_searched_in_depth_in_the_order_of_paths(write: Writer, tmp_path: Path) -> None:
    paths = [write(f"d/{name}.parquet") for name in ("b/2", "a/z/1", "c", "a/1", "b/10")]

    assert found(tmp_path / "d") == sorted(paths)


def test_a_recursive_glob_is_followed(write: Writer, tmp_path: Path) -> None:
    deep = write("d/x/y/rows.parquet")
    write("d/x/y/other.parquet")

    assert found(tmp_path / "d" / "**" / "rows.parquet") == [deep]


@pytest.mark.parametrize("path", ["d", "d/*", "d/**/*.parquet", "d/*/*.parquet"])
@pytest.mark.parametrize(
    "hidden", ["d/_delta_log/1.parquet", "d/.tmp/1.parquet", "d/a/_1.parquet", "d/a/.1.parquet"]
)
def test_hidden_files_and_folders_are_passed_over(
    write: Writer, tmp_path: Path, path: str, hidden: str
) -> None:
    seen = write("d/a/1.parquet")
    write(hidden)

    assert found(tmp_path / path) == [seen]


def test_a_hidden_place_that_the_job_names_itself_is_read(write: Writer, tmp_path: Path) -> None:
    inside = write("_landing/1.parquet")
    named = write("_landing/_2.parquet")

    assert found(tmp_path / "_landing") == [inside]
    assert found(tmp_path / "_landing" / "*") == [inside]
    assert found(named) == [named]


def test_other_files_of_a_folder_are_not_input(write: Writer, tmp_path: Path) -> None:
    seen = write("d/1.parquet")
    (tmp_path / "d" / "README.md").write_text("hello")
    (tmp_path / "d" / "1.parquet.crc").write_bytes(b"\0")

    assert found(tmp_path / "d") == [seen]


def test_a_link_back_to_the_folder_does_not_double_rows(write: Writer, tmp_path: Path) -> None:
    seen = write("d/a/1.parquet")
    os.symlink(tmp_path / "d", tmp_path / "d" / "a" / "back")

    assert found(tmp_path / "d") == [seen]


def test_a_linked_folder_is_searched(write: Writer, tmp_path: Path) -> None:
    write("elsewhere/1.parquet")
    (tmp_path / "d").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "d" / "linked")

    assert found(tmp_path / "d") == [str(tmp_path / "d" / "linked" / "1.parquet")]


@pytest.mark.parametrize("name", ["with space", "ünïcode-数据", "[x]", "100%", "a=b c", "q?*"])
def test_any_name_can_be_read(write: Writer, tmp_path: Path, name: str) -> None:
    path = write(f"{name}/{name}.parquet")

    assert found(path) == found(tmp_path / name) == [path]
    assert rows(scan(path, ["id"])[0], "id") == TABLE.select(["id"]).to_pylist()


@pytest.mark.parametrize("path", ["nothing", "nothing.parquet", "none-*.parquet", "empty"])
def test_a_path_without_files_says_so(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(NoInputFiles, match="no Parquet files at"):
        scan(str(tmp_path / path), [])


# Partitions


def test_hive_folders_are_text_columns(write: Writer, tmp_path: Path) -> None:
    write("t/year=2024/city=Oslo/1.parquet")

    (one,) = scan(str(tmp_path / "t"), [])

    assert one.file.partitions == (("year", "2024"), ("city", "Oslo"))
    assert one.schema.names == ["id", "name", "year", "city"]
    assert rows(one, "city", "id", "year")[3] == {"city": "Oslo", "id": 3, "year": "2024"}
    assert rows(one, "year") == [{"year": "2024"}] * 10


def test_partitions_that_another_writer_escaped_are_read_as_they_were(tmp_path: Path) -> None:
    cities = ["New York", "ü/ö", None, "a=b", "50%"]
    table = pa.table({"city": cities, "number": range(5)})
    pq.write_to_dataset(table, tmp_path, partition_cols=["city"])

    read_back = [row for one in scan(str(tmp_path), []) for row in rows(one, "city", "number")]

    assert sorted(read_back, key=lambda row: int(row["number"])) == table.to_pylist()


def test_a_column_of_the_file_wins_over_a_folder_of_its_name(write: Writer, tmp_path: Path) -> None:
    write("id=7/1.parquet")

    (one,) = scan(str(tmp_path / "id=7"), [])

    assert one.file.partitions == ()
    assert rows(one, "id")[:2] == [{"id": 0}, {"id": 1}]


# Planning


def test_planning_reads_footers_only(write: Writer) -> None:
    path = write("1.parquet", row_group_size=3)
    content = bytearray(Path(path).read_bytes())
    footer = int.from_bytes(content[-8:-4], "little") + 8
    content[4:-footer] = b"\xff" * (len(content) - footer - 4)
    Path(path).write_bytes(content)

    (one,) = scan(path, [])

    assert [group.rows for group in one.file.row_groups] == [3, 3, 3, 1]
    with pytest.raises(InputUnreadable):
        rows(one, "id")


def test_sizes_count_the_columns_that_will_be_read(write: Writer) -> None:
    table = pa.table({"small": [1, 2], "large": ["x" * 5_000, "y" * 5_000]})
    path = write("1.parquet", table)

    def size(*columns: str) -> int:
        return scan(path, columns)[0].file.row_groups[0].bytes

    assert size("small") < 500
    assert size("large") > 5_000
    assert size() == size("small", "large") == size("small") + size("large")


def test_a_file_is_identified_by_size_and_modification_time(write: Writer) -> None:
    path = write("1.parquet")

    (one,) = scan(path, [])

    status = os.stat(path)
    assert (one.file.size, one.file.stamp) == (status.st_size, str(status.st_mtime_ns))


def test_least_values_of_numbers_and_times_come_from_the_footer(write: Writer) -> None:
    table = pa.table(
        {
            "whole": [3, -5, None],
            "real": [2.5, float("nan"), 1.5],
            "unsigned": pa.array([2**63 + 1, 2**63, None], pa.uint64()),
            "nothing": pa.nulls(3, pa.float64()),
            "flag": [True, False, None],
            "day": [date(2024, 1, 1)] * 3,
            "at": pa.array([datetime(2024, 1, 1)] * 3, pa.timestamp("ns")),
            "ancient": pa.array([-(10**18)] * 3, pa.timestamp("us")),
            "price": [Decimal("1.5")] * 3,
            "half": pa.array([1, 2, 3], pa.float16()),
            "word": ["a", "b", "c"],
            "list": [[1], [2], [3]],
        }
    )
    (one,) = scan(write("1.parquet", table, row_group_size=2), table.column_names)

    new_year = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
    assert one.minima == {
        "whole": -5.0,
        "real": 1.5,
        "unsigned": float(2**63),
        "day": new_year,
        "at": new_year,
    }


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all" * 10])
def test_a_file_that_is_not_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.parquet"
    path.write_bytes(content)

    with pytest.raises(InputUnreadable, match=r"broken\.parquet cannot be read"):
        scan(str(tmp_path), [])


def test_a_truncated_file_is_named(write: Writer) -> None:
    path = write("1.parquet")
    os.truncate(path, os.path.getsize(path) - 10)

    with pytest.raises(InputUnreadable, match=r"1\.parquet cannot be read"):
        scan(path, [])


def test_a_dangling_link_is_named(tmp_path: Path) -> None:
    os.symlink(tmp_path / "gone", tmp_path / "link.parquet")

    with pytest.raises(InputUnreadable, match=r"link\.parquet cannot be read"):
        scan(str(tmp_path), [])


def test_every_file_must_have_every_column(write: Writer, tmp_path: Path) -> None:
    write("d/1.parquet")
    poor = write("d/2.parquet", TABLE.select(["id"]))

    with pytest.raises(InputColumnsMissing, match="lacks name; it has id") as missing:
        check_columns(scan(str(tmp_path / "d"), []), ["id", "name"])

    assert missing.value.path == poor


def test_a_column_that_is_there_twice_cannot_be_meant(write: Writer) -> None:
    path = write("1.parquet", pa.table([[1], [2], [3]], names=["id", "id", "x"]))

    check_columns(scan(path, ["x"]), ["x"])
    with pytest.raises(InputUnreadable, match="2 columns named 'id'"):
        check_columns(scan(path, ["id"]), ["id"])


# Reading


@pytest.fixture(scope="session")
def many_rows(tmp_path_factory: pytest.TempPathFactory) -> Scanned:
    """A file of 1,000 rows in row groups of 1 to 300 rows."""
    path = tmp_path_factory.mktemp("source") / "many.parquet"
    rng = np.random.default_rng(1)
    table = pa.table(
        {
            "id": range(1_000),
            "x": pa.array(rng.normal(size=1_000), mask=rng.random(1_000) < 0.1),
            "word": [f"word {n % 7}" for n in range(1_000)],
        }
    )
    with pq.ParquetWriter(path, table.schema) as writer:
        start = 0
        for count in (300, 1, 150, 99, 50, 300, 100):
            writer.write_table(table.slice(start, count), row_group_size=count)
            start += count
    (one,) = scan(str(path), [])
    assert [group.rows for group in one.file.row_groups] == [300, 1, 150, 99, 50, 300, 100]
    return one


@settings(deadline=None)
@given(data=st.data(), batch_rows=st.integers(1, 400))
def test_a_span_is_exactly_its_rows(many_rows: Scanned, data: Any, batch_rows: int) -> None:
    groups = many_rows.file.row_groups
    first = data.draw(st.integers(0, len(groups) - 1))
    count = data.draw(st.integers(1, len(groups) - first))
    there = sum(group.rows for group in groups[first : first + count])
    skip = data.draw(st.integers(0, groups[first].rows - 1))
    length = data.draw(st.integers(0, there - skip))
    start = sum(group.rows for group in groups[:first]) + skip
    span = Span(file=0, first_group=first, groups=count, skip=skip, rows=length, first_row=start)

    batches = list(read(many_rows.file, span, ["word", "id", "x"], batch_rows))

    expected = pq.read_table(many_rows.file.path, columns=["word", "id", "x"])
    assert all(0 < batch.num_rows <= batch_rows for batch in batches)
    assert pa.Table.from_batches(batches, expected.schema) == expected.slice(start, length)


@settings(deadline=None)
@given(chunk_rows=st.integers(1, 1_200))
def test_the_chunks_of_a_plan_read_every_row_once(many_rows: Scanned, chunk_rows: int) -> None:
    chunks = cut([many_rows.file], chunk_rows)

    numbers = [
        number
        for chunk in chunks
        for span in chunk.spans
        for batch in read(many_rows.file, span, ["id"], 256)
        for number in batch["id"].to_pylist()
    ]

    assert numbers == list(range(1_000))


def test_columns_come_by_name_and_in_the_order_asked_for(write: Writer) -> None:
    table = pa.table(
        {
            "a.b": [1, 2],
            "a": [{"b": 3}, {"b": 4}],
            "ü x[1]": [[5], [6]],
            "kind": pa.array(["x", "y"]).dictionary_encode(),
            "unread": [0, 0],
        }
    )
    (one,) = scan(write("1.parquet", table), [])

    for columns in (["kind", "ü x[1]", "a", "a.b"], ["a"], ["a.b"]):
        assert rows(one, *columns) == table.select(columns).to_pylist()


def test_an_empty_span_reads_nothing(many_rows: Scanned) -> None:
    nothing = Span(file=0, first_group=0, groups=0, skip=0, rows=0, first_row=0)

    assert list(read(many_rows.file, nothing, ["id"], 100)) == []


# Files that change


@pytest.fixture
def planned(write: Writer) -> Scanned:
    """A planned file of many pages, so that a reader cannot hold all of it."""
    table = pa.table({"id": range(200_000), "noise": np.random.default_rng(0).random(200_000)})
    path = write("1.parquet", table, row_group_size=50_000, compression="none")
    return scan(path, [])[0]


def replace(path: str, table: pa.Table = TABLE) -> None:
    """Another file under the same name, as a job that writes it again leaves it."""
    pq.write_table(table, f"{path}.new")
    os.replace(f"{path}.new", path)


def first_batch(batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch:
    return next(batches)


def test_a_file_replaced_before_reading_is_noticed(planned: Scanned) -> None:
    replace(planned.file.path)

    with pytest.raises(InputChanged, match="changed after the run was planned"):
        first_batch(read(planned.file, whole(planned), ["id"], 1_000))


def test_a_file_touched_before_reading_is_noticed(planned: Scanned) -> None:
    os.utime(planned.file.path, ns=(1, 1))

    with pytest.raises(InputChanged, match="written at 1 ns"):
        first_batch(read(planned.file, whole(planned), ["id"], 1_000))


def test_a_file_that_vanished_is_noticed(planned: Scanned) -> None:
    os.unlink(planned.file.path)

    with pytest.raises(InputChanged, match="no such file"):
        first_batch(read(planned.file, whole(planned), ["id"], 1_000))


def test_a_file_replaced_between_two_batches_is_noticed(planned: Scanned) -> None:
    batches = read(planned.file, whole(planned), ["id", "noise"], 1_000)
    first_batch(batches)
    replace(planned.file.path)

    with pytest.raises(InputChanged):
        list(batches)


def test_a_file_rewritten_in_place_between_two_batches_is_noticed(planned: Scanned) -> None:
    batches = read(planned.file, whole(planned), ["id", "noise"], 1_000)
    first_batch(batches)
    with open(planned.file.path, "r+b") as file:
        file.seek(planned.file.size // 2)
        file.write(b"\0" * (planned.file.size // 4))

    with pytest.raises(InputChanged):
        list(batches)


def test_a_file_deleted_between_two_batches_is_noticed(planned: Scanned) -> None:
    batches = read(planned.file, whole(planned), ["id", "noise"], 1_000)
    first_batch(batches)
    os.unlink(planned.file.path)

    with pytest.raises(InputChanged, match="no such file"):
        list(batches)
