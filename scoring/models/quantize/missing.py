"""Missing values: a row that float32 cannot score must not get a score in integers.

A NaN that reaches a layer makes every output of its row NaN in float32. Rounded to eight bits it
is a number like any other, and the row would get a score that nobody can tell from a real one. So
a quantized graph adds to each output a zero per row, which is NaN where a layer was given a value
that is not finite.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from scoring.models.built import NotBuilt
from scoring.models.quantize.layers import FLOATS, LAYERS, computed_from
from scoring.models.quantize.prepare import ROW

MISSING = "nightscore_missing"
"""Prefix of the names that are added to the graph."""
KNOWN_ROWS = re.compile(rf"{ROW}$|unk__\d+$|$")
"""Names of an axis that can be the row's: its own, or one that ONNX Runtime could not infer."""
PASSES = frozenset(
    {
        *("Add", "BatchNormalization", "Cast", "Concat", "Div", "Flatten", "Identity", "Mul"),
        *("Reshape", "Scaler", "Squeeze", "Sub", "Transpose", "Unsqueeze"),
    }
)
"""Operators that give NaN for NaN; what they do to the order of axes need not be followed then."""


def carry_missing(
    quantized: onnx.ModelProto, prepared: onnx.ModelProto, given: Iterable[str]
) -> None:
    """Add the guard to a quantized graph; it costs a sum over what the layers are given.

    ``prepared`` is the graph before, whose shapes and order are known; ``given`` are the tensors
    of shape [row, ...] that its first layers read.

    Raises:
        NotBuilt: an output has no row axis that matches theirs, so it could not be told.
    """
    nodes = prepared.graph.node
    inputs = {item.name for item in prepared.graph.input if _is_float(item)}
    exposed = sorted(_sources(nodes, given) & (computed_from(nodes, inputs) | inputs))
    outputs = [item for item in prepared.graph.output if _is_float(item)]
    scored = computed_from(nodes, exposed)
    if not exposed:
        return
    row = _row_missing(quantized, exposed)
    known = {item.name: item for item in (*prepared.graph.value_info, *prepared.graph.input)}
    for output in (item for item in outputs if item.name in scored):
        for item in (output, *map(known.get, exposed)):
            _check_rows(item, output.name)
        _add(quantized, output, row)


def _sources(nodes: Sequence[onnx.NodeProto], given: Iterable[str]) -> set[str]:
    """From where a missing value comes to these tensors without a node that could replace it."""
    found = set(given)
    for node in reversed(nodes):
        if node.op_type in PASSES and found.intersection(node.output):
            found.difference_update(node.output)
            found.update(node.input)
    return found


def _row_missing(model: onnx.ModelProto, given: Iterable[str]) -> str:
    """Add the nodes for a tensor of shape [row]: 0, or NaN where a value is not finite."""
    _weight(model, f"{MISSING}_axis", [1])
    sums = []
    for index, name in enumerate(given):
        flat, total = f"{MISSING}_flat_{index}", f"{MISSING}_sum_{index}"
        _node(model, "Flatten", [name], flat, axis=1)
        _node(model, "ReduceSum", [flat, f"{MISSING}_axis"], total, keepdims=0)
        sums.append(total)
    _node(model, "Sum", sums, f"{MISSING}_sum")
    _node(model, "Sub", [f"{MISSING}_sum", f"{MISSING}_sum"], MISSING)
    return MISSING


def _add(model: onnx.ModelProto, output: onnx.ValueInfoProto, row: str) -> None:
    """Add a tensor of shape [row] to an output of shape [row, ...]."""
    rank = len(output.type.tensor_type.shape.dim)
    if rank > 1:
        axes, shaped = f"{MISSING}_axes_{rank}", f"{output.name}_{MISSING}"
        _weight(model, axes, range(1, rank))
        _node(model, "Unsqueeze", [row, axes], shaped)
        row = shaped
    scored = f"{output.name}_scored"
    for node in model.graph.node:
        if output.name in node.output:
            node.output[list(node.output).index(output.name)] = scored
        if output.name in node.input and node.op_type in LAYERS:  # its product stays in integers
            node.input[list(node.input).index(output.name)] = scored
    _node(model, "Add", [scored, row], output.name)


def _check_rows(item: onnx.ValueInfoProto | None, output: str) -> None:
    """Whether the first axis of a tensor is the row's, as far as the graph says."""
    axes = item.type.tensor_type.shape.dim if item is not None else []
    first = axes[0] if axes else None
    if first is None or first.HasField("dim_value") or not KNOWN_ROWS.match(first.dim_param):
        raise NotBuilt(
            f"a missing value in its inputs could not be carried to its output {output}, because "
            "it does not say that both have one row after another"
        )


def _is_float(item: onnx.ValueInfoProto) -> bool:
    return item.type.tensor_type.elem_type in FLOATS


def _node(
    model: onnx.ModelProto, operator: str, inputs: list[str], output: str, **attributes: int
) -> None:
    model.graph.node.append(helper.make_node(operator, inputs, [output], name=output, **attributes))


def _weight(model: onnx.ModelProto, name: str, values: Iterable[int]) -> None:
    if name not in {item.name for item in model.graph.initializer}:
        model.graph.initializer.append(
            numpy_helper.from_array(np.array(list(values), np.int64), name)
        )
