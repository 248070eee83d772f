"""How a beat that is told to stop ends, wherever the signal finds it.

Celery raises SystemExit in whatever beat does at that moment. In the middle of a message the
client of the broker makes another error of it, the scheduler logs that one, and beat would go on
for ever. Here the loop is told as well, and the exception comes again until beat has ended.
"""

from __future__ import annotations

import atexit
import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
AGAIN_SECONDS = 1.0
"""How long after an exception that was swallowed the next one comes."""


def install(service: Any) -> None:
    """Take the signals over, once Celery has installed its handlers; not within a worker."""
    celerys = callable(signal.getsignal(signal.SIGTERM))
    if celerys and threading.current_thread() is threading.main_thread():
        stopping = Stopping(service)
        for number in (*SIGNALS, signal.SIGALRM):
            signal.signal(number, stopping)
        # The interpreter gives the handlers up before it has ended: an alarm would kill it then.
        atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)


class Stopping:
    """The handler of these signals."""

    def __init__(self, service: Any) -> None:
        self._service = service
        self._told = threading.Event()
        self._told.set()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        # Not `stop`, nor `set`: what is interrupted may hold the lock of the log, or of the event.
        self._service._is_shutdown = self._told
        if self._service._is_stopped.is_set():
            return
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        raise SystemExit
