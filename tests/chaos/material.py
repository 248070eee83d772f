"""What the chaos runs score: some networks, some tables, and what each gives of the other.

No two tables share a row number, so that a row says which table, and so which run, it comes from.
A chunk of a table keeps a core busy for about a tenth of a second: long enough to be hit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

FEATURES = tuple(f"x{index:02d}" for index in range(32))
FIRST_ROWS = 10_000_000
"""Table ``n`` numbers its rows from ``n`` times this."""
MODEL_NAME = "chaos-network"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One input file."""

    number: int
    path: Path
    rows: int
    chunk_rows: int

    @property
    def first(self) -> int:
        """Its first row's number."""
        return self.number * FIRST_ROWS

    @property
    def chunks(self) -> int:
        return -(-self.rows // self.chunk_rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Tables, registered networks, and every score that a run may publish."""

    tables: Sequence[Table]
    models: Sequence[str]
    """Addresses of the versions in the registry."""
    scores: dict[tuple[int, str], npt.NDArray[np.float32]]
    """What a version says of a table's rows, called directly; by table number and address."""


def make(
    folder: Path,
    tracking_uri: str,
    *,
    seed: int,
    tables: Sequence[tuple[int, int]] = ((12, 1_500), (20, 1_000), (9, 2_000)),
    models: int = 1,
    width: int = 1_024,
) -> Material:
    """Write tables of (chunks, rows of a chunk), and register networks of this width."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [
        write_table(folder, number, chunks, rows, seed)
        for number, (chunks, rows) in enumerate(tables, start=1)
    ]
    addresses: list[str] = []
    scores: dict[tuple[int, str], npt.NDArray[np.float32]] = {}
    for version in range(models):
        network = wide_network(width, seed + version)
        address = register(network, tracking_uri)
        addresses.append(address)
        for table in written:
            scores[table.number, address] = called_directly(network, table)
    return Material(tables=written, models=addresses, scores=scores)


def write_table(folder: Path, number: int, chunks: int, chunk_rows: int, seed: int) -> Table:
    """A table whose last chunk is half as long as the others."""
    rows = chunks * chunk_rows - chunk_rows // 2
    numbers = np.random.default_rng([seed, number])
    features = {name: numbers.normal(size=rows).astype(np.float32) for name in FEATURES}
    path = folder / f"table-{number}.parquet"
    first = number * FIRST_ROWS
    pq.write_table(
        pa.table({"row": np.arange(first, first + rows), **features}), path, row_group_size=500
    )
    return Table(number=number, path=path, rows=rows, chunk_rows=chunk_rows)


def register(network: onnx.ModelProto, tracking_uri: str) -> str:
    """A new version in the registry; its address."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    mlflow.set_tracking_uri(tracking_uri)
    logged = mlflow.onnx.log_model(
        network,
        name="model",
        registered_model_name=MODEL_NAME,
        signature=ModelSignature(
            inputs=Schema([ColSpec("float", name) for name in FEATURES]),
            outputs=Schema([ColSpec("float", "score")]),
        ),
        pip_requirements=[],
        save_as_external_data=False,
    )
    return f"models:/{MODEL_NAME}/{logged.registered_model_version}"


def wide_network(width: int, seed: int) -> onnx.ModelProto:
    """Two hidden layers of tanh: its scores spread over -1 to 1."""
    numbers = np.random.default_rng(seed)
    sizes = [len(FEATURES), width, width, 1]
    nodes, weights, last = [], [], "features"
    for layer, (rows, columns) in enumerate(pairwise(sizes)):
        matrix = (numbers.normal(size=(rows, columns)) / np.sqrt(rows)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"m{layer}"]))
        nodes.append(helper.make_node("Tanh", [f"m{layer}"], [f"t{layer}"]))
        last = f"t{layer}"
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", len(FEATURES)])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", 1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def called_directly(network: onnx.ModelProto, table: Table) -> npt.NDArray[np.float32]:
    """Every score of a table, without us."""
    session = onnxruntime.InferenceSession(
        network.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    rows = pq.read_table(table.path)
    matrix = np.stack([rows[name].to_numpy() for name in FEATURES], axis=1)
    found: npt.NDArray[np.float32] = session.run(None, {"features": matrix})[0][:, 0]
    return found
