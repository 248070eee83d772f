"""Chunks partition the rows, in order, and are cut where reading them is cheap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.plan import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    CHUNKS_PER_RUN,
    PIECES_PER_ROW_GROUP,
    SPANS_PER_CHUNK,
    Chunk,
    InputFile,
    RowGroup,
    Span,
    cut,
    spans_from_json,
    spans_to_json,
)

FEWEST, MOST = CHUNK_ROWS

row_groups = st.builds(RowGroup, rows=st.integers(0, 300), bytes=st.integers(0, 10_000))
large_row_groups = st.builds(
    RowGroup, rows=st.integers(0, 5_000_000), bytes=st.integers(0, 2 * CHUNK_BYTES)
)


def inputs(groups: st.SearchStrategy[RowGroup]) -> st.SearchStrategy[list[InputFile]]:
    return st.lists(st.lists(groups, max_size=6).map(file_of_groups), min_size=1, max_size=12)


def file_of_groups(groups: Sequence[RowGroup]) -> InputFile:
    return InputFile(path="f.parquet", size=1, stamp="1", row_groups=tuple(groups))


def file_of(*rows: int, row_bytes: int = 8) -> InputFile:
    """A file whose row groups have so many rows."""
    return file_of_groups([RowGroup(rows=count, bytes=count * row_bytes) for count in rows])


def rows_of(files: Sequence[InputFile], span: Span) -> Iterator[tuple[int, int]]:
    """The (file, row) pairs that a reader of the span would see."""
    groups = files[span.file].row_groups
    before = sum(group.rows for group in groups[: span.first_group])
    there = sum(group.rows for group in groups[span.first_group : span.first_group + span.groups])
    assert span.skip + span.rows <= there, "a span must not reach beyond its row groups"
    assert span.first_row == before + span.skip
    for row in range(span.rows):
        yield span.file, before + span.skip + row


def all_rows(files: Sequence[InputFile]) -> list[tuple[int, int]]:
    return [(number, row) for number, file in enumerate(files) for row in range(file.rows)]


def shape(chunks: Sequence[Chunk]) -> list[list[tuple[int, int]]]:
    """Per chunk, the file and rows of each span."""
    return [[(span.file, span.rows) for span in chunk.spans] for chunk in chunks]


@given(inputs(row_groups), st.integers(1, 500))
def test_chunks_partition_the_rows_in_order(files: list[InputFile], chunk_rows: int) -> None:
    chunks = cut(files, chunk_rows)

    read = [row for chunk in chunks for span in chunk.spans for row in rows_of(files, span)]
    assert read == all_rows(files)
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))


@given(inputs(large_row_groups))
def test_chunks_planned_from_sizes_partition_the_rows_too(files: list[InputFile]) -> None:
    spans = [span for chunk in cut(files) for span in chunk.spans if span.rows]

    assert spans == sorted(spans, key=lambda span: (span.file, span.first_row))
    for number, file in enumerate(files):
        ends = [0, *accumulate(span.rows for span in spans if span.file == number)]
        assert [span.first_row for span in spans if span.file == number] == ends[:-1]
        assert ends[-1] == file.rows


@given(inputs(row_groups), st.integers(1, 500))
def test_no_chunk_has_more_rows_than_asked_for(files: list[InputFile], chunk_rows: int) -> None:
    chunks = cut(files, chunk_rows)

    assert all(chunk.rows <= chunk_rows for chunk in chunks)
    assert all(len(chunk.spans) <= SPANS_PER_CHUNK for chunk in chunks)


@given(inputs(row_groups), st.integers(1, 500))
def test_a_row_group_that_fits_is_never_divided(files: list[InputFile], chunk_rows: int) -> None:
    for chunk in cut(files, chunk_rows):
        for span in chunk.spans:
            groups = files[span.file].row_groups[span.first_group :][: span.groups]
            if all(group.rows <= chunk_rows for group in groups):
                assert (span.skip, span.rows) == (0, sum(group.rows for group in groups))


@given(inputs(row_groups), st.integers(1, 500))
def test_a_file_begins_in_a_chunk_only_if_all_of_it_fits_there(
    files: list[InputFile], chunk_rows: int
) -> None:
    for chunk in cut(files, chunk_rows):
        for later in chunk.spans[1:]:
            if later.first_row == 0:
                parts = [span.rows for span in chunk.spans if span.file == later.file]
                assert sum(parts) == files[later.file].rows


@given(inputs(row_groups), st.integers(1, 500))
def test_spans_survive_the_ledger(files: list[InputFile], chunk_rows: int) -> None:
    for chunk in cut(files, chunk_rows):
        assert spans_from_json(spans_to_json(chunk.spans)) == chunk.spans


@pytest.mark.parametrize(
    "files", [[file_of()], [file_of(0)], [file_of(0, 0), file_of(), file_of(0)], [file_of(0)] * 400]
)
@pytest.mark.parametrize("chunk_rows", [0, 10])
def test_an_input_without_rows_is_one_empty_chunk(files: list[InputFile], chunk_rows: int) -> None:
    (chunk,) = cut(files, chunk_rows)

    assert (chunk.number, chunk.rows) == (0, 0)
    assert [span.file for span in chunk.spans] == [0]


def test_whole_row_groups_go_together_while_they_fit() -> None:
    (span,), (last,) = (chunk.spans for chunk in cut([file_of(30, 30, 30, 30)], 100))

    assert (span.first_group, span.groups, span.rows) == (0, 3, 90)
    assert (last.first_group, last.groups, last.rows) == (3, 1, 30)


def test_an_oversized_row_group_becomes_several_nearly_equal_chunks() -> None:
    chunks = cut([file_of(250)], 100)

    assert [chunk.rows for chunk in chunks] == [83, 83, 84]
    assert [chunk.spans[0].skip for chunk in chunks] == [0, 83, 166]


def test_an_oversized_row_group_is_cut_into_few_pieces_unless_the_job_asks_for_more() -> None:
    file = [file_of(100 * MOST, row_bytes=1)]

    assert len(cut(file)) == PIECES_PER_ROW_GROUP
    assert len(cut(file, MOST)) == 100


def test_tiny_files_share_a_chunk() -> None:
    assert shape(cut([file_of(10)] * 5, 100)) == [[(number, 10) for number in range(5)]]


def test_a_chunk_of_tiny_files_stays_quick_to_retry() -> None:
    chunks = cut([file_of(1)] * (SPANS_PER_CHUNK + 1))

    assert [len(chunk.spans) for chunk in chunks] == [SPANS_PER_CHUNK, 1]


def test_a_large_file_begins_a_chunk_of_its_own() -> None:
    files = [file_of(20), file_of(50, 50), file_of(20)]

    assert shape(cut(files, 100)) == [[(0, 20)], [(1, 100)], [(2, 20)]]


def test_a_row_group_without_rows_is_not_read() -> None:
    (chunk,) = cut([file_of(10, 0, 10)], 100)

    assert [(span.first_group, span.groups, span.first_row) for span in chunk.spans] == [
        (0, 1, 0),
        (2, 1, 10),
    ]


def test_a_small_run_is_one_chunk() -> None:
    assert len(cut([file_of(FEWEST)])) == 1


def test_a_large_run_is_cut_into_about_a_dozen_chunks() -> None:
    files = [file_of(*[FEWEST // 4] * 8)] * 24

    assert CHUNKS_PER_RUN <= len(cut(files)) <= 2 * CHUNKS_PER_RUN


def test_wide_rows_make_chunks_of_fewer_rows() -> None:
    per_row = 4_096
    files = [file_of(*[10_000] * 100, row_bytes=per_row)]

    chunks = cut(files)

    assert all(chunk.rows * per_row <= CHUNK_BYTES for chunk in chunks)
    assert max(chunk.rows for chunk in chunks) > CHUNK_BYTES / per_row / 2


def test_even_a_row_larger_than_a_chunk_is_planned() -> None:
    chunks = cut([file_of(1, 1, 1, row_bytes=2 * CHUNK_BYTES)])

    assert [chunk.rows for chunk in chunks] == [1, 1, 1]
