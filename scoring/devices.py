"""Devices: which GPUs and which CPU this machine has, read from text that the system keeps.

Invariant: nothing here loads CUDA, which looks at ``CUDA_VISIBLE_DEVICES`` once and never again;
so a worker child can still be given its GPU afterwards. A device's name stands for its speed: two
machines with the same name may share what was timed on one of them.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scoring.errors import DeviceUnavailable

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
BUS_ORDER = "PCI_BUS_ID"
"""Numbers GPUs as the driver does; CUDA by itself puts the fastest first."""
DRIVER = Path("/proc/driver/nvidia")
CPU_TEXT = Path("/proc/cpuinfo")
LISTING_SECONDS = 20.0
"""How long ``nvidia-smi`` may take; it wakes sleeping GPUs."""
INT8_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""Instruction sets that multiply int8, as Linux names them on x86-64 and Arm."""

_UUID = re.compile(r"(?:GPU|MIG)-[0-9a-fA-F-]+$")
_LISTED_GPU = re.compile(r"GPU (?P<index>\d+): (?P<name>.+?) \(UUID: (?P<uuid>GPU-[0-9a-fA-F-]+)\)")
_LISTED_SLICE = re.compile(r"\s+(?P<name>MIG \S+)\s.*\(UUID: (?P<uuid>MIG-[0-9a-fA-F-]+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One NVIDIA GPU, or a slice of one."""

    id: str
    """What ``CUDA_VISIBLE_DEVICES`` calls it: its UUID where it is known, else its number."""
    name: str


def gpus(environment: Mapping[str, str] = os.environ) -> tuple[Gpu, ...]:
    """The GPUs of this machine that ``CUDA_VISIBLE_DEVICES`` leaves visible, in its order.

    Numbers there are read in bus order, which on a machine with GPUs of several models is CUDA's
    own only under ``CUDA_DEVICE_ORDER=PCI_BUS_ID``.
    """
    chosen = environment.get(VISIBLE)
    return visible(chosen, _installed(sliced=chosen is not None and "MIG-" in chosen))


def gpu_ids(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """What a process may ask CUDA for: what somebody chose, else every GPU of the machine."""
    chosen = environment.get(VISIBLE)
    if chosen is not None:
        return _entries(chosen)
    return tuple(gpu.id for gpu in _installed())


def gpu_for(child: int, ids: Sequence[str]) -> str:
    """The GPU of the child with that number; children beyond the last GPU share from the first."""
    return ids[child % len(ids)]


def device_name(device: str) -> str:
    """The name of what ``cpu``, ``cuda`` or ``auto`` (a GPU if there is one) means here.

    Raises:
        DeviceUnavailable: ``cuda`` on a machine without a GPU.
    """
    found = gpus() if device != "cpu" else ()
    if found:
        return found[0].name
    if device == "cuda":
        raise DeviceUnavailable(device, missing_gpu())
    return cpu_name()


def missing_gpu(environment: Mapping[str, str] = os.environ) -> str:
    """Why no GPU is visible here, as the end of a sentence."""
    if _installed():
        return f"no GPU, because {VISIBLE} is {environment.get(VISIBLE, '')!r}"
    if has_driver():
        return "no GPU: an NVIDIA driver is loaded, but `nvidia-smi -L` lists none"
    return "no GPU, because no NVIDIA driver is loaded"


def has_driver() -> bool:
    """Whether an NVIDIA driver is loaded, whatever it drives."""
    return (DRIVER / "version").exists() or Path("/dev/nvidiactl").exists()


def cpu_name(text: str | None = None) -> str:
    """The processor and those of its instruction sets on which the speed of int8 hangs.

    Virtual machines hide instruction sets, so the same processor can be two devices.
    """
    text = _cpu_text() if text is None else text
    fast = int8_instructions(text)
    return f"{processor(text)} ({', '.join(fast)})" if fast else processor(text)


def processor(text: str | None = None) -> str:
    """The processor as it calls itself."""
    text = _cpu_text() if text is None else text
    if name := _first("model name", text):
        return " ".join(name.split())
    part = " ".join(filter(None, (_first("CPU implementer", text), _first("CPU part", text))))
    return f"{platform.machine()} {part}".strip() or "unknown processor"


def int8_instructions(text: str | None = None) -> tuple[str, ...]:
    """Which instruction sets for int8 the processor has."""
    text = _cpu_text() if text is None else text
    has = set(f"{_first('flags', text)} {_first('Features', text)}".split())
    return tuple(name for name in INT8_INSTRUCTIONS if name in has)


def visible(chosen: str | None, installed: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """Those of the installed GPUs that ``CUDA_VISIBLE_DEVICES=chosen`` leaves visible.

    As CUDA reads it: numbers or beginnings of UUIDs, up to the first that means no GPU.
    """
    if chosen is None:
        return tuple(installed)
    found = []
    for entry in _entries(chosen):
        gpu = _named(entry, installed)
        if gpu is None:
            break
        found.append(gpu)
    return tuple(found)


def from_driver(folder: Path) -> tuple[Gpu, ...]:
    """GPUs as the Linux driver describes them: ``<bus address>/information``, in bus order."""
    texts = [
        path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(folder.glob("*/information"))
    ]
    usable = [text for text in texts if _first("GPU Excluded", text) != "Yes"]
    return tuple(_described(index, text) for index, text in enumerate(usable))


def from_listing(text: str) -> tuple[Gpu, ...]:
    """GPUs, each followed by its slices, as ``nvidia-smi -L`` lists them."""
    found: list[Gpu] = []
    whole = ""
    for line in text.splitlines():
        if listed := _LISTED_GPU.match(line):
            whole = listed["name"]
            found.append(Gpu(id=listed["uuid"], name=whole))
        elif listed := _LISTED_SLICE.match(line):
            found.append(Gpu(id=listed["uuid"], name=f"{whole} {listed['name']}"))
    return tuple(found)


@cache
def _installed(sliced: bool = False) -> tuple[Gpu, ...]:
    """The driver's folder is missing in some containers and does not know of slices."""
    found = () if sliced else from_driver(DRIVER / "gpus")
    listed = found or from_listing(_listing())
    return listed if sliced else tuple(gpu for gpu in listed if not gpu.id.startswith("MIG-"))


def _listing() -> str:
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=LISTING_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _described(index: int, text: str) -> Gpu:
    """A driver that nobody has woken yet shows question marks for the UUID."""
    uuid = _first("GPU UUID", text)
    return Gpu(id=uuid if _UUID.match(uuid) else str(index), name=_first("Model", text) or "GPU")


def _entries(chosen: str) -> tuple[str, ...]:
    entries: list[str] = []
    for entry in (part.strip() for part in chosen.split(",")):
        if not entry.isdecimal() and not entry.startswith(("GPU-", "MIG-")):
            break
        entries.append(entry)
    return tuple(entries)


def _named(entry: str, installed: Sequence[Gpu]) -> Gpu | None:
    if entry.isdecimal():
        whole = [gpu for gpu in installed if not gpu.id.startswith("MIG-")]
        return whole[int(entry)] if int(entry) < len(whole) else None
    return next((gpu for gpu in installed if gpu.id.startswith(entry)), None)


def _cpu_text() -> str:
    return CPU_TEXT.read_text(encoding="utf-8", errors="replace") if CPU_TEXT.exists() else ""


def _first(key: str, text: str) -> str:
    """The value of the first line ``key : value``."""
    found = re.search(rf"^{re.escape(key)}\s*:[ \t]*(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""
