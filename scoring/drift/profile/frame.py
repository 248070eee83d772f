"""How one column is counted: the bins, fixed before the first row is seen.

Every chunk of a run counts against the same frames, so counts add up exactly whatever the
chunking. A frame comes from a reference profile (quantile edges, known categories) or, for a
first run that has none, is open: see `scoring.drift.profile.grid`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from scoring.drift.profile.elements import Aspect, Element, Role, elements, elements_of
from scoring.drift.profile.kinds import Kind, Unit, kind_of, unit_of

if TYPE_CHECKING:
    from scoring.drift.profile.profile import Profile

__all__ = [
    "Aspect",
    "ColumnFrame",
    "Kind",
    "Role",
    "Unit",
    "elements_of",
    "frames_for",
    "kind_of",
    "readable",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnFrame:
    """The bins of one column.

    Bin i of a number with edges holds ``edges[i-1] <= value < edges[i]``; bin 0 lies below the
    first edge, bin ``len(edges)`` at or above the last. That is
    ``numpy.searchsorted(edges, value, side="right")``, compared exactly whatever the column's
    type: a float32 or an int64 is never rounded to meet an edge.
    """

    name: str
    """The column's name; with ``[i]`` for a place of a vector, ``[aspect]`` for what is derived."""
    role: Role
    """Whether the model reads the column or made it."""
    kind: Kind
    """How it is counted: numbers in bins, categories by name."""
    aspect: Aspect = ""
    """What of the column is counted; "": its values."""
    unit: Unit = "plain"
    """What a number means: itself, or days or seconds since 1970-01-01 UTC."""
    edges: tuple[float, ...] | None = None
    """Strictly ascending edges, in `unit`; None: the open grid."""
    origin: float = 0.0
    """Where the open grid is finest, in `unit`; best the column's minimum."""
    categories: tuple[str, ...] | None = None
    """The categories that the reference knows; None: no reference."""
    free_text: bool = False
    """Texts or identifiers, too various for names to tell anything: none is counted by name."""

    def __post_init__(self) -> None:
        if self.edges and not all(low < high for low, high in pairwise(self.edges)):
            raise ValueError(f"column {self.name!r}: edges must ascend, found {self.edges!r}")

    def check_same(self, other: ColumnFrame) -> None:
        """Raises ValueError unless what was counted in the two frames can be added up."""
        if self is not other and self != other:
            raise ValueError(
                f"column {self.name!r} was counted in different bins and cannot be merged: "
                "profile every chunk of a run with the same frames"
            )

    @property
    def of(self) -> str | None:
        """The column that this is derived from; None: it is one itself."""
        return self.name.removesuffix(f"[{self.aspect}]") if self.aspect else None


def frames_for(
    reference: Profile | None,
    columns: Sequence[tuple[str, Role, Any]],
    origins: Mapping[str, float],
) -> tuple[ColumnFrame, ...]:
    """Frame `columns` (name, role, Arrow type) as the reference did, or openly.

    `origins` holds minima by column name, in the frame's unit; a column that is not there
    starts at 0. A column whose type can be neither ordered nor named is framed by what can be
    derived from it (lists, long vectors), or not at all (structs, binary). Derived elements are
    framed where the reference finds them meaningful or does not know the column; a real column
    that has the name of one takes its place.
    """
    known = _by_place(reference)
    real = {(role, name) for name, role, _ in columns}
    frames = []
    for name, role, dtype in columns:
        base = known.get((role, name))
        for element in elements(name, role, dtype):
            if element.name != name and (role, element.name) in real:
                continue
            if element.aspect and not _is_wanted(element.aspect, base, kind_of(dtype)):
                continue
            frame = _open_frame(element, role, origins)
            frames.append(_as_known(frame, known.get((role, element.name))))
    return tuple(frames)


def readable(value: float, unit: Unit) -> str:
    """A number for people: six digits, or the date it stands for."""
    if unit != "plain":
        try:
            moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(**{unit: value})
        except OverflowError:
            return f"{value:.6g} {unit}"
        return moment.strftime("%Y-%m-%d" if unit == "days" else "%Y-%m-%d %H:%M:%S")
    return f"{value:.6g}"


def _by_place(reference: Profile | None) -> dict[tuple[Role, str], Any]:
    columns = reference.framing().columns if reference else ()
    return {(column.frame.role, column.frame.name): column for column in columns}


def _is_wanted(aspect: Aspect, base: Any, kind: Kind | None) -> bool:
    """Whether the reference's profile of the column lets the derived element be counted."""
    if base is None or base.frame.aspect or base.frame.kind != kind or not base.values:
        return True
    return bool(base.supports(aspect))


def _open_frame(element: Element, role: Role, origins: Mapping[str, float]) -> ColumnFrame:
    kind = kind_of(element.dtype)
    assert kind is not None
    with_origin = kind == "number" and not element.aspect
    return ColumnFrame(
        name=element.name,
        role=role,
        kind=kind,
        aspect=element.aspect,
        unit=unit_of(element.dtype),
        origin=float(origins.get(element.name, 0.0)) if with_origin else 0.0,
    )


def _as_known(frame: ColumnFrame, column: Any) -> ColumnFrame:
    """The reference's frame, unless what it counted is something else."""
    if column is None:
        return frame
    known: ColumnFrame = column.frame
    same = (known.kind, known.unit, known.aspect) == (frame.kind, frame.unit, frame.aspect)
    return known if same else frame
