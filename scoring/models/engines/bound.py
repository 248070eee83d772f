"""Calls of a session that are bound to device memory, several under way at once.

Each batch goes through a slot: staged in the slot's host memory, copied to the device, computed,
copied back. There are as many slots as stages, so that copies and computation overlap.

Invariant: results are those of plain calls. The first batch is run both ways; if the two differ, or
the graph's outputs cannot be bound, or a call fails bound that succeeds plainly, every call after
it is plain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from scoring import telemetry
from scoring.models.batch import BatchSize, ran_out_of_memory
from scoring.models.engines.runner import Cut, Feeds, Plain
from scoring.models.engines.slots import Batch, Layout, Slot, packed
from scoring.models.engines.traffic import Traffic

log = telemetry.logger(__name__)

Array = npt.NDArray[Any]

SLOTS = 3
"""One batch on its way there, one computed, one on its way back."""
TOLERANCE = 1e-3
"""Share of the largest output by which two ways of the same computation may differ."""


class Bound:
    """Batches through slots, where the graph allows it."""

    def __init__(
        self, session: onnxruntime.InferenceSession, wanted: Sequence[str], traffic: Traffic
    ) -> None:
        self._session, self._wanted, self._traffic = session, list(wanted), traffic
        self._plain = Plain(session, wanted)
        self._outputs: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        self._slots: list[Slot] = []
        self._turn = 0
        self.why_plain = "" if self._on_device() else "the graph reads or writes on the CPU"
        """Why calls are plain; empty while they are not."""

    def calls(self, batches: BatchSize, rows: int, cut: Cut) -> list[list[Any]]:
        with self._nothing_left():
            return _results(batches.calls(rows, lambda start, stop: self._start(cut(start, stop))))

    def each(self, feeds: Iterable[Feeds]) -> list[list[Any]]:
        with self._nothing_left():
            return _results([self._start(one) for one in feeds])

    @contextmanager
    def _nothing_left(self) -> Iterator[None]:
        """Leave nothing under way when the block fails."""
        try:
            yield
        except BaseException:
            self._release()
            raise

    def _start(self, feeds: Feeds) -> Batch | list[Any]:
        if self.why_plain:
            return self._plain.run(feeds)
        if not self._outputs:
            return self._first(feeds)
        try:
            return self._queued(feeds)
        except Exception as error:
            self._release()  # copies may still be moving, and memory may be short
            if ran_out_of_memory(error):
                raise
            outputs = self._plain.run(feeds)
            self._stay_plain(f"a bound call failed where a plain one did not: {error}")
            return outputs

    def _first(self, feeds: Feeds) -> list[Any]:
        """Run a batch plainly, and again bound to learn whether that gives the same."""
        expected = self._plain.run(feeds)
        why = self._unbindable(feeds, expected)
        if not why:
            self._outputs = {
                name: (values.dtype, values.shape[1:])
                for name, values in zip(self._wanted, expected, strict=True)
            }
            why = self._differs(feeds, expected)
        if why:
            self._stay_plain(why)
        return expected

    def _differs(self, feeds: Feeds, expected: Sequence[Array]) -> str:
        try:
            found = self._queued(feeds).result()
        except Exception as error:
            self._release()
            if ran_out_of_memory(error):
                self._outputs = {}  # try again with a smaller batch
                raise
            return f"a bound call failed where a plain one did not: {error}"
        return "" if all(map(_alike, expected, found)) else "bound calls gave other results"

    def _queued(self, feeds: Feeds) -> Batch:
        if not self._slots:
            self._slots = [Slot(self._session, self._traffic) for _ in range(SLOTS)]
        self._turn = (self._turn + 1) % SLOTS
        return self._slots[self._turn].start(feeds, *self._layouts(feeds))

    def _layouts(self, feeds: Feeds) -> tuple[Layout, Layout]:
        rows = _rows(feeds)
        return (
            packed({name: (values.dtype, values.shape) for name, values in feeds.items()}),
            packed({name: (kind, (rows, *axes)) for name, (kind, axes) in self._outputs.items()}),
        )

    def _unbindable(self, feeds: Feeds, outputs: Sequence[Any]) -> str:
        """Why these inputs and outputs cannot lie in buffers of a known size."""
        rows = _rows(feeds)
        for name, values in (*feeds.items(), *zip(self._wanted, outputs, strict=True)):
            if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
                return f"{name} is no tensor of numbers"
            if values.ndim == 0 or len(values) != rows:
                return f"{name} does not have one value per row"
        for described in self._session.get_outputs():
            axes = described.shape[1:]
            known = described.shape and all(isinstance(axis, int) for axis in axes)
            if described.name in self._wanted and not known:
                return f"the width of {described.name} is open"
        return ""

    def _on_device(self) -> bool:
        """Whether the graph takes its inputs, and leaves its outputs, where they are bound."""
        session = self._session
        names = [one.name for one in session.get_outputs()]
        outputs = dict(zip(names, session.get_output_memory_infos(), strict=True))
        places = [*session.get_input_memory_infos(), *(outputs[name] for name in self._wanted)]
        return all(place.name.lower() == self._traffic.kind for place in places)

    def _stay_plain(self, why: str) -> None:
        self.why_plain = why
        self._release()
        log.warning("calls_not_bound", why=why)

    def _release(self) -> None:
        """Take out what is under way, and set the memory of the slots free."""
        if not self._slots:
            return
        self._traffic.settle()
        for slot in self._slots:
            slot.fetch()
        self._slots = []
        self._traffic.give_back()


def _results(done: Sequence[Batch | list[Any]]) -> list[list[Any]]:
    return [one.result() if isinstance(one, Batch) else one for one in done]


def _rows(feeds: Feeds) -> int:
    return len(next(iter(feeds.values())))


def _alike(expected: Array, found: Array) -> bool:
    if expected.dtype.kind != "f":
        return bool(np.array_equal(expected, found))
    finite = expected[np.isfinite(expected)].astype(np.float64)
    largest = float(np.abs(finite).max(initial=0.0))
    return bool(np.allclose(found, expected, rtol=0, atol=TOLERANCE * largest, equal_nan=True))
