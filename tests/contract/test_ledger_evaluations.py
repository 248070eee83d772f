"""Evaluations of a run: its severity rises and never falls, its history tells of each."""

from __future__ import annotations

import pytest

from scoring.ledger import Ledger
from tests.contract.ledgers import finishing_run, history


@pytest.mark.parametrize(
    ("measured", "evaluated", "then"),
    [
        ("none", "moderate", "moderate"),
        ("small", "severe", "severe"),
        ("severe", "small", "severe"),
        ("small", "none", "small"),
        (None, "small", "small"),
        (None, "none", None),
    ],
)
def test_an_evaluation_only_ever_raises_the_severity(
    ledger: Ledger, measured: str | None, evaluated: str, then: str | None
) -> None:
    run_id, hold = finishing_run(ledger)
    other, _ = finishing_run(ledger)
    ledger.runs.end(hold, "published", drift_severity=measured)

    ledger.runs.record_evaluation(run_id, evaluated, {"metric": "auc", "value": 0.8})

    assert ledger.runs.get(run_id).drift_severity == then
    assert ledger.runs.get(other).drift_severity is None
    assert history(ledger, run_id)[-1] == ("evaluated", {"metric": "auc", "value": 0.8})
