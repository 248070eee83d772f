"""Lists of different lengths in tensor models: rows of equal length are scored together.

A tensor has one width, and what a shorter row should be filled up with only the model's maker
knows. So nothing is filled up: rows are sorted by length, those of one length form the batches, and
the order of the rows is restored afterwards. No row's score depends on another's length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from scoring.errors import ModelUnsupported
from scoring.models.engines import Engine
from scoring.models.engines.wrapped import WrappedEngine
from scoring.models.signature import Field

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sorted:
    """Rows in groups of equal lengths, each as the model's inputs."""

    groups: Sequence[Any]
    back: pa.Array | None
    """For each row its place among the groups' rows; ``None``: there is one group."""


class RaggedEngine(WrappedEngine):
    """Another engine, given rows of one length at a time."""

    def __init__(self, inner: Engine, model: str) -> None:
        super().__init__(inner)
        self._model = model

    def prepare(self, rows: pa.RecordBatch) -> Sorted:
        places = by_length(rows)
        if len(places) < 2:
            return Sorted([self._inner.prepare(rows)], None)
        groups = [self._inner.prepare(rows.take(pa.array(place))) for place in places]
        return Sorted(groups, pa.array(np.argsort(np.concatenate(places))))

    def predict(self, prepared: Sorted) -> dict[str, pa.Array]:
        found = [self._inner.predict(group) for group in prepared.groups]
        if prepared.back is None:
            return found[0]
        return {
            name: self._joined(name, [one[name] for one in found]).take(prepared.back)
            for name in found[0]
        }

    def _joined(self, name: str, pieces: Sequence[pa.Array]) -> pa.Array:
        kinds = {str(piece.type) for piece in pieces}
        if len(kinds) > 1:
            raise ModelUnsupported(
                self._model,
                f"its output {name} has as many values as a row's list ({' and '.join(kinds)}), "
                "and a column has one type",
            )
        return pa.concat_arrays(pieces)


def is_ragged(features: Sequence[Field]) -> bool:
    """Whether some tensor input leaves the number of values in a row open."""
    return any(field.shape is not None and field.width < 0 for field in features)


def by_length(rows: pa.RecordBatch) -> list[Indices]:
    """Row numbers in groups whose lists have the same lengths in every column, shortest first."""
    lists = [
        column
        for column in rows.columns
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    ]
    if not lists or not rows.num_rows:
        return [np.arange(rows.num_rows)]
    lengths = np.stack(
        [pc.fill_null(pc.list_value_length(column), 0).to_numpy() for column in lists]
    )
    order = np.lexsort(lengths[::-1])
    changes = np.flatnonzero(np.any(np.diff(lengths[:, order], axis=1) != 0, axis=0)) + 1
    return list(np.split(order, changes))
