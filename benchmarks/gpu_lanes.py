"""The ways in which `benchmarks.gpu` scores its rows, each as a function without arguments."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.gpu_network import Device, Network, Variants, Vector, by_torch, in_half
from benchmarks.models import NETWORK_COLUMNS, Matrix, network_rows
from scoring.data import source
from scoring.models import Engine
from scoring.pipeline import ChunkWork, score_chunk
from scoring.plan import Span

KEY = "row_id"
READ_ROWS = 65_536


@dataclass(slots=True, kw_only=True)
class Lane:
    """One way to score all rows, and how it did."""

    network: str
    way: str
    precision: str
    batch: int
    score: Callable[[], Vector]
    seconds: list[float] = field(default_factory=list)
    errors: tuple[float, float] = (float("nan"), float("nan"))
    """The largest and the mean."""
    failed: str = ""

    def turn(self, expected: Vector | None) -> None:
        """Score once; the first time compare, and do not count the time."""
        if self.failed:
            return
        began = time.perf_counter()
        try:
            scores = self.score()
        except Exception as error:  # a lane that fails is a row of the table, not the end of it
            self.failed = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            return
        if expected is None:
            self.seconds.append(time.perf_counter() - began)
            return
        difference = np.abs(scores[: len(expected)] - expected)
        self.errors = (float(difference.max()), float(difference.mean()))

    def forget(self) -> None:
        """Let go of models and buffers."""
        self.score = _nothing

    def row(self, rows: int) -> str:
        """A line of the table."""
        start = f"| {self.network} | {self.way} | {self.precision} | {self.batch:,} |"
        if self.failed or not self.seconds:
            return f"{start} {self.failed or 'no time left'} | | |"
        largest, mean = self.errors
        rate = rows / statistics.median(self.seconds)
        return f"{start} {rate:,.0f} | {largest:.1e} | {mean:.1e} |"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The same rows as files and in memory."""

    folder: Path
    matrix: Matrix

    @classmethod
    def of(cls, count: int) -> Rows:
        folder = network_rows(count)
        table = pq.read_table(folder, columns=list(NETWORK_COLUMNS))
        return cls(
            folder=folder, matrix=np.stack([column.to_numpy() for column in table.columns], axis=1)
        )

    def batches(self) -> Iterator[pa.RecordBatch]:
        for path in sorted(self.folder.glob("*.parquet")):
            yield from pq.ParquetFile(path).iter_batches(READ_ROWS)


def lanes(network: Network, variants: Variants, rows: Rows, batch: int, folder: Path) -> list[Lane]:
    """Every way and precision at one batch size; each loads what it needs at its first turn."""
    half = cache(partial(in_half, network))
    out = folder / f"{network.name}-{batch}"
    ways: list[tuple[str, str, Callable[[], Vector]]] = []
    for precision, (built, tensorrt) in variants.items():
        engine = cache(partial(network.engine, built, batch, tensorrt))
        graph = network.graph if built is None else built.folder / "model.onnx"
        ways.append(
            ("Nightscore, files", precision, partial(_chunk, engine, rows, out / precision))
        )
        ways.append(("Nightscore, memory", precision, _engine_lane(engine, rows)))
        if not tensorrt:
            bare = _bare_lane(graph, network.device, rows.matrix, batch)
            ways.append(("ONNX Runtime, memory", precision, bare))
    files = partial(_torch_files, half, network.device, rows, batch, out)
    ways.append(("PyTorch, files", "fp16", files))
    memory = partial(_torch_memory, half, network.device, rows.matrix, batch)
    ways.append(("PyTorch, memory", "fp16", memory))
    return [
        Lane(network=network.name, way=way, precision=precision, batch=batch, score=score)
        for way, precision, score in ways
    ]


def _chunk(engine: Callable[[], Engine], rows: Rows, staging: Path) -> Vector:
    """All files as one chunk, scored as a worker scores it."""
    scanned = source.scan(str(rows.folder), ())
    spans = [
        Span(
            file=index,
            first_group=0,
            groups=len(one.file.row_groups),
            skip=0,
            rows=one.file.rows,
            first_row=0,
        )
        for index, one in enumerate(scanned)
    ]
    count = sum(span.rows for span in spans)
    work = ChunkWork(
        number=0,
        attempt=1,
        spans=spans,
        files={index: one.file for index, one in enumerate(scanned)},
        schema=scanned[0].schema,
        kept=[KEY],
        staging=staging,
        overflow=staging / "quarantine",
        reference=None,
        origins=scanned[0].minima,
        metadata={"model": "benchmark"},
        run_rows=count,
        error_budget=0.0,
        budget_rows=0,
    )
    scored = score_chunk(work, engine(), lambda: None)
    return _scores(staging / scored.part)


def _engine_lane(engine: Callable[[], Engine], rows: Rows) -> Callable[[], Vector]:
    """The engine on slabs that were prepared before."""
    prepared: list[Any] = []

    def score() -> Vector:
        for batch in rows.batches() if not prepared else ():
            columns = batch.select(list(NETWORK_COLUMNS))
            for start in range(0, batch.num_rows, engine().slab_rows):
                prepared.append(engine().prepare(columns.slice(start, engine().slab_rows)))
        return np.concatenate([engine().predict(slab)["score"].to_numpy() for slab in prepared])

    return score


def _bare_lane(graph: Path, device: Device, matrix: Matrix, batch: int) -> Callable[[], Vector]:
    """ONNX Runtime with its own defaults and a device buffer that is filled again and again."""
    opened: list[tuple[Any, Any]] = []

    def score() -> Vector:
        import onnxruntime

        if not opened:
            provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
            session = onnxruntime.InferenceSession(graph, providers=[provider])
            if session.get_providers()[0] != provider:
                raise RuntimeError(f"ONNX Runtime runs on {session.get_providers()[0]}")
            value = onnxruntime.OrtValue.ortvalue_from_numpy(matrix[:batch].copy(), device, 0)
            opened.append((session, value))
        session, value = opened[0]
        binding = session.io_binding()
        scores = np.empty(len(matrix), np.float32)
        for start in range(0, len(matrix), batch):
            rows = matrix[start : start + batch]
            if len(rows) == value.shape()[0]:
                value.update_inplace(rows)
            else:
                value = onnxruntime.OrtValue.ortvalue_from_numpy(rows.copy(), device, 0)
            binding.bind_ortvalue_input("features", value)
            binding.bind_output("score", device)
            session.run_with_iobinding(binding)
            scores[start : start + batch] = binding.copy_outputs_to_cpu()[0]
        return scores

    return score


def _torch_memory(half: Callable[[], Any], device: Device, matrix: Matrix, batch: int) -> Vector:
    return by_torch(half(), matrix, batch, device)


def _torch_files(
    half: Callable[[], Any], device: Device, rows: Rows, batch: int, folder: Path
) -> Vector:
    """The loop one writes: read, stack, score, write."""
    folder.mkdir(exist_ok=True)
    out = folder / "torch.parquet"
    schema = pa.schema([(KEY, pa.int64()), ("score", pa.float32())])
    with pq.ParquetWriter(out, schema) as file:
        for read in rows.batches():
            columns = [read[name].to_numpy() for name in NETWORK_COLUMNS]
            scores = by_torch(half(), np.stack(columns, axis=1), batch, device)
            file.write_batch(pa.record_batch([read[KEY], scores], schema))
    return _scores(out)


def _nothing() -> Vector:
    return np.empty(0, np.float32)


def _scores(part: Path) -> Vector:
    scores: Vector = pq.read_table(part, columns=["score"])["score"].to_numpy()
    return scores
