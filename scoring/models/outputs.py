"""Model outputs -> Arrow columns, under the names the signature gives them.

One unnamed output is ``score``. Types are exact: float32 stays float32. Shape [rows] and
[rows, 1] become a column, [rows, k] a fixed-size list of k.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from scoring.errors import ModelFailed, ModelUnsupported
from scoring.models.signature import Field

SCORE = "score"


def names(raw: Sequence[str | None], outputs: Sequence[Field], model: str) -> dict[int, str]:
    """Which raw outputs are kept, and under which name.

    ``raw`` are the names that the model itself gives (``None``: it gives none). A signature that
    names some of them selects these; one of the same length names them by position; without one,
    the model's own names stand, or ``score`` for a single output.
    """
    wanted = [field.name for field in outputs]
    if wanted and all(name is not None and name in raw for name in wanted):
        return {raw.index(name): str(name) for name in wanted}
    if len(wanted) == len(raw):
        if len(raw) == 1:
            return {0: wanted[0] or SCORE}
        return {
            index: str(name or raw[index] or f"output_{index}") for index, name in enumerate(wanted)
        }
    if len(raw) == 1:
        return {0: SCORE}
    if any(wanted):
        raise ModelUnsupported(
            model,
            f"its signature names the outputs {', '.join(map(str, wanted))}, but it returned "
            f"{', '.join(map(str, raw))}",
        )
    return {index: str(name or f"output_{index}") for index, name in enumerate(raw)}


def column(values: npt.NDArray[Any], model: str) -> pa.Array:
    """An array of shape [rows], [rows, 1] or [rows, k] as an Arrow column."""
    if values.ndim > 2:
        raise ModelUnsupported(
            model, f"an output has shape {('rows', *values.shape[1:])}; a table holds at most 2"
        )
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2:
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    if values.dtype.kind in "OUS":
        return pa.array(values.tolist(), from_pandas=True)
    return pa.array(values)


def from_python(result: Any) -> list[tuple[str | None, Any]]:
    """What a Python model returned, as named raw outputs: frame, series, mapping or array."""
    if hasattr(result, "columns") and hasattr(result, "items"):  # a data frame
        return [
            (None if isinstance(name, int) else str(name), series)
            for name, series in result.items()
        ]
    if isinstance(result, Mapping):
        return [(str(name), np.asarray(value)) for name, value in result.items()]
    if hasattr(result, "to_numpy"):  # a series
        return [(None, result)]
    return [(None, np.asarray(result))]


def to_arrow(value: Any, model: str) -> pa.Array:
    """One raw output of a Python model as an Arrow column."""
    if hasattr(value, "to_numpy"):
        if value.dtype == object and len(value) and isinstance(value.iloc[0], np.ndarray):
            return column(np.stack(value.to_list()), model)
        converted = pa.Array.from_pandas(value)
        return converted.combine_chunks() if isinstance(converted, pa.ChunkedArray) else converted
    return column(value, model)


def empty(outputs: Sequence[Field]) -> dict[str, pa.Array]:
    """The columns of a run without rows, as the signature promises them."""
    if not outputs:
        return {SCORE: pa.array([], pa.float64())}
    columns = {}
    for index, field in enumerate(outputs):
        kind = field.type if field.width == 1 else pa.list_(field.type, max(field.width, 0))
        if field.width < 0:
            kind = pa.list_(field.type)
        name = field.name or (SCORE if len(outputs) == 1 else f"output_{index}")
        columns[name] = pa.array([], kind)
    return columns


def checked(columns: dict[str, pa.Array], rows: int, model: str) -> dict[str, pa.Array]:
    """The columns, if each has one value per row.

    Raises:
        ModelFailed: the model returned another number of rows than it was given.
    """
    for name, values in columns.items():
        if len(values) != rows:
            raise ModelFailed(
                model, f"it returned {len(values)} values of {name!r} for {rows} rows"
            )
    return columns
