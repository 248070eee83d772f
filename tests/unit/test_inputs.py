"""Which table columns feed a model, and how they become its arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.errors import ModelUnsupported
from scoring.models.inputs import STACK_ROWS, array, features, matrix
from scoring.models.signature import Field, Signature

MODEL = "models:/m/1"


def field(
    name: str | None, kind: pa.DataType, shape: tuple[int, ...] | None = None, **more: bool
) -> Field:
    return Field(name=name, type=kind, shape=shape, required=more.get("required", True))


def needed(*inputs: Field, columns: tuple[str, ...] = ()) -> list[tuple[str | None, Any, Any]]:
    """Name, type and shape of the columns that feed these inputs."""
    found = features(Signature(inputs=inputs, outputs=()), columns, MODEL)
    return [(one.name, one.type, one.shape) for one in found]


FLOAT, LONG, TEXT = pa.float32(), pa.int64(), pa.string()

# Which columns


def test_named_columns_are_the_signatures_own() -> None:
    assert needed(field("b", FLOAT), field("a", TEXT)) == [("b", FLOAT, None), ("a", TEXT, None)]


def test_optional_columns_stay_optional() -> None:
    signature = Signature(inputs=(field("a", FLOAT, required=False),), outputs=())

    assert [one.required for one in features(signature, (), MODEL)] == [False]


@pytest.mark.parametrize("columns", [("a", "b"), ("b", "a"), ("a",)])
def test_the_jobs_columns_may_repeat_those_of_the_signature(columns: tuple[str, ...]) -> None:
    found = needed(field("a", FLOAT), field("b", LONG), columns=columns)

    assert found == [("a", FLOAT, None), ("b", LONG, None)], "the model's order counts"


def test_a_column_that_the_signature_does_not_have_is_refused() -> None:
    with pytest.raises(ModelUnsupported, match="names c, d, but its signature has a, b"):
        needed(field("a", FLOAT), field("b", LONG), columns=("a", "d", "c"))


def test_named_tensors_of_one_value_a_row_are_columns() -> None:
    found = needed(field("a", FLOAT, (-1,)), field("b", LONG, (-1, 1)))

    assert found == [("a", FLOAT, None), ("b", LONG, None)]


def test_a_named_tensor_among_others_is_a_list_column() -> None:
    found = needed(field("a", FLOAT, (-1, 3)), field("b", LONG, (-1,)))

    assert found == [("a", FLOAT, (-1, 3)), ("b", LONG, None)]


def test_a_named_matrix_is_a_list_column_of_its_name() -> None:
    assert needed(field("X", FLOAT, (-1, 4))) == [("X", FLOAT, (-1, 4))]
    assert needed(field("X", FLOAT, (-1, 4)), columns=("X",)) == [("X", FLOAT, (-1, 4))]


@pytest.mark.parametrize("name", [None, "X"])
def test_the_jobs_columns_make_up_a_matrix_in_their_order(name: str | None) -> None:
    found = needed(field(name, FLOAT, (-1, 2)), columns=("b", "a"))

    assert found == [("b", FLOAT, None), ("a", FLOAT, None)]


def test_a_matrix_of_open_width_takes_as_many_columns_as_the_job_names() -> None:
    assert len(needed(field(None, FLOAT, (-1, -1)), columns=("a", "b", "c"))) == 3


def test_one_column_for_a_matrix_is_a_list_column() -> None:
    found = needed(field(None, FLOAT, (-1, 4)), columns=("embedding",))

    assert found == [("embedding", FLOAT, (-1, 4))]


def test_a_matrix_of_another_width_is_refused() -> None:
    with pytest.raises(ModelUnsupported, match=r"4 values a row and .* has 2"):
        needed(field(None, FLOAT, (-1, 4)), columns=("a", "b"))


def test_an_unnamed_matrix_needs_the_jobs_columns() -> None:
    with pytest.raises(ModelUnsupported, match=r"name the table columns .* in \[input\] columns"):
        needed(field(None, FLOAT, (-1, 4)))


def test_unnamed_columns_are_named_by_the_job_in_order() -> None:
    found = needed(field(None, FLOAT), field(None, TEXT), columns=("x", "y"))

    assert found == [("x", FLOAT, None), ("y", TEXT, None)]


@pytest.mark.parametrize("columns", [(), ("x",), ("x", "y", "z")])
def test_unnamed_columns_need_as_many_names(columns: tuple[str, ...]) -> None:
    with pytest.raises(ModelUnsupported, match=f"2 inputs without names .* has {len(columns)}"):
        needed(field(None, FLOAT), field(None, TEXT), columns=columns)


# Arrays


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.int64(), pa.int32(), pa.uint8()])
def test_numbers_are_a_view_of_the_arrow_buffer(kind: pa.DataType) -> None:
    column = pa.array([1, 2, 3], kind)

    found = array(column)

    assert found.tolist() == [1, 2, 3]
    assert found.__array_interface__["data"][0] == column.buffers()[1].address


@pytest.mark.parametrize("kind", [pa.list_(FLOAT, 2), pa.list_(FLOAT), pa.large_list(FLOAT)])
def test_lists_of_one_length_are_a_matrix_without_a_copy(kind: pa.DataType) -> None:
    column = pa.array([[9, 9], [1, 2], [3, 4]], kind).slice(1)

    found = array(column)

    assert found.tolist() == [[1, 2], [3, 4]]
    assert found.dtype == np.float32
    assert found.base is not None


def test_lists_of_different_lengths_are_no_matrix() -> None:
    with pytest.raises(ValueError, match="lists of 1 to 2 values"):
        array(pa.array([[1.0], [2.0, 3.0]]))


def test_no_lists_at_all_are_an_empty_matrix() -> None:
    assert array(pa.array([], pa.list_(FLOAT))).shape == (0, 0)
    assert array(pa.array([], pa.list_(FLOAT, 3))).shape == (0, 3)


def test_a_missing_float_is_not_a_number() -> None:
    np.testing.assert_array_equal(array(pa.array([1.5, None])), [1.5, np.nan])


def test_text_is_python_strings_and_empty_where_missing() -> None:
    for kind in (pa.string(), pa.large_string()):
        found = array(pa.array(["ü", None, ""], kind))

        assert (found.dtype, found.tolist()) == (np.dtype(object), ["ü", "", ""])


def test_booleans_and_times_become_their_numpy_types() -> None:
    assert array(pa.array([True, False])).dtype == np.bool_
    times = array(pa.array([0, 1], pa.timestamp("ns")))
    assert times.dtype == np.dtype("datetime64[ns]")


def test_a_type_may_be_asked_for() -> None:
    assert array(pa.array([1, 2], pa.int32()), np.int64).dtype == np.int64
    assert array(pa.array([[1, 2]], pa.list_(pa.int32())), np.float32).dtype == np.float32


@given(
    rows=st.sampled_from([0, 1, 2, STACK_ROWS - 1, STACK_ROWS, STACK_ROWS + 1, 3 * STACK_ROWS + 7]),
    width=st.integers(1, 9),
    dtype=st.sampled_from([np.float32, np.float64, np.int64, np.float16]),
)
def test_columns_are_stacked_row_by_row(rows: int, width: int, dtype: Any) -> None:
    columns = [np.arange(rows) * (index + 1) % 97 for index in range(width)]

    found = matrix(columns, dtype)

    np.testing.assert_array_equal(found, np.stack(columns, axis=1).astype(dtype))
    assert (found.dtype, found.shape, found.flags.c_contiguous) == (dtype, (rows, width), True)
