"""What is published equals the model called directly, for every flavor, by real workers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import mlflow
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema, TensorSpec
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from scoring import Job, Settings, submit
from scoring.errors import RunFailed
from tests.integration import models
from tests.integration.models import register

pytestmark = pytest.mark.slow

ROWS = 1_000
WAIT = 240
"""Seconds after which a run counts as stuck."""

Score = Callable[..., pa.Table]


@pytest.fixture
def score(stack: Settings, tmp_path: Path) -> Score:
    """``score(model, table, columns=[...])``: the published scores, as three readers agree."""

    def run(model: str, table: pa.Table, columns: tuple[str, ...] = ()) -> pa.Table:
        (tmp_path / "in").mkdir()
        half = len(table) // 2 + 7
        for name, rows in (("a", table.slice(0, half)), ("b", table.slice(half))):
            pq.write_table(rows, tmp_path / "in" / f"{name}.parquet", row_group_size=300)
        job = Job(
            name="flavors",
            model=model,
            key=("id",),
            input={"path": str(tmp_path / "in"), "columns": columns},
            output={"path": str(tmp_path / "out"), "passthrough": ("note",)},
            execution={"chunk_rows": 400, "device": "cpu", "error_budget": 0.0},
            precision={"variant": "native"},
        )
        submit(job, settings=stack).wait(timeout=WAIT)
        return read_back(tmp_path / "out")

    return run


def read_back(output: Path) -> pa.Table:
    """The published parts in order; DuckDB and pandas must read the same values."""
    parts = [str(part) for part in sorted(output.glob("part-*.parquet"))]
    assert len(parts) > 1, "the input was meant to be more than one chunk"
    table = pa.concat_tables(pq.read_table(part) for part in parts)
    by_duckdb = duckdb.sql(f"SELECT * FROM read_parquet({parts})").fetchall()
    assert by_duckdb == [tuple(row.values()) for row in table.to_pylist()]
    by_pandas = pd.read_parquet(output)
    pd.testing.assert_frame_equal(by_pandas, table.to_pandas())
    return table


def rows_of(**columns: Any) -> pa.Table:
    """An input table: ``id`` and ``note`` beside the features."""
    count = len(next(iter(columns.values())))
    return pa.table(
        {"id": np.arange(count) * 7, **columns, "note": [f"row {n}" for n in range(count)]}
    )


def numbers(width: int, dtype: Any = np.float32, seed: int = 0) -> Any:
    """Random rows [ROWS, width]."""
    return np.random.default_rng(seed).normal(size=(ROWS, width)).astype(dtype)


def columns_of(matrix: Any) -> dict[str, Any]:
    return {f"f{index}": matrix[:, index].copy() for index in range(matrix.shape[1])}


def check_kept(scores: pa.Table, table: pa.Table) -> None:
    """Key and passthrough come first, as they were, in input order."""
    assert scores.column_names[:2] == ["id", "note"]
    assert scores["id"].to_pylist() == table["id"].to_pylist()
    assert scores["note"].to_pylist() == table["note"].to_pylist()


def onnx_directly(model: onnx.ModelProto, feed: dict[str, Any]) -> list[Any]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feed))


# ONNX


def test_an_onnx_classifier_publishes_label_and_probabilities(
    score: Score, tracking_uri: str
) -> None:
    rows = numbers(4)
    model = models.classifier(rows)
    signature = infer_signature(pd.DataFrame(columns_of(rows)))
    uri = register(tracking_uri, mlflow.onnx.log_model, model, signature=signature)
    table = rows_of(**columns_of(rows))

    scores = score(uri, table)

    label, probabilities = onnx_directly(model, {"X": rows})
    check_kept(scores, table)
    assert scores.schema.types[2:] == [pa.int64(), pa.list_(pa.float32(), 3)]
    assert scores["label"].to_pylist() == label.tolist()
    found = np.stack(scores["probabilities"].to_numpy())
    np.testing.assert_allclose(found, probabilities, rtol=1e-6)


def test_a_torch_network_exported_to_onnx_reads_named_columns_in_order(
    score: Score, tracking_uri: str
) -> None:
    torch.manual_seed(3)
    network = torch.nn.Sequential(
        torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1)
    ).eval()
    program = torch.onnx.export(
        network,
        (torch.zeros(8, 6),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("rows")},),
        input_names=["X"],
        output_names=["score"],
        verbose=False,
    )
    rows = numbers(6)
    order = [3, 1, 5, 0, 4, 2]
    named = [f"f{index}" for index in order]
    signature = infer_signature(pd.DataFrame(rows[:5], columns=named), np.zeros(5, np.float32))
    uri = register(tracking_uri, mlflow.onnx.log_model, program.model_proto, signature=signature)
    table = rows_of(**columns_of(rows))

    scores = score(uri, table)

    with torch.no_grad():
        expected = network(torch.from_numpy(rows[:, order].copy())).numpy()[:, 0]
    check_kept(scores, table)
    assert scores.schema.field("score").type == pa.float32()
    np.testing.assert_allclose(scores["score"].to_numpy(), expected, rtol=1e-5, atol=1e-6)


def test_an_onnx_model_takes_one_input_per_column_of_mixed_types(
    score: Score, tracking_uri: str
) -> None:
    model = models.per_column()
    rng = np.random.default_rng(5)
    fare = rng.uniform(50, 500, ROWS).astype(np.float32)
    stops = rng.integers(0, 3, ROWS)
    carrier = rng.choice(["AA", "B6", "ünited"], ROWS)
    signature = ModelSignature(
        inputs=Schema(
            [ColSpec("float", "fare"), ColSpec("long", "stops"), ColSpec("string", "carrier")]
        )
    )
    uri = register(tracking_uri, mlflow.onnx.log_model, model, signature=signature)
    table = rows_of(
        carrier=pa.array(carrier.tolist()).dictionary_encode(),
        stops=pa.array(stops, pa.int16()),
        fare=fare.astype(np.float64),
    )

    scores = score(uri, table)

    feed = {"fare": fare[:, None], "stops": stops[:, None], "carrier": carrier.astype(object)}
    price, airline, nonstop = onnx_directly(model, feed)
    check_kept(scores, table)
    assert scores.schema.types[2:] == [pa.float32(), pa.string(), pa.bool_()]
    np.testing.assert_array_equal(scores["price"].to_numpy(), price[:, 0])
    assert scores["airline"].to_pylist() == airline.tolist() == carrier.tolist()
    assert scores["nonstop"].to_pylist() == nonstop[:, 0].tolist()


def test_float64_stays_float64_through_an_onnx_model(score: Score, tracking_uri: str) -> None:
    rows = numbers(3, np.float64)
    model = models.linear(np.array([[1.0], [1e-9], [-2.0]]))
    signature = infer_signature(pd.DataFrame(columns_of(rows)), np.zeros((ROWS, 1)))
    uri = register(tracking_uri, mlflow.onnx.log_model, model, signature=signature)
    table = rows_of(**columns_of(rows))

    scores = score(uri, table)

    (expected,) = onnx_directly(model, {"X": rows})
    check_kept(scores, table)
    assert scores.schema.field("score").type == pa.float64()
    np.testing.assert_allclose(scores["score"].to_numpy(), expected[:, 0], rtol=1e-14)


def test_a_list_column_is_the_matrix_of_a_tensor_signature(score: Score, tracking_uri: str) -> None:
    rows = numbers(5)
    model = models.linear(np.arange(10, dtype=np.float32).reshape(5, 2), output="pair")
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 5), "X")]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 2), "pair")]),
    )
    uri = register(tracking_uri, mlflow.onnx.log_model, model, signature=signature)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), 5)
    table = rows_of(X=lists)

    scores = score(uri, table)

    (expected,) = onnx_directly(model, {"X": rows})
    check_kept(scores, table)
    assert scores.schema.field("pair").type == pa.list_(pa.float32(), 2)
    np.testing.assert_allclose(np.stack(scores["pair"].to_numpy()), expected, rtol=1e-5)


def test_the_jobs_columns_make_up_the_matrix_of_an_unnamed_tensor(
    score: Score, tracking_uri: str
) -> None:
    rows = numbers(3)
    model = models.linear(np.array([[1], [10], [100]], np.float32))
    signature = infer_signature(rows, np.zeros((ROWS, 1), np.float32))
    uri = register(tracking_uri, mlflow.onnx.log_model, model, signature=signature)
    table = rows_of(**columns_of(rows))

    scores = score(uri, table, columns=("f2", "f0", "f1"))

    (expected,) = onnx_directly(model, {"X": rows[:, [2, 0, 1]].copy()})
    check_kept(scores, table)
    np.testing.assert_allclose(scores["score"].to_numpy(), expected[:, 0], rtol=1e-5, atol=1e-5)


def test_weights_in_external_files_travel_with_the_model(score: Score, tracking_uri: str) -> None:
    weights = np.random.default_rng(9).normal(size=(64, 8)).astype(np.float32)
    model = models.linear(weights)
    rows = numbers(64)
    signature = infer_signature(pd.DataFrame(columns_of(rows)), np.zeros(ROWS, np.float32))
    uri = register(tracking_uri, mlflow.onnx.log_model, model, signature=signature)
    stored = Path(mlflow.artifacts.download_artifacts(uri)) / "model.onnx"
    (initializer,) = onnx.load(str(stored), load_external_data=False).graph.initializer
    assert initializer.external_data, "the weights were meant to be in a file of their own"

    scores = score(uri, rows_of(**columns_of(rows)))

    found = np.stack(scores["score"].to_numpy())
    np.testing.assert_allclose(found, rows @ weights, rtol=1e-4, atol=1e-4)


def test_a_zipmap_output_is_refused_with_the_remedy(
    stack: Settings, tracking_uri: str, tmp_path: Path
) -> None:
    rows = numbers(2)
    signature = infer_signature(pd.DataFrame(columns_of(rows)))
    uri = register(
        tracking_uri, mlflow.onnx.log_model, models.zipmap_classifier(rows), signature=signature
    )
    pq.write_table(rows_of(**columns_of(rows)), tmp_path / "rows.parquet")
    job = Job(
        name="zipmap",
        model=uri,
        input={"path": str(tmp_path / "rows.parquet")},
        output={"path": str(tmp_path / "out")},
    )

    with pytest.raises(RunFailed, match="zipmap=False"):
        submit(job, settings=stack).wait(timeout=WAIT)

    assert not (tmp_path / "out").exists()


# scikit-learn


def passengers() -> tuple[pd.DataFrame, Any]:
    """Numbers and words with holes, and a label."""
    rng = np.random.default_rng(12)
    frame = pd.DataFrame(
        {
            "age": np.where(rng.random(ROWS) < 0.2, np.nan, rng.uniform(1, 80, ROWS)),
            "fare": rng.uniform(5, 200, ROWS).astype(np.float32),
            "port": rng.choice(["C", "Q", "S"], ROWS),
        }
    )
    frame.loc[rng.random(ROWS) < 0.1, "port"] = None
    return frame, np.asarray(frame["fare"] > 60, int)


@pytest.mark.parametrize(
    ("function", "kind"), [("predict", pa.int64()), ("predict_proba", pa.list_(pa.float64(), 2))]
)
def test_a_sklearn_pipeline_scores_numbers_words_and_nulls(
    score: Score, tracking_uri: str, function: str, kind: pa.DataType
) -> None:
    frame, label = passengers()
    pipeline = make_pipeline(
        make_column_transformer(
            (SimpleImputer(), ["age", "fare"]),
            (OneHotEncoder(handle_unknown="ignore"), ["port"]),
        ),
        RandomForestClassifier(n_estimators=5, random_state=0),
    ).fit(frame, label)
    directly = getattr(pipeline, function)
    signature = ModelSignature(
        inputs=Schema(
            [
                ColSpec("double", "age", required=False),
                ColSpec("float", "fare"),
                ColSpec("string", "port", required=False),
            ]
        ),
        outputs=infer_signature(frame, directly(frame)).outputs,
    )
    uri = register(
        tracking_uri,
        mlflow.sklearn.log_model,
        pipeline,
        signature=signature,
        pyfunc_predict_fn=function,
        serialization_format="cloudpickle",
    )
    table = rows_of(
        **{name: pa.array(frame[name], from_pandas=True) for name in ("port", "fare", "age")}
    )

    scores = score(uri, table)

    check_kept(scores, table)
    assert scores.schema.field("score").type == kind
    found = np.array(scores["score"].to_pylist())
    np.testing.assert_array_equal(found, directly(frame))


def test_a_sklearn_model_with_a_tensor_signature_gets_a_numpy_matrix(
    score: Score, tracking_uri: str
) -> None:
    rows = numbers(3, np.float64)
    fitted = LinearRegression().fit(rows, rows @ [1.0, 2.0, 3.0] + 4)
    signature = infer_signature(rows, fitted.predict(rows))
    uri = register(
        tracking_uri,
        mlflow.sklearn.log_model,
        fitted,
        signature=signature,
        serialization_format="cloudpickle",
    )
    table = rows_of(**columns_of(rows))

    scores = score(uri, table, columns=("f0", "f1", "f2"))

    check_kept(scores, table)
    assert scores.schema.field("score").type == pa.float64()
    np.testing.assert_allclose(scores["score"].to_numpy(), fitted.predict(rows), rtol=1e-12)


# Generic Python functions

AMOUNT = Schema([ColSpec("double", "amount")])


def amounts() -> Any:
    return np.random.default_rng(20).uniform(0, 100, ROWS)


def test_a_frame_is_published_column_by_column_with_its_types(
    score: Score, tracking_uri: str
) -> None:
    uri = register(
        tracking_uri,
        mlflow.pyfunc.log_model,
        models.Typed(),
        signature=ModelSignature(inputs=AMOUNT),
    )
    table = rows_of(amount=amounts())

    scores = score(uri, table)

    expected = models.Typed().predict(None, pd.DataFrame({"amount": amounts()}))
    check_kept(scores, table)
    types = dict(zip(scores.column_names, scores.schema.types, strict=True))
    assert types["risk"] == pa.float32()
    assert types["rank"] == pa.int32()
    assert types["flagged"] == pa.bool_()
    assert types["day"] == pa.date32()
    assert pa.types.is_timestamp(types["at"])
    assert types["label"] in (pa.string(), pa.large_string())
    for name in ("risk", "rank", "flagged", "day"):
        assert scores[name].to_pylist() == expected[name].tolist()
    assert scores["at"].to_pandas().tolist() == expected["at"].tolist()
    assert scores["label"].to_pylist() == ["high" if value > 50 else None for value in amounts()]


def test_a_mapping_of_arrays_is_published_by_name(score: Score, tracking_uri: str) -> None:
    outputs = Schema(
        [
            TensorSpec(np.dtype(np.float32), (-1, 2), "pair"),
            TensorSpec(np.dtype(np.float64), (-1,), "twice"),
        ]
    )
    uri = register(
        tracking_uri,
        mlflow.pyfunc.log_model,
        models.AsDict(),
        signature=ModelSignature(inputs=AMOUNT, outputs=outputs),
    )
    table = rows_of(amount=amounts())

    scores = score(uri, table)

    expected = models.AsDict().predict(None, pd.DataFrame({"amount": amounts()}))
    check_kept(scores, table)
    assert scores.schema.names[2:] == ["pair", "twice"]
    assert scores.schema.types[2:] == [pa.list_(pa.float32(), 2), pa.float64()]
    np.testing.assert_array_equal(np.stack(scores["pair"].to_numpy()), expected["pair"])
    np.testing.assert_array_equal(scores["twice"].to_numpy(), expected["twice"])


def test_a_series_becomes_the_score(score: Score, tracking_uri: str) -> None:
    uri = register(
        tracking_uri,
        mlflow.pyfunc.log_model,
        models.AsSeries(),
        signature=ModelSignature(inputs=AMOUNT, outputs=Schema([ColSpec("double")])),
    )
    table = rows_of(amount=amounts())

    scores = score(uri, table)

    check_kept(scores, table)
    np.testing.assert_array_equal(scores["score"].to_numpy(), amounts() + 0.25)


def test_words_in_and_words_out(score: Score, tracking_uri: str) -> None:
    uri = register(
        tracking_uri,
        mlflow.pyfunc.log_model,
        models.AsText(),
        signature=ModelSignature(
            inputs=Schema([ColSpec("string", "name")]),
            outputs=Schema([ColSpec("string", "greeting")]),
        ),
    )
    names = [f"naïve {n} 🛫" for n in range(ROWS)]
    table = rows_of(name=names)

    scores = score(uri, table)

    check_kept(scores, table)
    assert scores.schema.field("greeting").type == pa.string()
    assert scores["greeting"].to_pylist() == [f"{name}!" for name in names]


def test_booleans_dates_and_numbers_reach_a_python_model_as_themselves(
    score: Score, tracking_uri: str
) -> None:
    uri = register(
        tracking_uri,
        mlflow.pyfunc.log_model,
        models.Echo(),
        signature=ModelSignature(
            inputs=Schema(
                [
                    ColSpec("boolean", "open"),
                    ColSpec("datetime", "day"),
                    ColSpec("integer", "count"),
                    ColSpec("datetime", "seen", required=False),
                ]
            )
        ),
    )
    days = [date(2024, 1, 1 + n % 28) for n in range(ROWS)]
    seen = [datetime(2024, 5, 1, n % 24) if n % 3 else None for n in range(ROWS)]
    table = rows_of(
        open=[n % 2 == 0 for n in range(ROWS)],
        day=pa.array(days, pa.date32()),
        count=pa.array(range(ROWS), pa.int64()),
        seen=pa.array(seen, pa.timestamp("us")),
    )

    scores = score(uri, table)

    check_kept(scores, table)
    assert scores["said_open"].to_pylist() == table["open"].to_pylist()
    assert scores["said_day"].to_pandas().dt.date.tolist() == days
    assert scores["said_count"].to_pylist() == list(range(ROWS))
    assert scores.schema.field("said_count").type == pa.int32()
    assert scores["said_seen"].cast(pa.timestamp("us")).to_pylist() == seen


def test_an_output_without_a_value_in_a_whole_chunk_keeps_its_type(
    score: Score, tracking_uri: str
) -> None:
    outputs = Schema([ColSpec("string", "warning"), ColSpec("long", "rank")])
    uri = register(
        tracking_uri,
        mlflow.pyfunc.log_model,
        models.Sparse(),
        signature=ModelSignature(inputs=AMOUNT, outputs=outputs),
    )
    table = rows_of(amount=np.arange(ROWS, dtype=float))

    scores = score(uri, table)

    check_kept(scores, table)
    assert scores.schema.types[2:] == [pa.string(), pa.int64()]
    assert scores["warning"].to_pylist() == ["low"] * 10 + [None] * (ROWS - 10)
    assert scores["rank"].to_pylist() == [None] * 10 + list(range(10, ROWS))


def test_lists_of_different_lengths_are_scored_without_filling_any_up(
    score: Score, tracking_uri: str
) -> None:
    mean = models.graph(
        [onnx.helper.make_node("ReduceMean", ["basket", "axis"], ["score"], keepdims=0)],
        {"basket": (onnx.TensorProto.FLOAT, ["rows", "items"])},
        {"score": (onnx.TensorProto.FLOAT, ["rows"])},
        {"axis": np.array([1], np.int64)},
    )
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1), "basket")]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1,), "score")]),
    )
    uri = register(tracking_uri, mlflow.onnx.log_model, mean, signature=signature)
    rng = np.random.default_rng(5)
    baskets = [rng.random(1 + n % 7, dtype=np.float32) for n in range(ROWS)]
    table = rows_of(basket=pa.array(baskets, pa.list_(pa.float32())))

    scores = score(uri, table)

    check_kept(scores, table)
    expected = [basket.mean() for basket in baskets]
    np.testing.assert_allclose(scores["score"].to_numpy(), expected, rtol=1e-6)


def test_a_row_may_be_a_tensor_of_its_own_shape(score: Score, tracking_uri: str) -> None:
    images = numbers(6).reshape(-1, 2, 3)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 2, 3), "image")]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1,), "brightness")]),
    )
    uri = register(tracking_uri, mlflow.pyfunc.log_model, models.Brightness(), signature=signature)
    table = rows_of(image=pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), 6))

    scores = score(uri, table)

    expected = models.Brightness().predict(None, {"image": images.copy()})
    check_kept(scores, table)
    np.testing.assert_array_equal(scores["brightness"].to_numpy(), expected)
