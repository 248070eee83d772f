"""Static int8: every layer's weights and activations in eight bits, ranges fixed beforehand.

Weights have a scale per output channel, activations one per tensor (QDQ: quantize and dequantize
around each operator, which ONNX Runtime fuses into integer kernels when it loads the graph). A
row's score depends on that row alone, so a chunk that is retried gives the same scores.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from scoring.models.built import NotBuilt
from scoring.models.quantize.graph import check, is_large, ordered, save
from scoring.models.quantize.layers import CARRIERS, Layers, layers
from scoring.models.quantize.missing import carry_missing
from scoring.models.quantize.prepare import working_copy
from scoring.models.quantize.ranges import METHODS, Feeds, Method, find_ranges, write_ranges

FLOAT_OUTPUT = frozenset({"Gemm", "MatMul"})
"""Layers for which ONNX Runtime has an integer kernel with float32 output."""


def static(
    graph: Path,
    feeds: Feeds,
    made: Path,
    method: Method,
    *,
    first_in_float: bool = False,
    seven_bits: bool = False,
) -> None:
    """Write the static int8 graph of a float32 graph.

    ``first_in_float`` leaves the layers that read the inputs as they are: columns of different
    size share one scale there, which is where most of the error comes from. ``seven_bits`` keeps
    the sum of two products within 16 bits, for CPUs that add them up there.

    Raises:
        NotBuilt: it has no layers, the calibration rows give no ranges, or the tool fails.
    """
    with working_copy(graph) as copy:
        model = onnx.load(str(copy))
        parts = layers(model)
        chosen = _chosen(parts, first_in_float)
        ranges, quantized = copy.with_name("ranges.json"), copy.with_name("quantized.onnx")
        write_ranges(find_ranges(copy, {node.op_type for node in chosen}, feeds, method), ranges)
        quantize_static(
            copy,
            quantized,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=seven_bits,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=[node.name for node in chosen],
            use_external_data_format=is_large(model),
            calibrate_method=METHODS[method],
            calibration_cache_path=ranges,
        )
        result = onnx.load(str(quantized))
        _widen_outputs(result, {node.name for node in parts.after})
        carry_missing(result, model, {node.input[0] for node in parts.first})
        save(ordered(result), made)
        check(made, graph)


def _chosen(parts: Layers, first_in_float: bool) -> list[onnx.NodeProto]:
    """The nodes to quantize."""
    if first_in_float and not parts.later:
        raise NotBuilt("all its layers read the inputs, so none is left to quantize")
    first = () if first_in_float else parts.first
    between = [node for node in parts.between if node.op_type in CARRIERS]
    return [*first, *parts.later, *between]


def _widen_outputs(model: onnx.ModelProto, after: Collection[str]) -> None:
    """Let the last layers give float32: drop a rounding that only what comes after would see."""
    nodes = model.graph.node
    maker = {name: node for node in nodes for name in node.output}
    for dequantize in [node for node in nodes if node.op_type == "DequantizeLinear"]:
        quantize = maker.get(dequantize.input[0])
        layer = maker.get(quantize.input[0]) if quantize else None
        readers = [node for node in nodes if dequantize.output[0] in node.input]
        if (
            layer
            and layer.op_type in FLOAT_OUTPUT
            and all(reader.name in after for reader in readers)
        ):
            layer.output[0] = dequantize.output[0]
            nodes.remove(quantize)
            nodes.remove(dequantize)
