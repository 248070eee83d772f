"""What was counted of one numeric column; mergeable, whatever the order.

Counts, minimum and maximum add up exactly, however parts are grouped. Mean and spread come out the
same to the last bit whatever the order of the parts that are merged at once, and agree up to
rounding where they are merged in other groups. Nothing is estimated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scoring.drift.profile.edges import bin_starts
from scoring.drift.profile.elements import Aspect
from scoring.drift.profile.frame import ColumnFrame
from scoring.drift.profile.grid import cell_starts
from scoring.drift.profile.moments import Moments

__all__ = ["NumberProfile", "NumberTotal"]


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

    @property
    def values(self) -> int:
        """Rows that hold a number or an infinity."""
        return self.rows - self.nulls - self.nans

    def supports(self, aspect: Aspect) -> bool:
        """Whether what is derived means something: the decision of a probability does."""
        if aspect != "decision":
            return True
        infinite = self.negative_infinities or self.positive_infinities
        inside = self.moments and self.moments.minimum >= 0 and self.moments.maximum <= 1
        return bool(inside and not infinite)

    def merge(self, other: NumberProfile) -> NumberProfile:
        """Both sides' rows together; raises ValueError where their frames differ."""
        total = NumberTotal(self.frame)
        total.add(self)
        total.add(other)
        return total.profile()

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


class NumberTotal:
    """Adds up profiles of one numeric column."""

    def __init__(self, frame: ColumnFrame) -> None:
        self._sum = NumberProfile(frame=frame, counts={})
        self._moments: list[Moments] = []
        self._bins = np.zeros(len(frame.edges or ()) + 1, dtype=np.int64)
        self._cells: Counter[int] = Counter()  # instead of bins, as few of 65,536 are occupied

    def add(self, part: NumberProfile) -> None:
        """Raises ValueError where the part's frame differs."""
        mine = self._sum
        mine.frame.check_same(part.frame)
        if mine.frame.edges is None:
            self._cells.update(part.counts)
        else:
            bins = np.fromiter(part.counts.keys(), np.int64, len(part.counts))
            self._bins[bins] += np.fromiter(part.counts.values(), np.int64, len(part.counts))
        if part.moments:
            self._moments.append(part.moments)
        self._sum = replace(
            mine,
            rows=mine.rows + part.rows,
            nulls=mine.nulls + part.nulls,
            nans=mine.nans + part.nans,
            negative_infinities=mine.negative_infinities + part.negative_infinities,
            positive_infinities=mine.positive_infinities + part.positive_infinities,
        )

    def profile(self) -> NumberProfile:
        """What the parts hold together."""
        moments = Moments.merged(self._moments) if self._moments else None
        used = np.flatnonzero(self._bins).tolist()
        counts = dict(sorted(self._cells.items()))
        counts |= zip(used, self._bins[used].tolist(), strict=True)
        return replace(self._sum, moments=moments, counts=counts)
