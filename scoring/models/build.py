"""Every variant that can be made of a model, by every recipe there is for it.

The first step is a float32 graph: the model itself when it is registered as ONNX, else what an
exporter makes of it. The other variants are made of that graph, for the device it runs on. What
cannot be made is said, with its reason, in the place where it would have been.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from scoring.models.built import Built, NotBuilt, first_line, write_outputs
from scoring.models.engines import EngineOptions, load_built
from scoring.models.signature import Field, ModelFiles
from scoring.models.text import TEXT_FLAVORS

TEXT_TASKS = frozenset({"text-classification", "sentiment-analysis", "feature-extraction"})
CONVERTED_FLAVORS = frozenset({"sklearn", "lightgbm", "xgboost", "pytorch"})
AS_REGISTERED = "as registered"
CALIBRATION_BATCH = 256
"""Rows of one calibration batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What variants are made of."""

    files: ModelFiles
    features: tuple[Field, ...]
    outputs: pa.Schema
    """Of what native returns."""
    calibration: pa.RecordBatch
    """Rows that activations are measured on; the gate must not see them."""
    options: EngineOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A variant that could not be made."""

    variant: str
    recipe: str
    why_not: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A variant that the model already is."""

    variant: str


Made = Built | Missing | Registered
Admitted = Callable[[], Collection[str]]


def has_variants(files: ModelFiles) -> bool:
    """Whether a model is of a kind that variants can be made of."""
    if files.flavor == "transformers":
        return files.flavors["transformers"].get("task") in TEXT_TASKS
    return files.flavor in {"onnx", *TEXT_FLAVORS, *CONVERTED_FLAVORS}


def variants(source: Source, folder: Path, admitted: Admitted) -> Iterator[Made]:
    """Make what can be made, each in a folder of its own below ``folder``.

    Recipes of one variant come in the order of their promise, and ``admitted`` says which variants
    need no other: a later recipe costs a search time and is hardly ever faster.
    """
    if source.files.flavor == "onnx":
        yield from _of_registered_graph(source, folder, admitted)
    elif source.files.flavor in TEXT_FLAVORS:
        yield from _of_text_model(source, folder, admitted)
    else:
        yield from _of_converted_model(source, folder, admitted)


def _of_registered_graph(source: Source, folder: Path, admitted: Admitted) -> Iterator[Made]:
    from scoring.models.engines.onnx import OnnxEngine, graph_of
    from scoring.models.quantize import is_quantized

    graph = graph_of(source.files)
    if is_quantized(graph):
        yield Registered(variant="int8")
        return
    yield Registered(variant="fp32")
    engine = OnnxEngine.registered(source.files, source.features, source.options)
    yield from _of_graph(source, graph, engine, folder, admitted)


def _of_converted_model(source: Source, folder: Path, admitted: Admitted) -> Iterator[Made]:
    from scoring.models.convert import convert
    from scoring.models.engines.onnx import OnnxEngine

    def exported(place: Path) -> None:
        import onnx

        onnx.save(convert(source.files, source.features, source.outputs), place / "model.onnx")

    made = _made(source, "fp32", "exported", "onnx", folder, exported)
    yield made
    on_cpu = source.options.device == "cpu"
    if isinstance(made, Missing) and source.files.flavor == "pytorch" and not on_cpu:
        yield _made(source, "fp16", "autocast", "torch", folder, lambda place: None)
    if isinstance(made, Built):
        engine = OnnxEngine.built(source.files, made, source.features, source.options)
        yield from _of_graph(source, made.folder / "model.onnx", engine, folder, admitted)


def _of_graph(
    source: Source, graph: Path, engine: Any, folder: Path, admitted: Admitted
) -> Iterator[Made]:
    from scoring.models.engines.ragged import by_length
    from scoring.models.quantize import Recipe, recipes

    def feeds() -> Iterator[Mapping[str, Any]]:
        for place in by_length(source.calibration):
            rows = source.calibration.take(pa.array(place))
            yield from engine.feeds(engine.prepare(rows), CALIBRATION_BATCH)

    def lowered(recipe: Recipe, place: Path) -> None:
        recipe.make(graph, feeds, place / "model.onnx")

    for recipe in recipes(engine.device):
        if recipe.variant in admitted():
            continue
        make = partial(lowered, recipe)
        yield _made(source, recipe.variant, recipe.name, "onnx", folder, make)


def _of_text_model(source: Source, folder: Path, admitted: Admitted) -> Iterator[Made]:
    from scoring.models.text.export import convert
    from scoring.models.text.quantize import recipes

    def exported(place: Path) -> None:
        convert(source.files, source.features, source.outputs, place)

    made = _made(source, "fp32", "exported", "text", folder, exported)
    yield made
    if isinstance(made, Built):
        words = source.calibration.column(0).drop_null().to_pylist()
        device = load_built(source.files, made, source.options).device
        for recipe in recipes(device):
            if recipe.variant in admitted():
                continue
            make = partial(recipe.make, made.folder, words)
            yield _made(source, recipe.variant, recipe.name, "text", folder, make)


def _made(
    source: Source,
    variant: str,
    recipe: str,
    engine: str,
    folder: Path,
    make: Callable[[Path], None],
) -> Built | Missing:
    place = folder / f"{variant}-{recipe}".replace(" ", "-").replace(",", "")
    place.mkdir(parents=True)
    try:
        make(place)
    except NotBuilt as error:
        return Missing(variant=variant, recipe=recipe, why_not=str(error))
    except Exception as error:  # a tool of another's: what it says is all that there is to say
        why_not = f"building it failed: {type(error).__name__}: {first_line(error)}"
        return Missing(variant=variant, recipe=recipe, why_not=why_not)
    write_outputs(place, source.outputs)
    return Built(variant=variant, recipe=recipe, engine=engine, folder=place)
