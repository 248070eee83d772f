"""What a model returns, as columns with the right names and exactly the right types."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest

from scoring.errors import ModelFailed, ModelUnsupported
from scoring.models import outputs
from scoring.models.signature import Field

MODEL = "models:/m/1"


def field(
    name: str | None, kind: pa.DataType | None = None, shape: tuple[int, ...] | None = None
) -> Field:
    return Field(name=name, type=kind or pa.float64(), shape=shape, required=True)


def fields(*names: str | None) -> list[Field]:
    return [field(name) for name in names]


# Names


@pytest.mark.parametrize(
    ("raw", "signature", "kept"),
    [
        # Without a signature the model's own names stand; a single output is the score.
        (["label", "p"], [], {0: "label", 1: "p"}),
        ([None, None], [], {0: "output_0", 1: "output_1"}),
        ([None], [], {0: "score"}),
        (["variable"], [], {0: "score"}),
        # A signature selects by name.
        (["label", "p"], ["p"], {1: "p"}),
        (["a", "b", "c"], ["c", "a"], {2: "c", 0: "a"}),
        # One of the same length names by position.
        (["variable"], ["risk"], {0: "risk"}),
        (["x", "y"], ["a", "b"], {0: "a", 1: "b"}),
        ([None, None], ["a", "b"], {0: "a", 1: "b"}),
        (["x", None], [None, None], {0: "x", 1: "output_1"}),
        # One unnamed output is the score.
        ([None], [None], {0: "score"}),
        (["variable"], [None], {0: "score"}),
        (["label", "p"], [None], {0: "label", 1: "p"}),
    ],
)
def test_outputs_are_named_by_the_signature_then_the_model(
    raw: list[str | None], signature: list[str | None], kept: dict[int, str]
) -> None:
    assert outputs.names(raw, fields(*signature), MODEL) == kept


def test_the_order_of_the_signature_is_the_order_of_the_columns() -> None:
    assert list(outputs.names(["a", "b"], fields("b", "a"), MODEL).values()) == ["b", "a"]


def test_a_signature_that_names_other_outputs_is_refused() -> None:
    with pytest.raises(ModelUnsupported, match="names the outputs a, b, but it returned x, y, z"):
        outputs.names(["x", "y", "z"], fields("a", "b"), MODEL)


# Arrays


@pytest.mark.parametrize(
    "dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u4", "u8", "?", "M8[ns]"]
)
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_types_are_exact(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.arange(3).astype(dtype).reshape(shape)

    found = outputs.column(values, MODEL)

    assert found.type == pa.from_numpy_dtype(dtype)
    assert found.to_numpy(zero_copy_only=False).tolist() == values.reshape(3).tolist()


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_matrix_is_a_fixed_size_list(order: Any) -> None:
    values = np.array([[1, 2], [3, 4], [5, 6]], np.float32, order=order)

    found = outputs.column(values, MODEL)

    assert found.type == pa.list_(pa.float32(), 2)
    assert found.to_pylist() == values.tolist()


def test_not_a_number_stays_and_text_may_be_missing() -> None:
    numbers = outputs.column(np.array([1.0, np.nan]), MODEL)
    words = outputs.column(np.array(["a", None, "ü"], object), MODEL)

    assert (numbers.null_count, words.null_count) == (0, 1)
    assert words.type == pa.string()


def test_a_cube_does_not_fit_into_a_table() -> None:
    with pytest.raises(ModelUnsupported, match=r"shape \('rows', 2, 2\); a table holds at most 2"):
        outputs.column(np.zeros((3, 2, 2)), MODEL)


@pytest.mark.parametrize("result", [3.0, None, "yes"])
def test_one_value_for_all_rows_is_a_failure_of_the_model(result: Any) -> None:
    ((_, raw),) = outputs.from_python(result, [])

    with pytest.raises(ModelFailed, match="instead of a value for each row"):
        outputs.to_arrow(raw, MODEL)


def test_another_number_of_rows_is_a_failure_of_the_model() -> None:
    with pytest.raises(ModelFailed, match="returned 2 values of 'score' for 3 rows"):
        outputs.checked({"score": pa.array([1.0, 2.0])}, 3, MODEL)


# What Python models return


def taken(result: Any, *signature: Field) -> dict[str, pa.Array]:
    """Name and column of everything that a Python model returned."""
    raw = outputs.from_python(result, signature)
    names = outputs.names([name for name, _ in raw], signature, MODEL)
    return {name: outputs.to_arrow(raw[index][1], MODEL) for index, name in names.items()}


THREE = np.array([1, 2, 3], np.int32)


@pytest.mark.parametrize(
    "result",
    [THREE, pd.Series(THREE), pd.DataFrame({"score": THREE}), {"score": THREE}, (THREE,)],
    ids=["array", "series", "frame", "mapping", "tuple"],
)
def test_every_way_to_return_one_column_gives_the_same(result: Any) -> None:
    found = taken(result)

    assert list(found) == ["score"]
    assert found["score"].equals(pa.array(THREE))


def test_a_list_is_an_array() -> None:
    assert taken([1.5, 2.5])["score"].to_pylist() == [1.5, 2.5]
    assert taken(["a", "b"])["score"].type == pa.string()


def test_a_frame_gives_a_column_each_whatever_its_index() -> None:
    frame = pd.DataFrame({"b": THREE, "a": ["x", None, "z"]}, index=[9, 9, 0])

    found = taken(frame)

    assert [(name, str(column.type)) for name, column in found.items()] == [
        ("b", "int32"),
        ("a", "string"),
    ]
    assert found["a"].to_pylist() == ["x", None, "z"]


def test_columns_without_names_are_named_by_the_signature() -> None:
    frame = pd.DataFrame(np.ones((3, 2)))

    assert list(taken(frame)) == ["output_0", "output_1"]
    assert list(taken(frame, field("a"), field("b"))) == ["a", "b"]


def test_an_array_with_a_column_for_each_declared_output_is_taken_apart() -> None:
    both: npt.NDArray[Any] = np.array([[1, 2], [3, 4]], np.float32)

    assert {
        name: column.to_pylist() for name, column in taken(both, *fields("no", "yes")).items()
    } == {"no": [1, 3], "yes": [2, 4]}
    assert taken(both)["score"].type == pa.list_(pa.float32(), 2)
    assert taken(both, field(None, pa.float32(), (-1, 2)))["score"].to_pylist() == both.tolist()


def test_a_tuple_is_one_output_for_each_item() -> None:
    assert list(taken((THREE, THREE))) == ["output_0", "output_1"]
    assert list(taken((THREE, THREE), *fields("a", "b"))) == ["a", "b"]


def test_categories_are_spelt_out() -> None:
    found = taken(pd.Series(["a", "b", None, "a"], dtype="category"))["score"]

    assert (found.type, found.to_pylist()) == (pa.string(), ["a", "b", None, "a"])


def test_integers_with_holes_are_exact_where_pandas_says_so() -> None:
    found = taken(pd.Series([1, None, 2**60 + 1], dtype="Int64"))["score"]

    assert (found.type, found.to_pylist()) == (pa.int64(), [1, None, 2**60 + 1])


@pytest.mark.parametrize("result", [[[1.0, 2.0], [3.0, 4.0]], pd.Series([np.ones(2), np.zeros(2)])])
def test_lists_of_one_length_are_fixed_size_lists(result: Any) -> None:
    assert taken(result)["score"].type == pa.list_(pa.float64(), 2)


@pytest.mark.parametrize(
    "result", [[[1], [2, 3], []], pd.Series([np.array([1]), np.array([2, 3]), np.array([], int)])]
)
def test_lists_of_different_lengths_are_lists(result: Any) -> None:
    found = taken(result)["score"]

    assert (found.type, found.to_pylist()) == (pa.list_(pa.int64()), [[1], [2, 3], []])


@pytest.mark.parametrize("result", [["a", 1, None], pd.Series(["a", 1, None], dtype=object)])
def test_values_of_several_types_in_one_output_are_refused(result: Any) -> None:
    with pytest.raises(ModelUnsupported, match="differ in type"):
        taken(result)


# Types that a batch of Python objects happens to lose


@pytest.mark.parametrize(
    ("values", "declared"),
    [
        (pa.nulls(2), pa.string()),
        (pa.nulls(2), pa.list_(pa.float32(), 3)),
        (pa.array([1.0, None]), pa.int64()),
        (pa.array([1, 2]), pa.float32()),
    ],
)
def test_a_lost_type_is_that_of_the_signature(values: pa.Array, declared: pa.DataType) -> None:
    found = outputs.settled(values, declared)

    assert (found.type, found.to_pylist()) == (declared, values.to_pylist())


@pytest.mark.parametrize(
    ("values", "declared"),
    [
        (pa.array([1.0], pa.float32()), pa.float64()),
        (pa.array([1.0, 2.0]), pa.int64()),
        (pa.array([1.5, None]), pa.int64()),
        (pa.array([2**24 + 1]), pa.float32()),
        (pa.array(["a"]), pa.float64()),
        (pa.array([1], pa.int32()), pa.int64()),
        (pa.nulls(1), None),
    ],
)
def test_any_other_type_stands_as_the_model_gave_it(
    values: pa.Array, declared: pa.DataType | None
) -> None:
    assert outputs.settled(values, declared) is values


# No rows


def test_a_run_without_rows_has_the_columns_of_the_signature() -> None:
    signature = [
        field("label", pa.int64()),
        field("p", pa.float32(), (-1, 3)),
        field("open", pa.float32(), (-1, -1)),
        field("word", pa.string(), (-1,)),
    ]

    found = outputs.empty(signature)

    assert {name: values.type for name, values in found.items()} == {
        "label": pa.int64(),
        "p": pa.list_(pa.float32(), 3),
        "open": pa.list_(pa.float32()),
        "word": pa.string(),
    }
    assert all(len(values) == 0 for values in found.values())


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        ([], {"score": pa.float64()}),
        ([field(None, pa.int32())], {"score": pa.int32()}),
        ([field(None), field(None)], {"output_0": pa.float64(), "output_1": pa.float64()}),
    ],
)
def test_unnamed_outputs_have_the_same_names_without_rows(
    signature: list[Field], expected: dict[str, pa.DataType]
) -> None:
    assert {name: values.type for name, values in outputs.empty(signature).items()} == expected
