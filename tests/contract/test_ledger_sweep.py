"""The sweep's questions: what is exhausted, lost, unfinished, overdue, and who holds what."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy import update

from scoring.errors import LeaseLost
from scoring.ledger import Lease, Ledger, Lost
from scoring.ledger.tables import runs
from tests.conftest import LEASE
from tests.contract.ledgers import (
    age_leases,
    age_messages,
    claimed,
    commit_all,
    made_by,
    start_run,
    together,
)

SETTLE = 30.0
"""How long a message may be on its way."""


def lost(ledger: Ledger) -> list[Lost]:
    return ledger.sweep.lost(settle_seconds=SETTLE)


def one_lost(ledger: Ledger) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Never sent, unanswered and abandoned chunks of the only run that lost any."""
    (found,) = lost(ledger)
    return found.never_sent, found.unanswered, found.abandoned


# Lost


def test_a_fresh_run_has_lost_nothing(ledger: Ledger) -> None:
    start_run(ledger)

    assert lost(ledger) == []


def test_chunks_that_no_message_was_sent_for_are_lost_once_their_run_has_settled(
    ledger: Ledger,
) -> None:
    run_id = start_run(ledger, count=3, queue="gpu")
    ledger.chunks.mark_sent(run_id, [1])
    age_messages(ledger, SETTLE - 20)
    assert lost(ledger) == []

    age_messages(ledger, 25)
    ledger.chunks.mark_sent(run_id, [1])

    assert lost(ledger) == [
        Lost(run_id=run_id, queue="gpu", never_sent=(0, 2), unanswered=(), abandoned=())
    ]


