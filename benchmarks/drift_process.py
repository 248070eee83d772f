"""One program in a process of its own, on one core: what it printed, and what it cost.

The core is pinned and the thread pools of Arrow, BLAS and OpenMP have one thread, so that seconds
by the clock and of the processor mean the same, and a contender gains nothing by more threads.
Memory is the process's own peak: all that it holds, Python and its libraries included. Needs Linux.

Nothing beyond the standard library is imported, so that any environment can measure itself with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_IO_THREADS"), "1"
)
"""Arrow takes its pool of threads from OMP_NUM_THREADS."""
LIMIT_SECONDS = 1_800


@dataclass(slots=True, kw_only=True)
class Meter:
    """Times a program from its making on; the program's imports come before."""

    base_mib: float = field(default_factory=lambda: peak_mib())
    """Peak memory when the program began."""
    steps: dict[str, float] = field(default_factory=dict)
    """Processor seconds by step."""
    _wall: float = field(default_factory=time.perf_counter)
    _processor: float = field(default_factory=time.process_time)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the processor seconds of the block to a step."""
        began = time.process_time()
        try:
            yield
        finally:
            self.steps[name] = self.steps.get(name, 0.0) + time.process_time() - began

    def spent(self) -> dict[str, Any]:
        """What it took up to now: seconds by the clock and of the processor, and memory."""
        return {
            "seconds": time.perf_counter() - self._wall,
            "processor": time.process_time() - self._processor,
            "base_mib": self.base_mib,
            "peak_mib": peak_mib(),
            "steps": self.steps,
        }


def alone(module: str, *arguments: object, python: Path | str = sys.executable) -> dict[str, Any]:
    """Run ``python -m module arguments`` on one core; the last line it prints is a JSON object."""
    done = subprocess.run(
        [str(python), "-m", module, *(str(argument) for argument in arguments)],
        cwd=ROOT,
        env={**os.environ, **ONE_THREAD},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        preexec_fn=partial(os.sched_setaffinity, 0, {max(os.sched_getaffinity(0))}),
    )
    if done.returncode:
        raise SystemExit(f"{module} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak_mib() -> float:
    """Largest resident memory of this process since it began to run this program."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not say how much memory a process used at most")
