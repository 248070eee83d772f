"""Processes that are killed, stopped, frozen, or more than they should be."""

from __future__ import annotations

import time
from contextlib import suppress

import psutil

from scoring.errors import LedgerUnreachable
from tests.chaos.faults.fault import Fault, Hit, Target
from tests.chaos.installation import LEASE_SECONDS, beat
from tests.chaos.services import Service

CATCH_SECONDS = 1.0
"""How long a child is looked for that holds a chunk."""


def kill_child(target: Target) -> Hit | None:
    """SIGKILL a child that scores, or one that is still starting."""
    children = target.installation.children()
    return _killed(target.chance.choice(children)) if children else None


def kill_worker(target: Target) -> Hit | None:
    """SIGKILL a worker; its children notice on their own."""
    victim = target.chance.choice(target.installation.workers)
    return Hit() if victim.kill(down_seconds=target.chance.uniform(0, 1.5)) else None


def kill_beat(target: Target) -> Hit | None:
    down = target.chance.uniform(0, 3.0)
    return Hit() if target.installation.beat.kill(down_seconds=down) else None


def stop_worker(target: Target) -> Hit | None:
    """SIGTERM: it finishes its chunk or hands it back."""
    process = target.chance.choice(target.installation.workers).process
    if process is None:
        return None
    with suppress(psutil.NoSuchProcess):
        process.terminate()
    return Hit()


def kill_finisher(target: Target) -> Hit | None:
    process = _finisher(target)
    return _killed(process) if process else None


def kill_search(target: Target) -> Hit | None:
    """SIGKILL the process that looks for variants."""
    searches = target.installation.searches()
    return _killed(searches[0]) if searches else None


def freeze_child(target: Target) -> Hit | None:
    """SIGSTOP a child until its lease is over, or nearly; in the midst of a chunk if one is met."""
    until = time.monotonic() + CATCH_SECONDS
    while time.monotonic() < until:
        for child in _awake(target):
            hit = _frozen(target, child)
            if hit is not None and _holds_a_chunk(target, child):
                return hit
            _woken(child)
    children = _awake(target)
    return _frozen(target, target.chance.choice(children)) if children else None


def freeze_finisher(target: Target) -> Hit | None:
    process = _finisher(target)
    return _frozen(target, process) if process else None


def more_beats(target: Target) -> Hit | None:
    """Three beats at once, for some seconds."""
    installation = target.installation
    if installation.extra:
        return None
    fresh = [beat(f"beat-{n}", installation.settings, installation.logs) for n in (2, 3)]
    installation.extra.extend(fresh)
    for one in fresh:
        one.start()
    return Hit(lasts=target.chance.uniform(4.0, 8.0), heal=lambda: _remove(target, fresh))


def more_sweepers(target: Target) -> Hit | None:
    """Two or three sweepers at the same moment, beside those that beat rings for."""
    target.actor.together([("sweep",)] * target.chance.choice((2, 3)))
    return Hit()


def _awake(target: Target) -> list[psutil.Process]:
    """Children that stand still for no fault before."""
    found = []
    for child in target.installation.children():
        with suppress(psutil.NoSuchProcess):
            found += [child] if child.status() != psutil.STATUS_STOPPED else []
    return found


def _holds_a_chunk(target: Target, child: psutil.Process) -> bool:
    """Whether a child that stands still has one; if the ledger does not say, it has none."""
    with suppress(LedgerUnreachable):
        leased = [
            chunk
            for chunk in target.installation.ledger.chunks.of(target.run_id)
            if chunk.state == "leased" and chunk.worker is not None
        ]
        return any(_pid_of(str(chunk.worker)) == child.pid for chunk in leased)
    return False


def _pid_of(worker: str) -> int:
    """Of a worker's name in the ledger."""
    return int(worker.split("/")[2])


def _remove(target: Target, services: list[Service]) -> None:
    for service in services:
        target.installation.extra.remove(service)
        service.end()


def _finisher(target: Target) -> psutil.Process | None:
    """The process that publishes the run just now."""
    run = target.record()
    if run is None or run.state != "finishing" or run.finish_worker is None:
        return None
    pid = _pid_of(run.finish_worker)
    return next((one for one in target.installation.children() if one.pid == pid), None)


def _killed(process: psutil.Process) -> Hit | None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return None
    return Hit()


def _frozen(target: Target, process: psutil.Process) -> Hit | None:
    try:
        process.suspend()
    except psutil.NoSuchProcess:
        return None
    seconds = LEASE_SECONDS * target.chance.uniform(0.8, 2.2)
    return Hit(lasts=seconds, heal=lambda: _woken(process))


def _woken(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.resume()


FAULTS = (
    Fault(name="worker child killed", weight=4.0, strike=kill_child),
    Fault(name="worker killed", weight=1.5, strike=kill_worker),
    Fault(name="beat killed", weight=1.0, strike=kill_beat),
    Fault(name="worker stopped (SIGTERM)", weight=1.0, strike=stop_worker),
    Fault(name="finisher killed", weight=6.0, strike=kill_finisher),
    Fault(name="search killed", weight=6.0, strike=kill_search),
    Fault(name="worker child frozen", weight=2.0, strike=freeze_child),
    Fault(name="finisher frozen", weight=4.0, strike=freeze_finisher),
    Fault(name="three beats", weight=0.7, strike=more_beats),
    Fault(name="sweepers at once", weight=1.5, strike=more_sweepers),
)
