"""One chunk: read -> validate -> predict -> write, folding every row into its profile on the way.

Three threads with a short queue between them: the reader decodes and validates, the caller's
thread predicts, the writer profiles outputs and encodes. NumPy, Arrow and ONNX Runtime release
the GIL, so they overlap; memory is bounded by a few slabs, whatever the chunk's size. Any error,
in any thread, ends all three and surfaces in the caller's.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from scoring.data import sink, source
from scoring.data.validate import Expected, validate
from scoring.drift.frame import ColumnFrame, Role, frames_for
from scoring.drift.profile import Profile, Profiler
from scoring.errors import ErrorBudgetExceeded, ModelFailed, ModelUnsupported, ScoringError
from scoring.models import Engine
from scoring.plan import Span

QUEUED_SLABS = 2
"""Slabs that may wait between two threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkWork:
    """Everything one attempt needs to know."""

    number: int
    attempt: int
    spans: Sequence[Span]
    files: Mapping[int, source.Frozen]
    """The manifest's lines that the spans name."""
    schema: pa.Schema
    """Columns of the input, partitions included."""
    kept: Sequence[str]
    """Key and passthrough columns, in output order."""
    staging: Path
    reference: Profile | None
    origins: Mapping[str, float]
    """Least value by numeric column, from the footers."""
    metadata: Mapping[str, str]
    """Written into the part: run id, model, version."""
    budget_rows: int
    """Rows that the whole run may quarantine."""
    run_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What an attempt wrote."""

    part: str
    part_digest: str
    rows_scored: int
    rows_quarantined: int
    timings: dict[str, float]


@dataclass(slots=True)
class _Slab:
    """A slab on its way through the threads."""

    file: str
    first_row: int
    rows: pa.RecordBatch
    kept: Any
    features: pa.RecordBatch
    outputs: dict[str, pa.Array] = field(default_factory=dict)
    rejected: list[tuple[Any, str]] = field(default_factory=list)


Queue = queue.Queue[_Slab | BaseException | None]


def score_chunk(work: ChunkWork, engine: Engine, check: Callable[[], None]) -> Scored:
    """Score one chunk into its part, profile and quarantine.

    ``check`` is called once per slab and raises when the attempt should stop (its lease is lost).

    Raises:
        InputError: the input is not what was planned.
        ErrorBudgetExceeded: this chunk alone uses up the run's error budget.
        ModelError, or anything the model raises for a whole slab that no single row explains.
    """
    attempt = _Attempt(work, engine, check)
    try:
        return attempt.run()
    except BaseException:
        attempt.abandon()
        raise


def expected_columns(engine: Engine) -> tuple[Expected, ...]:
    """The engine's features as the validator wants them."""
    return tuple(
        Expected(
            name=str(feature.name),
            type=feature.type,
            width=feature.width if feature.shape is not None else 1,
            allow_null=not feature.required and engine.accepts_null(feature),
        )
        for feature in engine.features
    )


