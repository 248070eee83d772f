"""A model's signature as values: what it takes, what it gives.

Read from the ``MLmodel`` file of a logged model (the format of MLflow's Model Signature: column
specs or tensor specs as JSON), without importing MLflow, so that a worker which scores an ONNX
model never pays for that import.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from scoring.errors import ModelUnsupported, SignatureMissing
from scoring.models.faults import said

COLUMN_TYPES: Mapping[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "integer": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
    "datetime": pa.timestamp("ns"),
}
"""MLflow column types as Arrow types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One input or output."""

    name: str | None
    """``None``: the only one, and unnamed."""
    type: pa.DataType
    """Of one element."""
    shape: tuple[int, ...] | None
    """Of a tensor, rows first as -1; ``None`` for a column."""
    required: bool
    """Whether nulls are refused."""

    @property
    def width(self) -> int:
        """Values per row; -1 where the signature leaves it open."""
        if self.shape is None or len(self.shape) < 2:
            return 1
        width = 1
        for size in self.shape[1:]:
            width = -1 if size < 0 or width < 0 else width * size
        return width


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Inputs and outputs, in the model's order."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    """Empty when the model was logged without them."""

    @property
    def tensors(self) -> bool:
        """Whether the inputs are tensor specs."""
        return self.inputs[0].shape is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A logged model on this machine."""

    folder: Path
    model: str
    """As the registry names it: ``models:/name/version``."""
    flavors: Mapping[str, Mapping[str, Any]]
    signature: Signature

    @property
    def flavor(self) -> str:
        """The flavor that decides the engine: ``onnx``, or a name for what pyfunc wraps."""
        if "onnx" in self.flavors:
            return "onnx"
        named = [name for name in self.flavors if name != "python_function"]
        return named[0] if named else "pyfunc"


def read_model(folder: Path, model: str) -> ModelFiles:
    """Read ``MLmodel`` in ``folder``.

    Raises:
        SignatureMissing: the model was logged without a signature.
        ModelUnsupported: the file is missing or damaged, or the signature has types that no table
            holds.
    """
    path = folder / "MLmodel"
    if not path.is_file():
        raise ModelUnsupported(model, "its artifact has no MLmodel file, so it is no MLflow model")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        raw = content.get("signature")
        if not raw or not raw.get("inputs"):
            raise SignatureMissing(model)
        return ModelFiles(
            folder=folder,
            model=model,
            flavors=content.get("flavors", {}),
            signature=Signature(
                inputs=_fields(json.loads(raw["inputs"]), model),
                outputs=_fields(json.loads(raw.get("outputs") or "[]"), model),
            ),
        )
    except (yaml.YAMLError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ModelUnsupported(
            model, f"its MLmodel file is not as MLflow writes it: {said(error)}"
        ) from error


def _fields(specs: Sequence[Mapping[str, Any]], model: str) -> tuple[Field, ...]:
    return tuple(_field(spec, model) for spec in specs)


def _field(spec: Mapping[str, Any], model: str) -> Field:
    name = spec.get("name")
    required = spec.get("required", not spec.get("optional", False))
    if spec["type"] == "tensor":
        tensor = spec["tensor-spec"]
        return Field(
            name=name,
            type=_tensor_type(tensor["dtype"], model),
            shape=tuple(tensor["shape"]),
            required=required,
        )
    if spec["type"] == "array" and spec["items"]["type"] in COLUMN_TYPES:
        item = COLUMN_TYPES[spec["items"]["type"]]
        return Field(name=name, type=pa.list_(item), shape=None, required=required)
    if spec["type"] not in COLUMN_TYPES:
        raise ModelUnsupported(
            model,
            f"its signature has {name!r} of type {spec['type']}; accepted are "
            f"{', '.join(COLUMN_TYPES)}, arrays of these, and tensors",
        )
    return Field(name=name, type=COLUMN_TYPES[spec["type"]], shape=None, required=required)


def _tensor_type(dtype: str, model: str) -> pa.DataType:
    if dtype in ("str", "object") or dtype.startswith(("<U", "|S", "<S")):
        return pa.string()
    try:
        return pa.from_numpy_dtype(dtype)
    except (pa.ArrowNotImplementedError, TypeError) as error:
        raise ModelUnsupported(
            model, f"its signature has a tensor of {dtype}, which has no Arrow type"
        ) from error
