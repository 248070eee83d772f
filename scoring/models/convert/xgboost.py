"""XGBoost models by onnxmltools.

The exporter is given a booster cut to the trees that ``predict`` uses and told its objective: left
alone it guesses both. What it cannot express is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import mlflow.xgboost
import numpy as np
import onnx
import onnxmltools
from onnxmltools.convert.common.data_types import FloatTensorType
from onnxmltools.convert.xgboost._parse import WrappedBooster
from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
from skl2onnx import update_registered_converter
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)
from xgboost import (
    Booster,
    XGBClassifier,
    XGBRanker,
    XGBRegressor,
    XGBRFClassifier,
    XGBRFRegressor,
)

from scoring.models.built import NotBuilt
from scoring.models.convert.inputs import MATRIX, matrix_shape
from scoring.models.convert.outputs import column, label, only
from scoring.models.signature import Field, ModelFiles

OPSET = 15
"""The newest that onnxmltools writes."""
REGRESSION = frozenset(
    {
        "reg:squarederror",
        "reg:squaredlogerror",
        "reg:pseudohubererror",
        "reg:absoluteerror",
        "reg:quantileerror",
        "rank:ndcg",
        "rank:map",
        "rank:pairwise",
        "count:poisson",
        "reg:gamma",
        "reg:tweedie",
    }
)
"""Objectives whose output is a sum of leaves, or its exponential."""
CLASSIFICATION = frozenset({"binary:logistic", "multi:softprob", "multi:softmax"})


def convert(files: ModelFiles, features: Sequence[Field]) -> onnx.ModelProto:
    """The graph of a model of the xgboost flavor, ending in what its ``predict`` returns."""
    model = mlflow.xgboost.load_model(str(files.folder))
    exported = Exported(model)
    graph = onnxmltools.convert_xgboost(
        exported,
        initial_types=[(MATRIX, FloatTensorType(matrix_shape(features)))],
        target_opset=OPSET,
    )
    scores = graph.graph.output[-1].name
    if isinstance(model, XGBClassifier) or exported.objective == "multi:softmax":
        return only(graph, label(graph, scores, exported.classes_), onnx.TensorProto.INT64)
    if exported.objective == "binary:logistic":
        return only(graph, column(graph, scores, 1), onnx.TensorProto.FLOAT)
    return only(graph, scores, onnx.TensorProto.FLOAT)


def register() -> None:
    """Teach skl2onnx XGBoost's estimators, for pipelines."""
    for estimator in (XGBClassifier, XGBRFClassifier, XGBRegressor, XGBRFRegressor, XGBRanker):
        classifies = issubclass(estimator, XGBClassifier)
        update_registered_converter(
            estimator,
            f"XGBoost{estimator.__name__}",
            calculate_linear_classifier_output_shapes
            if classifies
            else calculate_linear_regressor_output_shapes,
            _convert_in_pipeline,
            options={"zipmap": [True, False], "nocl": [True, False]} if classifies else None,
        )


def _convert_in_pipeline(scope: Any, operator: Any, container: Any) -> None:
    operator.raw_operator = Exported(operator.raw_operator)
    convert_xgboost(scope, operator, container)


class Exported(WrappedBooster):  # type: ignore[misc]
    """What the exporter converts: a booster and what it is told about it.

    Raises:
        NotBuilt: the booster does what the exporter cannot express.
    """

    def __init__(self, model: Any) -> None:
        self.booster_ = _booster(model)
        learner = json.loads(self.booster_.save_config())["learner"]
        self.objective = str(learner["objective"]["name"])
        _check(learner, self.objective)
        kinds = self.booster_.feature_types or ()
        # of booleans a dump leaves out what they are split at
        self.booster_.feature_types = ["c" if kind == "c" else "q" for kind in kinds] or None
        many = int(learner["learner_model_param"]["num_class"])
        classifies = self.objective in CLASSIFICATION
        self.operator_name = "XGBClassifier" if classifies else "XGBRegressor"
        self.classes_ = np.arange(max(many, 2))
        if isinstance(model, XGBClassifier):
            self.classes_ = np.asarray(model.classes_)
        trees = len(self.booster_.get_dump())
        self.kwargs = {"objective": self.objective, "n_estimators": trees}
        if many > 1:
            self.kwargs["num_class"] = many


def _booster(model: Any) -> Booster:
    """The trees that ``predict`` uses, columns by number.

    An estimator stops at its best iteration; a bare booster does not.
    """
    whole = model if isinstance(model, Booster) else model.get_booster()
    if _kind(whole) != "gbtree":
        raise NotBuilt(f"XGBoost's {_kind(whole)} is not converted")
    rounds = whole.num_boosted_rounds()
    if not isinstance(model, Booster):
        if model.missing is not None and not np.isnan(model.missing):
            raise NotBuilt(f"it takes {model.missing} for a missing value")
        best = whole.attr("best_iteration")
        rounds = rounds if best is None else int(best) + 1
    booster = whole[:rounds]
    booster.feature_names = None
    return booster


def _kind(booster: Booster) -> str:
    return str(json.loads(booster.save_config())["learner"]["gradient_booster"]["name"])


def _check(learner: Mapping[str, Any], objective: str) -> None:
    if objective not in REGRESSION | CLASSIFICATION:
        raise NotBuilt(f"the output of XGBoost's objective {objective} is not converted")
    if int(learner["learner_model_param"]["num_target"]) > 1:
        raise NotBuilt("XGBoost models with several targets are not converted")
    forest = learner["gradient_booster"]["gbtree_model_param"]["num_parallel_tree"]
    if int(forest) > 1 and int(learner["learner_model_param"]["num_class"]) > 1:
        raise NotBuilt("XGBoost's random forests of several classes are not converted")
