"""The published JSON Schema (2020-12) of drift.json, which the page and other readers rely on."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

__all__ = ["schema"]


def schema() -> dict[str, Any]:
    """The schema of a drift.json document of version 2, as a new object."""
    text = files("scoring.drift").joinpath("drift.schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
