"""What a worker child is to the engine: a process that may be ended, and that grows only so far.

Celery replaces a child that has died and delivers its message again; it replaces a child that has
grown after the task that it is at, so no chunk is lost by that.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from billiard.common import terminate_handler_fired
from billiard.compat import mem_rss
from billiard.pool import EX_RECYCLE
from celery.worker import state

from scoring import telemetry
from scoring.memory import child_memory_mb, memory_mb
from scoring.runs import Host
from scoring.settings import Settings

log = telemetry.logger(__name__)

KIB = 1 << 10
"""Celery counts in KiB."""


def host() -> Host:
    """This process, as the engine may use it."""
    return Host(end=_end, told_to_stop=_told_to_stop)


def limit_memory(worker: Any, children: int, settings: Settings) -> None:
    """Before the children start: how large one may have been when it is replaced.

    Measured is the most that a child ever held, so a limit below what a chunk needs at its peak
    costs a start of a child for every chunk.
    """
    if worker.max_memory_per_child:  # somebody chose another on Celery's command line
        return
    limit = settings.child_memory_mb or child_memory_mb(children, memory_mb())
    worker.max_memory_per_child = limit * KIB
    log.info("child_memory_limited", mb=limit, children=children)


def say_why_replaced(exitcode: int) -> None:
    """In a child that ends: whether it does so because it has grown."""
    if exitcode == EX_RECYCLE:
        log.info("child_replaced", peak_mb=mem_rss() // KIB)


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _told_to_stop() -> bool:
    """Whether a signal told this child, or a worker without children, to end."""
    return bool(terminate_handler_fired()) or state.should_terminate is not None
