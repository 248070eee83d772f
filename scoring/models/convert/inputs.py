"""What a graph takes: one matrix of all columns, or a tensor for each.

The engine that runs the graph follows its inputs: it stacks the table's columns into a single
input, or feeds each one by name.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from scoring.models.built import NotBuilt
from scoring.models.signature import Field

MATRIX = "rows"
"""Name of the one input [rows, columns]."""


def is_number(field: Field) -> bool:
    """Whether a column or tensor holds numbers or booleans."""
    kind = field.type
    return bool(
        pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    )


def is_matrix(features: Sequence[Field]) -> bool:
    """Whether the features are one tensor that holds whole rows."""
    return len(features) == 1 and features[0].shape is not None


def matrix_shape(features: Sequence[Field]) -> list[int | None]:
    """Shape of the one input, its first axis open.

    Raises:
        NotBuilt: a feature is not a number.
    """
    for field in features:
        if not is_number(field):
            raise NotBuilt(f"its input {field.name} is of type {field.type}")
    if not is_matrix(features):
        return [None, len(features)]
    width = features[0].width
    return [None, width if width > 0 else None]
