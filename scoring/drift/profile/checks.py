"""What must hold of a column's profile as it is read, whoever wrote it.

A profile can come from a path that a person names, and counts that do not add up would fail the
run that is compared with it hours later, when its last chunk has been scored. So all that counting
relies on is checked where a profile is read, in a few microseconds a column; whether the rows it
tells of ever existed nobody can check.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, get_args

from scoring.drift.profile.elements import Aspect, Role
from scoring.drift.profile.frame import ColumnFrame
from scoring.drift.profile.grid import CELLS
from scoring.drift.profile.kinds import Kind, Unit
from scoring.drift.profile.moments import Moments

__all__ = ["check_counts", "check_frame", "check_moments", "check_names", "check_sum"]

MOST_ROWS = 2**53
"""Rows of a column at most: float64, in which shares are measured, holds no more exactly."""
_CELLS = 127, CELLS - 128  # of the open grid, from the least float32 to the greatest: no NaN


def check_frame(frame: ColumnFrame) -> None:
    """Raises ValueError unless it is one that `frames_for` or a reference could have made."""
    allowed: list[tuple[str, Any]] = [
        (frame.role, Role),
        (frame.kind, Kind),
        (frame.aspect, Aspect),
        (frame.unit, Unit),
    ]
    for found, kind in allowed:
        if found not in get_args(kind):
            _refuse(f"{found!r} is none of {', '.join(filter(None, get_args(kind)))}")
    check_names([frame.name, *(frame.categories or ())])
    if not isinstance(frame.free_text, bool):
        _refuse(f"free_text is {frame.free_text!r}")
    if any(map(math.isnan, [frame.origin, *(frame.edges or ())])) or math.isinf(frame.origin):
        _refuse("an edge or the origin is no number")


def check_counts(frame: ColumnFrame, bins: Sequence[Any], counts: Sequence[Any]) -> None:
    """Raises ValueError unless each of the frame's bins is counted at most once, as rows."""
    different = len(bins) if isinstance(bins, range) else len(set(bins))
    if not len(bins) == len(counts) == different:
        _refuse(f"{len(bins)} bins, {different} of them different, have {len(counts)} counts")
    _check_rows(counts)
    if frame.kind == "category":
        check_names(bins)
    elif bins:
        _check_bins(frame, bins)


def _check_bins(frame: ColumnFrame, bins: Sequence[Any]) -> None:
    first, last = _CELLS if frame.edges is None else (0, len(frame.edges))
    if isinstance(bins, range):
        bins = bins[0], bins[-1]
    if set(map(type, bins)) != {int} or not first <= min(bins) <= max(bins) <= last:
        _refuse(f"its bins are not all whole numbers from {first} to {last}")


def _check_rows(counts: Sequence[Any]) -> None:
    if set(map(type, counts)) - {int} or min(counts, default=0) < 0:
        _refuse("its counts are not all whole numbers from 0 on")
    if sum(counts) > MOST_ROWS:
        _refuse(f"it counts more than {MOST_ROWS} rows")


def check_sum(rows: int, parts: Sequence[int]) -> None:
    """Raises ValueError unless every row is counted, and once."""
    _check_rows([rows, *parts])
    if rows != sum(parts):
        _refuse(f"it has {rows} rows, but counts {sum(parts)}")


def check_moments(moments: Moments | None, values: int) -> None:
    """Raises ValueError unless these are the moments of so many finite values."""
    if moments is None:
        if values:
            _refuse(f"it has {values} finite values, but no moments")
        return
    if moments.count != values or not values:
        _refuse(f"its moments are those of {moments.count} values, not of {values}")
    low, mean, high = moments.minimum, moments.mean, moments.maximum
    if not (math.isfinite(mean) and -math.inf < low <= high < math.inf and moments.m2 >= 0):
        _refuse("its moments are no moments of finite numbers")


def check_names(names: Sequence[Any]) -> None:
    """Raises ValueError unless all are texts that can be written."""
    if set(map(type, names)) - {str}:
        _refuse("a name is no text")
    "".join(names).encode()


def _refuse(why: str) -> None:
    raise ValueError(why)
