"""Slabs from one thread to the next, a few at a time, until the end or until anyone fails."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

from scoring.pipeline.work import Slab

WAITING_SLABS = 2
"""Slabs that may wait between two threads: what bounds memory."""
LOOK_SECONDS = 0.2
"""How often a waiting thread looks whether the attempt has stopped."""


class Stop:
    """Shared by an attempt's threads: set once, with the error that ended it if there was one."""

    def __init__(self) -> None:
        self._set = threading.Event()
        self.error: BaseException | None = None

    def __bool__(self) -> bool:
        return self._set.is_set()

    def now(self, error: BaseException | None = None) -> None:
        """End the attempt; the first error counts."""
        if error is not None and self.error is None:
            self.error = error
        self._set.set()


class Handover:
    """A short queue that neither side can be stuck in once the attempt has stopped."""

    def __init__(self, stop: Stop) -> None:
        self._slabs: queue.Queue[Slab | None] = queue.Queue(WAITING_SLABS)
        self._stop = stop

    def put(self, slab: Slab | None) -> None:
        """Hand a slab on; ``None`` says that it was the last."""
        while not self._stop:
            try:
                self._slabs.put(slab, timeout=LOOK_SECONDS)
            except queue.Full:
                continue
            return

    def __iter__(self) -> Iterator[Slab]:
        """Slabs until the last, or until the attempt has stopped."""
        while not self._stop:
            try:
                slab = self._slabs.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
            if slab is None:
                return
            yield slab


class Stage:
    """A thread whose error, if it has one, stops the attempt and surfaces there."""

    def __init__(self, name: str, work: Callable[[], None], stop: Stop) -> None:
        self._work, self._stop = work, stop
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name)

    def start(self) -> None:
        self._thread.start()

    def wait(self) -> None:
        """Until it has ended.

        Unlike joining a thread this can be taken up again when a signal has broken it off. A
        thread that has not begun by then finds that the attempt has stopped.
        """
        if self._thread.ident is not None:
            self._ended.wait()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._stop.now(error)
        finally:
            self._ended.set()
