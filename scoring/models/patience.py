"""How long a registry may take, and how often it is asked: what `asking` goes by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a registry may take, in seconds."""

    question: float = 15.0
    """One try of anything but a download."""
    download: float = 1800.0
    """One try of fetching a model's files."""
    optional: float = 20.0
    """The only try of what no run depends on."""
    retrying: float = 30.0
    """No further try begins after so long."""
    pause: float = 0.5
    """Before the second try, at most; doubled for each one after it, and drawn from zero up."""
    pause_most: float = 8.0
    failures: int = 2
    """Calls in a row that failed with all their tries, and the circuit opens."""
    open: float = 60.0
    """How long it stays open before one call is let through."""
