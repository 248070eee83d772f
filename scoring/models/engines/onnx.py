"""ONNX Runtime on arrays that come straight from Arrow: no pandas, no Python objects.

A graph is a model as it was registered, or a variant that was built of one; then its outputs are
native's, by position, and are given native's names and types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from scoring.errors import ModelUnsupported
from scoring.models import outputs
from scoring.models.batch import Batched, BatchSize, usual_rows
from scoring.models.built import Built
from scoring.models.engines import EngineOptions
from scoring.models.engines.runner import Runner, runner
from scoring.models.engines.session import device_of, open_session, runtime_of
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


Columns = dict[str, npt.NDArray[Any]]
"""Graph inputs by name, rows first."""


@dataclass(frozen=True, slots=True)
class Stacked:
    """A slab as the graph takes it."""

    columns: Columns
    rows: int


class OnnxEngine(Batched):
    """One ONNX Runtime session."""

    def __init__(
        self, files: ModelFiles, graph: Path, needed: Sequence[Field], options: EngineOptions
    ) -> None:
        self._model = files.model
        self._signature = files.signature
        self.features = tuple(needed)
        self._session = open_session(graph, options)
        self._stacked = self._feeds_one_matrix()
        self._check_inputs()
        self._raw = [output.name for output in self._session.get_outputs()]
        self._names: dict[int, str] = {}
        self._types: dict[str, pa.DataType] = {}
        self._nan_is_null = False
        self._batches = BatchSize(options.batch_rows or usual_rows(_operators(graph), self.device))

    @classmethod
    def registered(cls, files: ModelFiles, needed: Sequence[Field], options: EngineOptions) -> Self:
        """A model of the onnx flavor as it was logged."""
        engine = cls(files, graph_of(files), needed, options)
        engine._names = outputs.names(engine._raw, files.signature.outputs, files.model)
        return engine

    @classmethod
    def built(
        cls, files: ModelFiles, built: Built, needed: Sequence[Field], options: EngineOptions
    ) -> Self:
        """A variant of any model."""
        engine = cls(files, built.folder / "model.onnx", needed, options)
        engine._names = dict(enumerate(built.outputs.names))
        engine._nan_is_null = files.flavor != "onnx"  # as in a pandas frame, which native returns
        engine._types = dict(zip(built.outputs.names, built.outputs.types, strict=True))
        return engine

    @property
    def name(self) -> str:
        return runtime_of(self._session)

    @property
    def device(self) -> str:
        return device_of(self._session)

    @property
    def slab_rows(self) -> int:
        return SLAB_ROWS

    def accepts_null(self, feature: Field) -> bool:
        return bool(pa.types.is_floating(feature.type) or pa.types.is_string(feature.type))

    def prepare(self, rows: pa.RecordBatch) -> Stacked:
        return Stacked(self._columns(rows), rows.num_rows)

    def predict(self, prepared: Stacked) -> dict[str, pa.Array]:
        pieces = self._runner.calls(
            self._batches, prepared.rows, lambda start, stop: _cut(prepared.columns, start, stop)
        )
        found = {
            name: self._settled(name, [piece[index] for piece in pieces])
            for index, name in enumerate(self._names.values())
        }
        return outputs.checked(found, prepared.rows, self._model)

    @cached_property
    def _runner(self) -> Runner:
        return runner(self._session, [self._raw[index] for index in self._names])

    def feeds(self, prepared: Stacked, rows: int) -> list[Columns]:
        """The graph's inputs in pieces of ``rows`` rows, as calibration wants them."""
        return [
            _cut(prepared.columns, start, start + rows) for start in range(0, prepared.rows, rows)
        ]

    def _settled(self, name: str, pieces: list[Any]) -> pa.Array:
        values = outputs.column(_joined(pieces, self._model), self._model)
        if name not in self._types:
            return values
        if self._nan_is_null and pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_nan(values), None, values)
        return values.cast(self._types[name])

    def empty(self) -> dict[str, pa.Array]:
        if self._types:
            return {name: pa.array([], kind) for name, kind in self._types.items()}
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

    def _columns(self, slab: pa.RecordBatch) -> Columns:
        """The slab as the graph's inputs, whole: one matrix, or an array per input."""
        graph = self._session.get_inputs()
        if self._stacked:
            dtype = DTYPES[graph[0].type]
            stacked = matrix([array(column) for column in slab.columns], dtype)
            return {graph[0].name: stacked if len(graph[0].shape) > 1 else stacked[:, 0]}
        only = len(graph) == len(self.features) == 1
        columns: Columns = {}
        for item in graph:
            values = array(slab.column(0 if only else item.name), DTYPES[item.type])
            columns[item.name] = _shaped(values, item.shape)
        return columns


def graph_of(files: ModelFiles) -> Path:
    """The graph of a model of the onnx flavor.

    Raises: ModelUnsupported: it is not among the model's own files.
    """
    graph = files.folder / str(files.flavors["onnx"].get("data", "model.onnx"))
    if not graph.resolve().is_relative_to(files.folder.resolve()):
        raise ModelUnsupported(files.model, "its graph lies outside its own folder")
    return graph


def _cut(columns: Columns, start: int, stop: int) -> Columns:
    return {name: values[start:stop] for name, values in columns.items()}


def _shaped(values: npt.NDArray[Any], shape: Sequence[Any]) -> npt.NDArray[Any]:
    """Values of shape [rows] or [rows, width] in the graph's own shape; open axes are inferred."""
    if values.ndim == len(shape):
        return values
    axes = [axis if isinstance(axis, int) else 1 for axis in shape[1:]]
    return values.reshape(len(values), *axes)


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
