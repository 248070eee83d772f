"""Calls to a service, each in limited time.

Libraries bound the silences of a call, not the whole of it: a service that says a byte now and
then keeps them for ever. Here a call runs in a thread that is left to itself when the time is over;
so many may be left, and while they have not come back no further one is made.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

LEFT_MOST = 8
"""Calls that were left and have not come back."""


class NotInTime(Exception):
    """A call took too long, or was not made, as too many earlier ones have."""


class Calls:
    """The calls of this process to one service."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._left: list[threading.Thread] = []
        self._lock = threading.Lock()

    def within(self, seconds: float, call: Callable[[], T]) -> T:
        """What a call returns or raises, if it does in time.

        Raises:
            NotInTime: it did not; it may yet do what it was asked to.
        """
        self._refuse_more()
        outcome: Future[T] = Future()
        where = contextvars.copy_context()

        def answer() -> None:
            try:
                outcome.set_result(where.run(call))
            except BaseException as error:
                outcome.set_exception(error)

        thread = threading.Thread(target=answer, name=f"call to {self._service}", daemon=True)
        thread.start()
        thread.join(seconds)
        if outcome.done():
            return outcome.result()
        with self._lock:
            self._left.append(thread)
        raise NotInTime(f"it had not answered after {seconds:g} s")

    def _refuse_more(self) -> None:
        with self._lock:
            self._left = [thread for thread in self._left if thread.is_alive()]
            count = len(self._left)
        if count >= LEFT_MOST:
            raise NotInTime(f"{count} earlier calls have not come back")
