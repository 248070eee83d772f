"""The rows of a sample that a model can score at all.

A row that makes the model raise would be quarantined in a run; here it is found by halves, and left
out.
"""

from __future__ import annotations

import pyarrow as pa

from scoring.errors import ScoringError
from scoring.models.engines import Engine, score

MOST_BAD = 64
"""More such rows, and the sample is at fault, or the model."""


def scorable(engine: Engine, rows: pa.Table) -> list[int]:
    """The numbers of the rows that the model scores.

    Raises:
        Exception: what the model raised, after too many rows or if it raises on all.
    """
    bad: list[int] = []
    features = rows.combine_chunks()
    _search(engine, features, 0, bad)
    refused = set(bad)
    return [row for row in range(rows.num_rows) if row not in refused]


def _search(engine: Engine, rows: pa.Table, start: int, bad: list[int]) -> None:
    if rows.num_rows == 0:
        return
    try:
        score(engine, rows.combine_chunks().to_batches()[0])
    except (ScoringError, MemoryError):
        raise
    except Exception:
        if rows.num_rows == 1:
            bad.append(start)
            if len(bad) > MOST_BAD:
                raise
            return
        half = rows.num_rows // 2
        _search(engine, rows.slice(0, half), start, bad)
        _search(engine, rows.slice(half), start + half, bad)
