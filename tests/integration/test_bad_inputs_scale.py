"""Input that is very wide, very long, or in very many pieces: bounded memory, and every row.

The full sizes (a row group of 100 million rows, texts of 3 GB in one column) take minutes: they
run when NIGHTSCORE_FULL_SIZE is set.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring.data import source
from scoring.plan import whole
from tests.integration.bad_inputs import Bench, write

pytestmark = pytest.mark.slow

FULL_SIZE = pytest.mark.skipif(
    "NIGHTSCORE_FULL_SIZE" not in os.environ, reason="takes minutes; set NIGHTSCORE_FULL_SIZE"
)
A_WHILE = pytest.mark.timeout(1_800)
MEBIBYTE = 2**20


def test_ten_thousand_columns_are_passed_over_for_the_two_that_are_read(
    bench: Bench, tmp_path: Path
) -> None:
    names = [f"column {number}" for number in range(9_998)]
    rows = dict.fromkeys(names, pa.array([1.0, 2.0])) | {"id": [1, 2], "x": [1.0, None]}
    write(tmp_path / "in" / "a.parquet", rows)

    bench.run(tmp_path).assert_published([1.0], {1: "null in column x"})


def test_one_column_that_is_missing_among_ten_thousand_makes_no_endless_message(
    bench: Bench, tmp_path: Path
) -> None:
    rows = dict.fromkeys([f"c{number}" for number in range(10_000)], pa.array([1.0]))
    write(tmp_path / "in" / "a.parquet", rows)

    ended = bench.run(tmp_path)

    ended.assert_refused("lacks id, x; it has c0, c1", "c39 and 9,960 more. Nothing")


def test_row_groups_of_one_row_are_read_as_one_table(bench: Bench, tmp_path: Path) -> None:
    values = np.arange(3_000.0)
    rows = {"id": range(3_000), "x": pa.array(values, mask=values == 1_234)}
    write(tmp_path / "in" / "a.parquet", rows, row_group_size=1)

    ended = bench.run(tmp_path)

    said = values.tolist()
    del said[1_234]
    ended.assert_published(said, {1_234: "null in column x"})


def test_very_many_small_files_share_chunks(bench: Bench, tmp_path: Path) -> None:
    for number in range(400):
        write(tmp_path / "in" / f"{number:03}.parquet", {"id": [number], "x": [number / 2]})

    bench.run(tmp_path).assert_published([number / 2 for number in range(400)])


def test_rows_of_megabytes_come_a_few_at_a_time(tmp_path: Path) -> None:
    texts = [f"{number:02}" + "a" * 2 * MEBIBYTE for number in range(48)]
    path = write(tmp_path / "a.parquet", {"x": texts}, use_dictionary=False)
    (planned,) = source.scan(str(path), ["x"])
    del texts

    read = source.read(planned.file, whole(planned.file), ["x"], 100_000)
    batches = [(batch.num_rows, batch.nbytes) for batch in read]

    assert sum(rows for rows, _ in batches) == 48
    assert max(size for _, size in batches) <= source.BATCH_BYTES + 5 * MEBIBYTE


SCORE = r"""
import json, re, sys
from pathlib import Path
from tests.integration.bad_inputs import Bench

def peak():
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024

folder, kind, registry = sys.argv[1:]
bench = Bench(Path(folder) / "bench", registry)
bench.model(kind)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = peak()
run = bench.score(Path(folder), kind)
print(json.dumps([run.state, run.error, run.rows_scored, peak() - before]))
"""


def grown_by(folder: Path, kind: str, tracking_uri: str) -> tuple[int, int]:
    """Score ``in`` of a folder in a process of its own: rows scored, and MiB it grew by."""
    done = subprocess.run(
        [sys.executable, "-c", SCORE, str(folder), kind, tracking_uri],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    state, error, rows, grown = json.loads(done.stdout.splitlines()[-1])
    assert (state, error) == ("published", None)
    return rows, grown


def write_rows(path: Path, count: int) -> None:
    """One row group of ``count`` rows."""
    ids, numbers = np.arange(count), np.zeros(count)
    table = pa.table({"id": ids, "x": numbers})
    write(path, table, row_group_size=count, use_dictionary=False, compression="zstd")


def test_memory_does_not_grow_with_the_rows_of_a_row_group(
    tmp_path: Path, tracking_uri: str
) -> None:
    write_rows(tmp_path / "in" / "a.parquet", 5_000_000)  # 80 MB of numbers

    rows, grown = grown_by(tmp_path, "double", tracking_uri)

    assert rows == 5_000_000
    assert grown < 160


@FULL_SIZE
@A_WHILE
def test_a_row_group_of_a_hundred_million_rows_takes_no_more_memory(
    tmp_path: Path, tracking_uri: str
) -> None:
    write_rows(tmp_path / "in" / "a.parquet", 100_000_000)

    rows, grown = grown_by(tmp_path, "double", tracking_uri)

    assert rows == 100_000_000
    assert grown < 160


@FULL_SIZE
@A_WHILE
def test_a_column_of_three_gigabytes_of_text_is_scored_in_pieces(
    tmp_path: Path, tracking_uri: str
) -> None:
    """More than one Arrow array of text can hold."""
    texts = [f"{number:04}" + "a" * MEBIBYTE for number in range(3_000)]
    table = pa.table({"id": range(3_000), "x": pa.array(texts, pa.large_string())})
    write(
        tmp_path / "in" / "a.parquet",
        table,
        row_group_size=3_000,
        use_dictionary=False,
        compression="zstd",
        store_schema=False,
    )
    assert pq.read_metadata(tmp_path / "in" / "a.parquet").num_row_groups == 1

    rows, grown = grown_by(tmp_path, "string", tracking_uri)

    assert rows == 3_000
    assert grown < 3_000  # a few batches of 64 MiB, each as Arrow, as Python text and as output


@FULL_SIZE
@A_WHILE
def test_a_text_of_two_gigabytes_is_a_row_like_others(tmp_path: Path, tracking_uri: str) -> None:
    """As long as a text in Parquet can be; what it takes is what the model makes of it."""
    texts = pa.array(["a", "a" * 2_000_000_000, "b"], pa.large_string())
    table = pa.table({"id": range(3), "x": texts})
    write(
        tmp_path / "in" / "a.parquet",
        table,
        use_dictionary=False,
        compression="zstd",
        write_statistics=False,
        store_schema=False,
    )

    rows, grown = grown_by(tmp_path, "string", tracking_uri)

    assert rows == 3
    assert grown < 18_000  # eight times the text: as Arrow, as Python text, as output, on their way
