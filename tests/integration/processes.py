"""Commands run as plain processes: waited for by a condition, stopped by their own ids.

Invariant: a process that a test starts here is gone when its block ends, with everything that it
started itself; what had to be killed for that fails the test.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
"""The checkout."""
SCRIPTS = Path(sys.executable).parent
"""Where the environment's commands lie: celery, mlflow, scoring."""
PATIENCE = 150.0
"""Seconds after which something that should have happened counts as broken."""


@dataclass(slots=True)
class Process:
    """One running command and its log."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        """Its output so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def family(self) -> list[psutil.Process]:
        """What it started, and what those started; without itself. None once it has ended: its id
        may be another's by then."""
        if self.popen.poll() is not None:
            return []
        try:
            return psutil.Process(self.popen.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def wait_for(self, happened: str | Callable[[], bool], every: float = 0.05) -> None:
        """Until it has said a text, or a condition is true."""

        def condition() -> bool:
            true = happened in self.said if isinstance(happened, str) else happened()
            if not true and self.popen.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self.popen.returncode}:\n{self}")
            return true

        until(condition, every, lambda: f"{self.name} has not: {happened}\n{self}")

    def end(self, how: int = signal.SIGTERM, seconds: float = PATIENCE) -> int:
        """Send it a signal; its exit status, once it and its family are gone."""
        return self._gone(how, seconds)

    def ended(self, seconds: float = PATIENCE) -> int:
        """The same, of one that is ending already: a further signal would hurry it."""
        return self._gone(None, seconds)

    def _gone(self, how: int | None, seconds: float) -> int:
        family = self.family()
        if how is not None and self.popen.poll() is None:
            self.popen.send_signal(how)
        try:
            status = self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill(family)
            told = "goes on" if how is None else f"ignored signal {how}"
            raise AssertionError(f"{self.name} {told}:\n{self}") from None
        _, left = psutil.wait_procs(family, timeout=seconds)
        left = [process for process in left if process.is_running()]
        if left:
            self.kill(left)
            raise AssertionError(f"{self.name} left {left}:\n{self}")
        return status

    def kill(self, family: Sequence[psutil.Process]) -> None:
        """End it and these at once."""
        self.popen.kill()
        self.popen.wait()
        for process in family:
            if process.is_running():
                process.kill()
        psutil.wait_procs(list(family), timeout=PATIENCE)

    def __str__(self) -> str:
        return "\n".join(self.said.splitlines()[-40:])


@contextmanager
def running(
    name: str, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, logs: Path
) -> Iterator[Process]:
    """Run a command for the length of the block."""
    process = start(name, command, env=env, cwd=cwd, logs=logs)
    try:
        yield process
    except BaseException:
        process.kill(process.family())
        raise
    process.end()


def start(
    name: str, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, logs: Path
) -> Process:
    """Run a command in the background; whoever calls ends it."""
    log = logs / f"{name}.log"
    with log.open("wb") as output:
        popen = subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return Process(name, popen, log)


def until(
    true: Callable[[], bool], every: float = 0.05, otherwise: Callable[[], str] = str
) -> None:
    """Look for a condition every so many seconds; after a deadline, fail with ``otherwise``."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE:.0f} s: {otherwise()}")
        time.sleep(every)
