"""Faults that go on for a while, each with the moment at which it is over.

Each heals in a thread of its own: a fault must end also while whoever caused it waits for
something that only its end brings.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Healing:
    """Heals faults when their time has come, or all of them now."""

    def __init__(self) -> None:
        self._open: list[_Once] = []

    def after(self, seconds: float, heal: Callable[[], None]) -> None:
        self._open = [one for one in self._open if not one.done]
        self._open.append(_Once(seconds, heal))

    def now(self) -> None:
        """Heal everything; return when it is."""
        for one in self._open:
            one.finish()
        self._open = []


class _Once:
    """One fault's end, which comes once."""

    def __init__(self, seconds: float, heal: Callable[[], None]) -> None:
        self._heal = heal
        self._lock = threading.Lock()
        self.done = False
        self._timer = threading.Timer(seconds, self.finish)
        self._timer.daemon = True
        self._timer.start()

    def finish(self) -> None:
        self._timer.cancel()
        with self._lock:
            if not self.done:
                self.done = True
                self._heal()
