"""What a search found: every variant of one model version on one device, measured.

Invariant: nothing in it depends on a job. It is kept as JSON in the ledger, read by every worker of
the fleet, and a job's limits are applied to it by `choose`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from scoring.models.gate import Comparison
from scoring.models.quality import LabelChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How fast one variant is at one batch size."""

    batch_rows: int
    rows_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One variant, made by its best recipe; or why it could not be made."""

    variant: str
    recipe: str
    engine: str = ""
    """What runs it: ``onnx``, ``text``, ``torch``; empty for native."""
    why_not: str = ""
    """Why it was not built or compared, or (native) cannot run on the device; else empty."""
    size_bytes: int = 0
    folder: str = ""
    """Below the search's folder; empty for native."""
    digest: str = ""
    """SHA-256 over the folder's files."""
    refused: tuple[str, ...] = ()
    """Columns in which native refuses a missing value, and the variant must too."""
    bounded: tuple[str, ...] = ()
    """The same of infinite values."""
    comparison: Comparison | None = None
    """None for native, and for what was not built."""
    timings: tuple[Timing, ...] = ()
    """By batch size, ascending."""

    @property
    def best(self) -> Timing | None:
        """The fastest batch size."""
        return max(self.timings, key=lambda timing: timing.rows_per_second, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """Native and its variants on one device."""

    model: str
    model_digest: str
    device: str
    """Its name, such as the CPU's model and instruction sets."""
    runtimes: str
    """Names and versions of what runs models."""
    rows: int
    """Rows of the gate's sample."""
    sample: str
    """Where they come from: ``reference`` or ``input``."""
    seconds: float
    """What the search cost."""
    candidates: tuple[Candidate, ...]
    """Native first, then the best recipe of every variant."""
    others: tuple[Candidate, ...] = ()
    """Recipes that the gate liked less than another of the same variant."""

    @property
    def native(self) -> Candidate:
        return self.candidates[0]

    def of(self, variant: str) -> Candidate | None:
        """The candidate of that name."""
        return next((one for one in self.candidates if one.variant == variant), None)

    def limited(self, variant: str, batch_rows: int) -> SearchResult:
        """The same without batches of one variant that did not fit into memory."""
        return replace(
            self,
            candidates=tuple(
                replace(one, timings=_fitting(one.timings, batch_rows))
                if one.variant == variant
                else one
                for one in self.candidates
            ),
        )

    def metrics(self) -> dict[str, float]:
        """Every number of it by name, such as ``int8_mean_error``."""
        found = {"search_seconds": self.seconds, "gate_rows": float(self.rows)}
        for one in self.candidates:
            if one.best is not None:
                found[f"{one.variant}_rows_per_second"] = one.best.rows_per_second
                found[f"{one.variant}_batch_rows"] = float(one.best.batch_rows)
            if one.comparison is not None:
                found |= {
                    f"{one.variant}_{name}": value
                    for name, value in asdict(one.comparison).items()
                    if isinstance(value, float)
                }
        return found

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> SearchResult:
        values = json.loads(text)
        for key in ("candidates", "others"):
            values[key] = tuple(_candidate(one) for one in values[key])
        return cls(**values)


def _candidate(values: Mapping[str, Any]) -> Candidate:
    found = dict(values)
    found |= {key: tuple(values[key]) for key in ("refused", "bounded")}
    found["timings"] = tuple(Timing(**timing) for timing in values["timings"])
    if (compared := values["comparison"]) is not None:
        labels = compared["labels"]
        found["comparison"] = Comparison(
            **{**compared, "labels": None if labels is None else LabelChange(**labels)}
        )
    return Candidate(**found)


def _fitting(timings: tuple[Timing, ...], batch_rows: int) -> tuple[Timing, ...]:
    kept = tuple(timing for timing in timings if timing.batch_rows <= batch_rows)
    if kept or not timings:
        return kept
    return (Timing(batch_rows=batch_rows, rows_per_second=timings[0].rows_per_second),)
