"""Recipes: how a text variant in another precision is made of the float32 one.

On a CPU int8, the most promising recipe first; on a GPU fp16.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from scoring.devices import CPU_TEXT
from scoring.models.built import NotBuilt
from scoring.models.quantize.dynamic_int8 import dynamic
from scoring.models.quantize.float16 import half
from scoring.models.quantize.recipes import saturates
from scoring.models.text.products import measure, products
from scoring.models.text.static import quantized
from scoring.models.text.tokens import FILLING, TOKENIZER, TextTokenizer

CALIBRATION_TEXTS = 128
"""Texts that activations are measured on: the scales of 32 are as good as those of 512."""
GRAPH = "model.onnx"

Make = Callable[[Path, Sequence[str], Path], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One way to make a variant."""

    variant: str
    """``int8`` or ``fp16``."""
    name: str
    make: Make
    """``make(float32 folder, texts to calibrate on, folder to write into)``; raises `NotBuilt`."""


def recipes(device: str, *, seven_bits: bool | None = None) -> tuple[Recipe, ...]:
    """What to try on ``cpu`` or ``cuda``, with ``seven_bits`` if its CPU needs them."""
    if device == "cuda":
        return (Recipe(variant="fp16", name="float16", make=_half),)
    narrow = saturates(CPU_TEXT) if seven_bits is None else seven_bits
    suffix = ", 7-bit weights" if narrow else ""
    static = (("smoothed by 0.8", 0.8), ("smoothed by 0.6", 0.6), ("min-max", None))
    return (
        *(
            Recipe(
                variant="int8", name=f"static, {name}{suffix}", make=partial(_static, alpha, narrow)
            )
            for name, alpha in static
        ),
        Recipe(variant="int8", name=f"dynamic{suffix}", make=partial(_dynamic, narrow)),
    )


def _static(
    alpha: float | None, seven_bits: bool, source: Path, texts: Sequence[str], folder: Path
) -> None:
    model = onnx.load(str(source / GRAPH))
    activations = [product.activation for product in products(model.graph)]
    if not activations:
        raise NotBuilt("its graph has no product with constant weights")
    ranges = measure(source / GRAPH, activations, _alone(TextTokenizer(source), texts))
    if not ranges:
        raise NotBuilt("there are no texts to calibrate on")
    onnx.save(quantized(model, ranges, alpha, seven_bits=seven_bits), folder / GRAPH)
    _keep_tokenizer(source, folder)


def _dynamic(seven_bits: bool, source: Path, texts: Sequence[str], folder: Path) -> None:
    dynamic(source / GRAPH, folder / GRAPH, seven_bits=seven_bits)
    _keep_tokenizer(source, folder)


def _half(source: Path, texts: Sequence[str], folder: Path) -> None:
    half(source / GRAPH, folder / GRAPH)
    _keep_tokenizer(source, folder)


def _alone(
    tokenizer: TextTokenizer, texts: Sequence[str]
) -> Iterator[Mapping[str, npt.NDArray[np.int64]]]:
    """The inputs of texts in batches of one, so that none is padded."""
    tokens = tokenizer.tokens(texts[:CALIBRATION_TEXTS])
    for row in range(len(tokens.lengths)):
        yield tokens.padded(slice(row, row + 1))


def _keep_tokenizer(source: Path, folder: Path) -> None:
    for name in (TOKENIZER, FILLING):
        shutil.copy(source / name, folder / name)
