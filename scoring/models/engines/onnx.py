"""ONNX Runtime on arrays that come straight from Arrow: no pandas, no Python objects.

Invariant: the first execution provider is the device that was asked for, or loading fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pyarrow as pa

from scoring.errors import DeviceUnavailable, ModelUnsupported
from scoring.models import outputs
from scoring.models.batch import batch_rows
from scoring.models.engines import EngineOptions
from scoring.models.inputs import array, matrix
from scoring.models.signature import Field, ModelFiles

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
SLAB_ROWS = 65_536
"""Rows read and validated at once; a few MiB for a usual table."""


class OnnxEngine:
    """One ONNX Runtime session."""

    def __init__(self, files: ModelFiles, needed: Sequence[Field], options: EngineOptions) -> None:
        self._model = files.model
        path = files.folder / str(files.flavors["onnx"].get("data", "model.onnx"))
        self.features = tuple(needed)
        self._session = _session(path, options)
        self._stacked = self._feeds_one_matrix()
        self._check_inputs()
        raw = [output.name for output in self._session.get_outputs()]
        self._names = outputs.names(raw, files.signature.outputs, files.model)
        self._wanted = [raw[index] for index in self._names]
        self._batch_rows = batch_rows(_operators(path))
        self._signature = files.signature

    @property
    def name(self) -> str:
        return f"onnxruntime {onnxruntime.__version__}"

    @property
    def device(self) -> str:
        first = self._session.get_providers()[0]
        return "cpu" if first == "CPUExecutionProvider" else "cuda"

    @property
    def slab_rows(self) -> int:
        return SLAB_ROWS

    def accepts_null(self, feature: Field) -> bool:
        return bool(pa.types.is_floating(feature.type) or pa.types.is_string(feature.type))

    def predict(self, slab: pa.RecordBatch) -> dict[str, pa.Array]:
        columns = self._columns(slab)
        rows = slab.num_rows
        pieces = [
            self._session.run(self._wanted, self._feed(columns, start, start + self._batch_rows))
            for start in range(0, rows, self._batch_rows)
        ]
        found = {
            name: outputs.column(
                _joined([piece[index] for piece in pieces], self._model), self._model
            )
            for index, name in enumerate(self._names.values())
        }
        return outputs.checked(found, rows, self._model)

    def empty(self) -> dict[str, pa.Array]:
        described = self._session.get_outputs()
        columns = {}
        for index, name in self._names.items():
            shape = described[index].shape
            dtype = DTYPES.get(described[index].type)
            if dtype is None or (len(shape) == 2 and not isinstance(shape[1], int)):
                return outputs.empty(self._signature.outputs)
            columns[name] = outputs.column(
                np.empty((0, *[size for size in shape[1:] if isinstance(size, int)]), dtype),
                self._model,
            )
            if dtype is np.object_:
                columns[name] = pa.array([], pa.string())
        return columns

    def _feeds_one_matrix(self) -> bool:
        """Whether the table's columns are stacked into the graph's only input."""
        graph = self._session.get_inputs()
        scalar = all(field.shape is None for field in self.features)
        named = {field.name for field in self.features} >= {item.name for item in graph}
        return len(graph) == 1 and scalar and (len(self.features) > 1 or not named)

    def _check_inputs(self) -> None:
        graph = self._session.get_inputs()
        for item in graph:
            if item.type not in DTYPES:
                raise ModelUnsupported(self._model, f"its graph takes {item.name} of {item.type}")
            if item.shape and isinstance(item.shape[0], int):
                raise ModelUnsupported(
                    self._model,
                    f"its graph takes exactly {item.shape[0]} rows at a time: export it with a "
                    "dynamic first axis",
                )
        if self._stacked:
            width = graph[0].shape[-1] if len(graph[0].shape) > 1 else 1
            if isinstance(width, int) and width != len(self.features):
                raise ModelUnsupported(
                    self._model,
                    f"its graph takes {width} values a row, its signature or [input] columns "
                    f"names {len(self.features)}",
                )
            return
        missing = {item.name for item in graph} - {str(field.name) for field in self.features}
        if missing and not (len(graph) == len(self.features) == 1):
            raise ModelUnsupported(
                self._model,
                f"its graph takes {', '.join(sorted(missing))}, which its signature does not name",
            )

    def _columns(self, slab: pa.RecordBatch) -> dict[str, npt.NDArray[Any]]:
        """The slab as the graph's inputs, whole: one matrix, or an array per input."""
        graph = self._session.get_inputs()
        if self._stacked:
            dtype = DTYPES[graph[0].type]
            stacked = matrix([array(column) for column in slab.columns], dtype)
            return {graph[0].name: stacked if len(graph[0].shape) > 1 else stacked[:, 0]}
        only = len(graph) == len(self.features) == 1
        columns = {}
        for item in graph:
            values = array(slab.column(0 if only else item.name), DTYPES[item.type])
            columns[item.name] = _shaped(values, item.shape)
        return columns

    def _feed(
        self, columns: dict[str, npt.NDArray[Any]], start: int, stop: int
    ) -> dict[str, npt.NDArray[Any]]:
        return {name: values[start:stop] for name, values in columns.items()}


def _shaped(values: npt.NDArray[Any], shape: Sequence[Any]) -> npt.NDArray[Any]:
    """Values of shape [rows] or [rows, width] in the graph's own shape; open axes are inferred."""
    if values.ndim == len(shape):
        return values
    axes = [axis if isinstance(axis, int) else 1 for axis in shape[1:]]
    return values.reshape(len(values), *axes)


def _session(path: Path, options: EngineOptions) -> onnxruntime.InferenceSession:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    if options.device == "cuda" or (options.device == "auto" and _has_gpu()):
        onnxruntime.preload_dlls()
        providers.insert(0, "CUDAExecutionProvider")
    session = onnxruntime.InferenceSession(str(path), settings, providers=providers)
    first = session.get_providers()[0]
    if options.device == "cuda" and first != "CUDAExecutionProvider":
        raise DeviceUnavailable("cuda", first)
    return session


def _has_gpu() -> bool:
    return Path("/dev/nvidiactl").exists()


def _operators(path: Path) -> set[str]:
    """The operators of a graph, read without its weights."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    return {node.op_type for node in graph.node}


def _joined(pieces: list[Any], model: str) -> npt.NDArray[Any]:
    if any(not isinstance(piece, np.ndarray) for piece in pieces):
        raise ModelUnsupported(
            model,
            "an output is a sequence of maps (ZipMap): convert it with zipmap=False, or name "
            "only the other outputs in the signature",
        )
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
