"""Two sides of a column for tests of drift: profiled as a run would, or made up at any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

from scoring.drift.profile.columns import CategoryProfile, NumberProfile
from scoring.drift.profile.edges import quantile_edges
from scoring.drift.profile.frame import ColumnFrame, frames_for
from scoring.drift.profile.moments import Moments
from scoring.drift.profile.profile import Profiler, reference_from

__all__ = ["categories", "counted", "named", "normal", "numbers", "sides"]


def sides(reference: Any, current: Any, role: str = "feature") -> tuple[Any, Any]:
    """Both columns' profiles, the second counted in the bins of the first."""
    reference, current = pa.array(reference), pa.array(current)
    columns = [("x", role, reference.type)]
    framing = reference_from(lambda: [{"x": reference}], columns)
    profiler = Profiler(frames_for(framing, columns, {}))
    profiler.add({"x": current})
    return framing.column("x", role), profiler.profile().column("x", role)


def numbers(reference: np.ndarray, current: np.ndarray) -> tuple[NumberProfile, NumberProfile]:
    """The same of finite numbers, without the passes over Arrow batches: quick."""
    edges = quantile_edges(reference, 256)
    return counted(reference, edges), counted(current, edges)


def counted(values: np.ndarray, edges: tuple[float, ...]) -> NumberProfile:
    bins = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return NumberProfile(
        frame=ColumnFrame(name="x", role="feature", kind="number", edges=edges),
        rows=len(values),
        moments=Moments.of(values, values.min(), values.max()),
        counts={i: int(rows) for i, rows in enumerate(bins) if rows},
    )


def categories(reference: np.ndarray, current: np.ndarray) -> tuple[Any, Any]:
    """The same of names."""
    known, rows = np.unique(reference, return_counts=True)
    names, now = np.unique(current, return_counts=True)
    return (
        named(dict(zip(known.tolist(), rows.tolist(), strict=True)), known.tolist()),
        named(dict(zip(names.tolist(), now.tolist(), strict=True)), known.tolist()),
    )


def named(
    counts: Mapping[str, int], known: Sequence[str], nulls: int = 0, aspect: Any = ""
) -> CategoryProfile:
    frame = ColumnFrame(
        name="x", role="feature", kind="category", categories=tuple(known), aspect=aspect
    )
    rows = sum(counts.values()) + nulls
    return CategoryProfile(frame=frame, rows=rows, nulls=nulls, counts=counts)


def normal(rows: int, mean: float = 0.0, missing: float = 0.0) -> NumberProfile:
    """A standard normal column of any size without drawing it, in bins of equal mass."""
    edges = (-6.0, *stats.norm.ppf(np.arange(1, 256) / 256).tolist(), 6.0)
    found = round(rows * (1 - missing))
    below = np.rint(found * stats.norm.cdf(edges, loc=mean)).astype(int)
    bins = np.diff(below, prepend=0, append=found)
    moments = Moments(count=found, mean=mean, m2=float(found), minimum=-6.0, maximum=6.0)
    return NumberProfile(
        frame=ColumnFrame(name="x", role="feature", kind="number", edges=edges),
        rows=rows,
        nulls=rows - found,
        moments=moments if found else None,
        counts={i: int(rows) for i, rows in enumerate(bins) if rows},
    )
