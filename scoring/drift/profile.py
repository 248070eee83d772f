"""Profiles: what the rows of a chunk, a run or a training set look like, column by column.

Every row is counted, none is sampled, and profiles of parts merge into the profile of the whole
(exact in counts, up to rounding in moments), so each worker profiles its own chunk in the pass
that scores it. A profile with quantile edges is a reference; what is framed by it can be
compared with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyarrow as pa

from scoring.drift.columns import CategoryProfile, NumberProfile
from scoring.drift.counters import CategoryCounter, NumberCounter
from scoring.drift.document import column_from_document, column_to_document
from scoring.drift.frame import ColumnFrame, Role, elements_of, frames_for, kind_of
from scoring.drift.sample import frames_from_sample, sampled

__all__ = ["CategoryProfile", "NumberProfile", "Profile", "Profiler", "reference_from"]

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Counts and moments of every framed column."""

    columns: tuple[NumberProfile | CategoryProfile, ...] = ()
    """In order of role and name."""
    skipped: tuple[str, ...] = ()
    """Columns that were offered but have a type that cannot be profiled."""

    @property
    def rows(self) -> int:
        """Rows of the longest column (outputs have none for rows in quarantine)."""
        return max((column.rows for column in self.columns), default=0)

    @property
    def framed_by(self) -> str | None:
        """An id of the reference's edges and categories; None: counted without a reference."""
        frames = [column.frame for column in self.columns]
        framed = [f for f in frames if f.edges is not None or f.categories is not None]
        if not framed:
            return None
        text = repr([(f.role, f.name, f.kind, f.edges, f.categories) for f in framed])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def column(self, name: str, role: Role) -> NumberProfile | CategoryProfile | None:
        """The profile of one column, None if it has none."""
        wanted = (role, name)
        return next((c for c in self.columns if (c.frame.role, c.frame.name) == wanted), None)

    def merge(self, other: Profile) -> Profile:
        """Both sides' rows together; raises ValueError where a column's frames differ."""
        merged: dict[tuple[str, str], Any] = {(c.frame.role, c.frame.name): c for c in self.columns}
        for column in other.columns:
            place = (column.frame.role, column.frame.name)
            merged[place] = merged[place].merge(column) if place in merged else column
        return Profile(
            columns=tuple(merged[place] for place in sorted(merged)),
            skipped=tuple(sorted({*self.skipped, *other.skipped})),
        )

    @classmethod
    def merged(cls, profiles: Iterable[Profile]) -> Profile:
        """All rows together; the empty profile for none."""
        return reduce(cls.merge, profiles, cls())

    def as_reference(self, bins: int = 256) -> Profile:
        """The same rows with quantile edges and known categories, ready to frame others."""
        columns = tuple(
            c.as_reference(bins) if isinstance(c, NumberProfile) else c.as_reference()
            for c in self.columns
        )
        return Profile(columns=columns, skipped=self.skipped)

    def to_json(self) -> str:
        """A JSON document that `from_json` reads back equal, to the last bit."""
        columns = [column_to_document(column) for column in self.columns]
        document = {"version": _VERSION, "columns": columns, "skipped": self.skipped}
        return json.dumps(document, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Profile:
        """Read `to_json`'s document; raises ValueError for one of another version."""
        document = json.loads(text)
        if document.get("version") != _VERSION:
            raise ValueError(
                f"this profile has version {document.get('version')!r}, this release reads "
                f"{_VERSION}: make it again with `scoring models profile`"
            )
        columns = tuple(column_from_document(column) for column in document["columns"])
        return cls(columns=columns, skipped=tuple(document["skipped"]))


class Profiler:
    """Folds batches into a profile; cheapest with batches of 65,536 rows."""

    def __init__(self, frames: Iterable[ColumnFrame]) -> None:
        self._counters: dict[tuple[Role, str], NumberCounter | CategoryCounter] = {}
        for frame in frames:
            counter = NumberCounter if frame.kind == "number" else CategoryCounter
            if (frame.role, frame.name) in self._counters:
                raise ValueError(f"{frame.role} {frame.name!r} is framed twice")
            self._counters[frame.role, frame.name] = counter(frame)
        self._skipped: set[str] = set()

    def add(
        self, columns: Mapping[str, pa.Array | pa.ChunkedArray], role: Role | None = None
    ) -> None:
        """Fold one batch in, column by column; columns without a frame are ignored.

        Each column counts its own rows, so features and outputs may come in separate calls.
        `role` says which they are; it is needed only where both have a column of one name.
        """
        for name, column in columns.items():
            for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
                self._add_chunk(name, chunk, role)

    def _add_chunk(self, name: str, chunk: pa.Array, role: Role | None) -> None:
        for element, values in elements_of(name, chunk):
            kind = kind_of(values.type)
            if kind is None:
                self._skipped.add(element)
            for counter in self._counters_of(element, role):
                if counter.frame.kind != kind:
                    raise ValueError(
                        f"column {element!r} is framed as {counter.frame.kind}, found {values.type}"
                    )
                counter.add(values)

    def _counters_of(self, name: str, role: Role | None) -> list[NumberCounter | CategoryCounter]:
        roles: tuple[Role, ...] = ("feature", "output") if role is None else (role,)
        return [self._counters[r, name] for r in roles if (r, name) in self._counters]

    def profile(self) -> Profile:
        """What has been counted so far."""
        columns = tuple(self._counters[place].profile() for place in sorted(self._counters))
        return Profile(columns=columns, skipped=tuple(sorted(self._skipped)))


def reference_from(
    batches: Callable[[], Iterable[Mapping[str, pa.Array | pa.ChunkedArray]]],
    columns: Sequence[tuple[str, Role, Any]],
    *,
    bins: int = 256,
    sample_rows: int = 1_000_000,
) -> Profile:
    """Profile training data as a reference, reading it twice.

    The first pass takes a sample of up to `sample_rows` rows, always the same for the same data,
    from which come about `bins` quantile edges per number and the commonest categories; the
    second counts every row. `columns` are (name, role, Arrow type), as for `frames_for`.
    """
    sample = sampled(batches(), sample_rows)
    profiler = Profiler(frames_from_sample(sample, frames_for(None, columns, {}), bins))
    for batch in batches():
        profiler.add(batch)
    return profiler.profile().as_reference()
