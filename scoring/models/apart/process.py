"""The process of one model as its worker sees it: started, asked, and ended in every case."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pyarrow as pa

from scoring.models.apart.wire import Wire, Words
from scoring.models.faults import ModelStopped
from scoring.processes import end_with_parent, has_ended

LOOK_SECONDS = 0.2
"""How often a waiting worker looks whether it should go on, and whether the process lives."""
LEAVE_SECONDS = 1.0
"""How long a process that is not needed any more, or has stopped talking, may take to end."""


class _Late(Exception):
    """Nothing was heard for as long as a call may take."""


class Process:
    """One process with one model. Calls come from one thread.

    ``check`` is called while an answer is waited for, and raises when the worker should do
    something else: the process is killed then.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._until = 0.0
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        try:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "scoring.models.apart", f"{theirs_in}", f"{theirs_out}"],
                pass_fds=(theirs_in, theirs_out),
                stdin=subprocess.DEVNULL,
                stdout=2,  # a model that prints does so into the worker's log
                start_new_session=True,
                preexec_fn=partial(end_with_parent, signal.SIGKILL),
            )
        except BaseException:
            os.close(ours_in)
            os.close(ours_out)
            raise
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        os.set_blocking(ours_out, False)
        self._wire = Wire(ours_in, ours_out, self._ready)

    def ask(
        self, words: Words, rows: pa.RecordBatch | None, seconds: float
    ) -> tuple[Words, pa.RecordBatch | None]:
        """Its answer. ``seconds`` is how long it may be silent: it speaks after every batch.

        Raises:
            ModelStopped: it died, or was silent for longer and has been killed; nothing is left
                of it.
        """
        try:
            self._until = time.monotonic() + seconds
            self._wire.send(words, rows)
            while True:
                answer, found = self._wire.receive()
                if answer["did"] != "batch":
                    return answer, found
                self._until = time.monotonic() + seconds
        except (EOFError, BrokenPipeError):
            raise ModelStopped(self._how_it_ended(), silent=False) from None
        except _Late:
            self.kill()
            how = f"the model did not answer within {seconds:g} s"
            raise ModelStopped(how, silent=True) from None
        except BaseException:
            self.kill()
            raise

    def close(self) -> None:
        """Let it end by itself, as nothing more is asked, and see to it that it does."""
        self._wire.close()
        self._wait()
        self._collect()

    def kill(self) -> None:
        self._wire.close()
        self._collect()

    def _ready(self, descriptor: int, write: bool) -> None:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT if write else select.POLLIN)
        while not poll.poll(LOOK_SECONDS * 1000):
            self._check()
            if time.monotonic() > self._until:
                raise _Late
            if has_ended(self._popen.pid):  # what it started may still hold its end of the pipe
                raise EOFError

    def _how_it_ended(self) -> str:
        self._wire.close()
        ended = self._wait()
        self._collect()
        code = self._popen.returncode
        if not ended:
            return "the model's process closed its connection to the worker"
        if code < 0:
            return f"the model's process died with {signal.Signals(-code).name}"
        return f"the model's process ended itself with code {code}"

    def _wait(self) -> bool:
        until = time.monotonic() + LEAVE_SECONDS
        while not has_ended(self._popen.pid):
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        return True

    def _collect(self) -> None:
        """Kill whatever is left of its session, then let go of its number."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
