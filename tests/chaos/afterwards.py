"""What must be true of an installation when its chaos is over: nothing staged, nothing running.

``scoring clean`` is what a person runs then, so it is what is run here; the chain of the ledger's
events must be whole, whatever was killed while it was being written.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import psutil

from scoring.data.publish import STAGING
from tests.chaos.installation import Installation, scoring
from tests.chaos.tally import Tally

GONE_SECONDS = 20.0
"""How long a process may take to end once it was told to."""


def check_ended(tally: Tally, installation: Installation) -> None:
    """Once every run has ended: the log is whole, and cleaning leaves nothing staged."""
    verdict = installation.ledger.audit.verify()
    if not verdict.intact:
        tally.broken.append(f"the chain of events is broken: {verdict.faults[:3]}")
    check_cleaned(tally, installation)


def check_cleaned(tally: Tally, installation: Installation) -> None:
    """Run ``scoring clean``, for failed runs too, and look for what it left."""
    done = scoring(installation, "clean", "--failed")
    if done.returncode != 0:
        tally.broken.append(f"scoring clean ended with {done.returncode}: {done.stderr[-500:]}")
    left = staged(installation.root)
    if left:
        tally.broken.append(f"staged after scoring clean: {left[:5]} of {len(left)}")


def staged(root: Path) -> list[str]:
    """What lies in any staging folder below a folder."""
    folders = [Path(at) for at, _, _ in os.walk(root) if Path(at).name == STAGING]
    return sorted(str(one.relative_to(root)) for folder in folders for one in folder.iterdir())


def check_gone(tally: Tally, root: Path) -> None:
    """Nothing that was started below a folder runs, and nothing is mounted there."""
    deadline = time.monotonic() + GONE_SECONDS
    while (alive := running_below(root)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if alive:
        tally.broken.append(f"processes are left: {[one.pid for one in alive]} {alive[:3]}")
    mounts = Path("/proc/mounts")
    if mounts.exists() and f" {root}/" in mounts.read_text(encoding="utf-8"):
        tally.broken.append(f"something is still mounted below {root}")


def running_below(root: Path) -> list[psutil.Process]:
    """Processes, ours aside, whose command or environment names the folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                told = [*process.cmdline(), *process.environ().values()]
                found += [process] if any(str(root) in one for one in told) else []
    return found
