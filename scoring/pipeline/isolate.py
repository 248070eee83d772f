"""Predict, and when the model raises find the rows that make it, by halves.

A slab of n rows with one bad row costs about 2 log2(n) more calls of the model, each on half as
many rows as the one before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from scoring.errors import ScoringError
from scoring.models import Engine


@dataclass(slots=True)
class Isolated:
    """What of a slab could be scored. Row numbers count from the slab's first feature row."""

    good: list[tuple[int, int]] = field(default_factory=list)
    """Ranges of rows that were scored, in order."""
    pieces: list[dict[str, pa.Array]] = field(default_factory=list)
    """The outputs of these ranges."""
    bad: list[tuple[int, str]] = field(default_factory=list)
    """Rows on which the model raised, each with what it said."""

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
        MemoryError: one row alone does not fit.
    """
    found = Isolated()
    _predict(engine, features, prepared, 0, room, found)
    return found


def _predict(
    engine: Engine, features: pa.RecordBatch, prepared: Any, start: int, room: int, found: Isolated
) -> None:
    rows = features.num_rows
    if rows == 0 or len(found.bad) > room:
        return
    try:
        outputs = engine.predict(engine.prepare(features) if prepared is None else prepared)
    except (ScoringError, MemoryError):
        raise
    except Exception as error:
        if rows == 1:
            found.bad.append((start, _reason(error)))
            return
        half = rows // 2
        _predict(engine, features.slice(0, half), None, start, room, found)
        _predict(engine, features.slice(half), None, start + half, room, found)
    else:
        found.good.append((start, start + rows))
        found.pieces.append(outputs)


def _reason(error: Exception) -> str:
    said = (str(error).strip().splitlines() or ["without a message"])[0][:300]
    return f"the model raised {type(error).__name__}: {said}"
