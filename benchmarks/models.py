"""The benchmarks' inputs and models: real flights, two models that people really run, all seeded.

Trees: 100 gradient-boosted trees over 9 columns. Network: 32-512-512-1 over 32 columns. Both are
ONNX with one float matrix ``features`` [row, column] in and one float vector ``score`` [row] out,
and are registered with a signature that names the columns, since that is how a table is scored.

Invariant: the same arguments give the same rows. What was built once is kept in ``bench`` in the
home, and appears there complete or not at all.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections.abc import Callable
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from examples.flights.prepare import CATEGORIES, NUMBERS, days, departures, late
from examples.tracking import tracked_run
from scoring.settings import Settings

Which = Literal["trees", "network"]
Matrix = np.ndarray[Any, np.dtype[np.float32]]

ROWS = 2_000_000
SEED = 2013
YEAR = days(date(2013, 1, 1), date(2013, 12, 31))
FILE_ROWS = 250_000
ROW_GROUP_ROWS = 131_072

TREE_COLUMNS = (
    *(f"{name}_code" for name in CATEGORIES),
    *NUMBERS,
    "sched_minutes",
    "sched_speed",
)
NETWORK_COLUMNS = tuple(f"f{n:02d}" for n in range(32))
COLUMNS: dict[Which, tuple[str, ...]] = {"trees": TREE_COLUMNS, "network": NETWORK_COLUMNS}


def flight_rows(rows: int = ROWS, seed: int = SEED) -> Path:
    """Flights drawn with replacement: ``row_id``, three strings and the trees' 9 float columns."""

    def draw(numbers: np.random.Generator, count: int) -> dict[str, Any]:
        flights = numbers.integers(len(tree_matrix()), size=count)
        strings = {name: flown()[name].take(flights) for name in CATEGORIES}
        return strings | _named(TREE_COLUMNS, tree_matrix()[flights])

    return _write_rows(f"flights-{rows}-{seed}", rows, seed, draw)


def network_rows(rows: int = ROWS, seed: int = SEED) -> Path:
    """Flights drawn with replacement: ``row_id`` and the network's 32 standardised columns."""

    def draw(numbers: np.random.Generator, count: int) -> dict[str, Any]:
        flights = numbers.integers(len(tree_matrix()), size=count)
        return _named(NETWORK_COLUMNS, network_matrix(flights, numbers))

    return _write_rows(f"network-{rows}-{seed}", rows, seed, draw)


def input_rows(which: Which, rows: int = ROWS, seed: int = SEED) -> Path:
    """The folder of Parquet files that ``which`` scores."""
    return flight_rows(rows, seed) if which == "trees" else network_rows(rows, seed)


def onnx_file(which: Which) -> Path:
    """The ONNX file of ``which``."""
    return boosted_trees_onnx() if which == "trees" else network_onnx()


def boosted_trees_onnx() -> Path:
    """100 trees of 31 leaves that say how likely a flight arrives late."""
    return built("trees.onnx", _build_trees)


def network_onnx() -> Path:
    """A 32-512-512-1 network, ReLU between and a sigmoid at the end, trained for the same."""
    return built("network.onnx", _build_network)


def register(tracking_uri: str, which: Which) -> str:
    """Register a new version of ``bench-<which>`` and return its URI."""
    import mlflow
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    model = f"bench-{which}"
    signature = ModelSignature(
        inputs=Schema([ColSpec("float", name) for name in COLUMNS[which]]),
        outputs=Schema([ColSpec("float", "score")]),
    )
    with tracked_run("benchmarks", tracking_uri):
        logged = mlflow.onnx.log_model(
            onnx.load(onnx_file(which)),
            name=model,
            signature=signature,
            registered_model_name=model,
            pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "onnx")],
            save_as_external_data=False,
        )
    return f"models:/{model}/{logged.registered_model_version}"


@cache
def flown() -> pa.Table:
    """The year's departures that arrived somewhere, with ``late``: nothing in them is missing."""
    flights = departures(YEAR)
    flights = flights.append_column("late", late(YEAR))
    return flights.filter(flights["late"].is_valid()).combine_chunks()


@cache
def tree_matrix() -> Matrix:
    """The features of ``flown`` as [flight, column], in the order of ``TREE_COLUMNS``."""
    flights = flown()
    codes = [pc.rank(flights[name], tiebreaker="dense") for name in CATEGORIES]
    columns = [column.to_numpy() for column in (*codes, *(flights[name] for name in NUMBERS))]
    minutes = (
        flights["sched_arr_minute"].to_numpy() - flights["sched_dep_minute"].to_numpy()
    ) % 1440
    speed = flights["distance"].to_numpy() / np.maximum(minutes, 1)
    return np.stack([*columns, minutes, speed], axis=1).astype(np.float32)


