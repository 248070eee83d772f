"""scikit-learn models by skl2onnx, boosted trees inside them by onnxmltools.

A model that picks its columns by name or type takes one input per column; any other takes one
float32 matrix. What skl2onnx is known to convert into something else is refused or repaired here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import mlflow.sklearn
import numpy as np
import onnx
import pyarrow as pa
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.base import BaseEstimator, is_classifier

from scoring.models.built import NotBuilt
from scoring.models.convert.inputs import MATRIX, is_matrix, is_number, matrix_shape
from scoring.models.convert.outputs import added, only
from scoring.models.convert.trees import route_missing
from scoring.models.signature import Field, ModelFiles

OPSETS = {"": 18, "ai.onnx.ml": 3}


def convert(files: ModelFiles, features: Sequence[Field]) -> onnx.ModelProto:
    """The graph of a model of the sklearn flavor, ending in what its pyfunc returns."""
    function = str(files.flavors["python_function"].get("predict_fn", "predict"))
    if function not in ("predict", "predict_proba", "predict_log_proba"):
        raise NotBuilt(f"what its {function} returns is not converted")
    model = mlflow.sklearn.load_model(str(files.folder))
    parts = list(_parts(model))
    for part in parts:
        _check(part, features)
    _register_boosters(parts)
    graph = _exported(model, parts, _inputs(parts, features), function)
    route_missing(graph, [part.tree_ for part in parts if hasattr(part, "tree_")])
    return graph


def _exported(
    model: Any, parts: Sequence[Any], inputs: list[tuple[str, Any]], function: str
) -> onnx.ModelProto:
    """skl2onnx's graph; a classifier's outputs are its label and its probabilities."""
    if function == "predict":
        none: dict[int, Any] = {id(part): {} for part in parts}  # or LinearSVC in a pipeline fails
        graph = to_onnx(model, initial_types=inputs, target_opset=OPSETS, options=none)
        return only(graph, graph.graph.output[0].name)
    if not is_classifier(model):
        raise NotBuilt(f"what its {function} returns is not converted")
    graph = to_onnx(model, initial_types=inputs, target_opset=OPSETS, options={"zipmap": False})
    probabilities = graph.graph.output[1].name
    if function == "predict_proba":
        return only(graph, probabilities)
    return only(graph, added(graph, "Log", [probabilities]), onnx.TensorProto.FLOAT)


def _register_boosters(parts: Sequence[Any]) -> None:
    """Let skl2onnx convert the boosted trees that a pipeline holds."""
    packages = {type(part).__module__.partition(".")[0] for part in parts}
    for package in packages.intersection(("lightgbm", "xgboost")):
        import_module(f"scoring.models.convert.{package}").register()


def _inputs(parts: Sequence[Any], features: Sequence[Field]) -> list[tuple[str, Any]]:
    """The graph's inputs: name and type."""
    named = any(type(part).__name__ == "ColumnTransformer" for part in parts)
    if is_matrix(features) or (not named and all(map(is_number, features))):
        return [(MATRIX, FloatTensorType(matrix_shape(features)))]
    return [(str(field.name), _tensor_type(field)) for field in features]


def _tensor_type(field: Field) -> Any:
    if field.shape is not None:
        raise NotBuilt(f"its input {field.name} is one tensor of several")
    if pa.types.is_string(field.type):
        return StringTensorType([None, 1])
    if is_number(field):
        return FloatTensorType([None, 1])  # skl2onnx takes no booleans, and no mixture with int64
    raise NotBuilt(f"its input {field.name} is of type {field.type}")


def _parts(model: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """A model and all estimators inside it, depth first, each once."""
    seen = set() if seen is None else seen
    if id(model) in seen:
        return
    seen.add(id(model))
    if isinstance(model, BaseEstimator):
        yield model
        for value in list(vars(model).values()):
            yield from _parts(value, seen)
    elif isinstance(model, dict):
        for value in model.values():
            yield from _parts(value, seen)
    elif isinstance(model, list | tuple) or (
        isinstance(model, np.ndarray) and model.dtype == object
    ):
        for value in model:
            yield from _parts(value, seen)


def _check(part: Any, features: Sequence[Field]) -> None:
    """Refuse what means something else in a graph, where a missing string is the empty string.

    Raises:
        NotBuilt: it says what.
    """
    kind = type(part).__name__
    if kind in ("CountVectorizer", "TfidfVectorizer", "HashingVectorizer"):
        raise NotBuilt(f"its {kind} takes words apart that a graph keeps together")
    if kind == "OrdinalEncoder" and part.handle_unknown == "error":
        raise NotBuilt("its OrdinalEncoder refuses unknown categories, which a graph would score")
    if kind in ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder"):
        known = {category for found in getattr(part, "categories_", ()) for category in found}
        if any(category is None or category != category for category in known):
            raise NotBuilt(f"its {kind} has a category for missing values")
        nulls = any(pa.types.is_string(field.type) and not field.required for field in features)
        if nulls and "" in known:
            raise NotBuilt(f"its {kind} tells empty strings from missing ones")
