"""Batch size: how many rows one call of the model takes.

Measured on CPUs with 2 MiB of cache a core: matrix networks are fastest while a batch's
activations stay in cache (256 rows), tree ensembles once the call's fixed cost is spread
(8,192 rows), pandas models when a frame's fixed cost is (16,384 rows).
"""

from __future__ import annotations

from collections.abc import Iterable

NETWORK_ROWS = 256
TREES_ROWS = 8_192
FRAME_ROWS = 16_384
TREE_OPERATORS = frozenset({"TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble"})


def batch_rows(operators: Iterable[str]) -> int:
    """Rows per call for an ONNX graph of these operators."""
    return TREES_ROWS if TREE_OPERATORS.intersection(operators) else NETWORK_ROWS
