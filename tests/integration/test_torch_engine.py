"""The torch engine gives what MLflow's pyfunc gives for the same rows, faster or elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pytest
import torch
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec

from scoring.errors import DeviceUnavailable, ModelFailed, ModelUnsupported
from scoring.models.engines import EngineOptions, score
from scoring.models.engines.pyfunc import PyfuncEngine
from scoring.models.engines.torch import TorchEngine
from scoring.models.inputs import features
from scoring.models.signature import ModelFiles, read_model
from tests.integration.models import register

pytestmark = pytest.mark.slow

ROWS = 700
CPU = EngineOptions(device="cpu", threads=1)
Registered = Callable[..., ModelFiles]


class Network(torch.nn.Module):
    """Two layers, with what behaves otherwise in training."""

    def __init__(self, columns: int, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(columns, 64)
        self.dropout = torch.nn.Dropout(0.5)
        self.last = torch.nn.Linear(64, outputs)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.last(self.dropout(torch.relu(self.first(rows))))
        return scores


class Mean(torch.nn.Module):
    """The mean of each row: flat, of the row's own type."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.flatten(1).mean(1)


class Counts(torch.nn.Module):
    """Whole numbers from whole numbers."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.stack([rows.sum(1), (rows > 3).sum(1)], dim=1)


class Total(torch.nn.Module):
    """One value for all rows."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.sum()


class Pair(torch.nn.Module):
    """Two tensors."""

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return rows[:, 0], rows[:, 1]


