"""PyTorch models by torch.onnx, on the exported program (dynamo)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import mlflow.pytorch
import numpy as np
import onnx
import onnxscript  # noqa: F401  torch's exporter needs it, and says so at length
import torch

from scoring.models.built import NotBuilt
from scoring.models.convert.inputs import MATRIX, is_number
from scoring.models.signature import Field, ModelFiles

EXAMPLE_SIZE = 8
"""Size that open axes are traced with; torch takes 0 and 1 for constants."""


def convert(files: ModelFiles, features: Sequence[Field]) -> onnx.ModelProto:
    """The graph of a model of the pytorch flavor: one tensor in, one out."""
    model = mlflow.pytorch.load_model(str(files.folder), map_location="cpu", weights_only=False)
    shape, kind = _input(files, features)
    example = torch.from_numpy(np.zeros([size or EXAMPLE_SIZE for size in shape], kind))
    names = ["row", *(f"axis_{axis}" for axis in range(1, len(shape)))]
    dims = [
        None if size else torch.export.Dim(name) for name, size in zip(names, shape, strict=True)
    ]
    with _silence():
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            dynamic_shapes=(dims,),
            external_data=False,
            verbose=False,
            input_names=[MATRIX],
        )
    graph: onnx.ModelProto = program.model_proto
    if len(graph.graph.output) != 1:
        raise NotBuilt("it gives several tensors")
    return graph


def _input(files: ModelFiles, features: Sequence[Field]) -> tuple[list[int], Any]:
    """Shape, with 0 for open axes, and type of the tensor that native gives the model."""
    only = files.signature.inputs[0]
    if not files.signature.tensors:
        return [0, len(features)], np.float32  # what MLflow makes of a frame
    if len(files.signature.inputs) > 1 or not is_number(only):
        raise NotBuilt("it takes several tensors, or something else than numbers")
    kind = only.type.to_pandas_dtype()
    if len(features) > 1:
        return [0, len(features)], kind
    return [0, *(max(size, 0) for size in (only.shape or ())[1:])], kind


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's progress, advice and source listings to itself.

    They come from a dozen loggers, and by print. What went wrong is in the exception.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(before)
