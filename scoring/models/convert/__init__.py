"""Registered model -> ONNX graph in float32 that gives native's outputs.

Invariant: what `convert` returns has native's outputs, as many and in their order, each of rank 1
or 2, and opens in ONNX Runtime; whatever is known to come out different is refused. Whether the
numbers agree is not judged here: the gate compares them with native's.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module

import onnx
import pyarrow as pa

from scoring.models.built import NotBuilt
from scoring.models.convert.outputs import fitted, opened
from scoring.models.signature import Field, ModelFiles

Converter = Callable[[ModelFiles, Sequence[Field]], onnx.ModelProto]

FLAVORS = ("sklearn", "lightgbm", "xgboost", "pytorch")
"""MLflow flavors that are converted; each has a module of its name here."""

PACKAGES = {
    "skl2onnx": "skl2onnx",
    "onnxmltools": "onnxmltools",
    "onnxscript": "onnxscript",
    "sklearn": "scikit-learn",
    "lightgbm": "lightgbm",
    "xgboost": "xgboost",
    "torch": "torch",
}
"""What the converters import, and the distribution that has it."""

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""How terminals are told colours, which torch's messages have."""
REASON_LENGTH = 200
"""Characters of an exporter's message that are kept; some print whole trees."""


def convert(files: ModelFiles, features: Sequence[Field], outputs: pa.Schema) -> onnx.ModelProto:
    """The graph of a registered model.

    Its inputs are one matrix [rows, columns], all ``features`` in order, or one [rows, 1] for each
    feature, of its name. Its outputs are the fields of ``outputs``, what native returned on a
    sample: [rows], or [rows, k] for lists of k. The first axis is dynamic.

    Raises:
        NotBuilt: the model, or what it does, has no equal graph, or the exporter failed.
    """
    if files.flavor not in FLAVORS:
        raise NotBuilt(f"models of flavor {files.flavor} are not converted to ONNX")
    try:
        converter: Converter = import_module(f"{__name__}.{files.flavor}").convert
        with warnings.catch_warnings():  # advice to whoever calls an exporter
            warnings.simplefilter("ignore")
            return opened(fitted(converter(files, features), outputs))
    except NotBuilt:
        raise
    except ModuleNotFoundError as error:
        raise NotBuilt(_missing(error)) from error
    except Exception as error:  # exporters raise anything
        raise NotBuilt(_reason(error)) from error


def _missing(error: ModuleNotFoundError) -> str:
    package = (error.name or "").partition(".")[0]
    if package not in PACKAGES:
        return _reason(error)
    return f"{package} is not installed on this worker: pip install {PACKAGES[package]}"


def _reason(error: BaseException) -> str:
    """The first line of what made an exporter fail, in a sentence."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = COLOURS.sub("", str(error)).strip().splitlines() or [""]
    line = lines[0].strip()
    if len(line) > REASON_LENGTH:
        line = f"{line[:REASON_LENGTH].rstrip()}..."
    return f"the exporter failed: {type(error).__name__}: {line}".rstrip(": ")
