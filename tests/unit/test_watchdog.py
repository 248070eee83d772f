"""The watchdog: silence is noticed, progress is not mistaken for it, and no lock keeps it quiet."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

from scoring.runs.watchdog import Watchdog

PATIENCE = 150.0
"""Seconds after which something that should have happened counts as broken."""
ROOT = Path(__file__).parents[2]
STUCK = """
import re
from scoring.runs import watchdog
watchdog.GRACE_SECONDS = 0.5
with watchdog.Watchdog(lambda seconds: None, may_end_process=True) as dog, dog.call(0.5):
    re.match("(a+)+$", "a" * 64 + "b")
"""
"""A call that never gives up the interpreter's lock, so that no other thread runs."""
IN_TIME = STUCK.replace('"a" * 64', '"a" * 4').replace("call(0.5)", "call(60.0)")


def test_a_silent_call_is_barked_at_once_with_the_seconds_it_had() -> None:
    barked: list[float] = []
    heard = threading.Event()

    def bark(seconds: float) -> None:
        barked.append(seconds)
        heard.set()

    with Watchdog(bark, may_end_process=False) as watchdog, watchdog.call(0.05):
        assert heard.wait(PATIENCE)

    assert barked == [0.05]


def test_nobody_barks_between_calls_or_while_batches_are_done() -> None:
    barked: list[float] = []

    with Watchdog(barked.append, may_end_process=False) as watchdog:
        with watchdog.call(6.0):
            began = time.monotonic()
            while time.monotonic() - began < 7.0:
                time.sleep(0.02)
                watchdog.progress()
        with watchdog.call(0.001):
            pass
        watchdog.progress()

    assert barked in ([], [0.001])  # the second may have been too slow


def test_a_call_that_keeps_the_interpreter_to_itself_ends_the_process_and_shows_where() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", STUCK], cwd=ROOT, capture_output=True, timeout=PATIENCE
    )

    assert ended.returncode == 1
    assert b"re/__init__.py" in ended.stderr


def test_a_process_whose_calls_end_in_time_is_not_ended() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", IN_TIME],
        cwd=ROOT,
        capture_output=True,
        timeout=PATIENCE,
    )

    assert (ended.returncode, ended.stderr) == (0, b"")
