"""A built text variant: the pipeline as one ONNX graph, and its own fast tokenizer.

Batches are measured in tokens, because that is what a call costs: many short texts, or few long
ones. On a CPU every thread calls the model with a batch of its own, which is faster than the
threads sharing the small matrices of one batch; no score depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from scoring.errors import ModelUnsupported
from scoring.models import outputs
from scoring.models.batch import Batched, BatchSize
from scoring.models.built import Built
from scoring.models.engines import EngineOptions
from scoring.models.engines.session import device_of, open_session, runtime_of
from scoring.models.signature import Field, ModelFiles
from scoring.models.text.tokens import TextTokenizer, Tokens

ROW_TOKENS = 64
"""Tokens that count as one row of a batch: a paragraph."""
CPU_ROWS, CUDA_ROWS = 4, 256
"""Rows of a batch to begin with; on a CPU, activations that stay in a core's cache."""
SLAB_ROWS = 4_096
"""Rows tokenized and sorted together: enough for batches of nearly equal lengths."""

Arrays = list[npt.NDArray[Any]]


class TextEngine(Batched):
    """One ONNX Runtime session that scores one column of texts.

    A row of a batch stands for `ROW_TOKENS` tokens: more of shorter texts, fewer of longer ones.
    """

    def __init__(
        self, files: ModelFiles, built: Built, needed: Sequence[Field], options: EngineOptions
    ) -> None:
        self._model = files.model
        self.features = tuple(needed)
        if len(needed) != 1 or not pa.types.is_string(needed[0].type):
            raise ModelUnsupported(self._model, "a text model takes one column of strings")
        self._tokenizer = TextTokenizer(built.folder)
        self._session = open_session(built.folder / "model.onnx", replace(options, threads=1))
        on_cpu = self.device == "cpu"
        self._callers = max(options.threads, 1) if on_cpu else 1
        self._batches = BatchSize(options.batch_rows or (CPU_ROWS if on_cpu else CUDA_ROWS))
        self._outputs = built.outputs

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
        return True

    def prepare(self, rows: pa.RecordBatch) -> Tokens:
        return self._tokenizer.tokens(rows.column(0).to_pylist())

    def predict(self, prepared: Tokens) -> dict[str, pa.Array]:
        rows = len(prepared.lengths)
        if rows == 0:
            return self.empty()
        pieces = self._fitting(prepared)
        found = {
            field.name: self._settled(prepared, [piece[index] for piece in pieces], field.type)
            for index, field in enumerate(self._outputs)
        }
        return outputs.checked(found, rows, self._model)

    def empty(self) -> dict[str, pa.Array]:
        return {field.name: pa.array([], field.type) for field in self._outputs}

    def _fitting(self, prepared: Tokens) -> list[Arrays]:
        """The outputs of every batch; from the start in smaller ones when memory runs out."""
        while True:
            tried = self._batches.rows
            try:
                return self._called(prepared, prepared.batches(tried * ROW_TOKENS))
            except Exception as error:
                self._batches.shrink(tried, error)

    def _called(self, prepared: Tokens, batches: Sequence[slice]) -> list[Arrays]:
        def call(rows: slice) -> Arrays:
            found: Arrays = self._session.run(None, prepared.padded(rows))
            self._batches.done()
            return found

        if self._callers == 1 or len(batches) == 1:
            return [call(rows) for rows in batches]
        with ThreadPoolExecutor(self._callers) as threads:
            return list(threads.map(call, batches))

    def _settled(self, prepared: Tokens, pieces: Arrays, kind: pa.DataType) -> pa.Array:
        values = outputs.column(prepared.restored(np.concatenate(pieces)), self._model)
        return values.cast(kind)
