"""How a worker that is told to stop ends: its children finish their chunks, or hand them back.

The first SIGTERM, SIGINT or SIGQUIT lets children go on for the soft time and take nothing new; a
further signal ends the soft time, and one more the time to hand back. Celery by itself would wait
for ever after SIGTERM, and after SIGQUIT sleep for the whole soft time, however soon it is idle. A
child that does not hear the signal, deep in a model's native code, is killed, and its chunks are
handed back for it. With REMAP_SIGTERM Celery's own way is left as it is.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

from billiard.common import REMAP_SIGTERM, TERM_SIGNAL

from scoring import telemetry
from scoring.errors import ScoringError
from scoring.runs import Context, hand_back_of, worker_of

log = telemetry.logger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
HAND_BACK_SECONDS = 5.0
"""How long children may take to hand back once they are told to, and to be gone once killed."""
LOOK_SECONDS = 0.05
"""How often it is looked whether they have ended."""


def install(pool: Any, context: Callable[[], Context], seconds: float) -> None:
    """Take the signals over, once Celery has installed its handlers; in a pool with children."""
    ours = isinstance(signal.getsignal(signal.SIGTERM), Stopping)
    children = {*pool.info.get("processes", ())} - {os.getpid()}  # a solo worker names itself
    if children and not ours and not REMAP_SIGTERM:
        stopping = Stopping(pool, context, seconds, signal.getsignal(signal.SIGTERM))
        for number in SIGNALS:
            signal.signal(number, stopping)


class Stopping:
    """One worker's handler of these signals."""

    def __init__(
        self, pool: Any, context: Callable[[], Context], seconds: float, warm: Any
    ) -> None:
        self._pool, self._context, self._seconds, self._warm = pool, context, seconds, warm
        self._signals = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals == 1:
            children = {pid: worker_of(pid) for pid in self._pool.info["processes"]}
            known = {pid: name for pid, name in children.items() if name is not None}
            # No daemon: the interpreter waits for it, so that nothing is left with the dead.
            threading.Thread(target=self._end, args=(known,), name="stopping").start()
        self._warm(number, frame)

    def _end(self, children: Mapping[int, str]) -> None:
        """Wait for the children to end, and hurry them when their time is over."""
        if self._all_ended(children, self._seconds, hurried_by=2):
            return
        log.warning("soft_time_over", seconds=self._seconds)
        _send(TERM_SIGNAL, children)
        if not self._all_ended(children, HAND_BACK_SECONDS, hurried_by=3):
            log.warning("children_killed", pids=[*_alive(children)])
            _send(signal.SIGKILL, children)
            self._all_ended(children, HAND_BACK_SECONDS, hurried_by=None)
        try:
            hand_back_of(self._context(), [*children.values()])
        except ScoringError as error:
            log.warning("chunks_not_handed_back", error=str(error))  # their leases run out

    def _all_ended(
        self, children: Mapping[int, str], seconds: float, *, hurried_by: int | None
    ) -> bool:
        """Whether they end within so many seconds, or before so many signals have come."""
        until = time.monotonic() + seconds
        while _alive(children):
            hurried = hurried_by is not None and self._signals >= hurried_by
            if hurried or time.monotonic() > until:
                return False
            time.sleep(LOOK_SECONDS)
        return True


def _alive(children: Mapping[int, str]) -> Sequence[int]:
    return [pid for pid, name in children.items() if worker_of(pid) == name]


def _send(number: int, children: Mapping[int, str]) -> None:
    for pid in _alive(children):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
