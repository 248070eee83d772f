"""Telling one process from another that has its number, and ending with one's parent.

A process is known by its PID and the moment it started, on a clock that nobody can set: the
kernel's ticks since boot on Linux, the system's creation time elsewhere.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

import psutil

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before any fork


def end_with_parent(how: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel end this process when the thread that started it is gone (Linux only).

    For ``preexec_fn``: it runs between fork and exec.
    """
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, how)


def has_ended(pid: int) -> bool:
    """Whether a child has ended, without collecting it: its number stays its own meanwhile."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def started(pid: int) -> str | None:
    """When a process started; ``None`` if it is gone (or dead and only not collected yet)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return _started_elsewhere(pid)
    state, *rest = status.rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]  # proc(5): field 22 of the line


def _started_elsewhere(pid: int) -> str | None:
    if Path("/proc/self/stat").exists():
        return None
    try:
        process = psutil.Process(pid)
        gone = process.status() == psutil.STATUS_ZOMBIE
        return None if gone else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None
