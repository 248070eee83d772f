"""Rows to measure drift on: 16 columns of every kind, in which something did move.

Flights of 2013 drawn with replacement, those of its first half for the reference, of its second
half for the run: four categories (the last one some 4,000 tail numbers, with nulls), four whole
numbers, four doubles (two with nulls, one in cents), four noisy float32 features.

Invariant: the same arguments give the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.models import ROW_GROUP_ROWS, SEED, built
from examples.flights.prepare import SOURCE

Side = Literal["reference", "current"]

CATEGORIES = ("carrier", "origin", "dest", "tailnum")
NUMBERS = (
    *("flight", "distance", "sched_minute", "passengers"),
    *("dep_delay", "arr_delay", "fare", "speed"),
    *("f00", "f01", "f02", "f03"),
)
COLUMNS = (*CATEGORIES, *NUMBERS)
FILE_ROWS = 1_000_000
"""Rows of one file, and of one chunk of the run."""
MONTHS: dict[Side, range] = {"reference": range(1, 7), "current": range(7, 13)}
NOISE = 0.3
"""Standard deviation of what is added to the float32 features, in theirs."""


def drift_rows(side: Side, rows: int, seed: int = SEED) -> list[Path]:
    """Parquet files of at most a million rows, in row groups of 131,072."""

    def build(folder: Path) -> None:
        folder.mkdir()
        for number, first in enumerate(range(0, rows, FILE_ROWS)):
            numbers = np.random.default_rng([seed, MONTHS[side].start, number])
            with pq.ParquetWriter(folder / f"part-{number:05d}.parquet", _schema()) as file:
                for table in _drawn(side, min(FILE_ROWS, rows - first), numbers):
                    file.write_table(table)

    return sorted(built(f"drift-{side}-{rows}-{seed}", build).glob("*.parquet"))


def _drawn(side: Side, rows: int, numbers: np.random.Generator) -> Iterator[pa.Table]:
    """One row group at a time, so that a large input needs little memory to make."""
    flights = _flights(side)
    for first in range(0, rows, ROW_GROUP_ROWS):
        chosen = numbers.integers(
            flights.num_rows, size=min(ROW_GROUP_ROWS, rows - first), dtype=np.int64
        )
        yield _with_noise(flights.take(pa.array(chosen)), numbers)


def _with_noise(drawn: pa.Table, numbers: np.random.Generator) -> pa.Table:
    """The flights as drawn, and what two of the same flight do not share."""
    rows = drawn.num_rows
    columns: dict[str, Any] = {name: drawn[name] for name in drawn.column_names}
    columns["passengers"] = numbers.binomial(180, 0.82, size=rows)
    columns["fare"] = np.round(drawn["fare"].to_numpy() * numbers.lognormal(0, 0.25, rows), 2)
    columns["speed"] = drawn["speed"].to_numpy() * numbers.normal(1, 0.05, rows)
    for name in ("f00", "f01", "f02", "f03"):
        noise = NOISE * numbers.standard_normal(rows, dtype=np.float32)
        columns[name] = drawn[name].to_numpy() + noise
    return pa.table(columns).select(COLUMNS).cast(_schema())


@cache
def _flights(side: Side) -> pa.Table:
    """The flights of half a year, before noise."""
    flights = pq.read_table(SOURCE)
    months = pa.array(MONTHS[side], flights["month"].type)
    flights = flights.filter(pc.is_in(flights["month"], months)).combine_chunks()
    clock = flights["sched_dep_time"].to_numpy()
    minute = clock // 100 * 60 + clock % 100
    distance = flights["distance"].to_numpy().astype(np.float64)
    delay = pc.fill_null(flights["dep_delay"], 0).to_numpy().astype(np.float32)
    return pa.table(
        {
            **{name: flights[name] for name in CATEGORIES},
            **{name: flights[name] for name in ("flight", "distance", "dep_delay", "arr_delay")},
            "sched_minute": minute,
            "fare": 40 + 0.11 * distance,
            "speed": 280 + 0.09 * np.minimum(distance, 1_500),
            "f00": (minute / 720 - 1).astype(np.float32),
            "f01": np.log(distance).astype(np.float32),
            "f02": np.sign(delay) * np.log1p(np.abs(delay)),
            "f03": np.tanh(delay / 60) * (minute / 720).astype(np.float32),
        }
    )


def _schema() -> pa.Schema:
    whole = {"flight": pa.int64(), "distance": pa.int32(), "sched_minute": pa.int16()}
    types = {
        **dict.fromkeys(CATEGORIES, pa.string()),
        **dict.fromkeys(("dep_delay", "arr_delay", "fare", "speed"), pa.float64()),
        **dict.fromkeys(("f00", "f01", "f02", "f03"), pa.float32()),
        **whole,
        "passengers": pa.int64(),
    }
    return pa.schema([(name, types[name]) for name in COLUMNS])
