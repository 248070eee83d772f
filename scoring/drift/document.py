"""Column profiles as JSON: sparse counts, every float back to the last bit.

JSON has no infinity, so those are written as strings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scoring.drift.columns import CategoryProfile, NumberProfile
from scoring.drift.frame import ColumnFrame
from scoring.drift.moments import Moments

__all__ = ["column_from_document", "column_to_document"]

_MOMENTS = ("mean", "m2", "minimum", "maximum")


def column_to_document(column: NumberProfile | CategoryProfile) -> dict[str, Any]:
    """A column's profile as JSON values."""
    frame = column.frame
    document: dict[str, Any] = {
        "name": frame.name,
        "role": frame.role,
        "kind": frame.kind,
        "rows": column.rows,
        "nulls": column.nulls,
        "bins": list(column.counts.keys()),
        "counts": list(column.counts.values()),
    }
    if isinstance(column, CategoryProfile):
        return document | {"categories": frame.categories, "other": column.other}
    return document | {
        "unit": frame.unit,
        "edges": None if frame.edges is None else [_write(edge) for edge in frame.edges],
        "origin": _write(frame.origin),
        "nans": column.nans,
        "infinities": [column.negative_infinities, column.positive_infinities],
        "moments": _moments_to_document(column.moments),
    }


def column_from_document(document: Mapping[str, Any]) -> NumberProfile | CategoryProfile:
    """Read `column_to_document`'s values."""
    what = {key: document[key] for key in ("name", "role", "kind")}
    counts = dict(zip(document["bins"], document["counts"], strict=True))
    if document["kind"] == "category":
        categories = _tuple(document["categories"])
        return CategoryProfile(
            frame=ColumnFrame(**what, categories=categories),
            rows=document["rows"],
            nulls=document["nulls"],
            counts=counts,
            other=document["other"],
        )
    edges = _tuple(document["edges"])
    return NumberProfile(
        frame=ColumnFrame(
            **what,
            unit=document["unit"],
            edges=None if edges is None else tuple(float(edge) for edge in edges),
            origin=float(document["origin"]),
        ),
        rows=document["rows"],
        nulls=document["nulls"],
        nans=document["nans"],
        negative_infinities=document["infinities"][0],
        positive_infinities=document["infinities"][1],
        moments=_moments_from_document(document["moments"]),
        counts=counts,
    )


def _moments_to_document(moments: Moments | None) -> dict[str, Any] | None:
    if moments is None:
        return None
    return {"count": moments.count} | {name: _write(getattr(moments, name)) for name in _MOMENTS}


def _moments_from_document(document: Mapping[str, Any] | None) -> Moments | None:
    if document is None:
        return None
    return Moments(count=document["count"], **{name: float(document[name]) for name in _MOMENTS})


def _write(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)
