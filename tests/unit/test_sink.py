"""Parts: what one attempt writes, and what it leaves behind when it gives up."""

from __future__ import annotations

import hashlib
from datetime import date
from decimal import Decimal
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring.data import sink
from scoring.data.sink import ROW_GROUP_BYTES, ROW_GROUP_ROWS, PartWriter


def batch(*values: float) -> pa.RecordBatch:
    return pa.record_batch({"score": pa.array(values, pa.float32())})


def write(path: Path, *batches: pa.RecordBatch) -> sink.Written:
    writer = PartWriter(path, {})
    for one in batches:
        writer.write(one)
    return writer.close()


def row_groups(path: Path) -> list[int]:
    footer = pq.read_metadata(path)
    return [footer.row_group(index).num_rows for index in range(footer.num_row_groups)]


def test_two_attempts_at_a_chunk_never_write_the_same_file() -> None:
    names = {sink.part_name(7, attempt) for attempt in (1, 2)}

    assert names == {"part-00007.attempt-1", "part-00007.attempt-2"}


@pytest.mark.parametrize("pattern", ["*.parquet", "*.pq", "part-*.parquet*"])
def test_no_reader_takes_a_staged_file_for_a_published_one(pattern: str) -> None:
    part = sink.part_name(0, 1)

    for name in (part, sink.profile_name(part), sink.quarantine_name(part)):
        assert not fnmatch(name, pattern)


def test_a_part_holds_the_rows_in_the_order_they_were_written(tmp_path: Path) -> None:
    written = write(tmp_path / "part", batch(3, 1), batch(), batch(2))

    table = pq.read_table(tmp_path / "part")
    assert table["score"].to_pylist() == [3, 1, 2]
    assert table.schema.types == [pa.float32()]
    assert written.rows == 3


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    written = write(tmp_path / "part", batch(1, 2))

    assert written.digest == hashlib.sha256((tmp_path / "part").read_bytes()).hexdigest()


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    one = write(tmp_path / "one", batch(1, 2), batch(3))
    two = write(tmp_path / "two", batch(1), batch(2, 3))

    assert one.digest == two.digest


def test_small_batches_share_a_row_group(tmp_path: Path) -> None:
    write(tmp_path / "part", *[batch(*range(1_000))] * 50)

    assert row_groups(tmp_path / "part") == [50_000]


def test_a_row_group_is_closed_when_it_has_enough_rows(tmp_path: Path) -> None:
    step = ROW_GROUP_ROWS // 4
    write(tmp_path / "part", *[pa.record_batch({"n": np.zeros(step, np.int8)})] * 9)

    assert row_groups(tmp_path / "part") == [ROW_GROUP_ROWS, ROW_GROUP_ROWS, step]


def test_a_row_group_is_closed_when_it_has_enough_bytes(tmp_path: Path) -> None:
    wide = pa.record_batch({"text": ["x" * (ROW_GROUP_BYTES // 16)] * 8})
    write(tmp_path / "part", *[wide] * 4)

    assert row_groups(tmp_path / "part") == [16, 16]


def test_a_slice_counts_only_its_own_bytes(tmp_path: Path) -> None:
    whole = pa.record_batch({"n": np.zeros(2 * ROW_GROUP_BYTES // 8)})
    write(tmp_path / "part", *[whole.slice(start * 100, 100) for start in range(10)])

    assert row_groups(tmp_path / "part") == [1_000]


def test_a_part_without_rows_has_its_schema(tmp_path: Path) -> None:
    written = write(tmp_path / "part", batch())

    table = pq.read_table(tmp_path / "part")
    assert (written.rows, table.num_rows, table.schema.names) == (0, 0, ["score"])


def test_metadata_says_which_run_wrote_the_part(tmp_path: Path) -> None:
    writer = PartWriter(tmp_path / "part", {"run": "r-1", "model": "models:/ü/7"})
    writer.write(batch(1).replace_schema_metadata({"theirs": "kept"}))
    writer.close()

    metadata = pq.read_schema(tmp_path / "part").metadata
    assert metadata[b"nightscore.run"] == b"r-1"
    assert metadata[b"nightscore.model"] == "models:/ü/7".encode()
    assert metadata[b"theirs"] == b"kept"


@pytest.mark.parametrize("rows", [0, 1, ROW_GROUP_ROWS + 1])
def test_an_abandoned_part_leaves_nothing(tmp_path: Path, rows: int) -> None:
    writer = PartWriter(tmp_path / "part", {})
    if rows:
        writer.write(pa.record_batch({"n": np.zeros(rows, np.int8)}))

    writer.abandon()

    assert list(tmp_path.iterdir()) == []


# Quarantine


def test_quarantined_rows_are_written_as_they_came(tmp_path: Path) -> None:
    rows = pa.record_batch({"_reason": ["null in column x"], "x": pa.nulls(1, pa.int16())})

    sink.write_quarantine(tmp_path / "q", [rows, rows])

    assert pq.read_table(tmp_path / "q") == pa.Table.from_batches([rows, rows])


def test_the_wider_of_two_numeric_types_holds_the_rows_of_both(tmp_path: Path) -> None:
    kinds = [pa.int32(), pa.float64(), pa.null()]
    batches = [
        pa.record_batch({"x": pa.array([value], kind)})
        for value, kind in zip([1, 0.5, None], kinds, strict=True)
    ]

    sink.write_quarantine(tmp_path / "q", batches)

    assert pq.read_table(tmp_path / "q")["x"].to_pylist() == [1.0, 0.5, None]


def test_types_that_have_nothing_in_common_are_written_as_text(tmp_path: Path) -> None:
    values = [date(2024, 1, 2), Decimal("1.50"), [1, 2], "word", None]
    batches = [pa.record_batch({"x": [value], "row": [n]}) for n, value in enumerate(values)]

    sink.write_quarantine(tmp_path / "q", batches)

    table = pq.read_table(tmp_path / "q")
    assert table["x"].to_pylist() == ["2024-01-02", "1.50", "[1, 2]", "word", None]
    assert table.schema.field("row").type == pa.int64()
