"""Graph: an ONNX file as it is read, told, written and checked."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
from onnxruntime.quantization.onnx_model import ONNXModel

from scoring.models.built import NotBuilt

LARGEST_FILE = 2**31 - 2**20
"""Bytes of weights in one file: protobuf ends at 2 GiB, and the nodes need some of it."""
QUANTIZED = ("DynamicQuantize", "MatMulBnb4", "MatMulNBits", "QAttention", "QGemm", "QLinear")
QUANTIZED_ENDS = ("DequantizeLinear", "Integer", "IntegerToFloat", "QuantizeLinear")


def is_quantized(graph: Path) -> bool:
    """Whether a graph computes in integers already, as one does that was trained to be quantized.

    Such a graph is left as it is: its own scales are better than any that calibration finds.
    """
    model = onnx.load(str(graph), load_external_data=False)
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    return any(
        node.op_type.startswith(QUANTIZED) or node.op_type.endswith(QUANTIZED_ENDS)
        for node in nodes
    )


def is_large(model: onnx.ModelProto, largest: int = LARGEST_FILE) -> bool:
    """Whether a model's weights do not fit into one file."""
    return sum(len(weight.raw_data) for weight in model.graph.initializer) > largest


def save(model: onnx.ModelProto, made: Path, largest: int = LARGEST_FILE) -> None:
    """Write a model into one file, or its weights beside it where one file cannot hold them.

    In the second case they have left the model's memory afterwards.
    """
    weights = made.with_name(f"{made.name}.data")
    weights.unlink(missing_ok=True)  # onnx would append to it
    onnx.save(
        model,
        str(made),
        save_as_external_data=is_large(model, largest),
        location=weights.name,
    )


def ordered(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its nodes in the order of execution, each once.

    Tools append what they add, and the float16 converter repeats a cast that several nodes need.
    """
    once = {tuple(node.output): node for node in model.graph.node}
    del model.graph.node[:]
    model.graph.node.extend(once.values())
    sorted_ = ONNXModel(model)
    sorted_.topological_sort()
    return sorted_.model


def check(made: Path, graph: Path) -> None:
    """Load what was made.

    Raises:
        NotBuilt: its inputs and outputs are not the original's.
        Exception: ONNX Runtime does not take it.
    """
    found, wanted = _ports(made), _ports(graph)
    if found != wanted:
        raise NotBuilt(f"its inputs and outputs became {found}, and were {wanted}")


def session(graph: Path) -> onnxruntime.InferenceSession:
    """Load a graph as it stands, to be asked about itself."""
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(graph), settings, providers=["CPUExecutionProvider"])


def _ports(graph: Path) -> list[tuple[str, str]]:
    loaded = session(graph)
    return [(port.name, port.type) for port in (*loaded.get_inputs(), *loaded.get_outputs())]
