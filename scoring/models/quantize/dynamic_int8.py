"""Dynamic int8: weights in eight bits, activations rounded anew for every batch.

Needs no calibration, and suits models whose activations have no steady range. But all rows of a
batch share one scale, so a row's score moves with its neighbours, by little on a usual row and by
anything beside one with a huge value. That is for the gate to measure.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from scoring.models.quantize.graph import check, is_large, ordered, save
from scoring.models.quantize.layers import layers
from scoring.models.quantize.missing import carry_missing
from scoring.models.quantize.prepare import working_copy

KINDS = ("Gemm", "MatMul")
"""Layers with a good kernel: the one for convolutions is slower than float32, and in the one for
LSTM a missing value spreads to other rows."""


def dynamic(graph: Path, made: Path, *, seven_bits: bool = False) -> None:
    """Write the dynamic int8 graph of a float32 graph.

    Raises:
        NotBuilt: it has no layers, or the tool fails.
    """
    with working_copy(graph) as copy:
        model = onnx.load(str(copy))
        parts = layers(model, KINDS)
        quantized = copy.with_name("quantized.onnx")
        quantize_dynamic(
            copy,
            quantized,
            op_types_to_quantize=["MatMul"],  # what a Gemm becomes
            per_channel=True,
            reduce_range=seven_bits,
            weight_type=QuantType.QInt8,
            use_external_data_format=is_large(model),
        )
        result = onnx.load(str(quantized))
        carry_missing(result, model, {node.input[0] for node in parts.first})
        save(ordered(result), made)
        check(made, graph)
