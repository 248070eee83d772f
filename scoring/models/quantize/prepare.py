"""Prepare: a working copy of a graph, in the one form that the quantizers understand.

They want weights that are constants, batch normalization folded in, types and shapes inferred, an
operator set that knows quantization per channel, and a folder to write into beside the graph.
Models come with little of that, and their folder is shared, so the original is never touched.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
import onnxruntime
from onnx import numpy_helper
from onnxruntime.quantization.shape_inference import quant_pre_process

from scoring.models.built import NotBuilt, first_line
from scoring.models.quantize.graph import is_large, save, session

OLDEST_OPERATOR_SET = 13
"""The first in which QuantizeLinear has a scale per channel."""
ROW = "row"
"""Name of the first axis of every input."""
KEEPS_SHAPE = frozenset({"Binarizer", "Imputer", "Normalizer", "Scaler"})
ELEMENTS = {
    "float": "float32",
    "double": "float64",
    **{name: name for name in ("float16", "bool", "int8", "uint8", "int16", "uint16")},
    **{name: name for name in ("int32", "uint32", "int64", "uint64")},
}
"""ONNX Runtime's names of element types, and NumPy's."""


@contextlib.contextmanager
def working_copy(graph: Path) -> Iterator[Path]:
    """The prepared graph, in a folder of its own that is gone afterwards.

    Raises:
        NotBuilt: it cannot be read, or be brought to an operator set that knows quantization; or
            whatever is done with the copy fails, with the first line of what the tool said.
    """
    with tempfile.TemporaryDirectory(prefix="quantize-") as scratch, _quiet():
        try:
            yield _prepared(graph, Path(scratch))
        except (NotBuilt, MemoryError):
            raise
        except Exception as error:  # the tools raise whatever they like, and any of it means no
            raise NotBuilt(f"{type(error).__name__}: {first_line(error)}") from error


def _prepared(graph: Path, scratch: Path) -> Path:
    source, prepared = scratch / "source.onnx", scratch / "prepared.onnx"
    model = _current(_constant(onnx.load(str(graph))))
    _keep_shapes(model)
    large = is_large(model)
    save(model, source)
    quant_pre_process(
        str(source),
        str(prepared),
        skip_symbolic_shape=True,  # it gives up on operators that it does not know
        save_as_external_data=large,
        all_tensors_to_one_file=large,
    )
    model = onnx.load(str(prepared))
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"  # layers are chosen by name, and many have none
    _spread_biases(model)
    _infer(model, scratch / "probe.onnx")
    save(model, prepared)
    return prepared


def _constant(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with local functions written out and weights that no caller can replace."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 7)  # before 4, every weight had to be an input
    for axes in (item.type.tensor_type.shape.dim for item in model.graph.input):
        if axes and not axes[0].HasField("dim_value"):
            axes[0].dim_param = ROW  # exporters give the same axis of two inputs two names
    return model


def _current(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in an operator set that knows quantization per channel."""
    versions = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    version = max(versions, default=OLDEST_OPERATOR_SET)
    if version >= OLDEST_OPERATOR_SET:
        return model
    try:
        return onnx.version_converter.convert_version(model, OLDEST_OPERATOR_SET)
    except Exception as error:
        raise NotBuilt(
            f"it is in operator set {version}, and cannot be brought to {OLDEST_OPERATOR_SET}: "
            f"{first_line(error)}"
        ) from error


def _keep_shapes(model: onnx.ModelProto) -> None:
    """Write down the shapes after operators of ai.onnx.ml, which infer none by themselves.

    Without them nothing knows that a product is one of matrices, and no bias is merged into it.
    """
    known = {item.name: item for item in model.graph.input}
    for node in model.graph.node:
        if node.op_type in KEEPS_SHAPE and node.input[0] in known:
            after = model.graph.value_info.add()
            after.CopyFrom(known[node.input[0]])
            after.name = node.output[0]
            after.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
            known[after.name] = after


def _spread_biases(model: onnx.ModelProto) -> None:
    """Give each Gemm a bias of shape [column], where it has one that is broadcast to that.

    The quantizer reads a bias per column, and fails on the [1, column] of scikit-learn's graphs.
    """
    weights = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Gemm" or len(node.input) < 3 or node.input[1] not in weights:
            continue
        transposed = any(item.name == "transB" and item.i for item in node.attribute)
        columns = weights[node.input[1]].dims[0 if transposed else 1]
        bias = weights.get(node.input[2])
        if bias is None or bias.dims == [columns]:
            continue
        values = numpy_helper.to_array(bias)
        if values.size in (1, columns):
            spread = np.broadcast_to(values.reshape(-1), (columns,)).copy()
            node.input[2] = f"{node.name}_bias"
            model.graph.initializer.append(numpy_helper.from_array(spread, node.input[2]))


def _infer(model: onnx.ModelProto, probe: Path) -> None:
    """Write down the type and shape of every tensor, as ONNX Runtime infers them.

    It knows all operators that it runs, which onnx does not; a tensor of unknown type would not be
    quantized.
    """
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    del asked.graph.output[:]
    for name in (name for node in model.graph.node for name in node.output if name):
        asked.graph.output.add().name = name
    save(asked, probe)
    found = {port.name: port for port in session(probe).get_outputs()}
    outputs = {item.name: item for item in model.graph.output}
    del model.graph.value_info[:]
    for name, port in found.items():
        element = ELEMENTS.get(port.type.removeprefix("tensor(").removesuffix(")"))
        if element is None or (name in outputs and not port.shape):
            continue
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(element))
        told = onnx.helper.make_tensor_value_info(name, kind, port.shape)
        if name in outputs:
            outputs[name].CopyFrom(told)
        else:
            model.graph.value_info.append(told)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tools' own prints and warnings away from whoever reads this process.

    What they say that matters, they raise.
    """
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    onnxruntime.set_default_logger_severity(4)
    try:
        with (
            open(os.devnull, "w", encoding="utf-8") as nowhere,
            contextlib.redirect_stdout(nowhere),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        onnxruntime.set_default_logger_severity(2)
        logging.disable(before)
