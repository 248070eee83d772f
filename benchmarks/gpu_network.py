"""The networks that `benchmarks.gpu` scores: trained, exported, and their variants, as a worker has
them: files of a registered model without a registry.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from benchmarks.models import NETWORK_COLUMNS, SEED, Matrix, flown, network_matrix, tree_matrix
from scoring.models import Engine, EngineOptions, Field, ModelFiles, Signature, load, load_built
from scoring.models.built import Built, write_outputs
from scoring.settings import cores

Device = Literal["cuda", "cpu"]
Vector = np.ndarray[Any, np.dtype[np.float32]]
Variants = dict[str, tuple[Built | None, bool]]
"""By precision: what to load, the registered graph if nothing, and whether TensorRT runs it."""

CHECKED_ROWS = 20_000
"""Rows whose scores are compared."""
TRAINED_ROWS = 200_000
OUTPUTS = pa.schema([("score", pa.float32())])


class Network:
    """A trained 32-n-n-1 network: in PyTorch, as a registered ONNX model, and its variants."""

    def __init__(self, hidden: int, device: Device, folder: Path) -> None:
        self.name = f"32-{hidden}-{hidden}-1"
        self.device = device
        self.torch = _trained(hidden, device)
        self.graph = folder / "model.onnx"
        folder.mkdir()
        _export(self.torch, self.graph)
        self.files = ModelFiles(
            folder=folder,
            model=f"models:/{self.name}/1",
            flavors={"onnx": {"data": "model.onnx"}},
            signature=Signature(
                inputs=tuple(_column(name) for name in NETWORK_COLUMNS),
                outputs=(_column("score"),),
            ),
        )

    def engine(self, built: Built | None, batch: int, tensorrt: bool) -> Engine:
        """The engine that a worker would load."""
        options = EngineOptions(
            device=self.device,
            threads=cores(),
            batch_rows=batch,
            tensorrt=tensorrt,
            cache=self.files.folder.parent / "engines",
        )
        if built is None:
            return load(self.files, options)
        return load_built(self.files, built, options)

    def variants(self, calibration: Matrix) -> Variants:
        """Every precision that is made for this device."""
        from scoring.models.engines.libraries import load_tensorrt
        from scoring.models.quantize import recipes

        found: Variants = {"fp32": (None, False)}
        for recipe in recipes(self.device):
            if recipe.variant in found:
                continue
            made = self.files.folder.with_name(f"{self.name}-{recipe.variant}")
            made.mkdir()
            recipe.make(self.graph, lambda: iter([{"features": calibration}]), made / "model.onnx")
            write_outputs(made, OUTPUTS)
            built = Built(variant=recipe.variant, recipe=recipe.name, engine="onnx", folder=made)
            found[recipe.variant] = (built, False)
        if self.device == "cuda" and not load_tensorrt():
            found["fp16 in TensorRT"] = (found["fp16"][0], True)
        return found

    def expected(self, matrix: Matrix) -> Vector:
        """Scores in float32 on the CPU."""
        return by_torch(self.torch.float().cpu(), matrix[:CHECKED_ROWS], CHECKED_ROWS, "cpu")


def by_torch(network: Any, matrix: Matrix, batch: int, device: str) -> Vector:
    """Scores of the rows, copied there and back batch by batch."""
    import torch

    kind = next(network.parameters()).dtype
    scores = np.empty(len(matrix), np.float32)
    with torch.inference_mode():
        for start in range(0, len(matrix), batch):
            rows = torch.from_numpy(matrix[start : start + batch]).to(device).to(kind)
            scores[start : start + batch] = network(rows).float().cpu().numpy()
    return scores


def in_half(network: Network) -> Any:
    """The same network in float16 on its device."""
    import copy

    return copy.deepcopy(network.torch).half().to(network.device)


def _trained(hidden: int, device: Device) -> Any:
    """One pass over flights that are known to have come late or not."""
    import torch
    from torch import nn

    torch.manual_seed(SEED)
    place = "cuda" if device == "cuda" and torch.cuda.is_available() else "cpu"
    network = nn.Sequential(
        *(nn.Linear(len(NETWORK_COLUMNS), hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()),
        *(nn.Linear(hidden, 1), nn.Flatten(0), nn.Sigmoid()),
    ).to(place)
    numbers = np.random.default_rng(SEED)
    flights = numbers.permutation(len(tree_matrix()))[:TRAINED_ROWS]
    features = torch.from_numpy(network_matrix(flights, numbers)).to(place)
    labels = torch.from_numpy(flown()["late"].to_numpy()[flights]).float().to(place)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-4)
    for rows in torch.arange(len(labels)).split(1_024):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy(network(features[rows]), labels[rows]).backward()
        optimizer.step()
    return network.eval().cpu()


def _export(network: Any, graph: Path) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            network,
            (torch.zeros(2, len(NETWORK_COLUMNS)),),
            graph,
            input_names=["features"],
            output_names=["score"],
            dynamic_shapes=({0: torch.export.Dim("row")},),
            external_data=False,
            verbose=False,
        )


def _column(name: str) -> Field:
    return Field(name=name, type=pa.float32(), shape=None, required=True)
