"""A model's signature, read from its ``MLmodel`` file as MLflow writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from scoring.errors import ModelUnsupported, SignatureMissing
from scoring.models.signature import ModelFiles, read_model

MODEL = "models:/m/1"


def column(kind: str, name: str | None = None, **more: Any) -> dict[str, Any]:
    return {"type": kind, **({"name": name} if name else {}), **more}


def tensor(dtype: str, shape: list[int], name: str | None = None) -> dict[str, Any]:
    spec = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}
    return {**spec, **({"name": name} if name else {})}


def write(
    folder: Path, inputs: list[Any], outputs: list[Any] | None = None, **flavors: Any
) -> ModelFiles:
    """Write an ``MLmodel`` and read it."""
    signature = {"inputs": json.dumps(inputs), "params": None}
    if outputs is not None:
        signature["outputs"] = json.dumps(outputs)
    content = {"flavors": flavors or {"python_function": {}}, "signature": signature}
    (folder / "MLmodel").write_text(yaml.safe_dump(content), encoding="utf-8")
    return read_model(folder, MODEL)


@pytest.mark.parametrize(
    ("kind", "arrow"),
    [
        ("boolean", pa.bool_()),
        ("integer", pa.int32()),
        ("long", pa.int64()),
        ("float", pa.float32()),
        ("double", pa.float64()),
        ("string", pa.string()),
        ("binary", pa.binary()),
        ("datetime", pa.timestamp("ns")),
    ],
)
def test_column_types_are_arrow_types(tmp_path: Path, kind: str, arrow: pa.DataType) -> None:
    (field,) = write(tmp_path, [column(kind, "x", required=True)]).signature.inputs

    assert (field.name, field.type, field.shape, field.required) == ("x", arrow, None, True)
    assert field.width == 1


def test_columns_keep_their_order(tmp_path: Path) -> None:
    signature = write(tmp_path, [column("long", name) for name in "zax"]).signature

    assert [field.name for field in signature.inputs] == ["z", "a", "x"]
    assert not signature.tensors


@pytest.mark.parametrize(
    ("more", "required"),
    [({}, True), ({"required": False}, False), ({"optional": True}, False)],
)
def test_a_column_is_required_unless_it_says_otherwise(
    tmp_path: Path, more: dict[str, bool], required: bool
) -> None:
    (field,) = write(tmp_path, [column("long", "x", **more)]).signature.inputs

    assert field.required is required


@pytest.mark.parametrize(
    ("shape", "width"),
    [([-1], 1), ([-1, 1], 1), ([-1, 4], 4), ([-1, 28, 28], 784), ([-1, -1], -1), ([-1, 3, -1], -1)],
)
def test_a_tensor_has_so_many_values_a_row(tmp_path: Path, shape: list[int], width: int) -> None:
    signature = write(tmp_path, [tensor("float32", shape)]).signature

    assert signature.tensors
    assert signature.inputs[0].shape == tuple(shape)
    assert signature.inputs[0].width == width


@pytest.mark.parametrize(
    ("dtype", "arrow"),
    [
        ("float16", pa.float16()),
        ("float32", pa.float32()),
        ("float64", pa.float64()),
        ("uint8", pa.uint8()),
        ("int64", pa.int64()),
        ("bool", pa.bool_()),
        ("object", pa.string()),
        ("str", pa.string()),
        ("datetime64[ns]", pa.timestamp("ns")),
    ],
)
def test_tensor_types_are_arrow_types(tmp_path: Path, dtype: str, arrow: pa.DataType) -> None:
    assert write(tmp_path, [tensor(dtype, [-1], "x")]).signature.inputs[0].type == arrow


def test_an_array_column_is_a_list(tmp_path: Path) -> None:
    spec = {"type": "array", "items": {"type": "double"}, "name": "x", "required": True}

    (field,) = write(tmp_path, [spec]).signature.inputs

    assert (field.type, field.shape) == (pa.list_(pa.float64()), None)


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "object", "properties": {"a": {"type": "long"}}, "name": "x"},
        {"type": "array", "items": {"type": "object", "properties": {}}, "name": "x"},
        {"type": "map", "values": {"type": "long"}, "name": "x"},
        {"type": "any", "name": "x"},
    ],
)
def test_a_type_that_no_table_column_has_is_refused_by_name(
    tmp_path: Path, spec: dict[str, Any]
) -> None:
    with pytest.raises(ModelUnsupported, match=f"'x' of type {spec['type']}; accepted are bool"):
        write(tmp_path, [spec])


def test_a_tensor_of_a_type_without_arrow_counterpart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnsupported, match="a tensor of complex128"):
        write(tmp_path, [tensor("complex128", [-1])])


def test_outputs_are_optional(tmp_path: Path) -> None:
    assert write(tmp_path, [column("long", "x")]).signature.outputs == ()
    assert write(tmp_path, [column("long", "x")], []).signature.outputs == ()

    (score,) = write(
        tmp_path, [column("long", "x")], [tensor("float32", [-1, 3])]
    ).signature.outputs
    assert (score.name, score.type, score.width) == (None, pa.float32(), 3)


@pytest.mark.parametrize(
    "content", ["flavors: {}\n", "signature:\n", "signature: {inputs: null}\n"]
)
def test_a_model_without_signature_is_refused_and_told_how_to_get_one(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "MLmodel").write_text(content)

    with pytest.raises(SignatureMissing) as missing:
        read_model(tmp_path, MODEL)

    message = str(missing.value)
    assert message.startswith("models:/m/1 has no signature")
    for step in ("infer_signature(", "log_model(", "mlflow.models.set_signature(uri"):
        assert step in message


def test_a_folder_without_mlmodel_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelUnsupported, match="no MLmodel file"):
        read_model(tmp_path, MODEL)


@pytest.mark.parametrize(
    ("flavors", "flavor"),
    [
        ({"python_function": {}, "onnx": {}}, "onnx"),
        ({"python_function": {}, "sklearn": {}}, "sklearn"),
        ({"python_function": {}}, "pyfunc"),
    ],
)
def test_the_flavor_is_the_one_that_mlflow_wraps(
    tmp_path: Path, flavors: dict[str, Any], flavor: str
) -> None:
    assert write(tmp_path, [column("long", "x")], **flavors).flavor == flavor


@pytest.mark.slow
def test_what_mlflow_writes_is_read_back_as_it_was_meant(tmp_path: Path) -> None:
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec
    from mlflow.types.schema import Array

    signature = ModelSignature(
        inputs=Schema(
            [
                ColSpec("datetime", "at"),
                ColSpec("double", "amount", required=False),
                ColSpec(Array("string"), "tags"),
            ]
        ),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 2), "pair")]),
    )
    Model(signature=signature, flavors={"python_function": {}}).save(tmp_path / "MLmodel")

    found = read_model(tmp_path, MODEL).signature

    assert [(field.name, field.type, field.required) for field in found.inputs] == [
        ("at", pa.timestamp("ns"), True),
        ("amount", pa.float64(), False),
        ("tags", pa.list_(pa.string()), True),
    ]
    assert [(field.name, field.type, field.shape) for field in found.outputs] == [
        ("pair", pa.float32(), (-1, 2))
    ]
