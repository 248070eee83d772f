"""Models for the tests, logged and registered with MLflow's own calls, as a user would.

Every model here is small, deterministic and exact enough that the scores which a run publishes
can be compared with the model called directly.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import cloudpickle
import mlflow
import numpy as np
import numpy.typing as npt
import onnx
import pandas as pd
from mlflow.pyfunc import PythonModel
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.linear_model import LogisticRegression

Table = dict[str, npt.NDArray[Any]]

_numbers = itertools.count(1)


def register(
    tracking_uri: str,
    log_model: Callable[..., Any],
    model: Any,
    *,
    name: str = "",
    alias: str = "production",
    **how: Any,
) -> str:
    """Log a model with ``mlflow.<flavor>.log_model`` and register it; return its ``models:/`` URI.

    Without a name, the model gets one that no other test uses.
    """
    name = name or f"test-model-{next(_numbers)}"
    mlflow.set_tracking_uri(tracking_uri)
    experiment = mlflow.get_experiment_by_name("tests") or mlflow.get_experiment(
        mlflow.create_experiment("tests", f"{_folder(tracking_uri).as_uri()}/artifacts")
    )
    how.setdefault("pip_requirements", [])
    what = "python_model" if log_model is mlflow.pyfunc.log_model else None
    first = {what: model} if what else {}
    with mlflow.start_run(experiment_id=experiment.experiment_id):
        logged = log_model(
            *([] if what else [model]), name="model", registered_model_name=name, **first, **how
        )
    version = str(logged.registered_model_version)
    mlflow.MlflowClient().set_registered_model_alias(name, alias, version)
    return f"models:/{name}@{alias}"


def _folder(tracking_uri: str) -> Path:
    return Path(tracking_uri.removeprefix("sqlite:///")).parent


# Models in ONNX


def classifier(rows: npt.NDArray[np.float32], seed: int = 1) -> onnx.ModelProto:
    """A logistic regression on one matrix: ``label`` (int64) and ``probabilities`` [rows, 3]."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, len(rows))
    fitted = LogisticRegression(max_iter=50).fit(rows, labels)
    converted: onnx.ModelProto = to_onnx(
        fitted,
        initial_types=[("X", FloatTensorType([None, rows.shape[1]]))],
        options={"zipmap": False},
        target_opset=18,
    )
    return converted


def zipmap_classifier(rows: npt.NDArray[np.float32]) -> onnx.ModelProto:
    """The same with skl2onnx's default output: a sequence of maps."""
    fitted = LogisticRegression(max_iter=50).fit(rows, np.arange(len(rows)) % 2)
    types = [("X", FloatTensorType([None, rows.shape[1]]))]
    converted: onnx.ModelProto = to_onnx(fitted, initial_types=types, target_opset=18)
    return converted


