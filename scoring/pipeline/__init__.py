"""One chunk: read -> validate -> predict -> write, every row folded into its profile on the way."""

from scoring.pipeline.attempt import score_chunk
from scoring.pipeline.work import (
    ChunkWork,
    Scored,
    by_name,
    expected_column,
    expected_columns,
    feature_kinds,
)

__all__ = [
    "ChunkWork",
    "Scored",
    "by_name",
    "expected_column",
    "expected_columns",
    "feature_kinds",
    "score_chunk",
]
