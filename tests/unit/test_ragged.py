"""Lists of different lengths: every row once, together only with rows of its own length."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from scoring.models.engines.ragged import by_length

lists = st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=40)


@given(lists, st.data())
def test_groups_hold_every_row_once_and_rows_of_one_length(
    values: list[list[int]], data: st.DataObject
) -> None:
    other = data.draw(
        st.lists(st.lists(st.floats(0, 1), max_size=2), min_size=len(values), max_size=len(values))
    )
    rows = pa.record_batch(
        {
            "words": pa.array(values, pa.list_(pa.int64())),
            "weights": pa.array(other, pa.list_(pa.float64())),
            "year": pa.array(range(len(values)), pa.int64()),
        }
    )

    groups = by_length(rows)

    assert sorted(np.concatenate(groups)) == list(range(len(values)))
    for group in groups:
        assert len({(len(values[row]), len(other[row])) for row in group}) <= 1
    if values:
        kinds = {(len(one), len(two)) for one, two in zip(values, other, strict=True)}
        assert len(groups) == len(kinds)


def test_rows_without_lists_are_one_group() -> None:
    assert len(by_length(pa.record_batch({"x": [1.0, 2.0]}))) == 1