def graph(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, tuple[int, list[Any]]],
    constants: dict[str, npt.NDArray[Any]] | None = None,
) -> onnx.ModelProto:
    """A checked ONNX model; inputs and outputs map a name to its type and shape."""
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "test",
            [helper.make_tensor_value_info(name, *what) for name, what in inputs.items()],
            [helper.make_tensor_value_info(name, *what) for name, what in outputs.items()],
            [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    return model


def linear(weights: npt.NDArray[Any], output: str = "score") -> onnx.ModelProto:
    """``X [rows, width] @ weights``, in the type of the weights."""
    kind = helper.np_dtype_to_tensor_dtype(weights.dtype)
    return graph(
        [helper.make_node("MatMul", ["X", "W"], [output])],
        {"X": (kind, ["rows", weights.shape[0]])},
        {output: (kind, ["rows", weights.shape[1]])},
        {"W": weights},
    )


def network(width: int, seed: int) -> onnx.ModelProto:
    """``features [rows, width]`` -> ``score [rows]``: two hidden layers of 256, a sigmoid last.

    Random weights of the usual size, so that its scores spread over 0 to 1.
    """
    rng = np.random.default_rng(seed)
    sizes = (width, 256, 256, 1)
    constants: dict[str, npt.NDArray[Any]] = {"row": np.array([-1], np.int64)}
    nodes, last = [], "features"
    for layer, (size, wider) in enumerate(itertools.pairwise(sizes)):
        constants[f"W{layer}"] = (rng.normal(size=(size, wider)) * np.sqrt(2 / size)).astype(
            np.float32
        )
        constants[f"B{layer}"] = np.zeros(wider, np.float32)
        nodes.append(helper.make_node("Gemm", [last, f"W{layer}", f"B{layer}"], [f"sum{layer}"]))
        last = f"sum{layer}"
        if wider != 1:
            nodes.append(helper.make_node("Relu", [last], [f"hidden{layer}"]))
            last = f"hidden{layer}"
    nodes.append(helper.make_node("Sigmoid", [last], ["probability"]))
    nodes.append(helper.make_node("Reshape", ["probability", "row"], ["score"]))
    return graph(
        nodes,
        {"features": (TensorProto.FLOAT, ["rows", width])},
        {"score": (TensorProto.FLOAT, ["rows"])},
        constants,
    )


def per_column() -> onnx.ModelProto:
    """One input per column, of three types; three outputs of three types.

    ``fare`` (float) and ``stops`` (int64) make ``price``; ``carrier`` (string) comes back as it
    is, and ``nonstop`` says whether ``stops`` is 0.
    """
    return graph(
        [
            helper.make_node("Cast", ["stops"], ["stops_float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["stops_float", "fee"], ["fees"]),
            helper.make_node("Add", ["fare", "fees"], ["price"]),
            helper.make_node("Identity", ["carrier"], ["airline"]),
            helper.make_node("Equal", ["stops", "zero"], ["nonstop"]),
        ],
        {
            "fare": (TensorProto.FLOAT, ["rows", 1]),
            "stops": (TensorProto.INT64, ["rows", 1]),
            "carrier": (TensorProto.STRING, ["rows"]),
        },
        {
            "price": (TensorProto.FLOAT, ["rows", 1]),
            "airline": (TensorProto.STRING, ["rows"]),
            "nonstop": (TensorProto.BOOL, ["rows", 1]),
        },
        {"fee": np.array([[12.5]], np.float32), "zero": np.array([[0]], np.int64)},
    )


# Models in Python


class Typed(PythonModel):
    """A frame with a column of each common type."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        amount = model_input["amount"].to_numpy()
        return pd.DataFrame(
            {
                "risk": (amount / 100).astype(np.float32),
                "rank": np.floor(amount).astype(np.int32),
                "flagged": amount > 50,
                "day": [date(2020, 1, 1 + int(value) % 28) for value in amount],
                "at": pd.Timestamp("2020-01-01") + pd.to_timedelta(np.floor(amount), unit="h"),
                "label": ["high" if value > 50 else None for value in amount],
            },
            index=model_input.index[::-1],  # a run must not align by index
        )


class AsDict(PythonModel):
    """Arrays by name, one of them with two values a row."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Table:
        amount = model_input["amount"].to_numpy()
        return {
            "twice": amount * 2,
            "pair": np.stack([amount, -amount], axis=1).astype(np.float32),
        }


class AsSeries(PythonModel):
    """One unnamed series."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.Series:
        return model_input["amount"] + 0.25


class Whole(PythonModel):
    """Whole numbers, which its signature does not mention."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return model_input["amount"].to_numpy().astype(np.int64)


class AsText(PythonModel):
    """A list of words."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> list[str]:
        return [f"{name}!" for name in model_input["name"]]


class Sparse(PythonModel):
    """Says something about small amounts only, and ranks the others."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        amount = model_input["amount"]
        return pd.DataFrame(
            {
                "warning": ["low" if value < 10 else None for value in amount],
                "rank": [None if value < 10 else int(value) for value in amount],
            }
        )


class Fickle(PythonModel):
    """Numbers, words or nothing, as the first amount of the batch says."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> list[Any]:
        amount = model_input["amount"]
        return [{0: 7, 1: "seven"}.get(int(amount.iloc[0]))] * len(amount)


class Brightness(PythonModel):
    """The mean of each image above its darkest pixel, computed in place."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        image = model_input["image"]
        image -= image.min(axis=(1, 2), keepdims=True)
        return image.mean(axis=(1, 2))


class Echo(PythonModel):
    """Every column as it came."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        return model_input.add_prefix("said_")


class Picky(PythonModel):
    """Raises when a batch holds a negative amount."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        if (model_input["amount"] < 0).any():
            raise ValueError("amount must not be negative")
        return model_input["amount"].to_numpy() * 3


class Forgetful(PythonModel):
    """Returns one row too few."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return model_input["amount"].to_numpy()[1:]


# Workers cannot import the tests: the classes above travel inside the model's file.
class Waiting(PythonModel):
    """Says by a file that it has begun, and answers once another file says that it may end."""

    def __init__(self, folder: Path) -> None:
        self.begun, self.may_end = folder / "begun", folder / "may_end"

    def predict(self, context, model_input, params=None):
        self.begun.touch()
        while not self.may_end.exists():
            time.sleep(0.05)
        return model_input["a"].astype("float64")


cloudpickle.register_pickle_by_value(sys.modules[__name__])
