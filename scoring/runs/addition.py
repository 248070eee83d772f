"""Publishing a replay: what it scored becomes further parts of the run that it replays.

The run's output is published whole, as in every publication, with the earlier parts, the new ones
and a manifest that lists both; then one transaction ends the replay and counts its rows for
the run. A finisher that dies in between leaves an output that names the replay: the next one finds
it there and only does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from scoring import telemetry
from scoring.data import publish
from scoring.data.store_reader import StoreFile
from scoring.errors import PartsDiffer, ReplayOvertaken, RowBalanceBroken
from scoring.ledger import Added, ChunkRecord, Finishing, RunRecord
from scoring.runs.context import Context
from scoring.runs.outstanding import in_place, listed_replays, outstanding, quarantine_folder

log = telemetry.logger(__name__)


def publish_addition(
    context: Context,
    hold: Finishing,
    replay: RunRecord,
    chunks: Sequence[ChunkRecord],
    severity: str | None,
    report: Path,
) -> bool:
    """Add what a replay scored to its run. False if another finisher has the replay.

    Raises:
        RunNotInState: the run is not published, or a later one replaced its output.
        ReplayOvertaken: another replay of the same rows was quicker.
        PartsDiffer: its scores have other columns than the run's.
    """
    run = context.ledger.runs.get(str(replay.replay_of))
    base = _base(context, run, replay)
    context.output(run).resume(context.staging(replay), context.publisher(hold))
    found = in_place(context, run, replay.id)
    if replay.id in listed_replays(found) or not _swap(context, hold, run, replay, chunks, found):
        found = in_place(context, run, replay.id)
        if replay.id not in listed_replays(found):
            return False
        _check_same(found, replay)
    added = Added(
        replay_of=run.id,
        base=base.id,
        rows_in=replay.rows_in,
        rows_scored=replay.rows_scored,
        rows_quarantined=replay.rows_quarantined,
    )
    mine = context.ledger.replays.publish(hold, added, drift_severity=severity, report=str(report))
    log.info("replay_published" if mine else "lease_lost", replay_of=run.id)
    return mine


def extended(
    found: Mapping[str, Any], replay: RunRecord, parts: Sequence[ChunkRecord], at: str
) -> dict[str, Any]:
    """The manifest of a run with what its replay added.

    Raises:
        RowBalanceBroken: rows in and rows out would not add up.
    """
    first = len(found["parts"])
    new = [
        {"file": publish.part_file(index), "rows": part.rows_scored, "sha256": part.part_digest}
        for index, part in enumerate(parts, first)
    ]
    scored = found["rows_scored"] + replay.rows_scored
    if found["rows_in"] != scored + replay.rows_quarantined:
        raise RowBalanceBroken(found["run_id"], found["rows_in"], scored, replay.rows_quarantined)
    entry = {
        "run_id": replay.id,
        "model_version": replay.model_version,
        "model_digest": replay.model_digest,
        "variant": replay.variant,
        "rows_scored": replay.rows_scored,
        "rows_quarantined": replay.rows_quarantined,
        "parts": [part["file"] for part in new],
        "published_at": at,
    }
    return {
        **found,
        "rows_scored": scored,
        "rows_quarantined": replay.rows_quarantined,
        "parts": [*found["parts"], *new],
        "replays": [*found.get("replays", []), entry],
    }


def _base(context: Context, run: RunRecord, replay: RunRecord) -> RunRecord:
    """Whose quarantine the replay has scored, if that is still the run's outstanding one."""
    base = outstanding(context, run)
    first, *_ = context.ledger.runs.manifest(replay.id)
    if base.id != replay.id and Path(first.path).parent != quarantine_folder(base):
        raise ReplayOvertaken(run.id, replay.id, base.id)
    return base


def _swap(
    context: Context,
    hold: Finishing,
    run: RunRecord,
    replay: RunRecord,
    chunks: Sequence[ChunkRecord],
    found: dict[str, Any],
) -> bool:
    """Put the output with the addition in the place of the one without."""
    staging, output = context.staging(replay), context.output(run)
    parts = [chunk for chunk in chunks if chunk.rows_scored]
    wanted = _columns(output.reader(publish.part_file(0)))
    for part in parts:  # they must be read together with those that are there
        columns = _columns(staging.reader(str(part.part)))
        if columns != wanted:
            raise PartsDiffer(replay.id, wanted, columns)
    return output.publish(
        staging,
        [str(part.part) for part in parts],
        extended(found, replay, parts, datetime.now(UTC).isoformat(timespec="seconds")),
        context.publisher(hold, lambda: in_place(context, run, hold.run_id) == found),
        earlier_parts=len(found["parts"]),
    )


def _columns(part: Path | StoreFile) -> str:
    return str(pq.read_schema(part).remove_metadata()).replace("\n", ", ")


def _check_same(found: Mapping[str, Any], replay: RunRecord) -> None:
    """What the output holds of the replay must be what it has scored."""
    (entry,) = [one for one in found["replays"] if one["run_id"] == replay.id]
    counts = entry["rows_scored"], entry["rows_quarantined"]
    if counts != (replay.rows_scored, replay.rows_quarantined):
        raise RowBalanceBroken(replay.id, replay.rows_in, *counts)
