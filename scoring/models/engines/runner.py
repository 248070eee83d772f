"""Runners: how a session is called over the batches of a slab.

On the CPU one call follows the other. On a GPU calls are bound to device memory and overlap with
their copies (see `bound`); PyTorch, which does the copies, is loaded only then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy.typing as npt
import onnxruntime

from scoring import telemetry
from scoring.models.batch import BatchSize
from scoring.models.engines.session import compute_stream_of, device_of

log = telemetry.logger(__name__)

Feeds = Mapping[str, npt.NDArray[Any]]
"""Graph inputs by name, rows first."""
Cut = Callable[[int, int], Feeds]
"""The inputs of the rows from the first number up to, without, the second."""


class Runner(Protocol):
    """Runs a session over rows in batches."""

    def calls(self, batches: BatchSize, rows: int, cut: Cut) -> list[list[Any]]:
        """The outputs of each batch, in order.

        Raises:
            MemoryError: one row does not fit into memory.
        """

    def each(self, feeds: Iterable[Feeds]) -> list[list[Any]]:
        """The outputs of batches that somebody else has cut, in order."""


class Plain:
    """One call after the other; ONNX Runtime copies."""

    def __init__(self, session: onnxruntime.InferenceSession, wanted: Sequence[str]) -> None:
        self._session, self._wanted = session, list(wanted)

    def calls(self, batches: BatchSize, rows: int, cut: Cut) -> list[list[Any]]:
        return batches.calls(rows, lambda start, stop: self.run(cut(start, stop)))

    def each(self, feeds: Iterable[Feeds]) -> list[list[Any]]:
        return [self.run(one) for one in feeds]

    def run(self, feeds: Feeds) -> list[Any]:
        """The outputs of one batch."""
        return list(self._session.run(self._wanted, dict(feeds)))


def runner(session: onnxruntime.InferenceSession, wanted: Sequence[str]) -> Runner:
    """The best way to run a session on its device, for these of its outputs."""
    stream = compute_stream_of(session)
    if not stream:
        if device_of(session) == "cuda":
            log.info("copies_not_overlapped", why="the session computes on a stream of its own")
        return Plain(session, wanted)
    from scoring.models.engines.bound import Bound
    from scoring.models.engines.traffic import CudaTraffic

    return Bound(session, wanted, CudaTraffic(stream))
