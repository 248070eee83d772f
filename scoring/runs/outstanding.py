"""What is left of a run to replay: the quarantine that nobody has scored since, and the output.

A run's outstanding quarantine is that of its last published replay, or its own before the first.
Invariant: what is added to an output is added to exactly what the ledger says is in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scoring.errors import ReplayOvertaken, RunNotInState
from scoring.ledger import RunRecord
from scoring.runs.context import Context


def quarantine_folder(run: RunRecord) -> Path:
    """Where the rows that a run could not score lie."""
    return Path(run.artifacts) / "quarantine"


def outstanding(context: Context, run: RunRecord) -> RunRecord:
    """The run or replay whose quarantine is to be scored next."""
    added = context.ledger.replays.of(run.id)
    return added[-1] if added else run


def in_place(context: Context, run: RunRecord, replay: str) -> dict[str, Any]:
    """The manifest of a run's output, which holds the run and what was added to it, no more.

    It may hold the rows of ``replay`` already, if its finisher died before it could say so.

    Raises:
        RunNotInState: a later run has replaced the output, or somebody has changed it.
        ReplayOvertaken: another replay is being added, or was.
    """
    found = context.output(run).manifest()
    if found is None or found["run_id"] != run.id:
        current = "nothing" if found is None else found["run_id"]
        raise RunNotInState(run.id, f"replaced by {current} in {run.output}", "still in place")
    added = [one.id for one in context.ledger.replays.of(run.id)]
    listed = listed_replays(found)
    if listed in (added, [*added, replay]):
        return found
    strange = [one for one in listed if one not in added and one != replay]
    if strange:
        raise ReplayOvertaken(run.id, replay, strange[-1])
    missing = ", ".join(one for one in added if one not in listed) or "the right order"
    raise RunNotInState(run.id, f"in {run.output} without its replay {missing}", "whole there")


def listed_replays(manifest: dict[str, Any]) -> list[str]:
    """Ids of the replays whose rows an output holds, in the order in which they were added."""
    return [str(one["run_id"]) for one in manifest.get("replays", [])]
