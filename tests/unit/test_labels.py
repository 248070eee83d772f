"""Labels found by key: whatever the types of its columns, as a plain dictionary finds them."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.data.labels import Labels, find_labels
from scoring.errors import LabelsUnusable

LEAST, MOST = -(2**63), 2**63 - 1
MOMENTS = [LEAST + 1, -1, 0, 1, 10**18, MOST]
DAYS = [datetime.date(1, 1, 1), datetime.date(1970, 1, 1), datetime.date(2024, 2, 29)]
POOLS: list[tuple[pa.DataType, list[Any]]] = [
    (pa.int64(), [LEAST, -1, 0, 1, 2**62, MOST]),
    (pa.int64(), [0, 1, 999_999]),
    (pa.int8(), [-128, 0, 127]),
    (pa.uint64(), [0, 1, 2**63, 2**64 - 1]),
    (pa.timestamp("ns"), MOMENTS),
    (pa.timestamp("us", "America/New_York"), MOMENTS),
    (pa.time32("ms"), [0, 1, 86_399_999]),
    (pa.duration("s"), MOMENTS),
    (pa.date32(), DAYS),
    (pa.date64(), DAYS),
    (pa.bool_(), [False, True]),
    (pa.float64(), [0.0, -0.0, 1.0, 1e300, math.nan, math.inf]),
    (pa.float16(), [0.0, -0.0, 1.0]),
    (pa.decimal128(38, 2), [Decimal("-0.01"), Decimal(0), Decimal(10**30)]),
    (pa.decimal32(5, 2), [Decimal("-0.01"), Decimal(0)]),
    (pa.string(), ["", "a", "\u00e9", "e\u0301"]),
    (pa.dictionary(pa.int8(), pa.string()), ["", "a", "b"]),
    (pa.binary(2), [b"\0\0", b"ab"]),
]


def column(kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    """Values of that type; times and durations are given as whole numbers."""
    if pa.types.is_temporal(kind) and not pa.types.is_date(kind):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        return pa.array(values, width).cast(kind)
    return pa.array(values, kind)


def labelled(
    folder: Path, key: dict[str, pa.Array], label: Sequence[Any] | pa.Array
) -> tuple[str, dict[str, pa.Array]]:
    path = folder / "labels.parquet"
    pq.write_table(pa.table({**key, "label": label}), path)
    return str(path), key


def found(path: str, scored: dict[str, pa.Array]) -> list[Any]:
    """[row] The label of each scored row; None: it has none."""
    table = pa.table(scored)
    labels = Labels(find_labels(path, table.schema, None))
    places = labels.of(table.columns)
    return pa.array(labels.values).take(pa.array(places, mask=places < 0)).to_pylist()  # type: ignore[no-any-return]


@st.composite
def keys(draw: st.DrawFn) -> tuple[list[pa.DataType], list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Types of the key's columns, keys with a label, and keys of scored rows."""
    pools = draw(st.lists(st.sampled_from(POOLS), min_size=1, max_size=4))
    row = st.tuples(*(st.sampled_from([*values, None]) for _, values in pools))
    known = draw(st.lists(row, max_size=20, unique_by=comparable))
    return [kind for kind, _ in pools], known, draw(st.lists(row, min_size=1, max_size=20))


def comparable(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """A key as a dictionary finds it: also one that is not a number is equal to itself."""
    return tuple("nan" if value != value else value for value in key)


@settings(max_examples=150, deadline=None)
@given(case=keys())
def test_labels_are_found_as_a_dictionary_finds_them(
    case: tuple[list[pa.DataType], list[tuple[Any, ...]], list[tuple[Any, ...]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    kinds, known, rows = case

    def columns(keys: list[tuple[Any, ...]]) -> dict[str, pa.Array]:
        return {f"key {n}": column(kind, [key[n] for key in keys]) for n, kind in enumerate(kinds)}

    folder = tmp_path_factory.getbasetemp()
    path, _ = labelled(folder, columns(known), pa.array(range(len(known)), pa.float64()))

    places = {comparable(key): place for place, key in enumerate(known) if None not in key}
    if not places:
        with pytest.raises(LabelsUnusable, match="no row has both a key and its label"):
            found(path, columns(rows))
        return
    assert found(path, columns(rows)) == [places.get(comparable(key)) for key in rows]


def test_no_label_is_lost_whose_key_is_wider_than_64_bits(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    users = pa.array(random.integers(0, 1_000_000, 20_000))
    moments = pa.array(random.integers(0, 2 * 10**18, 20_000)).cast(pa.timestamp("ns"))
    labels = np.arange(20_000.0)

    path, key = labelled(tmp_path, {"user": users, "at": moments}, labels)

    assert found(path, key) == labels.tolist()


@pytest.mark.parametrize(
    ("labels", "scored"),
    [
        (pa.array([1, 2, 3], pa.decimal128(18, 0)), pa.array([1, 2, 3], pa.int64())),
        (pa.array([1, 2, 3], pa.uint64()), pa.array([1, 2, 3], pa.decimal128(5, 2))),
        (pa.array([1.0, 2.0, 3.0], pa.float16()), pa.array([1, 2, 3], pa.int16())),
        (pa.array([1, 2, 3]).dictionary_encode(), pa.array([1, 2, 3], pa.int8())),
        (pa.array([0, 1, 2]).cast(pa.timestamp("s")), pa.array([0, 1, 2]).cast(pa.timestamp("s"))),
    ],
)
def test_keys_of_like_types_are_the_same_key(
    tmp_path: Path, labels: pa.Array, scored: pa.Array
) -> None:
    path, _ = labelled(tmp_path, {"id": labels}, ["a", None, "c"])

    assert found(path, {"id": scored}) == ["a", None, "c"]


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.struct([("part", pa.int64())])])
def test_a_key_that_cannot_be_compared_is_refused(tmp_path: Path, kind: pa.DataType) -> None:
    path, key = labelled(tmp_path, {"id": pa.nulls(2, kind)}, [0.0, 1.0])

    with pytest.raises(LabelsUnusable, match="cannot be compared"):
        found(path, key)


def test_what_is_found_by_is_no_label(tmp_path: Path) -> None:
    path, key = labelled(tmp_path, {"id": pa.array([1, 2])}, [0.0, 1.0])

    with pytest.raises(LabelsUnusable, match="id is of the key"):
        find_labels(path, pa.table(key).schema, "id")


def test_a_file_without_any_label_yet_is_passed_over(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2], "label": pa.nulls(2)}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"id": [3], "label": ["late"]}), tmp_path / "2.parquet")
    pq.write_table(
        pa.table({"id": [4], "label": pa.array([math.nan], pa.float64())}), tmp_path / "3.parquet"
    )

    assert found(str(tmp_path), {"id": pa.array([1, 2, 3, 4])}) == [None, None, "late", None]
