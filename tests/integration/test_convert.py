"""A converted graph gives what the registered model gives, or is not made."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightgbm
import mlflow
import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pytest
import torch
import xgboost
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema, TensorSpec
from sklearn import ensemble, linear_model, neighbors, svm, tree
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

from scoring.models.built import Built, NotBuilt, write_outputs
from scoring.models.convert import convert
from scoring.models.engines import EngineOptions, score
from scoring.models.engines.onnx import OnnxEngine
from scoring.models.engines.pyfunc import PyfuncEngine
from scoring.models.inputs import features
from scoring.models.signature import ModelFiles, read_model
from tests.integration import models, wrong_models
from tests.integration.models import register

pytestmark = pytest.mark.slow

ROWS = 1_500
CARRIERS = ["AA", "B6", "WN", "ünited"]
NUMBERS = ["distance", "fare", "delay", "weekend", "aircraft"]
MEASURED = ["distance", "fare", "delay"]
WIDE = [f"f{index}" for index in range(5)]


def flights(rows: int = ROWS, seed: int = 0, holes: float = 0.1) -> pd.DataFrame:
    """Prices with cents, whole numbers, codes, booleans and words; holes in two columns."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "distance": rng.integers(80, 4_000, rows),
            "fare": rng.lognormal(4, 1, rows).round(2),
            "delay": rng.normal(10, 25, rows).astype(np.float32),
            "weekend": rng.random(rows) < 0.3,
            "aircraft": rng.integers(0, 12, rows),
            "carrier": pd.array(rng.choice(CARRIERS, rows), dtype="str"),
        }
    )
    for name in ("fare", "delay"):
        frame.loc[rng.random(rows) < holes, name] = np.nan
    return frame


def lateness(frame: pd.DataFrame) -> Any:
    """What the models learn: minutes."""
    fleet = np.where(frame["aircraft"].isin([1, 5, 7]), 25.0, 0.0)
    weather = np.random.default_rng(1).normal(0, 5, len(frame))
    fare = frame["fare"].fillna(60).to_numpy()
    return frame["delay"].fillna(0).to_numpy() + 0.1 * fare + fleet + weather


