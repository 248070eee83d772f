"""A built variant: a folder with the model in another precision, and what its outputs mean.

Invariant: the folder appears complete or not at all, and never changes; ``outputs.arrow`` holds
the schema of native's outputs, which the variant must give exactly, whatever it computes in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

OUTPUTS = "outputs.arrow"
REASON_LENGTH = 300
"""Characters of a tool's message that are kept."""


class NotBuilt(Exception):
    """A variant cannot be made of this model; says why in words for the table of variants."""


def first_line(error: BaseException) -> str:
    """What somebody else's tool said, to stand inside a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:REASON_LENGTH].rstrip(".")


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """One variant on this machine."""

    variant: str
    """``fp32``, ``fp16`` or ``int8``."""
    recipe: str
    """How it was made, for the table and the manifest."""
    engine: str
    """``onnx``, ``text`` or ``torch``: what runs it."""
    folder: Path
    refused: tuple[str, ...] = ()
    """Columns in which native raises on a missing value, so that this must too."""
    bounded: tuple[str, ...] = ()
    """The same of infinite values."""

    @property
    def outputs(self) -> pa.Schema:
        """Native's outputs: names, order and types."""
        return pa.ipc.read_schema(pa.BufferReader((self.folder / OUTPUTS).read_bytes()))


def write_outputs(folder: Path, outputs: pa.Schema) -> None:
    """Keep native's outputs beside the variant."""
    (folder / OUTPUTS).write_bytes(outputs.serialize().to_pybytes())
