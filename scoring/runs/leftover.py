"""Leftovers: what lies about and serves nobody, and what it takes to remove one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from scoring.ledger import Owner

Kind = Literal["parts", "frame", "variant", "download", "model"]
DAY = 86_400.0
UNFINISHED = "an earlier clean-up did not get to its end"
CERTAIN_SECONDS = DAY
"""Untouched for so long, a file that the ledger says nothing of is in nobody's hands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What counts as left over."""

    older_seconds: float = 7 * DAY
    """How long ago a failed or cancelled run must have ended: until then it keeps its parts."""
    failed: bool = False
    """Whether such runs lose their parts however short ago they ended."""
    models_seconds: float | None = None
    """How long a model must not have been used; ``None``: models stay."""
    who: str = ""
    """Who cleans, for the history of the runs."""

    @property
    def unknown_seconds(self) -> float:
        """How long what no run is known for must be untouched: it may be another ledger's."""
        return max(CERTAIN_SECONDS, self.older_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """Something to remove."""

    kind: Kind
    where: str
    bytes: int
    """What removing it frees."""
    why: str
    run: str | None = None
    """The run that it is of, if the ledger knows it."""
    remove: Callable[[], bool] = field(repr=False, compare=False)
    """Remove it. False if somebody needs it again, or it is gone. Raises: OSError."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "where": self.where,
            "run": self.run,
            "bytes": self.bytes,
            "why": self.why,
        }


def over_for_good(owner: Owner) -> str:
    """Why a run will never need again what it left; empty: it may."""
    if owner.rejected:
        return "the run was rejected"
    return "the run is published" if owner.state == "published" else ""


def age(seconds: float) -> str:
    """A time for people: ``3 hours``."""
    for size, unit in ((DAY, "day"), (3_600.0, "hour"), (60.0, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return "less than a minute"
