"""Column profiles as JSON: sparse counts, every float back to the last bit.

JSON has no infinity, so those are written as strings. A column counted in the bins of a reference
may leave its frame out: the chunks of a run share one, and reading its edges from each of them
would take longer than adding them up.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scoring.drift.profile.checks import (
    check_counts,
    check_frame,
    check_moments,
    check_names,
    check_sum,
)
from scoring.drift.profile.columns import CategoryProfile, Column, NumberProfile
from scoring.drift.profile.frame import ColumnFrame, Role
from scoring.drift.profile.moments import Moments

__all__ = ["Known", "read_columns", "write_columns"]

_VERSION = 2
_READABLE = (1, 2)
_MOMENTS = ("mean", "m2", "minimum", "maximum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The frames of a reference, which a document of a chunk leaves out."""

    frames: Mapping[tuple[Role, str], ColumnFrame]
    """By role and name."""
    id: str | None
    """Of the reference; None: there is none, and documents are whole."""


def write_columns(columns: Sequence[Column], skipped: Sequence[str], known: Known) -> str:
    """Columns as a JSON document, those counted in `known` frames without them."""
    document = {
        "version": _VERSION,
        "reference": known.id,
        "columns": [_column_to_document(column, known) for column in columns],
        "skipped": skipped,
    }
    return json.dumps(document, allow_nan=False, separators=(",", ":"))


def read_columns(text: str, known: Known) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """Columns and skipped names of a document.

    Raises:
        ValueError: it is no profile, does not add up, is of a later version, or left the frames of
            another reference out.
    """
    try:
        return _from_document(json.loads(text), known)
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"this is no profile ({type(error).__name__}: {error})") from error


def _from_document(
    document: Mapping[str, Any], known: Known
) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    version, reference = document.get("version"), document.get("reference")
    if version not in _READABLE:
        raise ValueError(
            f"this profile has version {version!r}, this release reads "
            f"{' and '.join(map(str, _READABLE))}: make it again with `scoring models profile`"
        )
    if reference not in (None, known.id):
        raise ValueError(
            f"this profile of a chunk was counted in the bins of reference {reference} and can be "
            f"read only with that, not with {known.id or 'none'}"
        )
    columns = tuple(_checked_column(column, known) for column in document["columns"])
    places = Counter((column.frame.role, column.frame.name) for column in columns)
    twice = [name for (_, name), times in places.items() if times > 1]
    if twice:
        raise ValueError(f"this is no profile (column {twice[0]!r} is in it twice)")
    check_names(document["skipped"])
    return columns, tuple(document["skipped"])


def _checked_column(document: Mapping[str, Any], known: Known) -> Column:
    try:
        return _column_from_document(document, known)
    except ValueError as error:
        raise ValueError(f"this is no profile (column {document['name']!r}: {error})") from error


def _column_to_document(column: Column, known: Known) -> dict[str, Any]:
    frame = column.frame
    document: dict[str, Any] = {
        "name": frame.name,
        "role": frame.role,
        "kind": frame.kind,
        "rows": column.rows,
        "nulls": column.nulls,
        "bins": _bins_to_document(list(column.counts.keys())),
        "counts": list(column.counts.values()),
    }
    if known.frames.get((frame.role, frame.name)) != frame:
        document |= _frame_to_document(frame)
    if isinstance(column, CategoryProfile):
        return document | {"other": column.other}
    return document | {
        "nans": column.nans,
        "infinities": [column.negative_infinities, column.positive_infinities],
        "moments": _moments_to_document(column.moments),
    }


def _column_from_document(document: Mapping[str, Any], known: Known) -> Column:
    framed = "edges" in document or "categories" in document
    frame = (
        _frame_from_document(document)
        if framed
        else known.frames[document["role"], document["name"]]
    )
    if document["kind"] != frame.kind:
        raise ValueError(f"it is counted as {document['kind']!r}, but framed as {frame.kind!r}")
    counts = _counts_from_document(document, frame)
    rows, nulls, counted = document["rows"], document["nulls"], sum(counts.values())
    if frame.kind == "category":
        check_sum(rows, [nulls, document["other"], counted])
        return CategoryProfile(
            frame=frame, rows=rows, nulls=nulls, counts=counts, other=document["other"]
        )
    lowest, highest = document["infinities"]
    moments = _moments_from_document(document["moments"])
    check_sum(rows, [nulls, document["nans"], lowest, highest, counted])
    check_moments(moments, counted)
    return NumberProfile(
        frame=frame,
        rows=rows,
        nulls=nulls,
        nans=document["nans"],
        negative_infinities=lowest,
        positive_infinities=highest,
        moments=moments,
        counts=counts,
    )


def _counts_from_document(document: Mapping[str, Any], frame: ColumnFrame) -> dict[Any, int]:
    bins, counts = document["bins"], document["counts"]
    if isinstance(bins, int):
        bins = range(bins, bins + len(counts))
    check_counts(frame, bins, counts)
    return dict(zip(bins, counts, strict=True))


def _frame_to_document(frame: ColumnFrame) -> dict[str, Any]:
    if frame.kind == "category":
        return {
            "aspect": frame.aspect,
            "categories": frame.categories,
            "free_text": frame.free_text,
        }
    return {
        "aspect": frame.aspect,
        "unit": frame.unit,
        "edges": None if frame.edges is None else [_write(edge) for edge in frame.edges],
        "origin": _write(frame.origin),
    }


def _frame_from_document(document: Mapping[str, Any]) -> ColumnFrame:
    frame = _unchecked_frame(document)
    check_frame(frame)
    return frame


def _unchecked_frame(document: Mapping[str, Any]) -> ColumnFrame:
    """Version 1 knew neither derived elements nor free text."""
    what = {key: document[key] for key in ("name", "role", "kind")}
    what["aspect"] = document.get("aspect", "")
    if document["kind"] == "category":
        categories = document["categories"]
        return ColumnFrame(
            **what,
            categories=None if categories is None else tuple(categories),
            free_text=document.get("free_text", False),
        )
    edges = document["edges"]
    return ColumnFrame(
        **what,
        unit=document["unit"],
        edges=None if edges is None else tuple(map(float, edges)),
        origin=float(document["origin"]),
    )


def _bins_to_document(bins: list[Any]) -> list[Any] | int:
    """The bins, or the first of them where they are numbers that follow one another."""
    first = bins[0] if bins else ""
    if isinstance(first, int) and bins == list(range(first, first + len(bins))):
        return first
    return bins


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
