"""How commands in the foreground are told to stop: Ctrl-C, SIGTERM, a terminal that closes.

A signal is counted, and raises `KeyboardInterrupt` only where nothing can be left half done; what
starts and stops services looks at the count instead.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from scoring.settings import Settings
from scoring.stack import Stack

STOPPING = [signal.SIGINT, signal.SIGTERM]
if hasattr(signal, "SIGHUP"):
    STOPPING.append(signal.SIGHUP)


class Asked:
    """How often a person, or whoever runs us, has asked this process to stop."""

    def __init__(self) -> None:
        self.times = 0
        self._event = threading.Event()
        self._raises = False

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it was asked by now, or within so many seconds (none: wait until it is)."""
        return self._event.wait(seconds)

    @contextmanager
    def interrupts(self) -> Iterator[None]:
        """Be interrupted while the block runs; at once if it was asked before."""
        self._raises = True
        try:
            if self.times:
                raise KeyboardInterrupt
            yield
        finally:
            self._raises = False

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        self.times += 1
        self._event.set()
        if self._raises:
            self._raises = False  # once is enough: what follows cleans up
            raise KeyboardInterrupt


def asked_to_stop() -> Asked:
    """What these signals are counted by from now on."""
    asked = Asked()
    for number in STOPPING:
        with suppress(OSError):
            signal.signal(number, asked)
    return asked


@contextmanager
def embedded(settings: Settings, queues: tuple[str, ...]) -> Iterator[Stack]:
    """The embedded services for the length of a command that waits for a run."""
    asked = asked_to_stop()
    with Stack(settings, queues=queues, asked=lambda: asked.times) as stack, asked.interrupts():
        yield stack
