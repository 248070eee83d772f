"""What a search is asked: which model, on which device, by which rows.

Written by the worker that starts the search, read by the program that is the search.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

Device = Literal["auto", "cpu", "cuda"]
CALIBRATION_EVERY = 5
"""Every fifth row of the sample calibrates; the others are the gate's."""
LABEL = "_label"
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

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Request:
        values = json.loads(text)
        return cls(**{**values, "columns": tuple(values["columns"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The rows of a search."""

    gate: pa.RecordBatch
    calibration: pa.RecordBatch
    labels: pa.Array | None
    """Of the gate's rows."""


def read_sample(path: Path) -> Sample:
    """Rows of an Arrow file, those for calibration held apart from the gate's."""
    with pa.ipc.open_file(path) as file:
        rows = file.read_all().combine_chunks()
    apart = np.arange(len(rows)) % CALIBRATION_EVERY == 0
    calibration, held = rows.filter(pa.array(apart)), rows.filter(pa.array(~apart))
    labels = held[LABEL].combine_chunks() if LABEL in rows.schema.names else None
    features = [name for name in rows.schema.names if name != LABEL]
    return Sample(
        gate=_batch(held.select(features)),
        calibration=_batch(calibration.select(features)),
        labels=labels,
    )


def _batch(table: pa.Table) -> pa.RecordBatch:
    whole = table.combine_chunks()
    return pa.RecordBatch.from_arrays(
        [
            column.chunk(0) if column.num_chunks else pa.array([], column.type)
            for column in whole.columns
        ],
        names=whole.schema.names,
    )