TRAIN, TEST = flights(), flights(seed=7)
SOLID = flights(holes=0.0)
MINUTES = lateness(TRAIN)
LATE = (MINUTES > 30).astype(int)
BANDS = np.digitize(MINUTES, [10, 40])
WORDS = np.array(["early", "late", "very late"])[BANDS]
TARGETS = np.stack([MINUTES, -MINUTES], axis=1)
POSITIVE = np.exp(MINUTES / 40)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model to register, and the rows to score."""

    log: Callable[..., Any]
    model: Any
    table: pa.Table
    how: Mapping[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ()


def arrow(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)


def sklearn_case(
    model: Any, columns: list[str], *, holes: bool = True, target: Any = None, **how: Any
) -> Case:
    rows = TRAIN if holes else SOLID
    fitted = model.fit(rows[columns], LATE if target is None else target)
    test = TEST if holes else flights(seed=7, holes=0.0)
    how = {"serialization_format": "cloudpickle"} | how
    return Case(log=mlflow.sklearn.log_model, model=fitted, table=arrow(test[columns]), how=how)


def lightgbm_case(model: Any, target: Any, **how: Any) -> Case:
    fitted = model.fit(TRAIN[NUMBERS], target, **how)
    return Case(
        log=mlflow.lightgbm.log_model,
        model=fitted,
        table=arrow(TEST[NUMBERS]),
        how={"serialization_format": "cloudpickle"},
    )


def lightgbm_booster(target: Any, **parameters: Any) -> Case:
    data = lightgbm.Dataset(TRAIN[NUMBERS], target, categorical_feature=["aircraft"])
    fitted = lightgbm.train({"verbose": -1, "seed": 0, **parameters}, data, 30)
    return Case(log=mlflow.lightgbm.log_model, model=fitted, table=arrow(TEST[NUMBERS]))


def xgboost_case(model: Any, target: Any, **how: Any) -> Case:
    fitted = model.fit(TRAIN[NUMBERS], target, **how)
    return Case(log=mlflow.xgboost.log_model, model=fitted, table=arrow(TEST[NUMBERS]))


def xgboost_booster(target: Any, kinds: list[str] | None = None, **parameters: Any) -> Case:
    data = xgboost.DMatrix(
        TRAIN[NUMBERS], target, feature_types=kinds, enable_categorical=kinds is not None
    )
    fitted = xgboost.train({"seed": 0, **parameters}, data, 30)
    return Case(log=mlflow.xgboost.log_model, model=fitted, table=arrow(TEST[NUMBERS]))


class Network(torch.nn.Module):
    """Two layers, with what behaves otherwise in training."""

    def __init__(self, columns: int, outputs: int, flat: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(columns, 32)
        self.normal = torch.nn.BatchNorm1d(32)
        self.dropout = torch.nn.Dropout(0.5)
        self.last = torch.nn.Linear(32, outputs)
        self.flat = flat

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        hidden = self.dropout(torch.relu(self.normal(self.first(rows))))
        scores: torch.Tensor = self.last(hidden)
        return scores[:, 0] if self.flat else scores


class Recurrent(torch.nn.Module):
    """Reads a row as a sequence."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cells = torch.nn.GRU(3, 8, batch_first=True)
        self.last = torch.nn.Linear(8, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        states, _ = self.cells(rows)
        scores: torch.Tensor = self.last(states[:, -1])
        return scores


class Words(torch.nn.Module):
    """Reads a row as numbers of words."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.Embedding(50, 8)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.words(rows).mean(dim=1).sum(dim=1)


class Moody(torch.nn.Module):
    """Decides on the whole batch, which no graph of it can."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.sum(1) if float(rows.sum()) > 0 else -rows.sum(1)


def numbers(*shape: int) -> Any:
    return np.random.default_rng(3).normal(size=(ROWS, *shape)).astype(np.float32)


def torch_frame(model: torch.nn.Module, **how: Any) -> Case:
    rows = pd.DataFrame(numbers(5).astype(np.float64), columns=WIDE)
    return Case(
        log=mlflow.pytorch.log_model,
        model=model.eval(),
        table=arrow(rows),
        how={"serialization_format": "pickle"} | how,
    )


def torch_tensor(model: torch.nn.Module, rows: Any, **how: Any) -> Case:
    shape = (-1, *rows.shape[1:])
    lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows[0].size)
    signature = ModelSignature(inputs=Schema([TensorSpec(rows.dtype, shape)]))
    return Case(
        log=mlflow.pytorch.log_model,
        model=model.eval(),
        table=pa.table({"row": lists}),
        how={"serialization_format": "pickle", "signature": signature} | how,
        columns=("row",),
    )


def torch_columns(model: torch.nn.Module) -> Case:
    rows = numbers(5)
    signature = ModelSignature(inputs=Schema([TensorSpec(rows.dtype, (-1, -1))]))
    return Case(
        log=mlflow.pytorch.log_model,
        model=model.eval(),
        table=pa.table(dict(zip(WIDE, rows.T, strict=True))),
        how={"serialization_format": "pickle", "signature": signature},
        columns=tuple(WIDE),
    )


def by_name(*encoders: Any, last: Any = None) -> Any:
    """A pipeline that picks its columns by name, as users write them."""
    numeric = make_pipeline(SimpleImputer(), StandardScaler())
    chosen = make_column_transformer((numeric, MEASURED), *encoders)
    return make_pipeline(chosen, last or linear_model.LogisticRegression())


def scaled(last: Any) -> Any:
    return make_pipeline(StandardScaler(), last)


def named_outputs(*names: str) -> ModelSignature:
    inputs = infer_signature(SOLID[NUMBERS]).inputs
    return ModelSignature(
        inputs=inputs, outputs=Schema([ColSpec("double", name) for name in names])
    )


PROBABILITIES = {"pyfunc_predict_fn": "predict_proba"}
LOGARITHMS = {"pyfunc_predict_fn": "predict_log_proba"}
ONE_HOT = OneHotEncoder(handle_unknown="ignore")
TARGETED = TargetEncoder(cv=KFold(5, shuffle=True, random_state=0))
FEW = {"n_estimators": 30, "random_state": 0}
QUIET = {**FEW, "verbose": -1}
LONG = {"n_estimators": 200, "learning_rate": 0.5, "random_state": 0}
STOP = {"eval_set": [(TEST[NUMBERS], (lateness(TEST) > 30).astype(int))]}

