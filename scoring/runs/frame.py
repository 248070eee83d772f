"""The frame of a run: how every chunk counts its columns, frozen before the first one.

It holds the reference profile, if there is one, and where the open grids of the other columns
begin; it lies in the staging folder, where every worker of the run finds it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from scoring.drift.profile import Profile
from scoring.runs.prepare import Prepared

FRAME = "frame.json"


def freeze_frame(prepared: Prepared) -> None:
    staging = prepared.places.staging
    staging.mkdir(parents=True, exist_ok=True)
    reference = prepared.reference
    minima = [one.minima for one in prepared.scanned]
    document = {
        "reference": None if reference is None else reference.to_json(),
        "origins": {
            name: min(found[name] for found in minima if name in found)
            for name in sorted({name for found in minima for name in found})
        },
    }
    (staging / FRAME).write_text(json.dumps(document), encoding="utf-8")


def read_frame(staging: Path) -> tuple[Profile | None, Mapping[str, float]]:
    """The reference profile and the open grids' origins that a run was frozen with."""
    document = json.loads((staging / FRAME).read_text(encoding="utf-8"))
    text = document["reference"]
    return None if text is None else Profile.from_json(text), document["origins"]
