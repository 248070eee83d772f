"""The frame of a run: how every chunk counts its columns, frozen before the first one.

It holds the reference profile, if there is one, and where it came from, and where the open grids
of the other columns begin; it lies in the staging folder, where every worker of the run finds it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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
    staging = prepared.places.staging
    staging.mkdir(parents=True, exist_ok=True)
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
    (staging / FRAME).write_text(json.dumps(document), encoding="utf-8")


def read_frame(staging: Path) -> Frame:
    """What `freeze_frame` wrote for the run of this staging folder."""
    document = json.loads((staging / FRAME).read_text(encoding="utf-8"))
    text = document["reference"]
    return Frame(
        reference=None if text is None else Profile.from_json(text),
        origins=document["origins"],
        compared_with=document.get("compared_with"),
    )
