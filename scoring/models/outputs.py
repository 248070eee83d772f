"""Model outputs -> Arrow columns, under the names the signature gives them.

One unnamed output is ``score``. Types are exact: float32 stays float32. Shape [rows] and
[rows, 1] become a column, [rows, k] a fixed-size list of k.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from scoring.errors import ModelFailed, ModelUnsupported
from scoring.models.signature import Field

SCORE = "score"
SHOWN_LENGTH = 100
"""Characters of what a model returned that a message shows."""
Floats = npt.NDArray[np.float64]


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
    if values.ndim == 0:
        shown = repr(values.item())[:SHOWN_LENGTH]
        raise ModelFailed(model, f"it returned {shown} instead of a value for each row")
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


def from_python(result: Any, outputs: Sequence[Field]) -> list[tuple[str | None, Any]]:
    """What a Python model returned, as named raw outputs: frame, series, mapping, tuple or array.

    An array with a column for each of several declared outputs is taken apart.
    """
    if hasattr(result, "columns") and hasattr(result, "items"):  # a data frame
        return [
            (None if isinstance(name, int) else str(name), series)
            for name, series in result.items()
        ]
    if isinstance(result, Mapping):
        return [(str(name), _array(value)) for name, value in result.items()]
    if hasattr(result, "to_numpy"):  # a series
        return [(None, result)]
    if isinstance(result, tuple):
        return [(None, _array(value)) for value in result]
    whole = _array(result)
    apart = len(outputs) > 1 and whole.ndim == 2 and whole.shape[1] == len(outputs)
    return [(None, values) for values in whole.T] if apart else [(None, whole)]


def _array(value: Any) -> npt.NDArray[Any]:
    try:
        found = np.asarray(value)
        # Of numbers and words in one list NumPy makes words; they are told apart later.
        return np.asarray(value, object) if found.dtype.kind in "US" else found
    except ValueError:  # lists of different lengths
        return np.fromiter(value, object, len(value))


def to_arrow(value: Any, model: str) -> pa.Array:
    """One raw output of a Python model as an Arrow column, its categories spelt out."""
    try:
        found = _series(value, model) if hasattr(value, "to_numpy") else column(value, model)
    except pa.ArrowException as error:
        raise ModelUnsupported(model, f"the values of an output differ in type: {error}") from error
    if pa.types.is_dictionary(found.type):
        found = found.dictionary_decode()
    return found.cast(pa.string()) if pa.types.is_large_string(found.type) else found


def _series(value: Any, model: str) -> pa.Array:
    if value.dtype == object and len(value) and isinstance(value.iloc[0], np.ndarray):
        with suppress(ValueError):  # arrays of different lengths become lists, below
            return column(np.stack(value.to_list()), model)
    converted = pa.Array.from_pandas(value)
    return converted.combine_chunks() if isinstance(converted, pa.ChunkedArray) else converted


def settled(values: pa.Array, declared: pa.DataType | None) -> pa.Array:
    """The column in its declared type, where a batch of Python objects only happened to lose it.

    Nothing but nulls has no type, and pandas turns integers into floats where one is missing. Any
    other type stands as the model gave it.
    """
    found = values.type
    if declared is None or found.equals(declared):
        return values
    widened = pa.types.is_integer(found) and pa.types.is_floating(declared)
    spoilt = pa.types.is_floating(found) and pa.types.is_integer(declared) and values.null_count
    if pa.types.is_null(found):
        return pa.nulls(len(values), declared)
    if widened or spoilt:
        with suppress(pa.ArrowInvalid):  # a value that would change keeps its type
            return values.cast(declared)
    return values


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


def floats(values: pa.Array) -> Floats | None:
    """Floats as [row] or [row, width]; None for anything else. Null is NaN."""
    if pa.types.is_fixed_size_list(values.type):
        inner = floats(values.flatten())
        return None if inner is None else inner.reshape(len(values), values.type.list_size)
    if not pa.types.is_floating(values.type):
        return None
    found: Floats = values.to_numpy(zero_copy_only=False).astype(np.float64)
    return found


def share_equal(one: pa.Array, other: pa.Array) -> float:
    """The share of rows with equal values, null being equal to null."""
    pairs = zip(one.to_pylist(), other.to_pylist(), strict=True)
    same: int = sum(mine == its for mine, its in pairs)
    return same / max(len(one), 1)
