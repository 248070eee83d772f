"""A bound on each call of the model in this process, whose thread nobody else can interrupt.

Two clocks run while the model is called, and every batch sets both back. The first is a thread of
Python: it tells whoever can write down that the model hangs. The second, a little later, is the
interpreter's own (`faulthandler`): a call that never gives up the interpreter's lock, such as a
regular expression that backtracks for ever, stops every thread of Python, the lease's too. It ends
the process without a word, which counts as a death.
"""

from __future__ import annotations

import faulthandler
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STDERR = 2
GRACE_SECONDS = 10.0
"""How much later than the first clock the second ends the process."""
REWIND_SECONDS = 1.0
"""How often the second clock is set back at most: it costs a thread."""


class Watchdog:
    """Calls ``bark`` from its own thread, once, when a watched call has been silent too long."""

    def __init__(self, bark: Callable[[float], None], *, may_end_process: bool) -> None:
        self._bark, self._second_clock = bark, may_end_process
        self._seconds = 0.0
        self._until: float | None = None
        self._rewound = 0.0
        self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    @contextmanager
    def call(self, seconds: float) -> Iterator[None]:
        """Watch the block, which may be silent for so long."""
        with self._changed:
            self._seconds, self._until = seconds, time.monotonic() + seconds
            self._changed.notify()
        self._rewind()
        try:
            yield
        finally:
            with self._changed:
                self._until = None
            if self._second_clock:
                faulthandler.cancel_dump_traceback_later()

    def progress(self) -> None:
        """A batch is done: the time begins anew."""
        now = time.monotonic()
        with self._changed:
            if self._until is None:
                return
            self._until = now + self._seconds
        if now - self._rewound > REWIND_SECONDS:
            self._rewind()

    def _rewind(self) -> None:
        if not self._second_clock:
            return
        self._rewound = time.monotonic()
        faulthandler.dump_traceback_later(self._seconds + GRACE_SECONDS, exit=True, file=STDERR)

    def _watch(self) -> None:
        with self._changed:
            while not self._stopped:
                left = None if self._until is None else self._until - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._changed.wait(left)
            else:
                return
        self._bark(self._seconds)
