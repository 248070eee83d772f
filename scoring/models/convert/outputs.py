"""Graph surgery: make a graph's outputs those of native.

Every converter ends in one tensor that is what native returns; `fitted` takes it apart where
native's array became several columns. All of it happens inside the graph, so that the runtime
computes nothing that is thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pyarrow as pa
from onnx import TensorProto, helper, numpy_helper
from onnx.utils import Extractor

from scoring.models.built import NotBuilt


def constant(model: onnx.ModelProto, values: npt.ArrayLike) -> str:
    """The name of a new initializer."""
    array = np.asarray(values)
    name = f"nightscore_constant_{len(model.graph.initializer)}"
    if array.dtype.kind in "OUS":
        flat = [str(value).encode() for value in array.ravel()]
        tensor = helper.make_tensor(name, TensorProto.STRING, array.shape, flat)
    else:
        tensor = numpy_helper.from_array(array, name)
    model.graph.initializer.append(tensor)
    return name


def added(model: onnx.ModelProto, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
    """The name of the output of a new node at the graph's end."""
    name = f"nightscore_{operator.lower()}_{len(model.graph.node)}"
    model.graph.node.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
    return name


def column(model: onnx.ModelProto, matrix: str, index: int) -> str:
    """Column ``index`` of a matrix [rows, k], as [rows]."""
    return added(model, "Gather", [matrix, constant(model, np.int64(index))], axis=1)


def label(model: onnx.ModelProto, scores: str, classes: npt.ArrayLike) -> str:
    """The class of each row's highest score in a matrix [rows, classes], the first among equals."""
    best = added(model, "ArgMax", [scores], axis=1, keepdims=0)
    return added(model, "Gather", [constant(model, classes), best], axis=0)


def ending(
    model: onnx.ModelProto, names: Sequence[str], types: Sequence[int], widths: Sequence[int]
) -> onnx.ModelProto:
    """The graph with these tensors as outputs, and without what only its others needed.

    A width of 0 stands for shape [rows]. What exporters say about shapes inside is dropped: some
    of it is wrong, and the runtime infers it anyway.
    """
    del model.graph.output[:], model.graph.value_info[:]
    for name, kind, width in zip(names, types, widths, strict=True):
        shape = [None, width] if width else [None]
        model.graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    inputs = [item.name for item in model.graph.input]
    extracted: onnx.ModelProto = Extractor(model).extract_model(inputs, list(names))
    return extracted


def only(model: onnx.ModelProto, name: str, kind: int = 0) -> onnx.ModelProto:
    """The graph with one output, of any shape and of the type ``kind`` (default: as declared)."""
    declared = {item.name: item.type.tensor_type.elem_type for item in model.graph.output}
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(name, kind or declared[name], None))
    return model


def fitted(model: onnx.ModelProto, outputs: pa.Schema) -> onnx.ModelProto:
    """A graph with one output, ended in the columns that native's output became.

    Raises:
        NotBuilt: native gave something that one tensor of rank 2 cannot hold.
    """
    (whole,) = model.graph.output
    kind = whole.type.tensor_type.elem_type
    widths = [_width(field) for field in outputs]
    names = [whole.name]
    if len(outputs) > 1:
        if any(widths):
            raise NotBuilt("it gives several outputs, some of them lists")
        names = [column(model, whole.name, index) for index in range(len(outputs))]
    elif not widths[0]:  # exporters give a single value as [rows, 1]
        names = [added(model, "Reshape", [whole.name, constant(model, np.array([-1]))])]
    return ending(model, names, [kind] * len(names), widths)


def _width(field: pa.Field) -> int:
    if pa.types.is_fixed_size_list(field.type):
        return int(field.type.list_size)
    if pa.types.is_nested(field.type):
        raise NotBuilt(f"its output {field.name} is of type {field.type}")
    return 0


def opened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph itself, once ONNX Runtime has opened it.

    Raises:
        Exception: the runtime's own, for a graph that it cannot run.
    """
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    return model
