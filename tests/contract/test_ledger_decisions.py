"""Decisions about held runs: made once, by one person, on record; a rejection is for good."""

from __future__ import annotations

from functools import partial

import pytest

from scoring.errors import RunNotFound, RunNotInState
from scoring.job import Execution
from scoring.ledger import Finishing, Ledger
from tests.contract.ledgers import JOB, finishing_run, held_run, history, run_in, together


def finisher(ledger: Ledger, run_id: str) -> Finishing:
    """A hold that must be free."""
    hold = ledger.runs.claim_finish(run_id, "finisher")
    assert hold is not None
    return hold


def test_releasing_a_held_run_lets_a_finisher_have_it(ledger: Ledger) -> None:
    run_id = run_in(ledger, "held")

    ledger.decisions.release(run_id, "operator")

    run = ledger.runs.get(run_id)
    assert (run.state, run.released, run.finished_at) == ("finishing", 1, None)
    assert ledger.sweep.unfinished() == [run_id]
    assert ledger.runs.claim_finish(run_id, "finisher") is not None
    assert history(ledger, run_id)[-1] == ("released", {"who": "operator", "reason": ""})


@pytest.mark.parametrize("most", [1, 3])
def test_a_released_run_is_finished_as_often_as_its_job_says_anew(
    ledger: Ledger, most: int
) -> None:
    job = JOB.model_copy(update={"execution": Execution(max_attempts=most)})
    run_id, hold = finishing_run(ledger, job_json=job.to_json(), max_attempts=most)
    for _ in range(most - 1):  # finishers that die
        ledger.runs.expire_finish(run_id, hold.attempt)
        hold = finisher(ledger, run_id)
    assert ledger.runs.end(hold, "held")

    ledger.decisions.release(run_id, "operator")

    assert finisher(ledger, run_id).attempt == most + 1
    assert ledger.runs.get(run_id).max_attempts == most + most


@pytest.mark.parametrize(("decide", "word"), [("release", "released"), ("reject", "rejected")])
def test_who_decided_about_a_held_run_and_why_are_on_record(
    ledger: Ledger, decide: str, word: str
) -> None:
    run_id = held_run(ledger)
    before = ledger.runs.get(run_id)
    assert (before.decision, before.decided_by, before.decision_reason) == (None, None, None)

    getattr(ledger.decisions, decide)(run_id, "operator", "a holiday, as every year")

    run = ledger.runs.get(run_id)
    assert (run.decision, run.decided_by) == (word, "operator")
    assert run.decision_reason == "a holiday, as every year"
    (event,) = ledger.runs.history(run_id)[-1:]
    assert event.event == word
    assert event.detail == {"who": "operator", "reason": "a holiday, as every year"}
    assert event.at == pytest.approx(run.created_at, abs=60)


def test_a_rejected_run_is_cancelled_by_somebody_for_a_reason(ledger: Ledger) -> None:
    with_reason, without = held_run(ledger), held_run(ledger)

    ledger.decisions.reject(with_reason, "operator", "the feed was cut off")
    ledger.decisions.reject(without, "operator")

    run = ledger.runs.get(with_reason)
    assert (run.state, run.error) == ("cancelled", "rejected by operator: the feed was cut off")
    assert run.ended
    assert run.finished_at is not None
    assert ledger.runs.get(without).error == "rejected by operator"
    assert ledger.sweep.unfinished() == []


def test_a_rejected_run_can_never_be_retried_or_released(ledger: Ledger) -> None:
    run_id = held_run(ledger)
    ledger.decisions.reject(run_id, "operator", "the feed was cut off")
    before = ledger.runs.get(run_id), history(ledger, run_id)

    for again in (
        partial(ledger.runs.retry, run_id),
        partial(ledger.decisions.release, run_id, "reviewer"),
        partial(ledger.decisions.reject, run_id, "reviewer"),
    ):
        with pytest.raises(
            RunNotInState, match="cancelled, rejected by operator: the feed was cut off"
        ):
            again()

    assert (ledger.runs.get(run_id), history(ledger, run_id)) == before


def test_of_people_who_release_reject_and_cancel_a_held_run_at_once_one_decides(
    ledger: Ledger,
) -> None:
    run_id = held_run(ledger)

    found = together(
        [partial(ledger.decisions.release, run_id, f"operator-{i}") for i in range(3)]
        + [partial(ledger.decisions.reject, run_id, f"reviewer-{i}") for i in range(3)]
        + [partial(ledger.runs.cancel, run_id) for _ in range(2)]
    )

    assert sum(one is None or one is True for one in found) == 1, found
    assert len(history(ledger, run_id)) == 3
    run = ledger.runs.get(run_id)
    assert run.state == {"released": "finishing"}.get(str(run.decision), "cancelled")


def test_parts_are_forgotten_only_of_rejected_runs(ledger: Ledger) -> None:
    rejected, held, cancelled = held_run(ledger), held_run(ledger), held_run(ledger)
    ledger.decisions.reject(rejected, "operator")
    ledger.runs.cancel(cancelled)
    assert ledger.decisions.with_parts() == [rejected]

    for run_id in (rejected, held, cancelled):
        ledger.decisions.parts_removed(run_id)

    assert ledger.decisions.with_parts() == []
    assert ledger.runs.get(rejected).staging is None
    assert ledger.runs.get(held).staging is not None
    assert ledger.runs.retry(cancelled) == []


@pytest.mark.parametrize("state", ["running", "finishing", "published", "failed", "cancelled"])
def test_only_a_held_run_can_be_released_or_rejected(ledger: Ledger, state: str) -> None:
    run_id = run_in(ledger, state)
    before = ledger.runs.get(run_id), history(ledger, run_id)

    for decide in (ledger.decisions.release, ledger.decisions.reject):
        with pytest.raises(RunNotInState, match=f"is {state}; this needs a run that is held"):
            decide(run_id, "operator")

    assert (ledger.runs.get(run_id), history(ledger, run_id)) == before


def test_deciding_about_an_unknown_run_says_so(ledger: Ledger) -> None:
    for decide in (ledger.decisions.release, ledger.decisions.reject):
        with pytest.raises(RunNotFound):
            decide("nobody", "operator")
