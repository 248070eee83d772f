"""What an attempt at a chunk is given, what it gives back, and what passes between its threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as with_default
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from scoring.data.place import Frozen
from scoring.data.source import NO_STORES
from scoring.data.stores import Stores
from scoring.data.validate import Expected
from scoring.drift.profile.frame import Role
from scoring.drift.profile.profile import Profile
from scoring.models import Engine, Field
from scoring.plan import Span

Rows = npt.NDArray[np.int64]
"""Row numbers in a slab."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkWork:
    """Everything one attempt needs to know."""

    number: int
    attempt: int
    spans: Sequence[Span]
    files: Mapping[int, Frozen]
    """The manifest's lines that the spans name."""
    schema: pa.Schema
    """Columns of the input, partitions included."""
    kept: Sequence[str]
    """Key and passthrough columns, in output order."""
    staging: Path
    """Folder that the part, its profile and its quarantine are written into."""
    overflow: Path
    """Where quarantined rows go when they are too many, for a person to look at."""
    reference: Profile | None
    origins: Mapping[str, float]
    """Least value by numeric column, from the footers."""
    metadata: Mapping[str, str]
    """Written into the part: run id, model, version."""
    run_rows: int
    """Rows of the whole run."""
    error_budget: float
    """Share of them that may be quarantined."""
    budget_rows: int
    """The same in rows."""
    stores: Stores = NO_STORES
    """The object stores that the files may be in."""
    replayed: bool = False
    """Whether the input is a quarantine, whose rows say where they came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What an attempt wrote."""

    part: str
    part_digest: str
    rows_scored: int
    rows_quarantined: int
    timings: dict[str, float]
    """Seconds by step."""


@dataclass(slots=True, kw_only=True)
class Slab:
    """Some rows on their way through the threads."""

    file: str
    first_row: int
    """Number in its file of the slab's first row."""
    rows: pa.RecordBatch
    """As read."""
    features: pa.RecordBatch
    """The model's columns of the rows that fit its signature."""
    prepared: Any
    """The same as the model's inputs; ``None`` if some row cannot be given to it."""
    kept: Rows | None
    """Which rows these are; ``None``: all."""
    rejected: list[tuple[Rows, str]]
    """Rows that break the signature, by reason."""
    outputs: dict[str, pa.Array] = with_default(default_factory=dict)
    """One value for each kept row; empty while none is scored."""


def expected_columns(engine: Engine) -> tuple[Expected, ...]:
    """The engine's features as the validator wants them."""
    return tuple(
        expected_column(feature, allow_null=not feature.required and engine.accepts_null(feature))
        for feature in engine.features
    )


def expected_column(field: Field, *, allow_null: bool) -> Expected:
    """A named field of the signature as the validator wants it."""
    return Expected(
        name=str(field.name),
        type=field.type,
        width=field.width if field.shape is not None else 1,
        allow_null=allow_null,
    )


def feature_kinds(expected: Sequence[Expected]) -> list[tuple[str, Role, pa.DataType]]:
    """The features as drift frames them: with the signature's types, whatever a file holds."""
    return [
        (
            column.name,
            "feature",
            column.type if column.width == 1 else pa.list_(column.type, column.width),
        )
        for column in expected
    ]


def by_name(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """The batch's columns by name."""
    return dict(zip(batch.schema.names, batch.columns, strict=True))
