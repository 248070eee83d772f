"""Half: a graph in float16, for a GPU; what comes after its last layer stays float32.

Inputs and outputs keep their types. Values beyond 65,504 become infinite, which no gate lets
through.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from scoring.models.quantize.graph import check, is_large, ordered, save
from scoring.models.quantize.layers import LAYERS, layers
from scoring.models.quantize.prepare import working_copy

KINDS = LAYERS | {"Attention", "GRU", "LSTM", "MultiHeadAttention"}


def half(graph: Path, made: Path) -> None:
    """Write the float16 graph of a float32 graph.

    Raises:
        NotBuilt: it has no layers, or the tool fails.
    """
    with working_copy(graph) as copy:
        model = onnx.load(str(copy))
        parts = layers(model, KINDS)
        result = convert_float_to_float16(
            model,
            keep_io_types=True,
            disable_shape_infer=is_large(model),
            op_block_list=DEFAULT_OP_BLOCK_LIST,
            node_block_list=[node.name for node in parts.after],
        )
        save(ordered(result), made)
        check(made, graph)
