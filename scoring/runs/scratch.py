"""Files of this machine that lie here only until they are uploaded: a folder for each process.

A process that is killed leaves its folder; the next one of the same host removes it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import quote, unquote

from scoring.runs.identity import is_dead_here, this_worker


def scratch_folder(home: Path) -> Path:
    """This process's folder, which need not be there; those of dead processes are removed."""
    place = home / "scratch"
    for left in place.glob("*"):
        if is_dead_here(unquote(left.name)):
            shutil.rmtree(left, ignore_errors=True)  # another process may remove it as well
    return place / quote(this_worker(), safe="")
