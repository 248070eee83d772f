"""What the process that scores lets us do: a worker child may be ended, a caller's may not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _nobody() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One process, as whoever started it says. By default it is not ours."""

    end: Callable[[], None] | None = None
    """Ends it at once; another takes its place. ``None``: it must live."""
    told_to_stop: Callable[[], bool] = _nobody
    """Whether it is being stopped, so that an exit in the middle of a call is meant for us."""
