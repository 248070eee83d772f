"""What became of a run because of its drift, in words, and what a person may do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Outcome", "outcome"]

ASKED = {
    "log": "Recorded in the log",
    "retrain": "Retraining was asked for",
    "review": "A review was asked for",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was done, and the commands that undo or confirm it."""

    title: str
    text: str
    commands: tuple[tuple[str, str], ...] = ()
    """What a command does, and the command."""
    asked: tuple[str, ...] = ()
    """Who else was told."""
    persistence: str = ""
    """How long drift must last in this job, where that is more than one run."""


def outcome(document: Mapping[str, Any]) -> Outcome:
    """What a drift.json document says was done."""
    title, text = _ending(document)
    run = document["run_id"]
    commands = (
        (("Publish it", f"scoring release {run}"), ("Drop it", f"scoring reject {run}"))
        if title == "Held"
        else ()
    )
    return Outcome(
        title=title,
        text=text,
        commands=commands,
        asked=tuple(ASKED[action] for action in document["actions"] if action in ASKED),
        persistence=_persistence(document),
    )


def _ending(document: Mapping[str, Any]) -> tuple[str, str]:
    decision = document["decision"]
    if decision is not None and decision["what"] == "cancelled":
        return "Cancelled", "A person stopped this run. The earlier output stands."
    if decision is not None:
        what = (
            "to publish this run as it is" if decision["what"] == "released" else "to drop this run"
        )
        why = f": {decision['reason']}." if decision["reason"] else "."
        stands = "" if decision["what"] == "released" else " The earlier output stands."
        return decision["what"].capitalize(), f"{decision['by']} decided {what}{why}{stands}"
    if document["outcome"] == "fail":
        return "Failed", "Nothing of this run is published. The earlier output stands."
    if document["outcome"] == "hold":
        return (
            "Held",
            "The scores are kept and not published, and the earlier output stands, until "
            "someone decides.",
        )
    if document["reference"] is None:
        return "Not held back", "Without a reference there is nothing to hold a run for."
    return "Not held back", "Its drift does not keep this run from being published."


def _persistence(document: Mapping[str, Any]) -> str:
    wanted, found = document["persistence"]["wanted"], document["persistence"]["in_a_row"]
    if wanted <= 1 or document["severity"] == "none":
        return ""
    runs = "1 run" if found == 1 else f"{found} runs in a row"
    drifted = "has" if found == 1 else "have"
    return f"{runs} {drifted} drifted this far; this job acts from {wanted} in a row."