class _Attempt:
    """One pass over one chunk."""

    def __init__(self, work: ChunkWork, engine: Engine, check: Callable[[], None]) -> None:
        self._work = work
        self._engine = engine
        self._check = check
        self._expected = expected_columns(engine)
        names = [column.name for column in self._expected]
        self._columns = list(dict.fromkeys([*work.kept, *names]))
        self._part = sink.part_name(work.number, work.attempt)
        self._writer = sink.PartWriter(work.staging / self._part, work.metadata)
        self._features = Profiler(self._frames(names))
        self._outputs: Profiler | None = None
        self._quarantined: list[pa.RecordBatch] = []
        self._quarantined_rows = 0
        self._reasons: Counter[str] = Counter()
        self._seconds: Counter[str] = Counter()
        self._stop = threading.Event()

    def run(self) -> Scored:
        self._work.staging.mkdir(parents=True, exist_ok=True)
        read: Queue = queue.Queue(QUEUED_SLABS)
        predicted: Queue = queue.Queue(QUEUED_SLABS)
        failed: list[BaseException] = []
        reader = threading.Thread(target=self._read, args=(read,), name="reader")
        writer = threading.Thread(target=self._write, args=(predicted, failed), name="writer")
        reader.start()
        writer.start()
        try:
            for slab in self._arriving(read, failed):
                self._check()
                with self._timed("predict"):
                    self._predict(slab)
                _put(predicted, slab, self._stop)
            _put(predicted, None, self._stop)
        except BaseException:
            self._stop.set()
            raise
        finally:
            writer.join()
            self._stop.set()
            reader.join()
        if failed:
            raise failed[0]
        return self._close()

    def abandon(self) -> None:
        """Leave nothing of this attempt behind."""
        self._writer.abandon()
        for name in (sink.profile_name(self._part), sink.quarantine_name(self._part)):
            (self._work.staging / name).unlink(missing_ok=True)

    # Reader thread

    def _read(self, read: Queue) -> None:
        try:
            for slab in self._slabs():
                if not _put(read, slab, self._stop):
                    return
            _put(read, None, self._stop)
        except BaseException as error:  # surfaces in the caller's thread
            _put(read, error, self._stop)

    def _slabs(self) -> Iterator[_Slab]:
        for span in self._work.spans:
            file = self._work.files[span.file]
            row = span.first_row
            batches = source.read(file, span, self._columns, self._engine.slab_rows)
            while (batch := self._next(batches)) is not None:
                with self._timed("profile"):
                    self._features.add(self._typed(batch))
                with self._timed("validate"):
                    checked = validate(batch, self._expected)
                slab = _Slab(file.path, row, batch, checked.kept, checked.features)
                slab.rejected = [(refused.rows, refused.reason) for refused in checked.rejected]
                row += batch.num_rows
                yield slab

    def _typed(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        """Columns by name; one of which a file has no value at all gets the signature's type."""
        columns = dict(zip(self._columns, batch.columns, strict=True))
        for expected in self._expected:
            if pa.types.is_null(columns[expected.name].type):
                columns[expected.name] = pa.nulls(batch.num_rows, expected.type)
        return columns

    def _next(self, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
        with self._timed("read"):
            return next(batches, None)

    # Caller's thread

    def _arriving(self, read: Queue, failed: list[BaseException]) -> Iterator[_Slab]:
        while True:
            try:
                item = read.get(timeout=1.0)
            except queue.Empty:
                self._check()
                continue
            finally:
                if failed:
                    raise failed[0]
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def _predict(self, slab: _Slab) -> None:
        if slab.features.num_rows == 0:
            return
        try:
            slab.outputs = self._engine.predict(slab.features)
        except (ModelFailed, ModelUnsupported, MemoryError):
            raise
        except Exception as error:
            self._predict_by_halves(slab, error)

    def _predict_by_halves(self, slab: _Slab, error: Exception) -> None:
        """The model raised: find the rows that make it, score the others."""
        numbers = slab.kept if slab.kept is not None else np.arange(slab.rows.num_rows)
        good: list[tuple[int, int, dict[str, pa.Array]]] = []
        bad: list[tuple[int, str]] = []
        self._halve(slab.features, 0, error, good, bad)
        for position, reason in bad:
            slab.rejected.append((numbers[position : position + 1], reason))
        slab.kept = (
            np.concatenate([numbers[start:stop] for start, stop, _ in good])
            if good
            else (numbers[:0])
        )
        pieces = [found for _, _, found in good]
        if pieces:
            slab.outputs = {
                name: pa.concat_arrays([piece[name] for piece in pieces]) for name in pieces[0]
            }

    def _halve(
        self,
        features: pa.RecordBatch,
        start: int,
        error: Exception,
        good: list[tuple[int, int, dict[str, pa.Array]]],
        bad: list[tuple[int, str]],
    ) -> None:
        rows = features.num_rows
        if rows == 1:
            bad.append((start, f"the model raised {type(error).__name__}: {_first_line(error)}"))
            self._check_budget(self._quarantined_rows + len(bad), bad[-1][1])
            return
        for first, count in ((0, rows // 2), (rows // 2, rows - rows // 2)):
            half = features.slice(first, count)
            try:
                found = self._engine.predict(half)
            except (ScoringError, MemoryError):
                raise
            except Exception as again:
                self._halve(half, start + first, again, good, bad)
            else:
                good.append((start + first, start + first + count, found))

    # Writer thread

    def _write(self, predicted: Queue, failed: list[BaseException]) -> None:
        try:
            while (slab := _get(predicted, self._stop)) is not None:
                with self._timed("write"):
                    self._quarantine(slab)
                    if not slab.outputs:  # none of its rows could be scored
                        continue
                    self._writer.write(self._part_rows(slab))
                with self._timed("profile_outputs"):
                    self._profile_outputs(slab.outputs)
        except BaseException as error:  # surfaces in the caller's thread
            failed.append(error)
            self._stop.set()

    def _part_rows(self, slab: _Slab) -> pa.RecordBatch:
        rows = slab.rows.select(list(self._work.kept))
        if slab.kept is not None:
            rows = rows.take(pa.array(slab.kept))
        return pa.RecordBatch.from_arrays(
            [*rows.columns, *slab.outputs.values()], names=[*self._work.kept, *slab.outputs]
        )

    def _profile_outputs(self, found: Mapping[str, pa.Array]) -> None:
        if self._outputs is None:
            clash = set(found) & set(self._work.kept)
            if clash:
                raise ModelUnsupported(
                    self._work.metadata["model"],
                    f"its output {', '.join(sorted(clash))} has the name of a key or passthrough "
                    "column; rename one of them",
                )
            kinds: list[tuple[str, Role, Any]] = [
                (name, "output", values.type) for name, values in found.items()
            ]
            self._outputs = Profiler(frames_for(self._work.reference, kinds, {}))
        self._outputs.add(found)

    def _quarantine(self, slab: _Slab) -> None:
        for rows, reason in slab.rejected:
            numbers = pa.array(rows, pa.int64())
            refused = slab.rows.take(numbers)
            count = len(refused)
            self._quarantined.append(
                pa.RecordBatch.from_arrays(
                    [
                        pa.repeat(reason, count),
                        pa.repeat(slab.file, count),
                        pa.array(np.asarray(rows, np.int64) + slab.first_row),
                        *refused.columns,
                    ],
                    names=["_reason", "_input_file", "_row", *refused.schema.names],
                )
            )
            self._quarantined_rows += count
            self._reasons[reason] += count
            self._check_budget(self._quarantined_rows, reason)

    def _check_budget(self, rows: int, reason: str) -> None:
        if rows > self._work.budget_rows:
            common = self._reasons.most_common(1)
            raise ErrorBudgetExceeded(
                rows,
                self._work.run_rows,
                self._work.budget_rows / max(self._work.run_rows, 1),
                str(self._work.staging),
                common[0][0] if common else reason,
            )

    # Ends

    def _close(self) -> Scored:
        with self._timed("close"):
            if self._outputs is None:
                nothing = self._engine.empty()
                self._profile_outputs(nothing)
                self._writer.write(self._no_rows(nothing))
            written = self._writer.close()
            self._write_profile()
            if self._quarantined:
                refused = self._work.staging / sink.quarantine_name(self._part)
                sink.write_quarantine(refused, self._quarantined)
        return Scored(
            part=self._part,
            part_digest=written.digest,
            rows_scored=written.rows,
            rows_quarantined=self._quarantined_rows,
            timings={name: round(seconds, 6) for name, seconds in self._seconds.items()},
        )

    def _no_rows(self, outputs: Mapping[str, pa.Array]) -> pa.RecordBatch:
        kept = [pa.array([], self._work.schema.field(name).type) for name in self._work.kept]
        return pa.RecordBatch.from_arrays(
            [*kept, *outputs.values()], names=[*self._work.kept, *outputs]
        )

    def _write_profile(self) -> None:
        profile = self._features.profile()
        if self._outputs is not None:
            profile = profile.merge(self._outputs.profile())
        path = self._work.staging / sink.profile_name(self._part)
        path.write_text(profile.to_json(), encoding="utf-8")

    def _frames(self, names: Sequence[str]) -> tuple[ColumnFrame, ...]:
        found = {name: self._work.schema.field(name).type for name in names}
        found |= {e.name: e.type for e in self._expected if pa.types.is_null(found[e.name])}
        kinds: list[tuple[str, Role, Any]] = [(name, "feature", found[name]) for name in names]
        return frames_for(self._work.reference, kinds, self._work.origins)

    def _timed(self, step: str) -> _Timed:
        return _Timed(self._seconds, step)


class _Timed:
    """Adds the seconds of a block to a step."""

    def __init__(self, seconds: Counter[str], step: str) -> None:
        self._seconds, self._step = seconds, step

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._step] += time.perf_counter() - self._began  # type: ignore[assignment]


def _put(into: Queue, item: _Slab | BaseException | None, stop: threading.Event) -> bool:
    """Put, unless the attempt has stopped; True if it was put."""
    while not stop.is_set():
        try:
            into.put(item, timeout=0.2)
        except queue.Full:
            continue
        return True
    return False


def _get(out: Queue, stop: threading.Event) -> _Slab | None:
    """Get, or ``None`` at the end or when the attempt has stopped."""
    while True:
        try:
            item = out.get(timeout=0.2)
            return item if isinstance(item, _Slab) else None
        except queue.Empty:
            if stop.is_set():
                return None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["without a message"])[0][:300]
