"""How commands that run in the foreground are told to stop."""

from __future__ import annotations

import signal
import threading
from types import FrameType


def asked_to_stop() -> threading.Event:
    """An event that SIGTERM and Ctrl-C set from now on."""
    asked = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        asked.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return asked
