"""What was counted of one column of categories; mergeable exactly, whatever the order and grouping.

Only so many categories are counted by name; rows of all others are counted together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from zlib import crc32

from scoring.drift.profile.elements import Aspect
from scoring.drift.profile.frame import ColumnFrame

__all__ = ["NAMED", "CategoryProfile", "CategoryTotal", "name_rank", "split_named"]

NAMED = 1_000
"""How many categories of a column are counted by name."""
FEW = 50
"""Names up to which a column's values are categories, however seldom each occurs."""
# Names at which a total sheds those that it cannot keep; when makes no difference to the sum.
_MOST_HELD = 4 * NAMED


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryProfile:
    """One column of categories: every row is in `nulls`, `counts` or `other`."""

    frame: ColumnFrame
    rows: int = 0
    nulls: int = 0
    counts: Mapping[str, int]
    """Rows by category, at most `NAMED` of them; categories without rows are left out."""
    other: int = 0
    """Rows of the categories that are not counted by name."""

    @property
    def values(self) -> int:
        """Rows that hold a category."""
        return self.rows - self.nulls

    @property
    def is_free_text(self) -> bool:
        """Whether these are texts or identifiers rather than categories.

        They are where the names cover less than half of the rows or, in few rows, where most names
        occur but once: such names say nothing of other rows, and should not be kept.
        """
        if self.frame.aspect or self.frame.free_text:
            return self.frame.free_text
        named = sum(self.counts.values())
        if named < self.other:
            return True
        return self.frame.categories is None and len(self.counts) > max(FEW, named // 2)

    def supports(self, aspect: Aspect) -> bool:
        """Whether what is derived means something: of free text, not of categories."""
        return self.is_free_text

    def merge(self, other: CategoryProfile) -> CategoryProfile:
        """Both sides' rows together; raises ValueError where their frames differ."""
        total = CategoryTotal(self.frame)
        total.add(self)
        total.add(other)
        return total.profile()

    def without_names(self) -> CategoryProfile:
        """The same rows, all of them among the others."""
        return replace(self, counts={}, other=self.other + sum(self.counts.values()))

    def as_reference(self) -> CategoryProfile:
        """The same counts, with the categories named here as the known ones; none in free text."""
        if self.is_free_text:
            frame = replace(self.frame, categories=(), free_text=True)
            return replace(self.without_names(), frame=frame)
        return replace(self, frame=replace(self.frame, categories=tuple(sorted(self.counts))))


class CategoryTotal:
    """Adds up profiles of one column of categories."""

    def __init__(self, frame: ColumnFrame) -> None:
        self._sum = CategoryProfile(frame=frame, counts={})
        self._counts: Counter[str] = Counter()

    def add(self, part: CategoryProfile) -> None:
        """Raises ValueError where the part's frame differs."""
        mine = self._sum
        mine.frame.check_same(part.frame)
        self._counts.update(part.counts)
        self._sum = replace(
            mine,
            rows=mine.rows + part.rows,
            nulls=mine.nulls + part.nulls,
            other=mine.other + part.other,
        )
        if len(self._counts) > _MOST_HELD:
            self._shed()

    def _shed(self) -> None:
        kept, rest = split_named(self._counts, self._sum.frame)
        self._counts = Counter(kept)
        self._sum = replace(self._sum, other=self._sum.other + rest)

    def profile(self) -> CategoryProfile:
        """What the parts hold together."""
        self._shed()
        return replace(self._sum, counts=dict(sorted(self._counts.items())))


def split_named(counts: Mapping[str, int], frame: ColumnFrame) -> tuple[dict[str, int], int]:
    """Keep the frame's categories and, up to `NAMED` in all, the new ones of lowest rank.

    Returns the counts kept and the sum of the rest. Choosing by rank and not by frequency keeps
    merging exact (a bottom-k sketch, Cohen and Kaplan 2007): a category of low rank among all
    is of low rank in every chunk, so none of its rows was ever dropped, and a chunk in which a
    common category happens to be rare cannot lose it rows.
    """
    if len(counts) <= NAMED and frame.categories is None:
        return dict(counts), 0
    known = set(frame.categories or ())
    new: set[str] = set(counts) - known
    room = max(0, NAMED - len(known))
    dropped = new - set(sorted(new, key=name_rank)[:room]) if len(new) > room else set()
    kept = {name: rows for name, rows in counts.items() if name not in dropped}
    return kept, sum(counts[name] for name in dropped)


def name_rank(name: str) -> tuple[int, str]:
    """The rank by which new categories are chosen: a hash, the same in every process."""
    return crc32(name.encode()), name
