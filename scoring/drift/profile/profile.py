"""Profiles: what the rows of a chunk, a run or a training set look like, column by column.

Every row is counted, none is sampled, and profiles of parts merge into the profile of the whole,
in any order (how exactly, says `number_profile`), so each worker profiles its own chunk in the
pass that scores it. A profile with quantile edges is a reference; what is framed by it can be
compared with it.

Without a reference everything that can be derived from a column is counted, as the first rows
cannot tell a category from free text; once all rows are merged, `Profile.settled` keeps what means
something.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from scoring.drift.profile.columns import CategoryProfile, Column, NumberProfile, merged_columns
from scoring.drift.profile.counters import CategoryCounter, NumberCounter
from scoring.drift.profile.document import Known, read_columns, write_columns
from scoring.drift.profile.elements import elements, place_of
from scoring.drift.profile.folding import ColumnCounters
from scoring.drift.profile.frame import ColumnFrame, Role, frames_for
from scoring.drift.profile.sample import sampled_frames

__all__ = ["CategoryProfile", "NumberProfile", "Profile", "Profiler", "reference_from"]

BINS = 256
"""Bins between the quantile edges of a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Counts and moments of every framed column."""

    columns: tuple[Column, ...] = ()
    """In order of role and name."""
    skipped: tuple[str, ...] = ()
    """Columns that were offered but have a type that cannot be profiled."""

    @property
    def rows(self) -> int:
        """Rows of the longest column (outputs have none for rows in quarantine), not of words."""
        counted = (column.rows for column in self.columns if column.frame.aspect != "tokens")
        return max(counted, default=0)

    @property
    def framed_by(self) -> str | None:
        """An id of the reference's edges and categories; None: counted without a reference."""
        frames = [column.frame for column in self.columns]
        framed = [f for f in frames if f.edges is not None or f.categories is not None]
        if not framed:
            return None
        text = repr([(f.role, f.name, f.kind, f.edges, f.categories) for f in framed])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def column(self, name: str, role: Role) -> Column | None:
        """The profile of one column, None if it has none."""
        wanted = (role, name)
        return next((c for c in self.columns if (c.frame.role, c.frame.name) == wanted), None)

    def merge(self, other: Profile) -> Profile:
        """Both sides' rows together; raises ValueError where a column's frames differ."""
        return Profile.merged((self, other))

    @classmethod
    def merged(cls, profiles: Iterable[Profile]) -> Profile:
        """All rows together, the same whatever the order; the empty profile for none."""
        skipped: set[str] = set()

        def columns() -> Iterator[Column]:
            for profile in profiles:
                skipped.update(profile.skipped)
                yield from profile.columns

        return cls(columns=merged_columns(columns()), skipped=tuple(sorted(skipped)))

    def settled(self) -> Profile:
        """What a run keeps and shows once all its chunks are merged.

        Of columns that were counted without a reference, elements that mean nothing are left out
        (the words of a category, the decision of what is no probability), and so are the names in
        free text. Chunks must not be settled: some hold too few rows to tell.
        """
        columns = [
            _without_names(column) if _is_open(column) else column
            for column in self.columns
            if not (_is_open(column) and self._is_moot(column))
        ]
        return Profile(columns=tuple(columns), skipped=self.skipped)

    def as_reference(self, bins: int = BINS) -> Profile:
        """The same rows with quantile edges and known categories, ready to frame others.

        Derived elements that mean nothing are left out, and free text has no known categories.
        """
        columns = tuple(_as_reference(c, bins) for c in self.columns if not self._is_moot(c))
        return Profile(columns=columns, skipped=self.skipped)

    def framing(self) -> Profile:
        """As it frames the chunks of a run: columns with edges or known categories keep them.

        A run may be under way while its workers are replaced. Chunks that older ones have counted
        add up with the others only if what was frozen is not chosen anew, as `as_reference` might.
        """
        columns = tuple(
            _as_reference(c, BINS) if _is_open(c) else c
            for c in self.columns
            if not self._is_moot(c)
        )
        return Profile(columns=columns, skipped=self.skipped)

    def _is_moot(self, column: Column) -> bool:
        """Whether it is derived from a column that gives it no meaning."""
        frame = column.frame
        base = self.column(frame.of, frame.role) if frame.of is not None else None
        return base is not None and not base.supports(frame.aspect)

    def to_json(self, reference: Profile | None = None) -> str:
        """A JSON document that `from_json` reads back equal, to the last bit.

        With a reference the frames that it has are left out, for `from_chunks` to put back.
        """
        return write_columns(self.columns, self.skipped, _known(reference))

    @classmethod
    def from_json(cls, text: str) -> Profile:
        """Read `to_json`'s document; raises ValueError for one that is not whole or too new."""
        columns, skipped = read_columns(text, _known(None))
        return cls(columns=columns, skipped=skipped)

    @classmethod
    def from_chunks(cls, texts: Iterable[str], reference: Profile | None) -> Profile:
        """Merge what `to_json(reference)` wrote for each chunk of a run, in any order.

        Raises ValueError where a chunk was counted in the bins of another reference.
        """
        known = _known(reference)
        read = (read_columns(text, known) for text in texts)
        return cls.merged(cls(columns=columns, skipped=skipped) for columns, skipped in read)


