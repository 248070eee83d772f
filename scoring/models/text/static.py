"""Static int8 for the constant products of a transformer, with activations smoothed first.

A few channels of a transformer's activations are ten times larger than the others, and one scale
for all of them leaves the others few of the 256 steps. Smoothing moves part of that size into the
weights, where every output has a scale of its own: channel j of the activation is divided, and row
j of the weights multiplied, by ``max|X_j|**alpha / max|W_j|**(1 - alpha)`` (Xiao et al.,
"SmoothQuant", ICML 2023, equation 4).

Scales are constants, so a row's score does not depend on the rows it shares a batch with; that is
what dynamic quantization, which takes its scales from the whole batch, gets wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from scoring.models.text.products import Floats, Product, Range, products

SMALLEST = 1e-5
"""Sizes of channels and weights below this count as this."""
MICROSOFT = "com.microsoft"
"""Domain of the operators that only ONNX Runtime has."""


def quantized(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    alpha: float | None,
    *,
    seven_bits: bool = False,
) -> onnx.ModelProto:
    """The model with its constant products in int8; the same object, changed.

    ``alpha``, 0 to 1, says how much of an activation's unevenness the weights take over; ``None``
    leaves it where it is. ``seven_bits`` is for CPUs that add two products up in 16 bits.
    """
    shared: dict[str, list[Product]] = {}
    for product in products(model.graph):
        shared.setdefault(product.activation, []).append(product)
    replaced: dict[str, list[onnx.NodeProto]] = {}
    for activation, group in shared.items():
        writer = _Writer(model.graph, activation, steps=63 if seven_bits else 127)
        replaced[group[0].node.output[0]] = writer.written(group, ranges[activation], alpha)
    _replace(model.graph, replaced, [product for group in shared.values() for product in group])
    _part_residuals(model.graph)
    model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return model


class _Writer:
    """Nodes and constants that replace the products of one activation."""

    def __init__(self, graph: onnx.GraphProto, activation: str, steps: int) -> None:
        self._graph = graph
        self._activation = activation
        self._steps = steps

    def written(
        self, group: Sequence[Product], found: Range, alpha: float | None
    ) -> list[onnx.NodeProto]:
        nodes, given, smooth = [], self._activation, np.ones_like(found.low)
        if alpha is not None:
            smooth = smoothing(found.size, [product.weights for product in group], alpha)
            given = self._named("smoothed")
            factor = self._constant("smoothing", 1 / smooth)
            nodes.append(helper.make_node("Mul", [self._activation, factor], [given]))
        scale, zero = activation_scale(Range(found.low / smooth, found.high / smooth))
        steps = (self._constant("scale", scale), self._constant("zero", zero))
        whole = self._named("quantized")
        nodes.append(helper.make_node("QuantizeLinear", [given, *steps], [whole]))
        return [*nodes, *(self._product(each, smooth, whole, *steps) for each in group)]

    def _product(
        self, product: Product, smooth: Floats, whole: str, scale: str, zero: str
    ) -> onnx.NodeProto:
        weights, scales = weight_scale(product.weights * smooth[:, None], self._steps)
        own = product.node.output[0]
        inputs = [
            whole,
            self._constant(f"{own}_weights", weights),
            scale,
            self._constant(f"{own}_scales", scales),
            zero,
        ]
        if product.bias is not None:
            inputs += ["", self._constant(f"{own}_bias", product.bias)]
        return helper.make_node("MatMulIntegerToFloat", inputs, [product.output], domain=MICROSOFT)

    def _named(self, what: str) -> str:
        return f"{self._activation}_{what}"

    def _constant(self, what: str, values: npt.ArrayLike) -> str:
        name = self._named(what)
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name


def smoothing(activation: Floats, weights: Sequence[Floats], alpha: float) -> Floats:
    """What each channel is divided by: [channels], of geometric mean 1.

    ``activation`` [channels] are the largest absolute values; the weights [channels, outputs] are
    those of every product that reads the activation.
    """
    most = np.max([np.abs(each).max(axis=1) for each in weights], axis=0)
    factors = np.maximum(activation, SMALLEST) ** alpha / np.maximum(most, SMALLEST) ** (1 - alpha)
    found: Floats = (factors / np.exp(np.log(factors).mean())).astype(np.float32)
    return found


def activation_scale(found: Range) -> tuple[np.float32, np.uint8]:
    """Scale and zero point of one tensor in 256 steps; 0 is one of them exactly."""
    low, high = min(float(found.low.min()), 0.0), max(float(found.high.max()), 0.0)
    scale = max(high - low, SMALLEST) / 255
    return np.float32(scale), np.uint8(np.clip(round(-low / scale), 0, 255))


def weight_scale(weights: Floats, steps: int = 127) -> tuple[npt.NDArray[np.int8], Floats]:
    """Weights [inputs, outputs] in int8, ``steps`` on each side, a scale for each output."""
    scales = np.maximum(np.abs(weights).max(axis=0), SMALLEST**2) / steps
    whole = np.clip(np.round(weights / scales), -steps, steps)
    return whole.astype(np.int8), scales.astype(np.float32)


def _replace(
    graph: onnx.GraphProto,
    replaced: Mapping[str, Sequence[onnx.NodeProto]],
    gone: Sequence[Product],
) -> None:
    """Put the new nodes where the first product of their activation was."""
    without = {product.node.output[0] for product in gone}
    without |= {product.output for product in gone}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.output[0] in replaced:
            nodes.extend(replaced[node.output[0]])
        elif node.output[0] not in without:
            nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    read = {name for node in graph.node for name in node.input}
    constants = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    del graph.value_info[:]


def _part_residuals(graph: onnx.GraphProto) -> None:
    """Keep ONNX Runtime from fusing residual and normalisation.

    Its CPU kernel for the pair (SkipLayerNormalization) takes five times as long as the two.
    """
    normalised = {node.input[0] for node in graph.node if node.op_type == "LayerNormalization"}
    for node in graph.node:
        if node.op_type == "Add" and node.output[0] in normalised:
            node.op_type = "Sum"
