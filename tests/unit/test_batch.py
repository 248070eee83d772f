"""Batches: every row once, in order; memory that runs out costs speed, not rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.models.batch import BatchSize, ran_out_of_memory


@given(rows=st.integers(0, 300), size=st.integers(1, 400))
def test_batches_cover_every_row_once_in_order(rows: int, size: int) -> None:
    ranges = BatchSize(size).calls(rows, lambda start, stop: (start, stop))

    assert [row for start, stop in ranges for row in range(start, stop)] == list(range(rows))
    assert all(stop - start <= size for start, stop in ranges)


@given(rows=st.integers(1, 300), size=st.integers(1, 400), fits=st.integers(1, 50))
def test_memory_that_runs_out_halves_the_batch_and_loses_nothing(
    rows: int, size: int, fits: int
) -> None:
    batches = BatchSize(size)

    def call(start: int, stop: int) -> range:
        if stop - start > fits:
            raise RuntimeError("CUDA failure 2: out of memory")
        return range(start, stop)

    pieces = batches.calls(rows, call)

    assert [row for piece in pieces for row in piece] == list(range(rows))
    assert batches.rows <= max(fits, 1) or rows <= fits


def test_whoever_watches_is_told_of_every_batch_that_is_done() -> None:
    done: list[int] = []
    batches = BatchSize(10, lambda: done.append(1))

    def call(start: int, stop: int) -> None:
        if stop - start > 5:
            raise MemoryError

    batches.calls(20, call)

    assert len(done) == 4


def test_a_smaller_batch_stays_smaller() -> None:
    batches = BatchSize(100)

    def call(start: int, stop: int) -> int:
        if stop - start > 30:
            raise MemoryError
        return stop - start

    assert batches.calls(100, call) == [25, 25, 25, 25]
    assert batches.calls(60, call) == [25, 25, 10]


def test_one_row_that_does_not_fit_is_an_error() -> None:
    def call(start: int, stop: int) -> None:
        raise RuntimeError("Failed to allocate memory for requested buffer of size 1099511627776")

    with pytest.raises(MemoryError, match="one row does not fit"):
        BatchSize(4).calls(10, call)


def test_other_errors_of_a_model_pass_through() -> None:
    def call(start: int, stop: int) -> None:
        raise ValueError("row 3 is out of range")

    with pytest.raises(ValueError, match="row 3"):
        BatchSize(4).calls(10, call)


def test_a_bad_value_that_speaks_of_memory_is_not_out_of_memory() -> None:
    assert not ran_out_of_memory(ValueError("the word memory, and out of memory"))
    assert ran_out_of_memory(RuntimeError("std::bad_alloc"))
