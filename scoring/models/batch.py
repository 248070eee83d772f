"""Batch size: how many rows one call of the model takes, and what happens when memory runs out.

A batch size is found by timing (see `timing`), pinned with the run, and only ever shrinks: when a
call runs out of memory its rows are scored in halves, and the smaller size stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

NETWORK_ROWS = 256
GPU_NETWORK_ROWS = 4_096
TREES_ROWS = 8_192
FRAME_ROWS = 16_384
"""Sizes to begin with, measured on CPUs with 2 MiB of cache a core: networks while a batch's
activations stay in cache, trees once a call's fixed cost is spread, pandas models once a frame's
is. On a GPU a call costs as much as a few thousand rows of a small network."""
TREE_OPERATORS = frozenset({"TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble"})
OUT_OF_MEMORY = (
    "out of memory",
    "failed to allocate memory",
    "bad allocation",
    "bad_alloc",
    "alloc_failed",
)
"""How runtimes that have no exception for it say that memory ran out, in lower case."""

Result = TypeVar("Result")


def usual_rows(operators: Iterable[str], device: str = "cpu") -> int:
    """Rows per call for an ONNX graph of these operators, before anything was timed."""
    if TREE_OPERATORS.intersection(operators):
        return TREES_ROWS
    return NETWORK_ROWS if device == "cpu" else GPU_NETWORK_ROWS


class BatchSize:
    """Rows of one call; halved whenever memory runs out, never raised again."""

    def __init__(self, rows: int, done: Callable[[], None] = lambda: None) -> None:
        self.rows = rows
        self.done = done
        """Called after every batch: whoever watches the model sees that it goes on."""

    def calls(self, rows: int, call: Callable[[int, int], Result]) -> list[Result]:
        """``call(start, stop)`` over consecutive ranges that cover ``rows`` rows, in order.

        Raises:
            MemoryError: a single row does not fit either.
        """
        results: list[Result] = []
        start = 0
        while start < rows:
            stop = min(start + self.rows, rows)
            try:
                results.append(call(start, stop))
            except Exception as error:
                self.shrink(stop - start, error)
                continue
            self.done()
            start = stop
        return results

    def shrink(self, tried: int, error: Exception) -> None:
        """Halve the size after a call of ``tried`` rows ran out of memory.

        Raises:
            MemoryError: there is nothing left to halve.
            Exception: ``error`` itself, when it says something else.
        """
        if not ran_out_of_memory(error):
            raise error
        if tried <= 1:
            raise MemoryError(f"one row does not fit into memory: {error}") from error
        self.rows = (tried + 1) // 2


class Batched:
    """What engines that cut their rows by a `BatchSize` have in common."""

    _batches: BatchSize

    @property
    def batch_rows(self) -> int:
        """Rows of one call of the model."""
        return self._batches.rows

    def resize(self, batch_rows: int) -> None:
        """Call the model with that many rows from now on."""
        self._batches = BatchSize(batch_rows, self._batches.done)

    def watch(self, done: Callable[[], None]) -> None:
        """Call ``done`` after every batch from now on."""
        self._batches.done = done


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error of a runtime means that memory, of host or device, ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return True
    runtime = type(error).__module__.startswith(("onnxruntime", "torch")) or isinstance(
        error, RuntimeError
    )
    return runtime and any(words in str(error).lower() for words in OUT_OF_MEMORY)
