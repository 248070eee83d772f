"""Evaluations of a run: the last one says how severe it is, its history tells of each."""

from __future__ import annotations

import pytest

from scoring.ledger import Ledger
from tests.contract.ledgers import finishing_run, history


@pytest.mark.parametrize(
    ("measured", "evaluated"),
    [("none", "moderate"), ("severe", "small"), ("small", "none"), (None, "small"), (None, None)],
)
def test_a_run_is_as_severe_as_its_last_evaluation_says(
    ledger: Ledger, measured: str | None, evaluated: str | None
) -> None:
    run_id, hold = finishing_run(ledger)
    other, _ = finishing_run(ledger)
    ledger.runs.end(hold, "published", drift_severity=measured)

    ledger.runs.record_evaluation(run_id, evaluated, {"metric": "auc", "value": 0.8})

    assert ledger.runs.get(run_id).drift_severity == evaluated
    assert ledger.runs.get(other).drift_severity is None
    assert history(ledger, run_id)[-1] == ("evaluated", {"metric": "auc", "value": 0.8})
