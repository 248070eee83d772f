"""A variant that refuses the missing and infinite values which its model refuses.

The row goes to quarantine with the reason, as it would if the model itself were scoring. A number
that float32 cannot hold counts as infinite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scoring.models.engines import Engine
from scoring.models.engines.wrapped import WrappedEngine
from scoring.models.inputs import array

LARGEST = float(np.finfo(np.float32).max)


class StrictEngine(WrappedEngine):
    """Another engine, never given NaN or null in some columns, nor infinity in others."""

    def __init__(self, inner: Engine, refused: Sequence[str], bounded: Sequence[str]) -> None:
        super().__init__(inner)
        self._refused = tuple(refused)
        self._bounded = tuple(bounded)

    def prepare(self, rows: pa.RecordBatch) -> Any:
        for name in self._refused:
            column = rows.column(name)
            if column.null_count or pc.any(pc.is_nan(column)).as_py():
                raise ValueError(f"{name} is missing, and the model as registered refuses that")
        for name in self._bounded:
            largest = np.fmax.reduce(np.abs(array(rows.column(name))), initial=0.0)
            if largest > LARGEST:
                raise ValueError(
                    f"{name} is {largest:g}, and the model as registered refuses infinite values"
                )
        return self._inner.prepare(rows)
