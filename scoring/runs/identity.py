"""Who a worker process is, so that another on the same host can tell that it is dead.

The name holds host, PID namespace, PID and start time: a reused PID, or the same PID in another
container, is somebody else.
"""

from __future__ import annotations

import os
import socket
from functools import cache

import psutil


@cache
def _host() -> str:
    try:
        namespace = os.readlink("/proc/self/ns/pid").removeprefix("pid:").strip("[]")
    except OSError:
        namespace = "0"
    return f"{socket.gethostname()}/{namespace}"


def this_worker() -> str:
    """The name of this process."""
    pid = os.getpid()
    return f"{_host()}/{pid}/{psutil.Process(pid).create_time():.2f}"


def is_dead_here(worker: str | None) -> bool:
    """Whether ``worker`` ran on this host and is gone. False for workers elsewhere."""
    if worker is None or worker.count("/") != 3:
        return False
    host, namespace, pid, started = worker.split("/")
    if f"{host}/{namespace}" != _host():
        return False
    try:
        process = psutil.Process(int(pid))
        same = f"{process.create_time():.2f}" == started
        return not same or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
