"""How often a process of ours is searched for garbage.

Python looks after every 700 objects that it makes, again and again also through those it has had
for long. MLflow and what else a command or a worker imports are a million objects that all stay:
an eighth of the time that it takes to start went into searching them.
"""

from __future__ import annotations

import gc

NEW_OBJECTS = 10_000
"""How many are made between two searches: with more of them, nothing was gained."""


def search_seldom() -> None:
    """Do so from now on; only for whoever owns the process, and before most of its imports."""
    gc.set_threshold(NEW_OBJECTS)
