"""A logged text model -> a folder with its whole pipeline as a float32 graph.

Invariant: the folder's tokenizer makes the very tokens that the model itself makes; this is checked
on probe texts, because prompts, lower casing and truncation live in many places.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import torch
from onnx import helper, numpy_helper

from scoring.models.built import NotBuilt
from scoring.models.signature import Field, ModelFiles
from scoring.models.text.pipeline import TextPipeline, read_pipeline
from scoring.models.text.tokens import FIELDS, TOKENIZER, Filling, TextTokenizer

PROBES = ("", "A", "  Ärger, MIXED case\tand \n space ", "naïve 東京 🙂 e-mail@example.com 3.14")
LONG_PROBE = "One sentence more than the model can read. " * 400
LARGEST_GRAPH = 2**31 - 2**20
"""Bytes of weights that one ONNX file holds."""


def convert(files: ModelFiles, features: Sequence[Field], outputs: pa.Schema, folder: Path) -> None:
    """Write the graph, the tokenizer and the filling of a text model into ``folder``.

    ``outputs`` are native's: the graph gives them by position.

    Raises:
        NotBuilt: the pipeline cannot be exported; says why.
    """
    if len(features) != 1 or not pa.types.is_string(features[0].type):
        raise NotBuilt("a text variant takes one column of strings")
    pipeline = read_pipeline(files)
    wanted = _wanted(pipeline, outputs)
    inputs = _write_tokenizer(pipeline, folder)
    _check_tokens(pipeline, folder)
    graph = _exported(pipeline, inputs)
    _select(graph.graph, pipeline, wanted)
    onnx.save(graph, folder / "model.onnx")


def _wanted(pipeline: TextPipeline, outputs: pa.Schema) -> list[str]:
    """The pipeline's outputs that are native's, in native's order."""
    if set(outputs.names) <= set(pipeline.outputs):
        return list(outputs.names)
    if len(outputs) == len(pipeline.outputs):  # the signature renames them
        return list(pipeline.outputs)
    raise NotBuilt(f"native returns {', '.join(outputs.names)}, which the pipeline does not")


def _write_tokenizer(pipeline: TextPipeline, folder: Path) -> list[str]:
    """Write the tokenizer, truncation included, and the filling; the graph's inputs."""
    tokenizer = pipeline.tokenizer
    if not getattr(tokenizer, "is_fast", False):
        raise NotBuilt("it has no fast tokenizer")
    if tokenizer.pad_token_id is None or tokenizer.padding_side != "right":
        raise NotBuilt("its tokenizer does not pad on the right")
    made = pipeline.reference("a")
    inputs = [name for name, value in made.items() if isinstance(value, torch.Tensor)]
    if "attention_mask" not in inputs or not set(inputs) <= set(FIELDS):
        raise NotBuilt(f"its tokenizer makes {', '.join(inputs)}")
    fast = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    fast.no_padding()
    fast.no_truncation()
    length = pipeline.max_length or tokenizer.model_max_length
    if pipeline.truncated and length < LARGEST_GRAPH:  # transformers says 1e30 for "any"
        fast.enable_truncation(int(length), direction=tokenizer.truncation_side)
    fast.save(str(folder / TOKENIZER))
    values = {
        "input_ids": int(tokenizer.pad_token_id),
        "token_type_ids": int(tokenizer.pad_token_type_id),
        "attention_mask": 0,
    }
    padding = {name: values[name] for name in inputs}
    Filling(prompt=pipeline.prompt, padding=padding).write(folder)
    return inputs


def _check_tokens(pipeline: TextPipeline, folder: Path) -> None:
    """Hold the written tokenizer against the model's own."""
    tokenizer = TextTokenizer(folder)
    for probe in (*PROBES, *([LONG_PROBE] if pipeline.truncated else [])):
        found = tokenizer.tokens([probe]).values
        expected = pipeline.reference(probe)
        for name, values in found.items():
            if not np.array_equal(values, expected[name][0].numpy()):
                raise NotBuilt(f"its own {name} are not those of its fast tokenizer")


def _exported(pipeline: TextPipeline, inputs: Sequence[str]) -> onnx.ModelProto:
    """The pipeline as a graph whose inputs have dynamic axes ``rows`` and ``tokens``."""
    weights = sum(value.nbytes for value in pipeline.module.state_dict().values())
    if weights > LARGEST_GRAPH:
        raise NotBuilt(f"its weights take {weights / 2**30:.1f} GiB; one ONNX file holds 2")
    example = _example(pipeline, inputs)
    axes = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        try:
            program = torch.onnx.export(
                pipeline.module,
                kwargs={"inputs": example},
                input_names=list(inputs),
                output_names=list(pipeline.outputs),
                dynamic_shapes={"inputs": dict.fromkeys(inputs, axes)},
                dynamo=True,
                verbose=False,
            )
        except Exception as error:
            raise NotBuilt(f"torch could not export it: {_cause(error)}") from error
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    return graph


def _cause(error: BaseException) -> str:
    """The first line of what an error came from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _example(pipeline: TextPipeline, inputs: Sequence[str]) -> Mapping[str, torch.Tensor]:
    """Three rows of different lengths, the shorter ones padded."""
    made = [pipeline.reference(" ".join(["word"] * count)) for count in (17, 9, 3)]
    width = max(row["input_ids"].shape[1] for row in made)
    padding = {"input_ids": int(pipeline.tokenizer.pad_token_id)}
    return {
        name: torch.cat(
            [
                torch.nn.functional.pad(
                    row[name], (0, width - row[name].shape[1]), value=padding.get(name, 0)
                )
                for row in made
            ]
        )
        for name in inputs
    }


def _select(graph: onnx.GraphProto, pipeline: TextPipeline, wanted: Sequence[str]) -> None:
    """Name the classes, and keep the wanted outputs in their order."""
    described: dict[str, Any] = {output.name: output for output in graph.output}
    if pipeline.labels and "label" in wanted:
        described["label"] = _name_classes(graph, pipeline.labels)
    del graph.output[:]
    graph.output.extend([described[name] for name in wanted])


def _name_classes(graph: onnx.GraphProto, labels: Sequence[str]) -> onnx.ValueInfoProto:
    """Turn the index that the graph calls ``label`` into the name of the class."""
    for node in graph.node:
        node.output[:] = ["label_index" if name == "label" else name for name in node.output]
        node.input[:] = ["label_index" if name == "label" else name for name in node.input]
    graph.initializer.append(numpy_helper.from_array(np.array(labels, dtype=object), "label_names"))
    graph.node.append(helper.make_node("Gather", ["label_names", "label_index"], ["label"]))
    return helper.make_tensor_value_info("label", onnx.TensorProto.STRING, ["rows"])