CASES: dict[str, Callable[[], Case]] = {
    # scikit-learn: one matrix
    "linear regression": lambda: sklearn_case(
        linear_model.LinearRegression(), NUMBERS, holes=False, target=MINUTES
    ),
    "regression of two targets": lambda: sklearn_case(
        linear_model.Ridge(), NUMBERS, holes=False, target=TARGETS
    ),
    "labels that are numbers": lambda: sklearn_case(
        scaled(linear_model.LogisticRegression()), NUMBERS, holes=False, target=BANDS
    ),
    "labels that are words": lambda: sklearn_case(
        scaled(linear_model.LogisticRegression()), NUMBERS, holes=False, target=WORDS
    ),
    "labels that are booleans": lambda: sklearn_case(
        scaled(linear_model.LogisticRegression()), NUMBERS, holes=False, target=LATE > 0
    ),
    "probabilities as one list": lambda: sklearn_case(
        scaled(linear_model.LogisticRegression()),
        NUMBERS,
        holes=False,
        target=WORDS,
        **PROBABILITIES,
    ),
    "probabilities as three columns": lambda: sklearn_case(
        scaled(linear_model.LogisticRegression()),
        NUMBERS,
        holes=False,
        target=WORDS,
        signature=named_outputs("early", "late", "very_late"),
        **PROBABILITIES,
    ),
    "logarithms of probabilities": lambda: sklearn_case(
        scaled(linear_model.LogisticRegression(C=0.1)), NUMBERS, holes=False, **LOGARITHMS
    ),
    "support vectors": lambda: sklearn_case(scaled(svm.SVC()), NUMBERS, holes=False, target=WORDS),
    "linear support vectors in a pipeline": lambda: sklearn_case(
        scaled(svm.LinearSVC()), NUMBERS, holes=False
    ),
    "nearest neighbours": lambda: sklearn_case(
        scaled(neighbors.KNeighborsRegressor()), NUMBERS, holes=False, target=MINUTES
    ),
    "clusters": lambda: sklearn_case(
        scaled(KMeans(4, n_init=1, random_state=0)), NUMBERS, holes=False
    ),
    "quadratic discriminants": lambda: sklearn_case(
        QuadraticDiscriminantAnalysis(), MEASURED, holes=False, target=WORDS
    ),
    "several labels a row": lambda: sklearn_case(
        MultiOutputClassifier(tree.DecisionTreeClassifier(max_depth=4, random_state=0)),
        NUMBERS,
        holes=False,
        target=np.stack([BANDS, LATE], axis=1),
    ),
    # scikit-learn: trees and missing values
    "decision tree with holes": lambda: sklearn_case(
        tree.DecisionTreeClassifier(random_state=0), NUMBERS, target=WORDS
    ),
    "forest with holes": lambda: sklearn_case(
        ensemble.RandomForestClassifier(**FEW), NUMBERS, **PROBABILITIES
    ),
    "forest that saw no holes in training": lambda: Case(
        log=mlflow.sklearn.log_model,
        model=ensemble.RandomForestRegressor(**FEW).fit(SOLID[NUMBERS], MINUTES),
        table=arrow(TEST[NUMBERS]),
        how={"serialization_format": "cloudpickle"},
    ),
    "bagged trees with holes": lambda: sklearn_case(
        ensemble.BaggingClassifier(n_estimators=5, random_state=0), NUMBERS, **PROBABILITIES
    ),
    "gradient boosting": lambda: sklearn_case(
        ensemble.GradientBoostingClassifier(**FEW), NUMBERS, holes=False, **PROBABILITIES
    ),
    # scikit-learn: columns by name
    "words by one-hot encoding, some missing": lambda: Case(
        log=mlflow.sklearn.log_model,
        model=by_name((ONE_HOT, ["carrier"]), ("passthrough", ["weekend"])).fit(TRAIN, LATE),
        table=arrow(TEST.assign(carrier=TEST["carrier"].mask(TEST.index % 9 == 0))),
        how={"serialization_format": "cloudpickle", **PROBABILITIES},
    ),
    "words by target encoding": lambda: sklearn_case(
        by_name((TARGETED, ["carrier"])),
        [*NUMBERS, "carrier"],
        **PROBABILITIES,
    ),
    "booleans and codes by one-hot encoding": lambda: sklearn_case(
        by_name((ONE_HOT, ["weekend", "aircraft"])), NUMBERS, **PROBABILITIES
    ),
    "codes by numbers, and by what they stand for": lambda: sklearn_case(
        by_name(
            (
                OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
                ["aircraft", "weekend"],
            ),
            (TARGETED, ["aircraft"]),
        ),
        NUMBERS,
        **PROBABILITIES,
    ),
    "unknown words by a number": lambda: sklearn_case(
        by_name(
            (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["carrier"])
        ),
        [*NUMBERS, "carrier"],
        **PROBABILITIES,
    ),
    "boosted trees of LightGBM in a pipeline": lambda: sklearn_case(
        make_pipeline(SimpleImputer(), lightgbm.LGBMClassifier(**QUIET)), NUMBERS, target=WORDS
    ),
    "boosted trees of XGBoost in a pipeline": lambda: sklearn_case(
        make_pipeline(SimpleImputer(), xgboost.XGBClassifier(**FEW)),
        NUMBERS,
        target=BANDS,
        **PROBABILITIES,
    ),
    # LightGBM
    "LGBMClassifier of two": lambda: lightgbm_case(lightgbm.LGBMClassifier(**QUIET), LATE),
    "LGBMClassifier of words": lambda: lightgbm_case(lightgbm.LGBMClassifier(**QUIET), WORDS),
    "LGBMClassifier of booleans": lambda: lightgbm_case(lightgbm.LGBMClassifier(**QUIET), LATE > 0),
    "LGBMClassifier with categories": lambda: lightgbm_case(
        lightgbm.LGBMClassifier(**QUIET), BANDS, categorical_feature=["aircraft"]
    ),
    "LGBMClassifier stopped early": lambda: lightgbm_case(
        lightgbm.LGBMClassifier(verbose=-1, **LONG),
        LATE,
        callbacks=[lightgbm.early_stopping(3, verbose=False)],
        **STOP,
    ),
    "LGBMRegressor": lambda: lightgbm_case(lightgbm.LGBMRegressor(**QUIET), MINUTES),
    "LGBMRegressor of gamma": lambda: lightgbm_case(
        lightgbm.LGBMRegressor(objective="gamma", **QUIET), POSITIVE
    ),
    "LGBMRegressor of mape": lambda: lightgbm_case(
        lightgbm.LGBMRegressor(objective="mape", **QUIET), POSITIVE
    ),
    "LGBMRegressor by dart": lambda: lightgbm_case(
        lightgbm.LGBMRegressor(boosting_type="dart", **QUIET), MINUTES
    ),
    "LGBMRegressor that takes holes for zeros": lambda: lightgbm_case(
        lightgbm.LGBMRegressor(use_missing=False, **QUIET), MINUTES
    ),
    "LGBMRanker": lambda: lightgbm_case(
        lightgbm.LGBMRanker(**QUIET), BANDS, group=[50] * (ROWS // 50)
    ),
    "LightGBM booster of two": lambda: lightgbm_booster(LATE, objective="binary"),
    "LightGBM booster of three": lambda: lightgbm_booster(
        BANDS, objective="multiclass", num_class=3
    ),
    "LightGBM booster of cross entropy": lambda: lightgbm_booster(
        LATE * 0.9, objective="cross_entropy"
    ),
    # XGBoost
    "XGBClassifier of two": lambda: xgboost_case(xgboost.XGBClassifier(**FEW), LATE),
    "XGBClassifier of three": lambda: xgboost_case(xgboost.XGBClassifier(**FEW), BANDS),
    "XGBClassifier stopped early": lambda: xgboost_case(
        xgboost.XGBClassifier(early_stopping_rounds=3, **LONG), LATE, verbose=False, **STOP
    ),
    "XGBRFClassifier": lambda: xgboost_case(xgboost.XGBRFClassifier(**FEW), LATE),
    "XGBRegressor": lambda: xgboost_case(xgboost.XGBRegressor(**FEW), MINUTES),
    "XGBRegressor of tweedie": lambda: xgboost_case(
        xgboost.XGBRegressor(objective="reg:tweedie", **FEW), POSITIVE
    ),
    "XGBRanker": lambda: xgboost_case(xgboost.XGBRanker(**FEW), BANDS, group=[50] * (ROWS // 50)),
    "XGBoost booster of two": lambda: xgboost_booster(LATE, objective="binary:logistic"),
    "XGBoost booster of one tree": lambda: xgboost_booster(
        LATE, objective="binary:logistic", base_score=0.3, gamma=1e9
    ),
    "XGBoost booster of three": lambda: xgboost_booster(
        BANDS, objective="multi:softprob", num_class=3
    ),
    "XGBoost booster of the best of three": lambda: xgboost_booster(
        BANDS, objective="multi:softmax", num_class=3
    ),
    "XGBoost booster with categories": lambda: xgboost_booster(
        LATE, ["int", "float", "float", "i", "c"], objective="binary:logistic", max_cat_to_onehot=2
    ),
    # PyTorch
    "network on a frame": lambda: torch_frame(Network(5, 1)),
    "network with flat output": lambda: torch_frame(Network(5, 1, flat=True)),
    "network with three outputs of a frame": lambda: torch_frame(Network(5, 3)),
    "network on a tensor": lambda: torch_tensor(Network(5, 2), numbers(5)),
    "network in float64": lambda: torch_tensor(
        Network(5, 2).double(), numbers(5).astype(np.float64)
    ),
    "recurrent network on a tensor of rank 3": lambda: torch_tensor(Recurrent(), numbers(4, 3)),
    "network on columns that make up a tensor": lambda: torch_columns(Network(5, 2)),
    "embeddings of rows of any length": lambda: torch_tensor(
        Words(),
        np.random.default_rng(2).integers(0, 50, (ROWS, 6)),
        signature=ModelSignature(inputs=Schema([TensorSpec(np.dtype(np.int64), (-1, -1))])),
    ),
    "embeddings of whole numbers": lambda: torch_tensor(
        Words(), np.random.default_rng(2).integers(0, 50, (ROWS, 6))
    ),
    "exported program": lambda: torch_tensor(
        Network(5, 2), numbers(5), serialization_format="pt2", input_example=numbers(5)[:4]
    ),
}


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A registered model on this machine, and some rows of its input."""

    files: ModelFiles
    options: EngineOptions
    rows: pa.RecordBatch

    @property
    def features(self) -> Any:
        return features(self.files.signature, self.options.columns, self.files.model)

    def native(self) -> dict[str, pa.Array]:
        return score(PyfuncEngine(self.files, self.features, self.options), self.rows)

    def converted(self, outputs: pa.Schema) -> onnx.ModelProto:
        return convert(self.files, self.features, outputs)

    def run(self, graph: onnx.ModelProto, outputs: pa.Schema, folder: Path) -> dict[str, pa.Array]:
        onnx.save(graph, folder / "model.onnx")
        write_outputs(folder, outputs)
        built = Built(variant="fp32", recipe="exported", engine="onnx", folder=folder)
        engine = OnnxEngine.built(self.files, built, self.features, self.options)
        return score(engine, self.rows)


@pytest.fixture
def loaded(tracking_uri: str) -> Callable[[Case], Loaded]:
    """Registers a case and loads it back, as a worker does."""

    def load(case: Case) -> Loaded:
        how = dict(case.how)
        how.setdefault("signature", infer_signature(case.table.to_pandas()))
        uri = register(tracking_uri, case.log, case.model, **how)
        files = read_model(Path(mlflow.artifacts.download_artifacts(uri)), uri)
        options = EngineOptions(device="cpu", threads=1, columns=case.columns)
        needed = features(files.signature, case.columns, uri)
        columns = [
            case.table[item.name].cast(item.type) if item.shape is None else case.table[item.name]
            for item in needed
        ]
        table = pa.table(columns, names=[str(item.name) for item in needed])
        (rows,) = table.combine_chunks().to_batches()
        return Loaded(files=files, options=options, rows=rows)

    return load


def schema_of(columns: dict[str, pa.Array]) -> pa.Schema:
    return pa.schema([(name, values.type) for name, values in columns.items()])


def array_of(values: pa.Array) -> Any:
    """[rows] or [rows, k], numbers or words."""
    return np.array(values.to_pylist())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_converted_model_scores_what_the_registered_one_scores(
    case: Callable[[], Case], loaded: Callable[[Case], Loaded], tmp_path: Path
) -> None:
    model = loaded(case())
    native = model.native()
    outputs = schema_of(native)

    graph = model.converted(outputs)
    found = model.run(graph, outputs, tmp_path)

    assert schema_of(found) == outputs
    for name, expected in native.items():
        if pa.types.is_string(expected.type):
            assert found[name].to_pylist() == expected.to_pylist()
        else:
            np.testing.assert_allclose(
                array_of(found[name]), array_of(expected), rtol=1e-4, atol=2e-4
            )


def test_a_graph_keeps_only_the_outputs_of_native(loaded: Callable[[Case], Loaded]) -> None:
    model = loaded(CASES["probabilities as three columns"]())

    graph = model.converted(schema_of(model.native())).graph

    assert len(graph.output) == 3
    assert "ZipMap" not in {node.op_type for node in graph.node}
    assert [len(item.type.tensor_type.shape.dim) for item in graph.output] == [1, 1, 1]
    assert not any(
        item.type.tensor_type.shape.dim[0].HasField("dim_value")
        for item in (*graph.input, *graph.output)
    )


def test_lightgbm_keeps_its_float64_thresholds_where_prices_lie_on_them(
    loaded: Callable[[Case], Loaded], tmp_path: Path
) -> None:
    fares = np.arange(0, 400) / 100
    train = pd.DataFrame({"fare": fares[::2], "rest": np.zeros(200)})
    steps = np.arange(200) % 2 * 100.0  # a split between each two neighbours
    fitted = lightgbm.LGBMRegressor(
        n_estimators=1, learning_rate=1.0, num_leaves=200, min_child_samples=1, verbose=-1
    ).fit(train, steps)
    table = arrow(pd.DataFrame({"fare": fares, "rest": np.zeros(400)}))
    how = {"serialization_format": "cloudpickle"}
    model = loaded(Case(log=mlflow.lightgbm.log_model, model=fitted, table=table, how=how))
    native = model.native()

    graph = model.converted(schema_of(native))
    found = model.run(graph, schema_of(native), tmp_path)

    assert len(set(array_of(native["score"]).round())) > 1
    np.testing.assert_allclose(array_of(found["score"]), array_of(native["score"]), rtol=1e-5)
    assert graph.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.DOUBLE


def test_lightgbm_on_float32_columns_stays_in_float32_and_exact(
    loaded: Callable[[Case], Loaded], tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    steps = rng.integers(0, 200, (ROWS, 3)).astype(np.float32) * np.float32(0.1)
    rows = pd.DataFrame(steps, columns=["a", "b", "c"])
    fitted = lightgbm.LGBMRegressor(**QUIET).fit(rows[::2], rows["a"][::2] * rows["b"][::2])
    how = {"serialization_format": "cloudpickle"}
    model = loaded(Case(log=mlflow.lightgbm.log_model, model=fitted, table=arrow(rows), how=how))
    native = model.native()

    graph = model.converted(schema_of(native))
    found = model.run(graph, schema_of(native), tmp_path)

    assert graph.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    np.testing.assert_allclose(array_of(found["score"]), array_of(native["score"]), rtol=1e-5)


def test_a_conversion_can_be_wrong_without_a_complaint(
    loaded: Callable[[Case], Loaded], tmp_path: Path
) -> None:
    fitted, frame = wrong_models.moments()
    model = loaded(
        Case(
            log=mlflow.sklearn.log_model,
            model=fitted,
            table=arrow(frame),
            how={"serialization_format": "cloudpickle", **PROBABILITIES},
        )
    )
    native = model.native()

    found = model.run(model.converted(schema_of(native)), schema_of(native), tmp_path)

    decided, expected = (array_of(each["score"])[:, 1] > 0.5 for each in (found, native))
    assert np.mean(decided == expected) < 0.95


MISSING_WORDS = TRAIN.assign(carrier=TRAIN["carrier"].mask(TRAIN.index % 9 == 0))
REFUSED: dict[str, tuple[Callable[[], Case], str]] = {
    "histogram boosting": (
        lambda: sklearn_case(ensemble.HistGradientBoostingClassifier(max_iter=5), NUMBERS),
        "the exporter failed: TypeError",
    ),
    "custom function": (
        lambda: Case(
            log=mlflow.pyfunc.log_model, model=models.AsSeries(), table=pa.table({"amount": [1.0]})
        ),
        "models of flavor pyfunc are not converted",
    ),
    "a category for missing words": (
        lambda: Case(
            log=mlflow.sklearn.log_model,
            model=by_name((ONE_HOT, ["carrier"])).fit(MISSING_WORDS, LATE),
            table=arrow(TEST),
            how={"serialization_format": "cloudpickle"},
        ),
        "OneHotEncoder has a category for missing values",
    ),
    "an encoder that refuses": (
        lambda: sklearn_case(by_name((OrdinalEncoder(), ["carrier"])), [*NUMBERS, "carrier"]),
        "OrdinalEncoder refuses unknown categories",
    ),
    "an imputer of words": (
        lambda: sklearn_case(
            by_name((make_pipeline(SimpleImputer(strategy="most_frequent"), ONE_HOT), ["carrier"])),
            [*NUMBERS, "carrier"],
        ),
        "the exporter failed: NotImplementedError",
    ),
    "words in a text": (
        lambda: sklearn_case(by_name((TfidfVectorizer(), "carrier")), [*NUMBERS, "carrier"]),
        "TfidfVectorizer",
    ),
    "LightGBM's forest": (
        lambda: lightgbm_case(
            lightgbm.LGBMRegressor(
                boosting_type="rf", bagging_freq=1, bagging_fraction=0.7, **QUIET
            ),
            MINUTES,
        ),
        "random forests are not converted",
    ),
    "LightGBM's linear trees": (
        lambda: lightgbm_case(lightgbm.LGBMRegressor(linear_tree=True, **QUIET), MINUTES),
        "linear trees are not converted",
    ),
    "LightGBM's zeros for missing values": (
        lambda: lightgbm_case(lightgbm.LGBMRegressor(zero_as_missing=True, **QUIET), MINUTES),
        "take zeros for missing values",
    ),
    "LightGBM's one against all": (
        lambda: lightgbm_booster(BANDS, objective="multiclassova", num_class=3),
        "objective 'multiclassova",
    ),
    "LightGBM's steeper sigmoid": (
        lambda: lightgbm_booster(LATE, objective="binary", sigmoid=2.0),
        "objective 'binary sigmoid:2'",
    ),
    "LightGBM's root": (
        lambda: lightgbm_case(lightgbm.LGBMRegressor(reg_sqrt=True, **QUIET), MINUTES),
        "objective 'regression sqrt'",
    ),
    "XGBoost's dart": (
        lambda: xgboost_case(xgboost.XGBRegressor(booster="dart", **FEW), MINUTES),
        "XGBoost's dart is not converted",
    ),
    "XGBoost's two targets": (
        lambda: xgboost_case(xgboost.XGBRegressor(**FEW), TARGETS),
        "several targets are not converted",
    ),
    "XGBoost's forest of three classes": (
        lambda: xgboost_case(xgboost.XGBRFClassifier(**FEW), BANDS),
        "random forests of several classes",
    ),
    "XGBoost's survival": (
        lambda: xgboost_case(xgboost.XGBRegressor(objective="survival:cox", **FEW), POSITIVE),
        "objective survival:cox",
    ),
    "a network that looks at the batch": (lambda: torch_frame(Moody()), "the exporter failed"),
    "a scripted network": (
        lambda: torch_frame(torch.jit.script(Network(5, 1).eval())),
        "the exporter failed",
    ),
}


@pytest.mark.parametrize(("case", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_a_graph_cannot_say_is_not_built_and_the_reason_is_one_line(
    case: Callable[[], Case], reason: str, loaded: Callable[[Case], Loaded]
) -> None:
    model = loaded(case())
    outputs = schema_of(model.native())

    with pytest.raises(NotBuilt, match=reason) as refused:
        model.converted(outputs)

    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 300
    assert "\x1b" not in str(refused.value)


def test_an_exporter_keeps_its_listings_to_itself(
    loaded: Callable[[Case], Loaded], capfd: pytest.CaptureFixture[str]
) -> None:
    model = loaded(torch_frame(Moody()))
    outputs = schema_of(model.native())
    capfd.readouterr()

    with pytest.raises(NotBuilt, match="data-dependent"):
        model.converted(outputs)

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("case", "package"),
    [
        ("linear regression", "skl2onnx"),
        ("LGBMRegressor", "onnxmltools"),
        ("XGBRegressor", "onnxmltools"),
        ("network on a frame", "onnxscript"),
    ],
)
def test_a_worker_without_an_exporter_says_which_to_install(
    case: str, package: str, loaded: Callable[[Case], Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(CASES[case]())
    outputs = schema_of(model.native())
    monkeypatch.delitem(sys.modules, f"scoring.models.convert.{model.files.flavor}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)  # as Python says it when there is none

    with pytest.raises(NotBuilt, match=f"{package} is not installed.*pip install {package}"):
        model.converted(outputs)
