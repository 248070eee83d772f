"""TensorRT: what to ask ONNX Runtime's provider for, and where its engines are kept.

TensorRT compiles a graph for a range of shapes, which takes minutes, and compiles it again for a
shape outside. So the range of rows is given to it, one engine serves every batch, and engines are
kept under everything they depend on: the graph, the GPU, the versions, the rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnxruntime
from filelock import FileLock, Timeout

from scoring.models.batch import usual_rows
from scoring.models.cache import folder_digest
from scoring.models.engines import EngineOptions

LOCK_SECONDS = 1800.0
"""How long one waits for another that compiles the same engine; that takes minutes."""
MOST_ROWS = 65_536
"""Of a batch that a search tries."""
SEARCHED_STEPS = 64
"""A search tries batches up to so many times the usual one."""

Shapes = dict[str, tuple[int, ...]]
"""Graph inputs by name: the axes after the rows."""


class NotForTensorRT(Exception):
    """A graph that TensorRT would have to be compiled for over and over; says why."""


def provider_options(graph: Path, options: EngineOptions, version: int, gpu: str) -> dict[str, str]:
    """Options of the TensorRT provider for ``graph`` with that version, on a GPU of that name.

    Raises:
        NotForTensorRT: another axis than the rows is open.
    """
    model = onnx.load(str(graph), load_external_data=False).graph
    usual, most = row_range(model, options.batch_rows)
    chosen = {
        **profile(row_shapes(model), usual, most),
        "trt_fp16_enable": str(int(computes_in_half(model))),
        "trt_int8_enable": str(int(is_quantized(model))),
    }
    if options.cache is not None:
        folder = options.cache / "tensorrt" / _engine_key(graph, chosen, version, gpu)
        folder.mkdir(parents=True, exist_ok=True)
        chosen |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(folder),
        }
    return chosen


@contextmanager
def one_compiles(options: dict[str, str]) -> Iterator[None]:
    """While one worker child compiles an engine, others wait and then find it."""
    folder = options.get("trt_engine_cache_path")
    if folder is None:
        yield
        return
    lock = FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:  # it is frozen: compile once more rather than wait for ever
        yield
        return
    try:
        yield
    finally:
        lock.release()


def row_range(graph: onnx.GraphProto, batch_rows: int) -> tuple[int, int]:
    """Rows that the engine is made fastest for, and the most it takes."""
    if batch_rows:
        return batch_rows, batch_rows
    usual = usual_rows((node.op_type for node in graph.node), "cuda")
    return usual, min(usual * SEARCHED_STEPS, MOST_ROWS)


def row_shapes(graph: onnx.GraphProto) -> Shapes:
    """The inputs' axes after the rows.

    Raises:
        NotForTensorRT: one of them is open.
    """
    constants = {one.name for one in graph.initializer}
    shapes: Shapes = {}
    for one in graph.input:
        if one.name in constants:
            continue
        axes = one.type.tensor_type.shape.dim[1:]
        if any(not axis.HasField("dim_value") for axis in axes):
            raise NotForTensorRT(f"its input {one.name} has an open axis beside the rows")
        shapes[one.name] = tuple(axis.dim_value for axis in axes)
    return shapes


def profile(shapes: Shapes, usual: int, most: int) -> dict[str, str]:
    """The shapes to compile for: one row, the usual batch, the largest."""
    return {
        f"trt_profile_{which}_shapes": ",".join(
            f"{name}:{'x'.join(map(str, (rows, *axes)))}" for name, axes in shapes.items()
        )
        for which, rows in (("min", 1), ("opt", usual), ("max", most))
    }


def computes_in_half(graph: onnx.GraphProto) -> bool:
    """Whether the weights are float16: only then may TensorRT compute in it."""
    return any(one.data_type == onnx.TensorProto.FLOAT16 for one in graph.initializer)


def is_quantized(graph: onnx.GraphProto) -> bool:
    """Whether the graph says itself where it computes in int8."""
    return any(node.op_type == "QuantizeLinear" for node in graph.node)


def _engine_key(graph: Path, chosen: dict[str, str], version: int, gpu: str) -> str:
    identity = [
        folder_digest(graph.parent),
        gpu,
        version,
        onnxruntime.__version__,
        chosen,
    ]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
