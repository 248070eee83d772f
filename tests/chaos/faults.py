"""Faults on real processes: kill a worker or one of its children, empty the broker."""

from __future__ import annotations

import random

import psutil

from scoring.stack import Stack


def kill_a_worker_process(stack: Stack, chance: random.Random) -> str | None:
    """SIGKILL the worker, or more often one of its children; say which. None: it has none yet."""
    main = _process(stack, "worker")
    if main is None:
        return None
    children = [child for child in main.children() if "spawn" in " ".join(_command(child))]
    if not children:
        return None
    victim = main if chance.random() < 0.25 else chance.choice(children)
    try:
        victim.kill()
    except psutil.NoSuchProcess:
        return None
    return "worker" if victim == main else "child"


def kill_service(stack: Stack, name: str) -> None:
    """SIGKILL a service; the stack starts it again, the broker without its messages."""
    process = _process(stack, name)
    assert process is not None, f"{name} is not running"
    process.kill()


def _process(stack: Stack, name: str) -> psutil.Process | None:
    service = stack.services.get(name)
    if service is None or service.process is None or service.process.poll() is not None:
        return None
    try:
        return psutil.Process(service.process.pid)
    except psutil.NoSuchProcess:
        return None


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