class InPlace(torch.nn.Module):
    """Works in what it is given."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        rows -= rows.amin(dim=1, keepdim=True)
        return rows.mean(1)


def table() -> pa.Table:
    """Columns of four types; missing values in two of them."""
    rng = np.random.default_rng(0)
    holes = rng.random(ROWS) < 0.1
    return pa.table(
        {
            "fare": pa.array(rng.lognormal(4, 1, ROWS), mask=holes),
            "delay": rng.normal(size=ROWS).astype(np.float32),
            "distance": rng.integers(0, 2**40, ROWS),
            "weekend": pa.array(rng.random(ROWS) < 0.3, mask=rng.random(ROWS) < 0.1),
        }
    )


def tensor(dtype: Any, *shape: int) -> Any:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 9, (ROWS, *shape)) + rng.random((ROWS, *shape))
    return values.astype(dtype)


def lists(rows: Any) -> pa.Table:
    flat = pa.array(rows.reshape(-1))
    return pa.table({"row": pa.FixedSizeListArray.from_arrays(flat, rows[0].size)})


def tensor_signature(rows: Any, outputs: Schema | None = None) -> ModelSignature:
    return ModelSignature(
        inputs=Schema([TensorSpec(rows.dtype, (-1, *rows.shape[1:]))]), outputs=outputs
    )


@pytest.fixture
def registered(tracking_uri: str) -> Registered:
    """Registers a network and fetches its files."""

    def log(model: torch.nn.Module, signature: ModelSignature, **how: Any) -> ModelFiles:
        how = {"serialization_format": "pickle"} | how
        uri = register(
            tracking_uri, mlflow.pytorch.log_model, model.eval(), signature=signature, **how
        )
        return read_model(Path(mlflow.artifacts.download_artifacts(uri)), uri)

    return log


def frame_signature(outputs: Schema | None = None) -> ModelSignature:
    inputs = [
        ColSpec("double", "fare", required=False),
        ColSpec("float", "delay"),
        ColSpec("long", "distance"),
        ColSpec("boolean", "weekend", required=False),
    ]
    return ModelSignature(inputs=Schema(inputs), outputs=outputs)


def batch(rows: pa.Table) -> pa.RecordBatch:
    (only,) = rows.combine_chunks().to_batches()
    return only


def both(
    files: ModelFiles, rows: pa.Table, columns: tuple[str, ...] = ()
) -> tuple[dict[str, pa.Array], dict[str, pa.Array]]:
    """What the torch engine gives and what pyfunc gives."""
    options = replace(CPU, columns=columns)
    needed = features(files.signature, columns, files.model)
    return (
        score(TorchEngine(files, needed, options), batch(rows)),
        score(PyfuncEngine(files, needed, options), batch(rows)),
    )


def engine(files: ModelFiles, options: EngineOptions = CPU, *more: Any, **how: Any) -> TorchEngine:
    needed = features(files.signature, options.columns, files.model)
    return TorchEngine(files, needed, options, *more, **how)


def assert_same(found: dict[str, pa.Array], native: dict[str, pa.Array]) -> None:
    assert list(found) == list(native)
    assert [values.type for values in found.values()] == [each.type for each in native.values()]
    for name, expected in native.items():
        assert found[name].null_count == expected.null_count
        np.testing.assert_allclose(
            np.array(found[name].to_pylist(), np.float64),
            np.array(expected.to_pylist(), np.float64),
            rtol=1e-5,
            atol=1e-6,
        )


NAMED = Schema([ColSpec("float", name) for name in ("low", "high", "risk")])


@pytest.mark.parametrize(
    ("model", "signature"),
    [
        (Network(4, 1), frame_signature()),
        (Network(4, 3), frame_signature()),
        (Network(4, 3), frame_signature(NAMED)),
        (Network(4, 1), frame_signature(Schema([ColSpec("double", "risk")]))),
        (Mean(), frame_signature()),
        (torch.jit.script(Network(4, 2)), frame_signature()),
    ],
    ids=["one output", "three outputs", "three names", "one name", "flat output", "scripted"],
)
def test_a_table_gives_the_columns_that_pyfunc_gives(
    model: torch.nn.Module, signature: ModelSignature, registered: Registered
) -> None:
    files = registered(model, signature)

    found, native = both(files, table())

    assert_same(found, native)


def test_what_a_missing_value_makes_of_a_table_is_missing_as_in_pyfunc(
    registered: Registered,
) -> None:
    files = registered(Mean(), frame_signature())

    found, native = both(files, table())

    holes = table()["fare"].null_count
    assert found["score"].null_count > holes > 0
    assert_same(found, native)


@pytest.mark.parametrize(
    ("model", "rows"),
    [
        (Network(5, 2), tensor(np.float32, 5)),
        (Network(5, 1), tensor(np.float32, 5)),
        (Network(5, 2).double(), tensor(np.float64, 5)),
        (Mean(), tensor(np.float32, 4, 3)),
        (Counts(), tensor(np.int64, 6)),
        (Counts(), tensor(np.int32, 6)),
        (InPlace(), tensor(np.float32, 5)),
    ],
    ids=["two", "one", "float64", "rank 3", "int64", "int32", "in place"],
)
def test_a_tensor_keeps_its_type_and_shape_as_in_pyfunc(
    model: torch.nn.Module, rows: Any, registered: Registered
) -> None:
    files = registered(model, tensor_signature(rows))

    found, native = both(files, lists(rows), columns=("row",))

    assert_same(found, native)


def test_columns_make_up_a_tensor_and_its_outputs_are_taken_apart_as_in_pyfunc(
    registered: Registered,
) -> None:
    rows = tensor(np.float32, 4)
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1,), name) for name in ("low", "high")])
    files = registered(Network(4, 2), tensor_signature(rows, outputs))
    names = ("a", "b", "c", "d")
    columns = pa.table({name: rows[:, index] for index, name in enumerate(names)})

    found, native = both(files, columns, columns=names)

    assert list(found) == ["low", "high"]
    assert_same(found, native)


def test_an_exported_program_is_scored_too(registered: Registered) -> None:
    rows = tensor(np.float32, 5)
    files = registered(
        Network(5, 2),
        tensor_signature(rows),
        serialization_format="pt2",
        input_example=rows[:4],
    )

    found, native = both(files, lists(rows), columns=("row",))

    assert_same(found, native)


@pytest.mark.parametrize("batch_rows", [1, 7, 64, ROWS, 10 * ROWS])
def test_the_size_of_a_batch_changes_nothing(batch_rows: int, registered: Registered) -> None:
    files = registered(Network(4, 3), frame_signature())
    cut = engine(files, replace(CPU, batch_rows=batch_rows))
    whole = engine(files, replace(CPU, batch_rows=ROWS))

    assert cut.batch_rows == batch_rows
    assert_same(score(cut, batch(table())), score(whole, batch(table())))


def test_a_batch_that_is_resized_counts_from_the_next_call(registered: Registered) -> None:
    files = registered(Network(4, 1), frame_signature())
    loaded = engine(files)
    before = score(loaded, batch(table()))

    loaded.resize(13)

    assert loaded.batch_rows == 13
    assert_same(score(loaded, batch(table())), before)


def test_no_rows_have_the_columns_of_some(registered: Registered) -> None:
    files = registered(Network(4, 3), frame_signature(NAMED))
    promised = pa.schema([("x", pa.float64()), ("y", pa.float32()), ("z", pa.float32())])

    assert engine(files).empty() == {
        name: pa.array([], pa.float32()) for name in ("low", "high", "risk")
    }
    assert pa.table(engine(files, CPU, promised).empty()).schema == promised


def test_half_precision_stays_near_and_keeps_the_types_that_were_promised(
    registered: Registered,
) -> None:
    files = registered(Network(4, 3), frame_signature(NAMED))
    rows = table().set_column(2, "distance", pa.array(np.arange(ROWS) % 9)).drop_null()
    native = score(engine(files), batch(rows))
    promised = pa.schema([(name, values.type) for name, values in native.items()])

    half = score(engine(files, CPU, promised, precision="fp16"), batch(rows))

    assert pa.table(half).schema == promised
    errors = [
        np.abs(half[name].to_numpy() - native[name].to_numpy()) / (1 + np.abs(native[name]))
        for name in native
    ]
    assert 0 < np.max(errors) < 0.02


def test_variants_take_names_and_types_by_position(registered: Registered) -> None:
    files = registered(Network(4, 2), frame_signature())
    promised = pa.schema([("first", pa.float64()), ("second", pa.float32())])
    native = list(score(engine(files), batch(table())).values())

    found = score(engine(files, CPU, promised), batch(table()))

    assert pa.table(found).schema == promised
    assert found["first"].cast(pa.float32()) == native[0]
    assert found["second"] == native[1]


def test_cuda_without_a_gpu_is_refused_and_auto_says_that_it_is_the_cpu(
    registered: Registered,
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    files = registered(Network(4, 1), frame_signature())

    with pytest.raises(DeviceUnavailable, match="finds no GPU"):
        engine(files, replace(CPU, device="cuda"))

    assert engine(files, replace(CPU, device="auto")).device == "cpu"


def test_only_whole_numbers_may_not_be_missing(registered: Registered) -> None:
    loaded = engine(registered(Network(4, 1), frame_signature()))

    accepted = {str(item.name): loaded.accepts_null(item) for item in loaded.features}

    assert accepted == {"fare": True, "delay": True, "distance": False, "weekend": True}


@pytest.mark.parametrize(
    ("model", "reason"),
    [(Total(), "one value for"), (Pair(), "returned a tuple")],
    ids=["one value", "two tensors"],
)
def test_what_is_not_one_tensor_of_rows_fails_with_its_name(
    model: torch.nn.Module, reason: str, registered: Registered
) -> None:
    loaded = engine(registered(model, frame_signature()))

    with pytest.raises(ModelFailed, match=reason):
        score(loaded, batch(table()))


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (Schema([ColSpec("double", "fare"), ColSpec("string", "carrier")]), "no tensor holds"),
        (
            Schema([TensorSpec(np.dtype(np.float32), (-1, 2), name) for name in ("a", "b")]),
            "one tensor only",
        ),
    ],
    ids=["words", "two tensors"],
)
def test_what_pytorch_cannot_be_given_is_refused_on_loading(
    inputs: Schema, reason: str, registered: Registered
) -> None:
    files = registered(Network(2, 1), ModelSignature(inputs=inputs))

    with pytest.raises(ModelUnsupported, match=reason):
        engine(files)
