"""How much memory this machine has for us, which in a container can be less than there is."""

from __future__ import annotations

from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
MIB = 1 << 20
SHARE = 0.8
"""Of the memory, for worker children together: the rest is the system's and other services'."""


def memory_mb(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> int:
    """The machine's memory, or the smallest limit of the control groups that we are in, in MiB."""
    limits = [int(psutil.virtual_memory().total)]
    for controller, name in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        place = _place(own, controller)
        for group in (place, *place.parents):
            limits += _limit(cgroups / controller / str(group).lstrip("/") / name)
    return min(limits) // MIB


def child_memory_mb(children: int, memory: int) -> int:
    """What each of so many worker children may grow to, of so many MiB."""
    return max(1, int(memory * SHARE) // max(1, children))


def _place(own: Path, controller: str) -> Path:
    """Our control group, in the second version (no controller) or the first."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return Path("/")
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controller in controllers.split(","):
            return Path("/") / place.lstrip("/")
    return Path("/")


def _limit(file: Path) -> list[int]:
    """The limit in a file, if there is one; ``max`` is none."""
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return []
    return [int(text)] if text.isdigit() else []
