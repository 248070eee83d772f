"""Who a worker process is, so that another on the same host can tell that it is dead.

The name holds host, PID namespace, PID and start time: a reused PID, or the same PID in another
container, is somebody else.
"""

from __future__ import annotations

import os
import socket
from functools import cache

from scoring.processes import started


@cache
def _host() -> str:
    try:
        namespace = os.readlink("/proc/self/ns/pid").removeprefix("pid:").strip("[]")
    except OSError:
        namespace = "0"
    return f"{socket.gethostname()}/{namespace}"


def this_worker() -> str:
    """The name of this process."""
    return str(worker_of(os.getpid()))


def worker_of(pid: int) -> str | None:
    """The name of a process on this host; ``None`` if it is gone."""
    began = started(pid)
    return None if began is None else f"{_host()}/{pid}/{began}"


def is_dead_here(worker: str | None) -> bool:
    """Whether ``worker`` ran on this host and is gone. False for workers elsewhere."""
    if worker is None or worker.count("/") != 3:
        return False
    host, namespace, pid, began = worker.split("/")
    return f"{host}/{namespace}" == _host() and started(int(pid)) != began
