"""The frame of a run: how every chunk counts its columns, frozen before the first one.

It holds the reference profile, if there is one, and where it came from, and where the open grids
of the other columns begin. It lies among the run's artifacts, where every worker of the run finds
it, also when the run is retried after what was staged has been removed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoring.drift.profile.profile import Profile
from scoring.runs.prepare import Prepared

FRAME = "frame.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What a run was frozen with."""

    reference: Profile | None
    origins: Mapping[str, float]
    """Minima by column, in the unit of the column's frame."""
    compared_with: Mapping[str, Any] | None
    """Where the reference came from, see `baseline.ComparedWith`."""


def freeze_frame(prepared: Prepared) -> None:
    folder = prepared.places.artifacts
    folder.mkdir(parents=True, exist_ok=True)
    baseline = prepared.baseline
    minima = [one.minima for one in prepared.scanned]
    document = {
        "reference": None if baseline is None else baseline.profile.to_json(),
        "compared_with": None if baseline is None else baseline.compared_with.to_dict(),
        "origins": {
            name: min(found[name] for found in minima if name in found)
            for name in sorted({name for found in minima for name in found})
        },
    }
    (folder / FRAME).write_text(json.dumps(document), encoding="utf-8")


def discard_frame(artifacts: Path) -> None:
    """Remove the frame of a run that is over, and the folder if there is nothing else in it."""
    (artifacts / FRAME).unlink(missing_ok=True)
    with suppress(OSError):  # there is more in it, or it was never there
        artifacts.rmdir()


def read_frame(artifacts: Path, staging: Path) -> Frame:
    """What `freeze_frame` wrote for the run of these folders; earlier releases did into staging."""
    found = artifacts if (artifacts / FRAME).exists() else staging
    document = json.loads((found / FRAME).read_text(encoding="utf-8"))
    text = document["reference"]
    return Frame(
        reference=None if text is None else Profile.from_json(text),
        origins=document["origins"],
        compared_with=document.get("compared_with"),
    )
