"""Leftovers: the ledger knows whose files are whose, and lets no part go that somebody needs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import update

from scoring.ledger import Ledger
from scoring.ledger.tables import runs, searches
from tests.contract.ledgers import (
    claimed,
    commit_all,
    held_run,
    history,
    made_by,
    run_in,
    start_run,
    together,
)

STATES = ("running", "finishing", "published", "held", "failed", "cancelled")


def half_done(ledger: Ledger, state: str = "failed") -> str:
    """A run that ended when one of its two chunks was done."""
    run_id = start_run(ledger)
    claim = claimed(ledger, run_id)
    ledger.chunks.commit(claim, made_by(claim, quarantined=1))
    assert ledger.runs.fail(run_id, "x") if state == "failed" else ledger.runs.cancel(run_id, "x")
    return run_id


def needed(ledger: Ledger, run_id: str) -> frozenset[str] | None:
    with ledger.leftovers.needed_parts(run_id) as parts:
        return parts


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_forgotten_parts_are_scored_anew_by_a_retry(ledger: Ledger, state: str) -> None:
    run_id = half_done(ledger, state)
    assert needed(ledger, run_id) == {"part-0.attempt-1"}

    assert ledger.leftovers.forget_parts(run_id, "operator")

    run = ledger.runs.get(run_id)
    assert (run.state, run.chunks_done, run.rows_scored, run.rows_quarantined) == (state, 0, 0, 0)
    assert needed(ledger, run_id) == frozenset()
    assert ledger.runs.retry(run_id) == [0, 1]
    again = claimed(ledger, run_id)
    assert again.attempt == 2, "no attempt of before writes what a later one does"
    for claim in (again, claimed(ledger, run_id, 1)):
        ledger.chunks.commit(claim, made_by(claim))
    run = ledger.runs.get(run_id)
    assert (run.state, run.chunks_done, run.rows_scored) == ("finishing", 2, run.rows_in)


def test_a_run_that_failed_when_all_its_chunks_were_done_is_scored_anew_too(
    ledger: Ledger,
) -> None:
    run_id = start_run(ledger)
    commit_all(ledger, run_id)
    hold = ledger.runs.claim_finish(run_id, "finisher")
    assert hold is not None
    assert ledger.runs.end(hold, "failed", error="too severe")

    assert ledger.leftovers.forget_parts(run_id, "operator")

    assert ledger.runs.retry(run_id) == [0, 1]
    assert ledger.runs.get(run_id).state == "running"


def test_forgetting_is_on_record_once_with_who_did_it(ledger: Ledger) -> None:
    run_id = half_done(ledger)

    done = together([partial(ledger.leftovers.forget_parts, run_id, "operator")] * 4)

    assert done == [True] * 4
    cleaned = [detail for event, detail in history(ledger, run_id) if event == "cleaned"]
    assert cleaned == [{"chunks": 1, "who": "operator"}]


@pytest.mark.parametrize("state", ["running", "finishing", "published", "held"])
def test_parts_of_a_run_in_another_state_are_not_forgotten(ledger: Ledger, state: str) -> None:
    run_id = run_in(ledger, state)
    before = (ledger.runs.get(run_id), ledger.chunks.of(run_id), history(ledger, run_id))

    assert not ledger.leftovers.forget_parts(run_id, "operator")

    assert (ledger.runs.get(run_id), ledger.chunks.of(run_id), history(ledger, run_id)) == before


@pytest.mark.parametrize(
    ("state", "parts"),
    [
        ("running", None),
        ("finishing", None),
        ("held", None),
        ("published", frozenset()),
        ("failed", frozenset()),
        ("cancelled", frozenset()),
    ],
)
def test_only_a_run_that_is_over_can_do_without_its_parts(
    ledger: Ledger, state: str, parts: frozenset[str] | None
) -> None:
    assert needed(ledger, run_in(ledger, state)) == parts


def test_a_rejected_run_needs_none_of_its_parts(ledger: Ledger) -> None:
    run_id = held_run(ledger)
    ledger.decisions.reject(run_id, "operator")

    assert needed(ledger, run_id) == frozenset()
    assert needed(ledger, "nobody") is None


def test_a_retry_waits_until_the_parts_that_nobody_needs_are_gone(ledger: Ledger) -> None:
    run_id = half_done(ledger)
    ledger.leftovers.forget_parts(run_id, "operator")
    retried: list[list[int]] = []

    def retry() -> None:
        retried.append(ledger.runs.retry(run_id))

    thread = threading.Thread(target=retry)
    with ledger.leftovers.needed_parts(run_id) as parts:
        thread.start()
        thread.join(timeout=0.3)
        assert (parts, retried) == (frozenset(), [])
    thread.join(timeout=30)

    assert retried == [[0, 1]]
    assert needed(ledger, run_id) is None


def test_forgetting_and_retrying_at_once_leave_a_run_that_goes_on_whole(ledger: Ledger) -> None:
    for _ in range(5):
        run_id = half_done(ledger)

        done = together(
            [
                partial(ledger.leftovers.forget_parts, run_id, "operator"),
                partial(ledger.runs.retry, run_id),
            ]
        )

        assert done in ([True, [0, 1]], [False, [1]])
        run = ledger.runs.get(run_id)
        finished = [chunk.part for chunk in ledger.chunks.of(run_id) if chunk.state == "done"]
        assert (run.state, run.chunks_done) == ("running", len(finished))
        assert None not in finished


def test_owners_are_told_apart_by_state_decision_and_age(ledger: Ledger) -> None:
    ids = {state: run_in(ledger, state) for state in STATES}
    rejected = held_run(ledger)
    ledger.decisions.reject(rejected, "operator")
    with ledger.database.transaction() as connection:
        old = update(runs).where(runs.c.id == ids["failed"])
        connection.execute(old.values(finished_at=runs.c.finished_at - 3600.0))

    owners = ledger.leftovers.owners([*ids.values(), rejected, "nobody"])

    assert {owner.run_id: owner.state for owner in owners.values()} == {
        **{run_id: state for state, run_id in ids.items()},
        rejected: "cancelled",
    }
    assert [run_id for run_id, owner in owners.items() if owner.rejected] == [rejected]
    assert owners[ids["running"]].ended_ago is None
    assert owners[ids["finishing"]].ended_ago is None
    assert owners[ids["failed"]].ended_ago == pytest.approx(3600.0, abs=60)
    assert owners[ids["cancelled"]].ended_ago == pytest.approx(0.0, abs=60)


def test_more_runs_are_asked_about_than_one_statement_takes(ledger: Ledger) -> None:
    run_id = run_in(ledger, "published")

    assert set(ledger.leftovers.owners([*map(str, range(1200)), run_id])) == {run_id}


def test_pins_are_of_runs_that_may_yet_score(ledger: Ledger) -> None:
    def pinned(end: Callable[[str], object]) -> str:
        run_id = start_run(ledger, variant=None)
        ledger.runs.pin_variant(
            run_id, variant="int8", batch_rows=1, search=run_id, precision='{"folder": "1/int8"}'
        )
        end(run_id)
        return run_id

    def publish(run_id: str) -> None:
        commit_all(ledger, run_id)
        hold = ledger.runs.claim_finish(run_id, "finisher")
        assert hold is not None
        ledger.runs.end(hold, "published")

    running, failed = pinned(str), pinned(partial(ledger.runs.fail, error="x"))
    pinned(publish)
    start_run(ledger)

    assert sorted(ledger.leftovers.pins()) == sorted(
        [(running, '{"folder": "1/int8"}'), (failed, '{"folder": "1/int8"}')]
    )


def test_searches_are_live_while_somebody_holds_them(ledger: Ledger) -> None:
    claims = {}
    for key in ("searching", "died", "found"):
        claims[key] = ledger.searches.claim(key, "d" * 64, "cpu", "worker")
        assert claims[key] is not None
    ledger.searches.record(claims["found"], "{}")
    with ledger.database.transaction() as connection:
        connection.execute(update(searches).where(searches.c.key == "died").values(lease_until=1.0))

    found = {one.key: one for one in ledger.leftovers.searches()}

    assert {key: one.live for key, one in found.items()} == {
        "searching": True,
        "died": False,
        "found": False,
    }
    assert found["found"].result == "{}"
    assert found["found"].found_ago == pytest.approx(0.0, abs=60)


def test_models_are_needed_while_a_run_that_may_score_is_pinned_to_them(ledger: Ledger) -> None:
    published = run_in(ledger, "published")
    start_run(ledger, model_digest="e" * 64)
    with ledger.database.transaction() as connection:
        old = update(runs).where(runs.c.id == published)
        connection.execute(old.values(created_at=runs.c.created_at - 3600.0))

    found = {one.digest[0]: one for one in ledger.leftovers.models()}

    assert {name: one.needed for name, one in found.items()} == {"d": False, "e": True}
    assert found["d"].used_ago == pytest.approx(3600.0, abs=60)
    assert found["d"].name == "flights"
