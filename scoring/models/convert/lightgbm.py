"""LightGBM models by onnxmltools.

The exporter is given the booster's own dump, with what it would get wrong put right: thresholds in
float64, missing values that a tree takes for zeros, and objectives that it does not know though
their output is one that it does. What it cannot express is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import mlflow.lightgbm
import numpy as np
import numpy.typing as npt
import onnx
import onnxmltools
import pyarrow as pa
from lightgbm import Booster, LGBMClassifier, LGBMRanker, LGBMRegressor
from onnxmltools.convert.common.data_types import FloatTensorType
from onnxmltools.convert.lightgbm._parse import WrappedBooster
from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
from skl2onnx import update_registered_converter
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)

from scoring.models.built import NotBuilt
from scoring.models.convert.inputs import MATRIX, matrix_shape
from scoring.models.convert.outputs import column, label, only
from scoring.models.convert.trees import restore_thresholds
from scoring.models.signature import Field, ModelFiles

OPSET = 15
"""The newest that onnxmltools writes."""
LARGEST_WHOLE = 2**24
"""Up to here float32 holds every whole number."""
KNOWN_AS: Mapping[str, str] = {
    **dict.fromkeys(
        ("regression", "regression_l1", "huber", "fair", "quantile", "mape"), "regression"
    ),
    **dict.fromkeys(("poisson", "gamma", "tweedie"), "poisson"),
    **dict.fromkeys(("lambdarank", "rank_xendcg"), "lambdarank"),
    **dict.fromkeys(("binary", "cross_entropy"), "binary"),
    "multiclass": "multiclass",
}
"""LightGBM's objectives (its Parameters page), and one that the exporter knows and whose output
is the same function of the sum of leaves."""


def convert(files: ModelFiles, features: Sequence[Field]) -> onnx.ModelProto:
    """The graph of a model of the lightgbm flavor, ending in what its ``predict`` returns."""
    model = mlflow.lightgbm.load_model(str(files.folder))
    trees = Trees(model if isinstance(model, Booster) else model.booster_)
    exact = trees.number_thresholds()
    graph = onnxmltools.convert_lightgbm(
        Exported(trees),
        initial_types=[(MATRIX, FloatTensorType(matrix_shape(features)))],
        target_opset=OPSET,
        zipmap=False,
    )
    restore_thresholds(graph, exact, wide=not all(_is_narrow(field) for field in features))
    if isinstance(model, LGBMClassifier):
        probabilities = graph.graph.output[1].name
        kind = _element_type(model.classes_)
        return only(graph, label(graph, probabilities, model.classes_), kind)
    if trees.objective == "binary":
        return only(graph, column(graph, graph.graph.output[1].name, 1), onnx.TensorProto.FLOAT)
    return only(graph, graph.graph.output[-1].name)


def register() -> None:
    """Teach skl2onnx LightGBM's estimators, for pipelines."""
    linear = calculate_linear_regressor_output_shapes
    for estimator, shapes in (
        (LGBMClassifier, calculate_linear_classifier_output_shapes),
        (LGBMRegressor, linear),
        (LGBMRanker, linear),
    ):
        options = {"zipmap": [True, False], "nocl": [True, False]}
        update_registered_converter(
            estimator,
            f"LightGbm{estimator.__name__}",
            shapes,
            _convert_in_pipeline,
            options=options if estimator is LGBMClassifier else None,
        )


def _convert_in_pipeline(scope: Any, operator: Any, container: Any) -> None:
    model = operator.raw_operator
    operator.raw_operator = Exported(Trees(model.booster_), getattr(model, "classes_", None))
    convert_lightgbm(scope, operator, container)


class Trees:
    """A booster as the exporter reads it: its dump, mended.

    Raises:
        NotBuilt: its trees do what the exporter cannot express.
    """

    is_mock = True  # the exporter then asks for `dump_model` instead of the native handle

    def __init__(self, booster: Booster) -> None:
        self._dump = booster.dump_model()
        self.params: dict[str, Any] = {}
        self.objective = _objective(self._dump)
        self._dump["objective"] = self.objective
        _check(self._dump, booster)
        for node in _nodes(self._dump):
            _mend(node)

    def number_thresholds(self) -> npt.NDArray[np.float64]:
        """Replace all thresholds by their numbers, which survive float32; returns them in order."""
        splits = [node for node in _nodes(self._dump) if node.get("decision_type") == "<="]
        if len(splits) > LARGEST_WHOLE:
            raise NotBuilt(f"it has {len(splits)} splits")
        exact = np.array([node["threshold"] for node in splits], np.float64)
        for number, node in enumerate(splits):
            node["threshold"] = float(number)
        return exact

    def dump_model(self, num_iteration: int = -1) -> Any:
        return self._dump

    def feature_name(self) -> list[str]:
        return list(self._dump["feature_names"])


class Exported(WrappedBooster):  # type: ignore[misc]
    """What the exporter converts: trees and, for a classifier, its classes."""

    def __init__(self, trees: Trees, classes: Any = None) -> None:
        super().__init__(trees)
        if classes is not None:
            self.classes_ = classes


def _is_narrow(field: Field) -> bool:
    """Whether float32 holds all values of a column."""
    return bool(field.type in (pa.float32(), pa.float16(), pa.bool_(), pa.int8(), pa.int16()))


def _objective(dump: Mapping[str, Any]) -> str:
    """The objective under the exporter's name.

    Raises:
        NotBuilt: its output is a function that the exporter does not know.
    """
    name, *parameters = str(dump.get("objective", "custom")).split(" ")
    given = dict(item.partition(":")[::2] for item in parameters)
    if name not in KNOWN_AS or "sqrt" in given or float(given.get("sigmoid") or 1) != 1:
        text = " ".join((name, *parameters))
        raise NotBuilt(f"the output of LightGBM's objective {text!r} is not converted")
    return KNOWN_AS[name]


def _check(dump: Mapping[str, Any], booster: Booster) -> None:
    if dump.get("average_output"):
        raise NotBuilt("LightGBM's random forests are not converted")
    if any(booster.pandas_categorical or ()):
        raise NotBuilt("its categories are those of a pandas frame, which a graph does not know")
    for node in _nodes(dump):
        if node.get("leaf_coeff"):
            raise NotBuilt("LightGBM's linear trees are not converted")
        if node.get("missing_type") == "Zero":
            raise NotBuilt("its trees take zeros for missing values")


def _mend(node: dict[str, Any]) -> None:
    """Say of one node what LightGBM does, in the exporter's terms (`Tree::NumericalDecision`)."""
    if node.get("decision_type") == "==":
        node["default_left"] = False  # what is missing is in no set of categories
    elif node.get("decision_type") == "<=" and node["missing_type"] == "None":
        node["default_left"] = node["threshold"] >= 0  # it takes what is missing for 0
        node["missing_type"] = "NaN"


def _nodes(dump: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All nodes of all trees, leaves too."""
    waiting = [tree["tree_structure"] for tree in dump["tree_info"]]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [node[side] for side in ("left_child", "right_child") if side in node]


def _element_type(classes: Any) -> int:
    values = np.asarray(classes)
    if values.dtype.kind in "OUS":
        return int(onnx.TensorProto.STRING)
    return int(onnx.helper.np_dtype_to_tensor_dtype(values.dtype))
