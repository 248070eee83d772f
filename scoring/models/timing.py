"""How fast engines are at several batch sizes, on this device, with this worker's threads.

Engines and sizes take turns, so that whatever else the machine does slows all of them alike; the
median of the rounds counts. A second of making inputs costs as much as a second of the model, so
both are in the figure.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from scoring.models.batch import ran_out_of_memory
from scoring.models.engines import Engine, score
from scoring.models.search_result import Timing

ROUNDS = 3
PASS_SECONDS = 0.25
"""How long one pass over an engine's rows should take."""
ROWS_LEAST, ROWS_MOST = 64, 65_536
GROWTH = 4
STEPS = (1 / 16, 1 / 4, 1, 4, 16, 64)
"""Batch sizes to try, as multiples of what an engine begins with."""
HOPELESS = 0.7
"""Sizes slower than this share of the best are not timed again."""


class _Lane:
    """One engine, its rows, and what was timed so far."""

    def __init__(self, engine: Engine, sample: pa.RecordBatch) -> None:
        self._engine = engine
        self.rows = _repeated(sample, _rows_for(engine, sample))
        began = time.perf_counter()
        self._prepared: Any = engine.prepare(self.rows)
        self._prepare_seconds = time.perf_counter() - began
        self.seconds: dict[int, list[float]] = {
            size: [] for size in sizes_for(engine.batch_rows, self.rows.num_rows)
        }

    def turn(self, size: int) -> None:
        """Time one pass in batches of ``size`` rows; forget the size if it does not fit."""
        self._engine.resize(size)
        began = time.perf_counter()
        try:
            self._engine.predict(self._prepared)
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            self.seconds.pop(size)
            return
        if self._engine.batch_rows < size:
            self.seconds.pop(size)
            return
        self.seconds[size].append(time.perf_counter() - began)

    def narrow(self) -> None:
        """Keep the sizes that may still turn out to be the best."""
        best = min((min(times) for times in self.seconds.values()), default=0.0)
        self.seconds = {
            size: times for size, times in self.seconds.items() if best >= HOPELESS * min(times)
        }

    def timings(self) -> tuple[Timing, ...]:
        rows = self.rows.num_rows
        return tuple(
            Timing(
                batch_rows=size,
                rows_per_second=round(rows / (median(times) + self._prepare_seconds), 1),
            )
            for size, times in sorted(self.seconds.items())
        )


def timed(engines: Mapping[str, Engine], sample: pa.RecordBatch) -> dict[str, tuple[Timing, ...]]:
    """Rows per second of each engine by batch size; the sample's rows are repeated as needed."""
    lanes = {name: _Lane(engine, sample) for name, engine in engines.items()}
    for _ in range(ROUNDS):
        for lane in lanes.values():
            for size in list(lane.seconds):
                lane.turn(size)
        for lane in lanes.values():
            lane.narrow()
    return {name: lane.timings() for name, lane in lanes.items()}


def sizes_for(usual: int, rows: int) -> Sequence[int]:
    """Batch sizes around the usual one, the usual always among them.

    None else is larger than the rows there are to time; where they are fewer than the usual size,
    one call takes them all.
    """
    return sorted({usual, *(int(usual * step) for step in STEPS if 1 <= usual * step <= rows)})


def _rows_for(engine: Engine, sample: pa.RecordBatch) -> int:
    """Rows that one pass takes about `PASS_SECONDS` for.

    Found by calls of more and more rows, because a few say only what a call costs by itself.
    """
    rows = min(ROWS_LEAST, max(engine.batch_rows, 1))
    score(engine, _repeated(sample, rows))  # the first call may compile, or allocate
    while True:
        prepared = engine.prepare(_repeated(sample, rows))
        began = time.perf_counter()
        engine.predict(prepared)
        seconds = max(time.perf_counter() - began, 1e-6)
        if seconds > PASS_SECONDS / GROWTH or rows * GROWTH > ROWS_MOST:
            return int(np.clip(rows / seconds * PASS_SECONDS, rows, ROWS_MOST))
        rows *= GROWTH


def _repeated(sample: pa.RecordBatch, rows: int) -> pa.RecordBatch:
    return sample.take(pa.array(np.arange(rows) % sample.num_rows))
