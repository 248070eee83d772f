"""Engines: what executes a model version on a device.

`load` picks the engine by flavor: ONNX runs in ONNX Runtime on Arrow-derived arrays, everything
else through MLflow's pyfunc on pandas frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import pyarrow as pa

from scoring.models.inputs import features
from scoring.models.signature import Field, ModelFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Where and how an engine runs."""

    device: Literal["auto", "cpu", "cuda"]
    threads: int
    """Threads inside one call."""
    columns: tuple[str, ...] = ()
    """The job's ``[input] columns``."""


class Engine(Protocol):
    """A loaded model. Calls come from one thread at a time."""

    @property
    def name(self) -> str:
        """Runtime and version, for the manifest."""

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``: what it runs on, not what was asked for."""

    @property
    def features(self) -> Sequence[Field]:
        """The columns that `predict` needs, named, in order."""

    @property
    def slab_rows(self) -> int:
        """Rows that `predict` is best given at once; it cuts them into batches itself."""

    def accepts_null(self, feature: Field) -> bool:
        """Whether this engine can be given a null in that column."""

    def predict(self, slab: pa.RecordBatch) -> dict[str, pa.Array]:
        """Score a slab whose columns are `features`; one value per row in every output.

        Raises:
            ModelFailed: the model returned another number of rows.
            Exception: whatever the model itself raises.
        """

    def empty(self) -> dict[str, pa.Array]:
        """The outputs of no rows at all."""


def load(files: ModelFiles, options: EngineOptions) -> Engine:
    """Load a model.

    Raises:
        ModelUnsupported: its flavor, inputs or types cannot be scored.
        DeviceUnavailable: the device that was asked for is not there.
    """
    needed = features(files.signature, options.columns, files.model)
    if files.flavor == "onnx":
        from scoring.models.engines.onnx import OnnxEngine

        return OnnxEngine(files, needed, options)
    from scoring.models.engines.pyfunc import PyfuncEngine

    return PyfuncEngine(files, needed, options)
