"""The yardstick: the loop that a careful person writes by hand to score Parquet with an ONNX model.

One thread reads, two predict with one session, one writes; rows stay in order. It checks nothing,
retries nothing, keeps no record and publishes nothing: the time that Nightscore takes beyond this
is the price of those.

Measured on two cores, not guessed: 256 rows in one call suit a 512-wide network, whose activations
then stay in cache, and any size from 1,024 up suits trees; two callers with one thread each beat
one caller with two; gathering the columns first and transposing batch by batch beats filling one
matrix column by column; dictionaries, useless for unique keys and scores, halve the writer's speed.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Vector = np.ndarray[Any, np.dtype[np.float32]]

KEY = "row_id"
READ_ROWS = 131_072
"""Rows of one read, and of one row group written."""
TASK_ROWS = 32_768
"""Rows that one predictor takes at a time."""
PREDICTORS = 2
READS_AHEAD = 2
"""Reads that may wait to be scored and written before the next one starts."""
OUTPUT = pa.schema([(KEY, pa.int64()), ("score", pa.float32())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What one loop took."""

    rows: int
    """Rows read, scored and written."""
    seconds: float
    """From the first read to the closed output file; imports and the session's start left out."""
    peak_rss_mb: float
    """Largest resident memory of this process so far, in MiB."""


def open_session(model: Path) -> InferenceSession:
    """An ONNX Runtime session on the CPU in which each caller computes on its own thread."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def score(files: list[Path], session: InferenceSession, batch_rows: int, out: Path) -> Timing:
    """Score every row of ``files`` into the one file ``out``: the key and the score."""
    columns = _feature_columns(files[0], session)
    _predict(next(_read(files, columns)).slice(0, batch_rows), session, batch_rows)

    began = time.perf_counter()
    rows = 0
    with (
        pq.ParquetWriter(out, OUTPUT, use_dictionary=False) as file,
        ThreadPoolExecutor(PREDICTORS) as predictors,
        ThreadPoolExecutor(1) as writers,
    ):
        writing: deque[Future[int]] = deque()
        for read in _read(files, columns):
            scores = [
                predictors.submit(_predict, read.slice(first, TASK_ROWS), session, batch_rows)
                for first in range(0, read.num_rows, TASK_ROWS)
            ]
            writing.append(writers.submit(_write, file, read[KEY], scores))
            if len(writing) > READS_AHEAD:
                rows += writing.popleft().result()
        rows += sum(written.result() for written in writing)
    return Timing(rows=rows, seconds=time.perf_counter() - began, peak_rss_mb=_peak_rss_mb())


def _read(files: list[Path], columns: list[str]) -> Iterator[pa.RecordBatch]:
    for file in files:
        yield from pq.ParquetFile(file).iter_batches(READ_ROWS, columns=[KEY, *columns])


def _predict(rows: pa.RecordBatch, session: InferenceSession, batch_rows: int) -> Vector:
    features = np.array([column.to_numpy() for column in rows.columns[1:]])
    matrix = np.empty((batch_rows, len(features)), np.float32)
    scores = np.empty(rows.num_rows, np.float32)
    for first in range(0, rows.num_rows, batch_rows):
        batch = matrix[: min(batch_rows, rows.num_rows - first)]
        np.copyto(batch, features[:, first : first + batch_rows].T)
        scores[first : first + batch_rows] = session.run(["score"], {"features": batch})[0]
    return scores


def _write(file: pq.ParquetWriter, keys: pa.Array, scores: list[Future[Vector]]) -> int:
    column = np.concatenate([part.result() for part in scores])
    file.write_batch(pa.record_batch([keys, column], OUTPUT))
    return len(column)


def _feature_columns(file: Path, session: InferenceSession) -> list[str]:
    schema = pq.read_schema(file)
    columns = [field.name for field in schema if field.type == pa.float32()]
    wanted = session.get_inputs()[0].shape[1]
    if len(columns) != wanted:
        raise SystemExit(f"{file} has {len(columns)} float columns, the model takes {wanted}")
    return columns


def _peak_rss_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description="Score a folder of Parquet with an ONNX model.")
    parser.add_argument("--rows-path", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--model", type=Path, required=True, help="ONNX file")
    parser.add_argument("--batch", type=int, required=True, help="rows in one call of the model")
    parser.add_argument("--out", type=Path, required=True, help="Parquet file to write")
    options = parser.parse_args()
    files = sorted(options.rows_path.glob("*.parquet"))
    timing = score(files, open_session(options.model), options.batch, options.out)
    print(json.dumps(asdict(timing)))


if __name__ == "__main__":
    main()
