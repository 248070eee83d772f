"""What was counted of one column; mergeable, whatever the order.

Counts add up exactly. Moments agree up to rounding. Nothing is estimated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from scoring.drift.edges import bin_starts
from scoring.drift.frame import ColumnFrame
from scoring.drift.grid import cell_starts
from scoring.drift.moments import Moments

__all__ = ["NAMED", "CategoryProfile", "NumberProfile", "name_rank", "split_named"]

_Bin = TypeVar("_Bin", int, str)

NAMED = 1_000
"""How many categories of a column are counted by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberProfile:
    """One numeric column: every row is in `nulls`, `nans`, an infinity or a bin."""

    frame: ColumnFrame
    rows: int = 0
    nulls: int = 0
    nans: int = 0
    negative_infinities: int = 0
    positive_infinities: int = 0
    moments: Moments | None = None
    """Of the finite values; None where there is none."""
    counts: Mapping[int, int]
    """Finite values by bin of the frame (or cell of the open grid); empty bins are left out."""

    def merge(self, other: NumberProfile) -> NumberProfile:
        """Both sides' rows together; raises ValueError where their frames differ."""
        _check_frames(self.frame, other.frame)
        both = self.moments and other.moments and self.moments.merge(other.moments)
        return NumberProfile(
            frame=self.frame,
            rows=self.rows + other.rows,
            nulls=self.nulls + other.nulls,
            nans=self.nans + other.nans,
            negative_infinities=self.negative_infinities + other.negative_infinities,
            positive_infinities=self.positive_infinities + other.positive_infinities,
            moments=both or self.moments or other.moments,
            counts=_sum(self.counts, other.counts),
        )

    def bins(self) -> NDArray[np.int64]:
        """Counts of all bins, below the first edge to above the last; needs edges."""
        dense = np.zeros(len(self.frame.edges or ()) + 1, dtype=np.int64)
        dense[list(self.counts)] = list(self.counts.values())
        return dense

    def as_reference(self, bins: int) -> NumberProfile:
        """The same counts under quantile edges; unchanged where there are edges already.

        Edges are boundaries of the open grid's cells, so that each count stays exact.
        """
        if self.frame.edges is not None:
            return self
        edges: tuple[float, ...] = ()
        counts: dict[int, int] = {}
        if self.counts:
            occupied = np.array(sorted(self.counts))
            weights = np.array([self.counts[cell] for cell in occupied.tolist()])
            starts = bin_starts(weights, bins)
            bounds = np.append(occupied[starts], occupied[-1] + 1)
            edges = tuple(cell_starts(bounds, self.frame.origin).tolist())
            counts = dict(enumerate(np.add.reduceat(weights, starts).tolist(), start=1))
        return replace(self, frame=replace(self.frame, edges=edges, origin=0.0), counts=counts)


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

    def merge(self, other: CategoryProfile) -> CategoryProfile:
        """Both sides' rows together; raises ValueError where their frames differ."""
        _check_frames(self.frame, other.frame)
        counts, rest = split_named(_sum(self.counts, other.counts), self.frame)
        return CategoryProfile(
            frame=self.frame,
            rows=self.rows + other.rows,
            nulls=self.nulls + other.nulls,
            counts=counts,
            other=self.other + other.other + rest,
        )

    def as_reference(self) -> CategoryProfile:
        """The same counts, with the categories counted here as the known ones."""
        return replace(self, frame=replace(self.frame, categories=tuple(sorted(self.counts))))


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


def _sum(left: Mapping[_Bin, int], right: Mapping[_Bin, int]) -> dict[_Bin, int]:
    total = Counter(left)
    total.update(right)
    return dict(sorted(total.items()))


def _check_frames(mine: ColumnFrame, other: ColumnFrame) -> None:
    if mine != other:
        raise ValueError(
            f"column {mine.name!r} was counted in different bins and cannot be merged: "
            "profile every chunk of a run with the same frames"
        )
