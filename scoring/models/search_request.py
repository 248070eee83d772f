"""What a search is asked: which model, on which device, by which rows.

Written by the worker that starts the search, read by the program that is the search.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Device = Literal["auto", "cpu", "cuda"]
CALIBRATION_EVERY = 5
"""Every fifth row of the sample calibrates; the others are the gate's."""
LABEL = "label of nightscore"
"""Column of the sample that holds the known truth, if it is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to search, where."""

    model: str
    model_folder: str
    model_digest: str
    columns: tuple[str, ...]
    device: Device
    device_name: str
    runtimes: str
    threads: int
    tensorrt: bool
    cache: str
    """Where TensorRT keeps its engines."""
    rows: str
    """Arrow file of sample rows: the features, and perhaps `LABEL`."""
    sample: str
    """Where the rows come from."""
    folder: str
    """Where variants are built."""
    registry: str = ""
    """Where the model is from, see `trust`."""
    trusted: tuple[str, ...] = ("",)
    """Registries whose models may run code."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Request:
        values = json.loads(text)
        lists = {name: tuple(values[name]) for name in ("columns", "trusted")}
        return cls(**{**values, **lists})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The rows of a search."""

    gate: pa.RecordBatch
    calibration: pa.RecordBatch
    labels: pa.Array | None
    """Of the gate's rows."""


def read_sample(path: Path, scorable: Callable[[pa.Table], Sequence[int]] | None = None) -> Sample:
    """Rows of an Arrow file, those for calibration apart from the gate's.

    ``scorable`` says which rows to take; without it, all.
    """
    with pa.ipc.open_file(path) as file:
        rows = file.read_all().combine_chunks()
    features = [name for name in rows.schema.names if name != LABEL]
    rows = rows.filter(pa.array(_within_float32(rows.select(features)))).combine_chunks()
    if scorable is not None:
        kept = pa.array(scorable(rows.select(features)), pa.int64())
        rows = rows.take(kept).combine_chunks()
    apart = np.arange(len(rows)) % CALIBRATION_EVERY == 0
    calibration, held = rows.filter(pa.array(apart)), rows.filter(pa.array(~apart))
    return Sample(
        gate=_batch(held.select(features)),
        calibration=_batch(calibration.select(features)),
        labels=_batch(held.select([LABEL])).column(0) if LABEL in rows.schema.names else None,
    )


def _within_float32(rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Rows whose numbers float32 can hold; of others no variant could score the same."""
    kept = np.ones(rows.num_rows, bool)
    for column in rows.columns:
        if pa.types.is_float64(column.type):
            values = np.abs(column.to_numpy())
            kept &= ~(values > np.finfo(np.float32).max)
    return kept


def _batch(table: pa.Table) -> pa.RecordBatch:
    whole = table.combine_chunks()
    return pa.RecordBatch.from_arrays(
        [
            column.chunk(0) if column.num_chunks else pa.array([], column.type)
            for column in whole.columns
        ],
        names=whole.schema.names,
    )
