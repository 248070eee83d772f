"""The gate's table: every variant that was tried, beside native, as a run's report shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["gate_rows"]

NUMBERS = ("mean_error", "max_error", "agreement", "batch_error")


def gate_rows(gate: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """One row a variant; where a search left no table, native and what was chosen beside it."""
    if gate.get("variants"):
        return list(gate["variants"])
    compared = gate["gate"] or {}
    chosen = {
        "variant": gate["variant"],
        **{name: compared.get(name) for name in NUMBERS},
        "rows_per_second": gate["rows_per_second"],
        "batch_rows": gate["batch_rows"] or None,
        "admitted": True,
        "reasons": [],
        "chosen": True,
    }
    if gate["variant"] == "native":
        return []
    native = {
        **chosen,
        **dict.fromkeys((*NUMBERS, "batch_rows")),
        "variant": "native",
        "rows_per_second": gate["native_rows_per_second"],
        "chosen": False,
    }
    return [native, chosen]
