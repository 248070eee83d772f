"""How one column is counted: the bins, fixed before the first row is seen.

Every chunk of a run counts against the same frames, so counts add up exactly whatever the
chunking. A frame comes from a reference profile (quantile edges, known categories) or, for a
first run that has none, is open: see `scoring.drift.grid`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from scoring.drift.profile import Profile

__all__ = [
    "ColumnFrame",
    "Kind",
    "Role",
    "Unit",
    "elements_of",
    "frames_for",
    "kind_of",
    "readable",
]

Kind = Literal["number", "category"]
Role = Literal["feature", "output"]
Unit = Literal["plain", "days", "seconds"]

# A vector output (one probability per class) is framed element by element up to this length.
LONGEST_VECTOR = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnFrame:
    """The bins of one column.

    Bin i of a number with edges holds ``edges[i-1] <= value < edges[i]``; bin 0 lies below the
    first edge, bin ``len(edges)`` at or above the last. That is
    ``numpy.searchsorted(edges, value, side="right")``, compared exactly whatever the column's
    type: a float32 or an int64 is never rounded to meet an edge.
    """

    name: str
    """The column's name; the element `i` of a vector column is ``name[i]``."""
    role: Role
    """Whether the model reads the column or made it."""
    kind: Kind
    """How it is counted: numbers in bins, categories by name."""
    unit: Unit = "plain"
    """What a number means: itself, or days or seconds since 1970-01-01 UTC."""
    edges: tuple[float, ...] | None = None
    """Strictly ascending edges, in `unit`; None: the open grid."""
    origin: float = 0.0
    """Where the open grid is finest, in `unit`; best the column's minimum."""
    categories: tuple[str, ...] | None = None
    """The categories that the reference knows; None: no reference."""

    def __post_init__(self) -> None:
        if self.edges and not all(low < high for low, high in pairwise(self.edges)):
            raise ValueError(f"column {self.name!r}: edges must ascend, found {self.edges!r}")


def frames_for(
    reference: Profile | None,
    columns: Sequence[tuple[str, Role, Any]],
    origins: Mapping[str, float],
) -> tuple[ColumnFrame, ...]:
    """Frame `columns` (name, role, Arrow type) as the reference did, or openly.

    `origins` holds minima by column name, in the frame's unit; a column that is not there
    starts at 0. A column whose type can be neither ordered nor named (lists, structs, binary,
    long vectors) gets no frame.
    """
    known = {(c.frame.role, c.frame.name): c.frame for c in _reference_columns(reference)}
    frames = []
    for name, role, dtype in _elements(columns):
        kind = kind_of(dtype)
        if kind is None:
            continue
        frame = known.get((role, name))
        if frame is None or (frame.kind, frame.unit) != (kind, _unit_of(dtype)):
            origin = origins.get(name, 0.0) if kind == "number" else 0.0
            frame = ColumnFrame(
                name=name, role=role, kind=kind, unit=_unit_of(dtype), origin=float(origin)
            )
        frames.append(frame)
    return tuple(frames)


def kind_of(dtype: Any) -> Kind | None:
    """How a column of this Arrow type is counted; None where it cannot be."""
    types = pa.types
    if types.is_dictionary(dtype):
        inner = dtype.value_type
        named = _is_text(inner) or types.is_boolean(inner) or types.is_integer(inner)
        return "category" if named else None
    if _is_text(dtype) or types.is_boolean(dtype):
        return "category"
    ordered = types.is_integer(dtype) or types.is_floating(dtype) or types.is_decimal(dtype)
    if ordered or types.is_date(dtype) or types.is_timestamp(dtype):
        return "number"
    return None


def elements_of(name: str, array: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """The column itself or, for a short vector, one column ``name[i]`` per element."""
    if pa.types.is_fixed_size_list(array.type) and array.type.list_size <= LONGEST_VECTOR:
        for i in range(array.type.list_size):
            yield f"{name}[{i}]", pc.list_element(array, i)
    else:
        yield name, array


def readable(value: float, unit: Unit) -> str:
    """A number for people: six digits, or the date it stands for."""
    if unit != "plain":
        try:
            moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(**{unit: value})
        except OverflowError:
            return f"{value:.6g} {unit}"
        return moment.strftime("%Y-%m-%d" if unit == "days" else "%Y-%m-%d %H:%M:%S")
    return f"{value:.6g}"


def _reference_columns(reference: Profile | None) -> tuple[Any, ...]:
    return reference.as_reference().columns if reference else ()


def _elements(columns: Sequence[tuple[str, Role, Any]]) -> list[tuple[str, Role, Any]]:
    flat: list[tuple[str, Role, Any]] = []
    for name, role, dtype in columns:
        if pa.types.is_fixed_size_list(dtype) and dtype.list_size <= LONGEST_VECTOR:
            flat += [(f"{name}[{i}]", role, dtype.value_type) for i in range(dtype.list_size)]
        else:
            flat.append((name, role, dtype))
    return flat


def _unit_of(dtype: Any) -> Unit:
    if pa.types.is_date(dtype):
        return "days"
    return "seconds" if pa.types.is_timestamp(dtype) else "plain"


def _is_text(dtype: Any) -> bool:
    types = pa.types
    return bool(
        types.is_string(dtype) or types.is_large_string(dtype) or types.is_string_view(dtype)
    )
