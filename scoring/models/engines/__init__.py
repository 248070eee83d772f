"""Engines: what executes a model version on a device.

`load` runs a model as it is registered: ONNX in ONNX Runtime and PyTorch in torch on Arrow-derived
arrays, everything else through MLflow's pyfunc on pandas frames. `load_built` runs a variant that
was made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa

from scoring.errors import ModelUnsupported
from scoring.models.built import Built
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
    batch_rows: int = 0
    """Rows of one call of the model; 0: the engine's own choice."""
    tensorrt: bool = False
    """Whether CUDA may mean TensorRT, whose engines take minutes to build once."""
    cache: Path | None = None
    """Where TensorRT keeps the engines it built; ``None``: nowhere."""


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
        """Rows that `prepare` is best given at once."""

    @property
    def batch_rows(self) -> int:
        """Rows of one call of the model; it shrinks when memory runs out."""

    def resize(self, batch_rows: int) -> None:
        """Call the model with that many rows from now on."""

    def watch(self, done: Callable[[], None]) -> None:
        """Call ``done`` after every batch from now on, in whichever thread scored it."""

    def accepts_null(self, feature: Field) -> bool:
        """Whether this engine can be given a null in that column."""

    def prepare(self, rows: pa.RecordBatch) -> Any:
        """Rows whose columns are `features` as the model's inputs; may run in another thread.

        Raises:
            Exception: the rows cannot be given to the model together.
        """

    def predict(self, prepared: Any) -> dict[str, pa.Array]:
        """Score what `prepare` made, in batches; one value per row in every output, in order.

        Raises:
            ModelFailed: the model returned another number of rows.
            MemoryError: one row does not fit into memory.
            Exception: whatever the model itself raises.
        """

    def empty(self) -> dict[str, pa.Array]:
        """The outputs of no rows at all."""


def score(engine: Engine, rows: pa.RecordBatch) -> dict[str, pa.Array]:
    """`prepare` and `predict` in one."""
    return engine.predict(engine.prepare(rows))


def load(files: ModelFiles, options: EngineOptions) -> Engine:
    """Load a model as it is registered.

    Raises:
        ModelUnsupported: its flavor, inputs or types cannot be scored.
        DeviceUnavailable: the device that was asked for is not there.
    """
    needed = features(files.signature, options.columns, files.model)
    return _by_length(_registered(files, needed, options), files)


def load_built(files: ModelFiles, built: Built, options: EngineOptions) -> Engine:
    """Load a variant of a model.

    Raises:
        DeviceUnavailable: the device that was asked for is not there.
    """
    needed = features(files.signature, options.columns, files.model)
    engine = _by_length(_variant(files, built, needed, options), files)
    if not (built.refused or built.bounded):
        return engine
    from scoring.models.engines.strict import StrictEngine

    return StrictEngine(engine, built.refused, built.bounded)


def _registered(files: ModelFiles, needed: Sequence[Field], options: EngineOptions) -> Engine:
    if files.flavor == "onnx":
        from scoring.models.engines.onnx import OnnxEngine

        return OnnxEngine.registered(files, needed, options)
    if files.flavor == "pytorch":
        from scoring.models.engines.torch import TorchEngine

        with suppress(ModelUnsupported):  # MLflow may know what to do with it
            return TorchEngine(files, needed, options)
    if files.flavor == "transformers":
        from scoring.models.text.native import FeatureEngine, extracts_features

        if extracts_features(files):
            return FeatureEngine(files, needed, options)
    from scoring.models.engines.pyfunc import PyfuncEngine

    return PyfuncEngine(files, needed, options)


def _variant(
    files: ModelFiles, built: Built, needed: Sequence[Field], options: EngineOptions
) -> Engine:
    if built.engine == "text":
        from scoring.models.engines.text import TextEngine

        return TextEngine(files, built, needed, options)
    if built.engine == "torch":
        from scoring.models.engines.torch import TorchEngine

        return TorchEngine(files, needed, options, built.outputs, "fp16")
    from scoring.models.engines.onnx import OnnxEngine

    return OnnxEngine.built(files, built, needed, options)


def _by_length(engine: Engine, files: ModelFiles) -> Engine:
    from scoring.models.engines.ragged import RaggedEngine, is_ragged

    return RaggedEngine(engine, files.model) if is_ragged(engine.features) else engine