def test_a_message_that_nobody_answered_is_lost_once_it_has_settled(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    ledger.chunks.mark_sent(run_id, [0, 1])
    age_messages(ledger, SETTLE - 20)
    assert lost(ledger) == []

    age_messages(ledger, 25)

    assert one_lost(ledger) == ((), (0, 1), ())


def test_a_message_that_is_held_back_is_not_missed_before_its_time(ledger: Ledger) -> None:
    run_id = start_run(ledger, count=1)
    ledger.chunks.mark_sent(run_id, [0], delay=60.0)
    age_messages(ledger, 60.0 + SETTLE - 20)
    assert lost(ledger) == []

    age_messages(ledger, 25)

    assert one_lost(ledger) == ((), (0,), ())


def test_a_chunk_whose_worker_went_silent_is_abandoned(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    ledger.chunks.mark_sent(run_id, [0, 1])
    claimed(ledger, run_id, 1)
    age_leases(ledger, LEASE - 20)
    assert lost(ledger) == []

    age_leases(ledger, 25)
    age_messages(ledger, LEASE + 5)
    ledger.chunks.mark_sent(run_id, [0])

    assert one_lost(ledger) == ((), (), (1,))


def test_a_chunk_claimed_before_its_message_was_recorded_is_abandoned_too(ledger: Ledger) -> None:
    run_id = start_run(ledger, count=1)
    claimed(ledger, run_id)
    age_leases(ledger, LEASE + 1)

    assert one_lost(ledger) == ((), (), (0,))


def test_an_abandoned_chunk_that_was_woken_again_is_not_abandoned_twice(ledger: Ledger) -> None:
    run_id = start_run(ledger, count=1)
    claimed(ledger, run_id)
    age_leases(ledger, LEASE + 1)
    assert one_lost(ledger) == ((), (), (0,))

    ledger.chunks.mark_sent(run_id, [0])
    assert lost(ledger) == []  # its message is on the way
    age_messages(ledger, SETTLE + 5)
    age_leases(ledger, SETTLE + 5)

    assert one_lost(ledger) == ((), (0,), ())


def test_a_chunk_abandoned_again_by_its_second_worker_is_abandoned_again(ledger: Ledger) -> None:
    run_id = start_run(ledger, count=1)
    for _ in range(2):
        ledger.chunks.mark_sent(run_id, [0])
        claimed(ledger, run_id)
        age_messages(ledger, LEASE + 5)
        age_leases(ledger, LEASE + 5)

        assert one_lost(ledger) == ((), (), (0,))


def test_a_released_chunk_waits_for_its_second_message(ledger: Ledger) -> None:
    run_id = start_run(ledger, count=1)
    ledger.chunks.mark_sent(run_id, [0])
    age_messages(ledger, SETTLE + 5)
    ledger.chunks.release(claimed(ledger, run_id), "the store did not answer")

    assert one_lost(ledger) == ((), (0,), ())
    ledger.chunks.mark_sent(run_id, [0])
    assert lost(ledger) == []


def test_a_retried_run_has_no_messages_yet(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    ledger.chunks.mark_sent(run_id, [0, 1])
    age_messages(ledger, SETTLE + 5)
    ledger.runs.cancel(run_id)
    ledger.runs.retry(run_id)

    assert one_lost(ledger) == ((0, 1), (), ())


def test_done_chunks_and_ended_runs_lose_nothing(ledger: Ledger) -> None:
    finishing, failed, cancelled, half_done = (start_run(ledger) for _ in range(4))
    commit_all(ledger, finishing)
    claimed(ledger, failed)
    ledger.runs.fail(failed, "x")
    ledger.runs.cancel(cancelled)
    claim = claimed(ledger, half_done, 0)
    ledger.chunks.commit(claim, made_by(claim))
    age_messages(ledger, 1000)
    age_leases(ledger, 1000)

    (found,) = lost(ledger)

    assert (found.run_id, found.never_sent) == (half_done, (1,))


def test_the_most_urgent_runs_are_woken_first_and_among_them_the_oldest(ledger: Ledger) -> None:
    backfill = start_run(ledger, priority=6)
    age_messages(ledger, 25)
    first = start_run(ledger, priority=3)
    age_messages(ledger, 25)
    second = start_run(ledger, priority=3)
    age_messages(ledger, SETTLE + 5)

    assert [found.run_id for found in lost(ledger)] == [first, second, backfill]


# Exhausted


def test_a_fresh_run_has_no_exhausted_chunk(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    claimed(ledger, run_id)

    assert ledger.sweep.exhausted() == []


def test_a_chunk_that_failed_its_last_attempt_is_exhausted(ledger: Ledger) -> None:
    run_id = start_run(ledger, max_attempts=1)
    ledger.chunks.release(claimed(ledger, run_id, 1), "the model raised")

    assert ledger.sweep.exhausted() == [(run_id, 1, 1, "the model raised")]


def test_a_chunk_whose_last_worker_died_is_exhausted_only_after_its_lease(ledger: Ledger) -> None:
    run_id = start_run(ledger, max_attempts=2)
    claimed(ledger, run_id)
    age_leases(ledger, LEASE + 1)
    assert ledger.sweep.exhausted() == []
    claimed(ledger, run_id)
    assert ledger.sweep.exhausted() == []

    age_leases(ledger, LEASE + 1)

    assert ledger.sweep.exhausted() == [(run_id, 0, 2, None)]


def test_an_exhausted_chunk_of_a_run_that_ended_is_nobodys_business(ledger: Ledger) -> None:
    run_id = start_run(ledger, max_attempts=1)
    ledger.chunks.release(claimed(ledger, run_id), "the model raised")
    ledger.runs.fail(run_id, "chunk 1 failed")

    assert ledger.sweep.exhausted() == []


def test_a_committed_last_attempt_is_not_exhausted(ledger: Ledger) -> None:
    run_id = start_run(ledger, max_attempts=1)
    claim = claimed(ledger, run_id)
    ledger.chunks.commit(claim, made_by(claim))

    assert ledger.sweep.exhausted() == []


def test_after_a_retry_nothing_is_exhausted(ledger: Ledger) -> None:
    run_id = start_run(ledger, max_attempts=1)
    ledger.chunks.release(claimed(ledger, run_id), "the model raised")
    ledger.runs.fail(run_id, "chunk 1 failed")
    ledger.runs.retry(run_id)

    assert ledger.sweep.exhausted() == []


# Unfinished


def test_a_finishing_run_that_nobody_holds_is_unfinished(ledger: Ledger) -> None:
    start_run(ledger)
    done = start_run(ledger)
    commit_all(ledger, done)

    assert ledger.sweep.unfinished() == [done]


def test_a_run_with_a_live_finisher_is_left_to_it(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    commit_all(ledger, run_id)
    ledger.runs.claim_finish(run_id, "finisher")
    assert ledger.sweep.unfinished() == []

    age_leases(ledger, LEASE + 1)

    assert ledger.sweep.unfinished() == [run_id]


def test_a_run_whose_last_commit_did_not_move_it_is_moved(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    commit_all(ledger, run_id)
    with ledger.database.transaction() as connection:
        connection.execute(update(runs).values(state="running"))

    assert ledger.sweep.unfinished() == [run_id]

    assert ledger.runs.get(run_id).state == "finishing"


@pytest.mark.parametrize("state", ["published", "held", "failed"])
def test_a_finished_run_is_not_unfinished(ledger: Ledger, state: str) -> None:
    run_id = start_run(ledger)
    commit_all(ledger, run_id)
    hold = ledger.runs.claim_finish(run_id, "finisher")
    assert hold is not None
    ledger.runs.end(hold, state)

    assert ledger.sweep.unfinished() == []


# Overdue


def test_a_run_past_its_deadline_is_failed_once(ledger: Ledger) -> None:
    late = start_run(ledger, deadline_seconds=-1.0)
    in_time = start_run(ledger, deadline_seconds=3600.0)
    without = start_run(ledger)

    found = [ledger.sweep.overdue(), ledger.sweep.overdue()]

    assert found == [[late], []]
    run = ledger.runs.get(late)
    assert run.state == "failed"
    assert run.finished_at is not None
    assert "not finished by its deadline" in str(run.error)
    assert ledger.runs.get(in_time).state == ledger.runs.get(without).state == "running"


def test_of_sweepers_that_look_at_once_one_fails_the_overdue_run(ledger: Ledger) -> None:
    run_id = start_run(ledger, deadline_seconds=-1.0)

    found = together([partial(ledger.sweep.overdue) for _ in range(8)])

    assert sorted(found, key=repr) == [[run_id], *[[]] * 7]


def test_a_worker_of_an_overdue_run_cannot_commit(ledger: Ledger) -> None:
    run_id = start_run(ledger, deadline_seconds=-1.0)
    claim = claimed(ledger, run_id)
    ledger.sweep.overdue()

    with pytest.raises(LeaseLost, match="because the run ended"):
        ledger.chunks.commit(claim, made_by(claim))


def test_a_run_that_is_being_published_is_never_overdue(ledger: Ledger) -> None:
    run_id = start_run(ledger, deadline_seconds=-1.0)
    commit_all(ledger, run_id)

    assert ledger.sweep.overdue() == []
    assert ledger.runs.get(run_id).state == "finishing"


# Leases


def test_leases_are_the_live_holds_on_chunks_and_on_finishing_runs(ledger: Ledger) -> None:
    scoring, finishing, cancelled = (start_run(ledger) for _ in range(3))
    claimed(ledger, scoring, 1, worker="a")
    commit_all(ledger, finishing)
    ledger.runs.claim_finish(finishing, "b")
    claimed(ledger, cancelled, worker="c")
    ledger.runs.cancel(cancelled)

    assert ledger.sweep.leases() == [
        Lease(run_id=scoring, number=1, attempt=1, worker="a"),
        Lease(run_id=finishing, number=None, attempt=1, worker="b"),
    ]
    age_leases(ledger, LEASE + 1)
    assert ledger.sweep.leases() == []
