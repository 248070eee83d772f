"""The products of a transformer's activations with constant weights, and what flows into them.

They are where the time goes, and what int8 replaces; products of two activations (attention) stay
as they are. Activations are measured one text at a time, so that padding is no part of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """``activation @ weights``, and the bias that is added to it, if one is."""

    node: onnx.NodeProto
    activation: str
    weights: Floats
    """[inputs, outputs]"""
    bias: Floats | None
    """[outputs]"""
    add: onnx.NodeProto | None
    """The node that adds the bias."""

    @property
    def output(self) -> str:
        """What the rest of the graph reads, bias included."""
        return str((self.add or self.node).output[0])


@dataclass(frozen=True, slots=True)
class Range:
    """The smallest and the largest value of each channel of an activation: [channels]."""

    low: Floats
    high: Floats

    def joined(self, other: Range) -> Range:
        return Range(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    @property
    def size(self) -> Floats:
        """The largest absolute value of each channel."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


def products(graph: onnx.GraphProto) -> list[Product]:
    """Every product of an activation with constant weights [inputs, outputs]."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = []
    for node in graph.node:
        weights = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if weights is None or len(weights.dims) != 2 or node.input[0] in constants:
            continue
        add, bias = _bias(node, readers, constants)
        found.append(
            Product(
                node=node,
                activation=node.input[0],
                weights=numpy_helper.to_array(weights),
                bias=None if bias is None else numpy_helper.to_array(bias),
                add=add,
            )
        )
    return found


def _bias(
    product: onnx.NodeProto,
    readers: Mapping[str, list[onnx.NodeProto]],
    constants: Mapping[str, onnx.TensorProto],
) -> tuple[onnx.NodeProto | None, onnx.TensorProto | None]:
    following = readers.get(product.output[0], [])
    if len(following) == 1 and following[0].op_type == "Add":
        for name in following[0].input:
            if name in constants and len(constants[name].dims) == 1:
                return following[0], constants[name]
    return None, None


def measure(
    graph: Path, activations: Iterable[str], rows: Iterable[Mapping[str, npt.NDArray[np.int64]]]
) -> dict[str, Range]:
    """The range of each channel of some activations over rows that are not padded."""
    model = onnx.load(str(graph))
    names = list(dict.fromkeys(activations))
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    found: dict[str, Range] = {}
    for inputs in rows:
        for name, values in zip(names, session.run(names, dict(inputs)), strict=True):
            channels = values.reshape(-1, values.shape[-1])
            seen = Range(channels.min(axis=0), channels.max(axis=0))
            found[name] = found[name].joined(seen) if name in found else seen
    return found