def _known(reference: Profile | None) -> Known:
    framed = reference.framing() if reference else Profile()
    frames = {(c.frame.role, c.frame.name): c.frame for c in framed.columns}
    return Known(frames=frames, id=framed.framed_by)


def _as_reference(column: Column, bins: int) -> Column:
    return column.as_reference(bins) if isinstance(column, NumberProfile) else column.as_reference()


def _without_names(column: Column) -> Column:
    if isinstance(column, CategoryProfile) and column.is_free_text:
        return column.without_names()
    return column


def _is_open(column: Column) -> bool:
    return column.frame.edges is None and column.frame.categories is None


class Profiler:
    """Folds batches into a profile; cheapest with batches of 65,536 rows."""

    def __init__(self, frames: Iterable[ColumnFrame]) -> None:
        self._counters: dict[tuple[Role, str], NumberCounter | CategoryCounter] = {}
        self._columns: defaultdict[tuple[Role, str], ColumnCounters] = defaultdict(ColumnCounters)
        self._skipped: set[str] = set()
        for frame in frames:
            if (frame.role, frame.name) in self._counters:
                raise ValueError(f"{frame.role} {frame.name!r} is framed twice")
            counter = NumberCounter(frame) if frame.kind == "number" else CategoryCounter(frame)
            self._counters[frame.role, frame.name] = counter
            self._columns[frame.role, frame.of or frame.name].enlist(counter)
            place = place_of(frame.name)
            if place and not frame.aspect:
                self._columns[frame.role, place[0]].enlist(counter, place[1])

    def add(
        self, columns: Mapping[str, pa.Array | pa.ChunkedArray], role: Role | None = None
    ) -> None:
        """Fold one batch in, column by column; columns without a frame are ignored.

        Each column counts its own rows, so features and outputs may come in separate calls.
        `role` says which they are; it is needed only where both have a column of one name.
        """
        roles: tuple[Role, ...] = ("feature", "output") if role is None else (role,)
        for name, column in columns.items():
            framed = [self._columns[one, name] for one in roles if (one, name) in self._columns]
            for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
                counted = [counters.add(name, chunk, columns) for counters in framed]
                if not any(counted) and not elements(name, "output", chunk.type):
                    self._skipped.add(name)

    def profile(self) -> Profile:
        """What has been counted so far."""
        columns = tuple(self._counters[place].profile() for place in sorted(self._counters))
        return Profile(columns=columns, skipped=tuple(sorted(self._skipped)))


def reference_from(
    batches: Callable[[], Iterable[Mapping[str, pa.Array | pa.ChunkedArray]]],
    columns: Sequence[tuple[str, Role, Any]],
    *,
    bins: int = BINS,
    sample_rows: int = 262_144,
) -> Profile:
    """Profile training data as a reference, reading it twice.

    The first pass takes a sample of up to `sample_rows` rows, always the same for the same data,
    from which come about `bins` quantile edges per number and the commonest categories; the
    second counts every row. `columns` are (name, role, Arrow type), as for `frames_for`.
    """
    frames = frames_for(None, columns, {})
    profiler = Profiler(sampled_frames(batches(), frames, sample_rows, bins))
    for batch in batches():
        profiler.add(batch)
    return profiler.profile().as_reference()