@cache
def standard_matrix() -> Matrix:
    """``tree_matrix`` with the tail of the delay tamed, then each column's mean 0, deviation 1."""
    features = tree_matrix().copy()
    delay = features[:, TREE_COLUMNS.index("dep_delay")]
    delay[:] = np.sign(delay) * np.log1p(np.abs(delay))
    standard: Matrix = (features - features.mean(axis=0)) / features.std(axis=0)
    return standard


def network_matrix(flights: np.ndarray[Any, Any], numbers: np.random.Generator) -> Matrix:
    """The standardised features, then noisy products of two of them, up to 32 columns."""
    features = standard_matrix()[flights]
    known = features.shape[1]
    pairs = [(n % known, (n * 5 + 1) % known) for n in range(known, len(NETWORK_COLUMNS))]
    products = np.stack([np.tanh(features[:, a] * features[:, b]) for a, b in pairs], axis=1)
    noise = numbers.standard_normal(products.shape, dtype=np.float32)
    return np.hstack([features, products + 0.5 * noise])


def _build_trees(file: Path) -> None:
    import onnx
    from lightgbm import LGBMClassifier
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    trees = LGBMClassifier(n_estimators=100, num_leaves=31, random_state=SEED, verbose=-1)
    trees.fit(tree_matrix(), flown()["late"].to_numpy().astype(int))
    width = len(TREE_COLUMNS)
    model = convert_lightgbm(
        trees, initial_types=[("features", FloatTensorType([None, width]))], zipmap=False
    )
    onnx.save(_only_late(model), file)


def _only_late(model: Any) -> Any:
    """Leave a classifier's second probability as the one output, ``score`` [row]."""
    from onnx import TensorProto, helper, utils

    graph = model.graph
    graph.initializer.append(helper.make_tensor("late", TensorProto.INT64, [], [1]))
    graph.node.append(helper.make_node("Gather", ["probabilities", "late"], ["score"], axis=1))
    graph.output.append(helper.make_tensor_value_info("score", TensorProto.FLOAT, [None]))
    return utils.Extractor(model).extract_model(["features"], ["score"])


def _build_network(file: Path) -> None:
    import torch

    torch.manual_seed(SEED)
    network = _train_network()
    example = torch.zeros(2, len(NETWORK_COLUMNS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            torch.nn.Sequential(network, torch.nn.Sigmoid()).eval(),
            (example,),
            file,
            input_names=["features"],
            output_names=["score"],
            dynamic_shapes=({0: torch.export.Dim("row")},),
            external_data=False,
            verbose=False,
        )


def _train_network() -> Any:
    import torch
    from torch import nn

    network = nn.Sequential(
        nn.Linear(len(NETWORK_COLUMNS), 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 1),
        nn.Flatten(0),
    )
    numbers = np.random.default_rng(SEED)
    flights = numbers.permutation(len(tree_matrix()))[:200_000]
    features = torch.from_numpy(network_matrix(flights, numbers))
    labels = torch.from_numpy(flown()["late"].to_numpy()[flights]).float()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for rows in torch.arange(len(labels)).split(1024):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(network(features[rows]), labels[rows])
        loss.backward()
        optimizer.step()
    return network


def _named(names: tuple[str, ...], matrix: Matrix) -> dict[str, Matrix]:
    return {name: np.ascontiguousarray(matrix[:, n]) for n, name in enumerate(names)}


def _write_rows(
    name: str,
    rows: int,
    seed: int,
    draw: Callable[[np.random.Generator, int], dict[str, Any]],
) -> Path:
    def build(folder: Path) -> None:
        folder.mkdir()
        for index, first in enumerate(range(0, rows, FILE_ROWS)):
            count = min(FILE_ROWS, rows - first)
            row_id = np.arange(first, first + count, dtype=np.int64)
            columns = draw(np.random.default_rng([seed, index]), count)
            pq.write_table(
                pa.table({"row_id": row_id, **columns}),
                folder / f"part-{index:05d}.parquet",
                row_group_size=ROW_GROUP_ROWS,
            )

    return built(name, build)


def built(name: str, build: Callable[[Path], None]) -> Path:
    """The file or folder of that name, built beside itself first if it is not there yet."""
    place = Settings().home / "bench" / name
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
            build(Path(scratch) / name)
            (Path(scratch) / name).rename(place)
    return place


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the benchmarks' inputs and models.")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    for which in get_args(Which):
        print(input_rows(which, options.rows, options.seed), onnx_file(which))


if __name__ == "__main__":
    main()
