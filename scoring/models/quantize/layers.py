"""Which part of a graph is worth quantizing: its layers, and what stands between two of them.

A layer is a product with constant weights; there is the work. What comes before the first layer
(scaling raw columns, say) and after the last (sigmoid, softmax, labels) is cheap, and eight bits
would cost it accuracy or leave a score with 256 values, so it stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx

from scoring.models.built import NotBuilt

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
CARRIERS = frozenset(
    {
        *("Relu", "Clip", "LeakyRelu", "Sigmoid", "Add", "Mul", "Concat", "Split"),
        *("MaxPool", "AveragePool", "GlobalAveragePool"),
        *("Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"),
    }
)
"""Operators for which ONNX Runtime has integer kernels that save the way through float32."""
FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16})


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The nodes of a graph by their place."""

    first: tuple[onnx.NodeProto, ...]
    """Layers that no other layer precedes."""
    later: tuple[onnx.NodeProto, ...]
    """All other layers."""
    between: tuple[onnx.NodeProto, ...]
    """Nodes that follow a layer and lead to another."""
    after: tuple[onnx.NodeProto, ...]
    """Nodes that lead to no layer."""


def layers(model: onnx.ModelProto, kinds: Iterable[str] = LAYERS) -> Layers:
    """Sort the named nodes of a graph, which come in the order of their execution.

    ``kinds`` are the operators that count as layers if their second input is constant.

    Raises:
        NotBuilt: it has no layer.
    """
    nodes = model.graph.node
    weights = {item.name for item in model.graph.initializer if item.data_type in FLOATS}
    found = [
        node for node in nodes if node.op_type in kinds and weights.intersection(node.input[1:2])
    ]
    if not found:
        made_of = ", ".join(sorted({node.op_type for node in nodes})[:8])
        raise NotBuilt(
            f"it has no layer with constant weights ({', '.join(sorted(kinds))}), so there is "
            f"nothing to quantize; it is made of {made_of}"
        )
    names = {node.name for node in found}
    outputs = [output for node in found for output in node.output]
    behind = computed_from(nodes, outputs)
    ahead = needed_for(nodes, [name for node in found for name in node.input])
    follows = {node.name for node in nodes if behind.intersection(node.output)}
    leads = {node.name for node in nodes if ahead.intersection(node.output)}
    return Layers(
        first=tuple(node for node in found if node.name not in follows),
        later=tuple(node for node in found if node.name in follows),
        between=tuple(node for node in nodes if node.name in (follows & leads) - names),
        after=tuple(node for node in nodes if node.name not in leads | names),
    )


def computed_from(nodes: Sequence[onnx.NodeProto], tensors: Iterable[str]) -> set[str]:
    """The tensors that are computed from any of these, directly or not."""
    reached, found = set(tensors), set[str]()
    for node in nodes:
        if reached.intersection(filter(None, node.input)):  # an input left out has no name
            reached.update(node.output)
            found.update(node.output)
    return found


def needed_for(nodes: Sequence[onnx.NodeProto], tensors: Iterable[str]) -> set[str]:
    """These tensors and all that they are computed from."""
    found = set(tensors)
    for node in reversed(nodes):
        if found.intersection(filter(None, node.output)):
            found.update(node.input)
    return found
