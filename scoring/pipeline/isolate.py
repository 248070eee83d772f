"""Predict, and when the model raises or stops find the rows that make it, piece by piece.

A slab of n rows with one row that makes the model raise costs about 2 log2(n) more calls of the
model, each on half as many rows as the one before. A row that stops the model (it is in a process
of its own then, see `scoring.models.apart`) costs as many starts of that process as there are
levels, so rows are cut into many pieces there: three levels for 16,384 rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from scoring.errors import ScoringError
from scoring.models import Engine
from scoring.models.faults import ModelRaised, ModelStopped

HALVES, PIECES = 2, 128
"""Pieces that rows are cut into once the model has raised, or stopped, on them."""


@dataclass(slots=True)
class Isolated:
    """What of a slab could be scored. Row numbers count from the slab's first feature row."""

    good: list[tuple[int, int]] = field(default_factory=list)
    """Ranges of rows that were scored, in order."""
    pieces: list[dict[str, pa.Array]] = field(default_factory=list)
    """The outputs of these ranges."""
    bad: list[tuple[int, str]] = field(default_factory=list)
    """Rows on which the model raised or stopped, each with what it said."""
    short: MemoryError | None = None
    """What was raised when memory ran out, if it did."""

    @property
    def outputs(self) -> dict[str, pa.Array]:
        """One value for each good row; empty if there is none."""
        if len(self.pieces) < 2:
            return self.pieces[0] if self.pieces else {}
        return {
            name: pa.concat_arrays([piece[name] for piece in self.pieces])
            for name in self.pieces[0]
        }


def prepare(engine: Engine, features: pa.RecordBatch) -> Any:
    """The rows as the model's inputs, or ``None`` if some row of them cannot be given to it.

    `predict` finds that row; a reader that prepares ahead only goes on to the next slab.

    Raises:
        ScoringError: the model itself is at fault, not a row.
    """
    if features.num_rows == 0:
        return None
    try:
        return engine.prepare(features)
    except (ScoringError, MemoryError):
        raise
    except Exception:
        return None


def predict(engine: Engine, features: pa.RecordBatch, prepared: Any, room: int) -> Isolated:
    """Score the rows that can be scored; ``prepared`` is what `prepare` made of them.

    The search ends once more than ``room`` rows are bad: the run has failed then.

    Raises:
        ScoringError: the model itself is at fault, not a row.
        MemoryError: no row fits, so it is the machine that is short of memory.
    """
    found = Isolated()
    _predict(engine, features, prepared, 0, room, found)
    if found.short is not None and not found.good:
        raise found.short
    return found


def _predict(
    engine: Engine, features: pa.RecordBatch, prepared: Any, start: int, room: int, found: Isolated
) -> None:
    rows = features.num_rows
    if rows == 0 or len(found.bad) > room:
        return
    usual = engine.batch_rows
    try:
        outputs = engine.predict(engine.prepare(features) if prepared is None else prepared)
    except ScoringError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError):  # of one row: it says nothing about the batches
            engine.resize(usual)
            found.short = error
        if rows == 1:
            found.bad.append((start, _reason(error)))
            return
        size = -(-rows // (PIECES if isinstance(error, ModelStopped) else HALVES))
        for first in range(0, rows, size):
            piece = features.slice(first, size)
            _predict(engine, piece, None, start + first, room, found)
    else:
        found.good.append((start, start + rows))
        found.pieces.append(outputs)


def _reason(error: Exception) -> str:
    return str(error if isinstance(error, ModelStopped) else ModelRaised.of(error))
