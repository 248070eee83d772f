"""A feature-extraction pipeline as it is registered: the features of each text's first token.

MLflow's Python function for it returns the tokens of the first row and drops the others, so it
cannot score a table. Its embedding task (``llm/v1/embeddings``) takes the first token of every
text; so does this engine, text by text, as the pipeline itself goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from scoring.errors import DeviceUnavailable, ModelUnsupported
from scoring.models import outputs
from scoring.models.batch import Batched, BatchSize
from scoring.models.built import NotBuilt
from scoring.models.engines import EngineOptions
from scoring.models.signature import Field, ModelFiles
from scoring.models.text.pipeline import pipeline_settings

SLAB_ROWS = 256
"""Texts read and validated at once."""


def extracts_features(files: ModelFiles) -> bool:
    """Whether a model is one that this engine is for."""
    described = files.flavors.get("transformers", {})
    return files.flavor == "transformers" and described.get("task") == "feature-extraction"


class FeatureEngine(Batched):
    """A pipeline loaded by ``mlflow.transformers``."""

    def __init__(self, files: ModelFiles, needed: Sequence[Field], options: EngineOptions) -> None:
        if options.device == "cuda":
            raise DeviceUnavailable("cuda", "a transformers model, which runs on the CPU")
        if len(needed) != 1 or not pa.types.is_string(needed[0].type):
            raise ModelUnsupported(files.model, "its pipeline takes one column of strings")
        import mlflow.transformers

        self._model = files.model
        self.features = tuple(needed)
        try:
            self._settings = {**pipeline_settings(files), "return_tensors": True}
        except NotBuilt as error:
            raise ModelUnsupported(files.model, str(error)) from error
        self._pipeline = mlflow.transformers.load_model(str(files.folder))
        self._output = outputs.names([None], files.signature.outputs, files.model)[0]
        self._batches = BatchSize(options.batch_rows or SLAB_ROWS)
        width = int(self._pipeline.model.config.hidden_size)
        self._empty = pa.array([], pa.list_(pa.float32(), width))

    @property
    def name(self) -> str:
        import mlflow

        return f"mlflow {mlflow.__version__} transformers"

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def slab_rows(self) -> int:
        return SLAB_ROWS

    def accepts_null(self, feature: Field) -> bool:
        return True

    def prepare(self, rows: pa.RecordBatch) -> list[str]:
        return [text or "" for text in rows.column(0).to_pylist()]

    def predict(self, prepared: Sequence[str]) -> dict[str, pa.Array]:
        if not prepared:
            return self.empty()
        features = np.stack([self._first_token(text) for text in prepared])
        return {self._output: outputs.column(features, self._model)}

    def empty(self) -> dict[str, pa.Array]:
        return {self._output: self._empty}

    def _first_token(self, text: str) -> Any:
        found = self._pipeline(text, **self._settings)  # [1, tokens, width]
        self._batches.done()
        return found[0, 0].float().cpu().numpy()
