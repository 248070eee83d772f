"""Every flavor that has variants, scored as one by real workers, against the model itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import xgboost
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scoring import Job, Run, Settings, submit
from tests.integration import text_models, wrong_models
from tests.integration.models import register

pytestmark = pytest.mark.slow

ROWS = 1_200
WAIT = 240
RNG = np.random.default_rng(8)
FRAME = pd.DataFrame(RNG.normal(size=(ROWS, 6)), columns=list("abcdef"))
LATE = (FRAME["a"] + FRAME["b"] * FRAME["c"] > 0).astype(int)

Score = Callable[..., Run]


@pytest.fixture
def score(stack: Settings, tmp_path: Path) -> Score:
    """``score(model, frame, **precision)``: the published run."""

    def run(
        model: str, frame: pd.DataFrame, columns: tuple[str, ...] = (), **precision: Any
    ) -> Run:
        table = pa.Table.from_pandas(frame.assign(id=range(len(frame))), preserve_index=False)
        (tmp_path / "in").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "in" / "rows.parquet", row_group_size=400)
        job = Job(
            name="variant-flavors",
            model=model,
            key=("id",),
            input={"path": str(tmp_path / "in"), "columns": columns},
            output={"path": str(tmp_path / "out" / "{run_id}")},
            execution={"device": "cpu", "chunk_rows": 400, "error_budget": 0.05},
            precision=precision,
        )
        return submit(job, settings=stack).wait(timeout=WAIT)

    return run


def column(run: Run, name: str = "score") -> Any:
    return run.scores().to_table().sort_by("id")[name]


def near(run: Run, expected: Any, tolerance: float = 1e-5) -> None:
    found = np.array(column(run).to_pylist())
    np.testing.assert_allclose(found, np.asarray(expected), atol=tolerance)


def test_sklearn(score: Score, tracking_uri: str) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME, LATE)
    uri = register(
        tracking_uri,
        mlflow.sklearn.log_model,
        model,
        signature=infer_signature(FRAME, model.predict_proba(FRAME)),
        pyfunc_predict_fn="predict_proba",
    )

    run = score(uri, FRAME, variant="fp32")

    assert run.to_dict()["engine"].startswith("onnxruntime")
    near(run, model.predict_proba(FRAME))
    native = score(uri, FRAME, variant="native")
    assert native.scores().schema == run.scores().schema


def test_lightgbm(score: Score, tracking_uri: str) -> None:
    model = lightgbm.LGBMRegressor(n_estimators=30, verbose=-1).fit(FRAME, FRAME["a"] * 10)
    uri = register(
        tracking_uri,
        mlflow.lightgbm.log_model,
        model,
        signature=infer_signature(FRAME, model.predict(FRAME)),
    )

    run = score(uri, FRAME, variant="fp32")

    assert run.to_dict()["engine"].startswith("onnxruntime")
    near(run, model.predict(FRAME))


def test_xgboost(score: Score, tracking_uri: str) -> None:
    model = xgboost.XGBClassifier(n_estimators=20).fit(FRAME, LATE)
    uri = register(
        tracking_uri,
        mlflow.xgboost.log_model,
        model,
        signature=infer_signature(FRAME, model.predict(FRAME)),
    )

    run = score(uri, FRAME, variant="fp32")

    assert run.to_dict()["engine"].startswith("onnxruntime")
    assert (np.array(column(run).to_pylist()) == model.predict(FRAME)).mean() > 0.995


def network() -> torch.nn.Module:
    torch.manual_seed(4)
    return torch.nn.Sequential(
        torch.nn.Linear(6, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1), torch.nn.Sigmoid()
    ).eval()


def test_pytorch_in_torch_in_float32_and_in_int8(score: Score, tracking_uri: str) -> None:
    model = network()
    with torch.inference_mode():
        expected = model(torch.from_numpy(FRAME.to_numpy(np.float32))).numpy()[:, 0]
    frame = FRAME.astype(np.float32)
    uri = register(
        tracking_uri,
        mlflow.pytorch.log_model,
        model,
        signature=infer_signature(frame, expected),
        serialization_format="pickle",
    )

    native = score(uri, frame, variant="native")
    float32 = score(uri, frame, variant="fp32")
    int8 = score(uri, frame, variant="int8", min_agreement=0.9, max_mean_error=0.05)

    assert native.to_dict()["engine"].startswith("torch")
    near(native, expected)
    near(float32, expected)
    near(int8, expected, 0.1)
    assert not np.array_equal(column(int8).to_numpy(), column(float32).to_numpy())


def test_sentence_transformers(score: Score, tracking_uri: str, tmp_path: Path) -> None:
    model = text_models.embedder(tmp_path / "model")
    texts = text_models.paragraphs(300)
    uri = register(
        tracking_uri,
        mlflow.sentence_transformers.log_model,
        model,
        signature=infer_signature(["a text"], model.encode(["a text"])),
    )

    run = score(
        uri, pd.DataFrame({"text": texts}), columns=("text",), variant="int8", max_mean_error=0.02
    )

    expected = model.encode(texts)
    found = np.stack(column(run).to_pylist())
    assert run.to_dict()["variant"] == "int8"
    assert run.to_dict()["precision"]["gate"]["batch_error"] < 0.001
    assert cosine(found, expected).mean() > 0.98


def cosine(found: Any, expected: Any) -> Any:
    """Of each row."""
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return (found * expected).sum(axis=1) / lengths


def test_a_conversion_that_is_wrong_is_seen_and_native_scores(
    score: Score, tracking_uri: str
) -> None:
    model, frame = wrong_models.moments()
    uri = register(
        tracking_uri,
        mlflow.sklearn.log_model,
        model,
        signature=infer_signature(frame, model.predict_proba(frame)),
        pyfunc_predict_fn="predict_proba",
    )

    run = score(uri, frame)

    assert run.to_dict()["variant"] == "native"
    assert "agreement 0.9" in run.to_dict()["precision"]["why"]
    near(run, model.predict_proba(frame), 1e-12)


def test_a_missing_or_infinite_value_costs_its_row_whatever_the_variant(
    score: Score, tracking_uri: str
) -> None:
    """The model raises on NaN; its exported graph alone would publish a score for it."""
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME, LATE)
    uri = register(
        tracking_uri,
        mlflow.sklearn.log_model,
        model,
        signature=infer_signature(FRAME, model.predict_proba(FRAME)),
        pyfunc_predict_fn="predict_proba",
    )
    frame = FRAME.copy()
    frame.loc[[7, 500], "c"] = np.nan
    frame.loc[11, "a"] = np.inf
    frame.loc[12, "a"] = 1e300  # infinite in float32, and a number to the model

    runs = {name: score(uri, frame, variant=name) for name in ("native", "fp32")}

    ids = {name: column(run, "id").to_pylist() for name, run in runs.items()}
    assert set(range(ROWS)) - set(ids["native"]) == {7, 500, 11}
    assert set(range(ROWS)) - set(ids["fp32"]) == {7, 500, 11, 12}
    known = [row for row, number in enumerate(ids["native"]) if number != 12]
    near(runs["fp32"], [column(runs["native"])[row].as_py() for row in known])
