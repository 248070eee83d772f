"""Does one piece of the product's work in a process that is struck at a chosen step.

One process imports everything once and then forks for each piece: a hundred deaths cost a hundred
forks, not a hundred imports. It reads requests as JSON, one list a line, and answers with one line
when every forked process has ended or has stopped itself:

    [{"work": "finish", "arguments": [...], "strike_before": 7, "how": 9, ...}]  ->
    [{"pid": 123, "ended": -9, "steps": ["open drift.json", ...], "said": null}]
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from scoring.settings import Settings
from tests.chaos.services import ROOT
from tests.chaos.steps import Steps

MOST_SECONDS = 120
"""A piece of work that takes longer is ended by the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acted:
    """What became of a piece of work."""

    pid: int
    ended: int | None
    """Exit status, or minus the signal that ended it; None: it is stopped, and waits."""
    steps: Sequence[str]
    """Changes it has made or, for the last one when it was struck, was about to make."""
    said: Any
    """What the work returned, or why it failed."""

    @property
    def killed(self) -> bool:
        return self.ended == -signal.SIGKILL

    def __str__(self) -> str:
        return f"{self.said!r} after {len(self.steps)} steps, last {list(self.steps[-3:])}"


class Actor:
    """The process that forks; a context manager."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self._asking = threading.Lock()

    def __enter__(self) -> Actor:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.actor"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)
        if process.stdout is not None:
            process.stdout.close()

    def act(
        self, work: str, *arguments: Any, strike_before: int = 0, how: int = signal.SIGKILL
    ) -> Acted:
        """Do a piece of work, and wait until it has ended or stopped."""
        return self._ask([self._request(work, arguments, strike_before, how)])[0]

    def together(self, works: Sequence[tuple[Any, ...]]) -> list[Acted]:
        """Do pieces of work, each a name and its arguments, at the same time."""
        return self._ask([self._request(name, rest, 0, 0) for name, *rest in works])

    def wake(self, acted: Acted) -> Acted:
        """Let a stopped piece of work go on, and wait until it has ended."""
        return self._ask([{"wake": acted.pid}])[0]

    def _request(
        self, work: str, arguments: Sequence[Any], strike_before: int, how: int
    ) -> dict[str, Any]:
        settings = self._settings
        return {
            "work": work,
            "arguments": arguments,
            "strike_before": strike_before,
            "how": int(how),
            "folder": str(self._folder),
            "settings": {
                "home": str(settings.home),
                "jobs": str(settings.jobs),
                "database_url": settings.database_url,
                "broker_url": settings.broker_url,
                "MLFLOW_TRACKING_URI": settings.tracking_uri,
                "lease_seconds": settings.lease_seconds,
                "sweep_seconds": settings.sweep_seconds,
                "workers": 2,
            },
        }

    def _ask(self, requests: Sequence[dict[str, Any]]) -> list[Acted]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        with self._asking:
            process.stdin.write(json.dumps(requests) + "\n")
            process.stdin.flush()
            return [Acted(**one) for one in json.loads(process.stdout.readline())]


# The process


def serve() -> None:
    """Answer requests until standard input ends."""
    _import_everything()
    notes: dict[int, Path] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, line in enumerate(sys.stdin):
            pids = []
            for place, request in enumerate(json.loads(line)):
                if "wake" in request:
                    pid = request["wake"]
                    os.kill(pid, signal.SIGCONT)
                else:
                    note = Path(scratch, f"{number}-{place}")
                    pid = _forked(request, note)
                    notes[pid] = note
                pids.append(pid)
            print(json.dumps([_awaited(pid, notes[pid]) for pid in pids]), flush=True)


def _import_everything() -> None:
    import matplotlib.pyplot
    import mlflow
    import onnxruntime
    import pyarrow.dataset
    import scipy.stats

    import tests.chaos.work  # noqa: F401

    assert threading.active_count() == 1, "a fork would lose threads"
    del matplotlib, mlflow, onnxruntime, pyarrow, scipy


def _forked(request: dict[str, Any], note: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        status = _work(request, note)
    finally:
        os._exit(status)


def _work(request: dict[str, Any], note: Path) -> int:
    from sqlalchemy import make_url

    from tests.chaos.work import WORK

    os.dup2(2, 1)  # standard output is for answers
    signal.alarm(MOST_SECONDS)
    settings = Settings(**request["settings"])
    ledger = str(make_url(settings.database_url).database)
    steps = Steps(Path(request["folder"]), ledger, request["strike_before"], request["how"])
    lines = note.open("a", encoding="utf-8", buffering=1)
    steps.told = lambda name: print(json.dumps({"step": name}), file=lines) and None
    work: Callable[..., Any] = WORK[request["work"]]
    try:
        said, status = work(settings, steps.watch, *request["arguments"]), 0
    except Exception as error:
        said, status = f"{type(error).__name__}: {error}", 1
    print(json.dumps({"said": said}), file=lines)
    return status


def _awaited(pid: int, note: Path) -> dict[str, Any]:
    _, status = os.waitpid(pid, os.WUNTRACED)
    said: dict[str, Any] = {"said": None}
    steps = []
    for line in note.read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        steps += [one["step"]] if "step" in one else []
        said |= one if "said" in one else {}
    ended = None if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)
    return {"pid": pid, "ended": ended, "steps": steps, "said": said["said"]}


if __name__ == "__main__":
    serve()
