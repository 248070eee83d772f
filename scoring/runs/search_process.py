"""The search as a process: started, watched, ended with its worker or when it takes too long."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from scoring import telemetry
from scoring.processes import end_with_parent

log = telemetry.logger(__name__)

REQUEST, RESULT, LOG = "request.json", "result.json", "log"
LOOK_SECONDS = 0.05
"""How often it is looked whether the search has ended."""


def run_search(folder: Path, threads: int, seconds: float, go_on: Callable[[], None]) -> str:
    """Run the search whose request lies in ``folder``; say what went wrong, or nothing.

    ``go_on`` raises when the worker should do something else: the search is killed then.
    """
    began = time.monotonic()
    command = [sys.executable, "-m", "scoring.models", f"{folder / REQUEST}", f"{folder / RESULT}"]
    with (folder / LOG).open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=end_with_parent,
        )
    try:
        while process.poll() is None:
            go_on()
            if time.monotonic() - began > seconds:
                return f"the search took longer than SCORING_SEARCH_SECONDS = {seconds:g}"
            time.sleep(LOOK_SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode == 0 and (folder / RESULT).is_file():
        return ""
    said = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip()
    last = (said.splitlines() or ["it said nothing"])[-1]
    log.error("search_failed", code=process.returncode, last=last)
    return f"the search ended with code {process.returncode}: {last[:300]}"
