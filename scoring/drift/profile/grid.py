"""The open grid: bins for a number of which nothing is known yet.

A value's cell is the top 16 bits of ``float32(value - origin)``: sign, exponent and seven bits
of mantissa, so a cell is never wider than 1/128 of its distance from the origin. The grid does
not depend on the data, so chunks counted apart add up exactly, and quantile edges can be chosen
later among the cells' own boundaries without counting again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CELLS", "cell_starts", "cells", "raw_cells"]

CELLS = 65_536
_LOWEST = np.iinfo(np.int64).min


def raw_cells(values: NDArray[Any], origin: float) -> NDArray[np.intp]:
    """The 16 bits of each value, fit for ``numpy.bincount``; `cells` puts them in order."""
    with np.errstate(over="ignore"):
        near = np.subtract(values, origin, dtype=np.float64).astype(np.float32)
    near += np.float32(0.0)  # -0.0 equals 0.0, so it must share its cell
    keys: NDArray[np.intp] = (near.view(np.uint32) >> 16).astype(np.intp)
    return keys


def cells(raw: NDArray[np.intp]) -> NDArray[np.intp]:
    """Number the cells so that a greater value never has a smaller number."""
    return np.where(raw < 0x8000, raw + 0x8000, 0xFFFF - raw)


def cell_starts(wanted: NDArray[np.intp], origin: float) -> NDArray[np.float64]:
    """The smallest float64 that lies in each wanted cell or above it, infinity if none does.

    Bisects over the float64 line with the counting function itself, so that rounding, here and
    there, cannot disagree: ``value >= cell_starts(c)`` exactly when its cell is `c` or above.
    """
    ends = np.array([-np.inf, np.inf]).view(np.int64)
    low = np.full(len(wanted), _LOWEST - ends[0])
    high = np.full(len(wanted), ends[1])
    for _ in range(64):
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        reached = cells(raw_cells(_float_at(middle), origin)) >= wanted
        high = np.where(reached, middle, high)
        low = np.where(reached, low, middle)
    return _float_at(high)


def _float_at(place: NDArray[np.int64]) -> NDArray[np.float64]:
    """The float64 at a place on the line of all floats, counted from 0.0 in both directions."""
    return np.where(place >= 0, place, _LOWEST - place).view(np.float64)
