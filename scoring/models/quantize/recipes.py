"""Recipes: the ways to lower precision on a device, in the order in which to try them.

Recipes of one variant differ in accuracy far more than in speed, so the first that the gate
admits is as good as any later one. The list is a pure function of the device and of whether its
CPU adds up eight-bit products without overflow; the name of a recipe says all that it depends on.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from scoring.devices import CPU_TEXT, int8_instructions
from scoring.models.quantize.dynamic_int8 import dynamic
from scoring.models.quantize.float16 import half
from scoring.models.quantize.ranges import Feeds
from scoring.models.quantize.static_int8 import static

WIDE_SUMS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
"""CPU flags of x86: products of unsigned and signed bytes are added up in 32 bits. Without them,
two go into 16 bits and saturate (vpmaddubsw), unless the weights have seven bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One way to make one variant."""

    variant: Literal["fp16", "int8"]
    name: str
    """For the table and the manifest."""
    make: Callable[[Path, Feeds, Path], None]
    """From a float32 graph and calibration rows, write another; raises `NotBuilt`."""


def recipes(device: str, *, seven_bits: bool | None = None) -> tuple[Recipe, ...]:
    """What to try on a ``cpu`` or on ``cuda``.

    ``seven_bits`` is for a CPU that needs such weights; left out, this machine is asked.
    """
    if device == "cuda":
        return (Recipe(variant="fp16", name="float16", make=_without_rows(half)),)
    narrow = saturates(CPU_TEXT) if seven_bits is None else seven_bits
    suffix = ", 7-bit weights" if narrow else ""
    quantized = partial(static, seven_bits=narrow)
    return (
        _int8(f"static, min-max{suffix}", partial(quantized, method="min-max")),
        _int8(
            f"static, min-max, first layers in float32{suffix}",
            partial(quantized, method="min-max", first_in_float=True),
        ),
        _int8(f"static, percentile{suffix}", partial(quantized, method="percentile")),
        _int8(f"static, entropy{suffix}", partial(quantized, method="entropy")),
        _int8(f"dynamic{suffix}", _without_rows(partial(dynamic, seven_bits=narrow))),
    )


def saturates(cpu_info: Path, machine: str = platform.machine()) -> bool:
    """Whether this CPU may lose the top of a sum of eight-bit products."""
    if machine.lower() not in ("x86_64", "amd64", "i686"):
        return False  # Arm multiplies without saturation
    if not cpu_info.is_file():
        return True
    text = cpu_info.read_text(encoding="utf-8", errors="replace")
    return WIDE_SUMS.isdisjoint(int8_instructions(text))


def _int8(name: str, make: Callable[[Path, Feeds, Path], None]) -> Recipe:
    return Recipe(variant="int8", name=name, make=make)


def _without_rows(make: Callable[[Path, Path], None]) -> Callable[[Path, Feeds, Path], None]:
    """A function that needs no calibration rows in the shape of one that does."""

    def made(graph: Path, _: Feeds, path: Path) -> None:
        make(graph, path)

    return made
