"""An engine around another one: everything is the inner engine's, but what a subclass changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from scoring.models.engines import Engine
from scoring.models.signature import Field


class WrappedEngine:
    """Another engine, as it is."""

    def __init__(self, inner: Engine) -> None:
        self._inner = inner

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def device(self) -> str:
        return self._inner.device

    @property
    def features(self) -> Sequence[Field]:
        return self._inner.features

    @property
    def slab_rows(self) -> int:
        return self._inner.slab_rows

    @property
    def batch_rows(self) -> int:
        return self._inner.batch_rows

    def resize(self, batch_rows: int) -> None:
        self._inner.resize(batch_rows)

    def watch(self, done: Callable[[], None]) -> None:
        self._inner.watch(done)

    def accepts_null(self, feature: Field) -> bool:
        return self._inner.accepts_null(feature)

    def prepare(self, rows: pa.RecordBatch) -> Any:
        return self._inner.prepare(rows)

    def predict(self, prepared: Any) -> dict[str, pa.Array]:
        return self._inner.predict(prepared)

    def empty(self) -> dict[str, pa.Array]:
        return self._inner.empty()
