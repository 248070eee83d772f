"""One attempt at one chunk: three threads with a short queue between each two.

The reader decodes, profiles, validates and prepares; the caller's thread predicts; the writer
profiles outputs and encodes. NumPy, Arrow and ONNX Runtime release the GIL, so they overlap;
memory is bounded by a few slabs, whatever the chunk's size. Any error, in any thread, ends all
three and surfaces in the caller's.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from scoring.data import sink, source
from scoring.data.validate import validate
from scoring.drift.profile.frame import Role, frames_for
from scoring.drift.profile.profile import Profiler
from scoring.errors import ModelUnsupported
from scoring.models import Engine
from scoring.pipeline import isolate
from scoring.pipeline.handover import Handover, Stage, Stop
from scoring.pipeline.quarantine import FILE, ROW, Quarantine
from scoring.pipeline.work import (
    ChunkWork,
    Scored,
    Slab,
    by_name,
    expected_columns,
    feature_kinds,
)


def score_chunk(work: ChunkWork, engine: Engine, check: Callable[[], None]) -> Scored:
    """Score one chunk into its part, profile and quarantine.

    ``check`` is called once per slab and raises when the attempt should stop (its lease is lost).

    Raises:
        InputError: the input is not what was planned.
        ErrorBudgetExceeded: this chunk alone uses up the run's error budget.
        ModelError: the model itself is at fault.
    """
    attempt = Attempt(work, engine, check)
    try:
        return attempt.run()
    except BaseException:
        attempt.abandon()
        raise


class Attempt:
    """One pass over one chunk."""

    def __init__(self, work: ChunkWork, engine: Engine, check: Callable[[], None]) -> None:
        self._work = work
        self._engine = engine
        self._check = check
        self._expected = expected_columns(engine)
        names = [column.name for column in self._expected]
        origin = (FILE, ROW) if work.replayed else ()
        self._columns = list(dict.fromkeys([*work.kept, *names, *origin]))
        self._part = sink.part_name(work.number, work.attempt)
        self._writer = sink.PartWriter(work.staging / self._part, work.metadata)
        kinds = feature_kinds(self._expected)
        self._features = Profiler(frames_for(work.reference, kinds, work.origins))
        self._outputs: Profiler | None = None
        self._quarantine = Quarantine(work)
        self._seconds: Counter[str] = Counter()

    def run(self) -> Scored:
        self._work.staging.mkdir(parents=True, exist_ok=True)
        stop = Stop()
        read, predicted = Handover(stop), Handover(stop)
        stages = [
            Stage("reader", lambda: self._read(read), stop),
            Stage("writer", lambda: self._write(predicted), stop),
        ]
        try:
            for stage in stages:
                stage.start()
            for slab in read:
                self._check()
                self._predict(slab)
                predicted.put(slab)
            predicted.put(None)
            for stage in stages:
                stage.wait()
        except BaseException as error:  # also when told to stop: whoever is next has this to itself
            stop.now(error)
        for stage in stages:
            stage.wait()
        if stop.error is not None:
            raise stop.error
        return self._close()

    def abandon(self) -> None:
        """Leave nothing of this attempt behind."""
        self._writer.abandon()
        for name in (sink.profile_name(self._part), sink.quarantine_name(self._part)):
            (self._work.staging / name).unlink(missing_ok=True)

    # Reader thread

    def _read(self, read: Handover) -> None:
        for slab in self._slabs():
            read.put(slab)
        read.put(None)

    def _slabs(self) -> Iterator[Slab]:
        for span in self._work.spans:
            file = self._work.files[span.file]
            row = span.first_row
            batches = source.read(
                file, span, self._columns, self._engine.slab_rows, self._work.stores
            )
            while (batch := self._next(batches)) is not None:
                with self._timed("validate"):
                    checked = validate(batch, self._expected, self._work.kept)
                with self._timed("profile"):
                    self._features.add(by_name(checked.columns))
                with self._timed("prepare"):
                    prepared = isolate.prepare(self._engine, checked.features)
                yield Slab(
                    file=file.path,
                    first_row=row,
                    rows=batch,
                    features=checked.features,
                    prepared=prepared,
                    kept=checked.kept,
                    rejected=[(refused.rows, refused.reason) for refused in checked.rejected],
                )
                row += batch.num_rows

    def _next(self, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
        with self._timed("read"):
            return next(batches, None)

    # Caller's thread

    def _predict(self, slab: Slab) -> None:
        for rows, reason in slab.rejected:
            self._quarantine.add(slab, rows, reason)
        with self._timed("predict"):
            found = isolate.predict(
                self._engine, slab.features, slab.prepared, self._quarantine.room
            )
        slab.prepared = None  # the writer has no use for it, and it is as large as the slab
        slab.outputs = found.outputs
        if not found.bad:
            return
        numbers = slab.kept if slab.kept is not None else np.arange(slab.rows.num_rows)
        for position, reason in found.bad:
            self._quarantine.add(slab, numbers[position : position + 1], reason)
        scored = [numbers[start:stop] for start, stop in found.good]
        slab.kept = np.concatenate(scored) if scored else numbers[:0]

    # Writer thread

    def _write(self, predicted: Handover) -> None:
        for slab in predicted:
            if not slab.outputs:  # none of its rows could be scored
                continue
            with self._timed("profile_outputs"):
                self._profile_outputs(slab.outputs)  # first, as it sees names that clash
            with self._timed("write"):
                self._writer.write(self._part_rows(slab))

    def _part_rows(self, slab: Slab) -> pa.RecordBatch:
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

    # End

    def _close(self) -> Scored:
        with self._timed("close"):
            if self._outputs is None:
                nothing = self._engine.empty()
                self._profile_outputs(nothing)
                self._writer.write(self._no_rows(nothing))
            written = self._writer.close()
            self._write_profile()
            self._quarantine.write(self._part)
        return Scored(
            part=self._part,
            part_digest=written.digest,
            rows_scored=written.rows,
            rows_quarantined=self._quarantine.rows,
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
        path.write_text(profile.to_json(self._work.reference), encoding="utf-8")

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        """Add the seconds of the block to a step; each step is one thread's."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[step] += time.perf_counter() - began  # type: ignore[assignment]
