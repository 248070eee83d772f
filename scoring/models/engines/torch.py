"""PyTorch models in PyTorch itself: no pandas, and on a GPU if there is one.

What comes out equals what MLflow's pytorch pyfunc gives for the same rows: a table is one float32
matrix, a tensor keeps its own type. In precision ``fp16`` the model runs under autocast, float16
on a GPU and bfloat16 on a CPU; what comes out has native's types all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import mlflow.pytorch
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from mlflow.exceptions import MlflowException

from scoring.errors import DeviceUnavailable, ModelFailed, ModelUnsupported
from scoring.models import outputs
from scoring.models.batch import NETWORK_ROWS, Batched, BatchSize
from scoring.models.engines import EngineOptions
from scoring.models.inputs import array, matrix
from scoring.models.signature import Field, ModelFiles

SLAB_ROWS = 65_536
"""Rows read and validated at once; a few MiB for a usual table."""
GPU_ROWS = 8_192
"""Rows per call on a GPU before anything was timed: enough to spread the cost of a launch."""
AUTOCAST = {"cuda": torch.float16, "cpu": torch.bfloat16}
"""What ``fp16`` computes in: on CPUs, float16 is emulated and slower than float32."""

Precision = Literal["fp32", "fp16"]


class TorchEngine(Batched):
    """One model of the pytorch flavor: as registered, or as a variant if ``promised`` is given.

    ``promised`` are native's outputs, which a variant must give exactly.

    Raises:
        ModelUnsupported: it takes several tensors, or anything but numbers.
        DeviceUnavailable: CUDA was asked for, and it or this model's way onto it is missing.
    """

    def __init__(
        self,
        files: ModelFiles,
        needed: Sequence[Field],
        options: EngineOptions,
        promised: pa.Schema | None = None,
        precision: Precision = "fp32",
    ) -> None:
        self._model = files.model
        self._signature = files.signature
        self.features = tuple(needed)
        self._check_inputs()
        torch.set_num_threads(options.threads)
        self._loaded, self._device = _load(files, options.device)
        self._promised = promised
        self._autocast = precision == "fp16"
        usual = GPU_ROWS if self.device == "cuda" else NETWORK_ROWS
        self._batches = BatchSize(options.batch_rows or usual)

    @property
    def name(self) -> str:
        return f"torch {torch.__version__}"

    @property
    def device(self) -> str:
        return str(self._device.type)

    @property
    def slab_rows(self) -> int:
        return SLAB_ROWS

    def accepts_null(self, feature: Field) -> bool:
        return not pa.types.is_integer(feature.type)  # as pyfunc; a missing boolean becomes NaN

    def prepare(self, rows: pa.RecordBatch) -> torch.Tensor:
        """One tensor [rows, ...], in memory that a GPU can copy from by itself if there is one."""
        tensor = torch.from_numpy(self._given(rows))
        return tensor.pin_memory() if self.device == "cuda" else tensor

    def predict(self, prepared: torch.Tensor) -> dict[str, pa.Array]:
        rows = len(prepared)
        pieces = self._batches.calls(
            rows, lambda start, stop: self._call(prepared[start:stop].clone()).cpu()
        )
        columns = self._columns(torch.cat(pieces).cpu().numpy())
        return outputs.checked(columns, rows, self._model)

    def empty(self) -> dict[str, pa.Array]:
        if self._promised is None:
            return outputs.empty(self._signature.outputs)
        return {field.name: pa.array([], field.type) for field in self._promised}

    def _call(self, batch: torch.Tensor) -> torch.Tensor:
        """The model's own output [rows, ...] for one batch, still on its device."""
        kind = AUTOCAST[self.device]
        with torch.inference_mode(), torch.autocast(self.device, kind, enabled=self._autocast):
            result = self._loaded(batch.to(self._device, non_blocking=True))
        if not isinstance(result, torch.Tensor):
            raise ModelFailed(self._model, f"it returned a {type(result).__name__}, not a tensor")
        if result.ndim == 0:
            raise ModelFailed(self._model, f"it returned one value for {len(batch)} rows")
        return result.float() if self._autocast and result.is_floating_point() else result

    def _check_inputs(self) -> None:
        if self._signature.tensors and len(self._signature.inputs) > 1:
            raise ModelUnsupported(self._model, "MLflow gives a PyTorch model one tensor only")
        for field in self.features:
            kind = field.type
            if not (
                pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
            ):
                raise ModelUnsupported(
                    self._model, f"its input {field.name} is {kind}, which no tensor holds"
                )

    def _given(self, rows: pa.RecordBatch) -> npt.NDArray[Any]:
        """Rows as the model takes them: an array of its own, which it may work in."""
        only = self._signature.inputs[0]
        if not self._signature.tensors:
            return matrix([array(_floats(column)) for column in rows.columns], np.float32)
        if len(self.features) > 1:
            columns = [array(column) for column in rows.columns]
            values = matrix(columns, only.type.to_pandas_dtype())
        else:
            values = array(rows.column(0))
        if only.shape is not None and len(only.shape) != values.ndim:
            values = values.reshape(len(values), *only.shape[1:])
        return np.require(values, requirements=("C", "W"))

    def _columns(self, whole: npt.NDArray[Any]) -> dict[str, pa.Array]:
        raw = self._apart(whole)
        if self._promised is not None:
            pairs = zip(self._promised, raw, strict=True)
            return {field.name: values.cast(field.type) for field, values in pairs}
        promised = self._signature.outputs
        types = {name: values.type for name, values in outputs.empty(promised).items()}
        names = outputs.names([None] * len(raw), promised, self._model)
        return {
            name: outputs.settled(raw[index], types.get(name) if promised else None)
            for index, name in names.items()
        }

    def _apart(self, whole: npt.NDArray[Any]) -> list[pa.Array]:
        """The columns that MLflow makes of an output: of a table's, as a pandas frame has them."""
        if self._signature.tensors:
            raw = outputs.from_python(whole, self._signature.outputs)
            return [outputs.to_arrow(values, self._model) for _, values in raw]
        if whole.ndim > 2:
            raise ModelUnsupported(
                self._model, f"an output has shape {('rows', *whole.shape[1:])}, a table at most 2"
            )
        columns = whole.reshape(len(whole), -1)
        return [pa.array(values, from_pandas=True) for values in columns.T]


def _floats(column: pa.Array) -> pa.Array:
    """The column in a type that has NaN, if it needs one."""
    holes = column.null_count and pa.types.is_boolean(column.type)
    return column.cast(pa.float32()) if holes else column


def _load(files: ModelFiles, device: Literal["auto", "cpu", "cuda"]) -> tuple[Any, torch.device]:
    """The model and where it is.

    An exported program (pt2) stays on the device that it was exported on.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable("cuda", f"torch {torch.__version__}, which finds no GPU")
    wanted = torch.device("cpu" if device == "cpu" or not torch.cuda.is_available() else "cuda")
    try:
        return _loaded(files, wanted), wanted
    except MlflowException as error:
        if device == "cuda":
            raise DeviceUnavailable("cuda", str(error)) from error
        if device == "cpu" or wanted.type == "cpu":
            raise
    return _loaded(files, torch.device("cpu")), torch.device("cpu")


def _loaded(files: ModelFiles, device: torch.device) -> Any:
    return mlflow.pytorch.load_model(
        str(files.folder), device=device.type, map_location=device, weights_only=False
    )
