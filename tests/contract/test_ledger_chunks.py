"""Chunks: what leased, expired, released and committed mean, on both databases."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from functools import partial

import pytest

from scoring.errors import LeaseLost, RunNotFound, RunNotInState
from scoring.ledger import Claim, Ledger
from tests.conftest import LEASE
from tests.contract.ledgers import (
    NIGHT,
    ROWS,
    StoppedClock,
    age_leases,
    claimed,
    end_leases_in,
    made_by,
    start_run,
    together,
)

THREADS = 8


def lose(ledger: Ledger, run_id: str) -> tuple[Claim, Claim]:
    """A claim on the first chunk that lost its lease, and the one that took over."""
    slow = claimed(ledger, run_id, worker="slow")
    age_leases(ledger, LEASE + 1)
    return slow, claimed(ledger, run_id, worker="quick")


# Claim


def test_a_claim_leases_the_chunk_to_the_worker_under_the_next_attempt(ledger: Ledger) -> None:
    run_id = start_run(ledger)

    claim = claimed(ledger, run_id, worker="quick")

    chunk = ledger.chunks.get(run_id, 0)
    assert (claim.attempt, claim.worker, claim.rows) == (1, "quick", ROWS)
    assert sum(span.rows for span in claim.spans) == ROWS
    assert (chunk.state, chunk.attempt, chunk.worker) == ("leased", 1, "quick")
    assert chunk.claimed_at is not None
    assert chunk.lease_until == pytest.approx(chunk.claimed_at + LEASE, abs=1.0)


def test_a_claim_leaves_the_other_chunks_alone(ledger: Ledger) -> None:
    run_id, other_run = start_run(ledger), start_run(ledger)

    claimed(ledger, run_id)

    assert ledger.chunks.get(run_id, 1).attempt == 0
    assert ledger.chunks.get(other_run, 0).attempt == 0


def test_every_claim_raises_the_attempt_by_one(ledger: Ledger) -> None:
    run_id = start_run(ledger, max_attempts=9)

    attempts = []
    for _ in range(4):
        attempts.append(claimed(ledger, run_id).attempt)
        age_leases(ledger, LEASE + 1)

    assert attempts == [1, 2, 3, 4]


def test_a_leased_chunk_cannot_be_claimed_not_even_by_its_own_worker(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    claimed(ledger, run_id, worker="quick")

    assert ledger.chunks.claim(run_id, 0, "quick") is None
    assert ledger.chunks.claim(run_id, 0, "other") is None
    assert ledger.chunks.get(run_id, 0).attempt == 1


@pytest.mark.parametrize(("ends_in", "free"), [(0.001, False), (0.0, False), (-0.001, True)])
def test_a_lease_still_holds_at_its_last_instant_and_not_after_it(
    ledger: Ledger, ends_in: float, free: bool
) -> None:
    run_id = start_run(ledger)
    StoppedClock(ledger, NIGHT)
    claimed(ledger, run_id, worker="slow")
    end_leases_in(ledger, ends_in)

    assert (len(ledger.sweep.leases()) == 0) is free
    assert (ledger.chunks.claim(run_id, 0, "quick") is not None) is free


def test_a_renewed_lease_lasts_a_whole_lease_from_the_renewal(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    claim = claimed(ledger, run_id)
    age_leases(ledger, LEASE - 20)

    ledger.chunks.renew(claim)
    age_leases(ledger, LEASE - 20)

    assert ledger.chunks.claim(run_id, 0, "other") is None


def test_a_lease_that_ran_out_can_be_renewed_while_nobody_took_over(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    claim = claimed(ledger, run_id)
    age_leases(ledger, LEASE + 1)

    ledger.chunks.renew(claim)

    assert ledger.chunks.claim(run_id, 0, "other") is None


def test_an_attempt_whose_lease_ran_out_commits_while_nobody_took_over(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    claim = claimed(ledger, run_id)
    age_leases(ledger, LEASE + 1)

    ledger.chunks.commit(claim, made_by(claim))

    assert ledger.chunks.get(run_id, 0).state == "done"


def test_a_committed_chunk_cannot_be_claimed_however_old_it_is(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    claim = claimed(ledger, run_id)
    ledger.chunks.commit(claim, made_by(claim))
    age_leases(ledger, 1000 * LEASE)

    assert ledger.chunks.claim(run_id, 0, "other") is None


@pytest.mark.parametrize("stop", ["fail", "cancel"])
def test_chunks_of_a_run_that_ended_cannot_be_claimed(ledger: Ledger, stop: str) -> None:
    run_id = start_run(ledger)
    if stop == "fail":
        ledger.runs.fail(run_id, "the model is gone")
    else:
        ledger.runs.cancel(run_id)

    assert ledger.chunks.claim(run_id, 0, "quick") is None
    assert ledger.chunks.get(run_id, 0).attempt == 0


def test_a_chunk_that_does_not_exist_cannot_be_claimed(ledger: Ledger) -> None:
    run_id = start_run(ledger, count=2)

    assert ledger.chunks.claim(run_id, 2, "quick") is None
    assert ledger.chunks.claim("no-such-run", 0, "quick") is None


def test_asking_for_a_chunk_of_an_unknown_run_says_so(ledger: Ledger) -> None:
    with pytest.raises(RunNotFound, match="no run 'no-such-run' in the ledger"):
        ledger.chunks.get("no-such-run", 0)


def test_a_chunk_is_never_tried_more_often_than_the_run_allows(ledger: Ledger) -> None:
    run_id = start_run(ledger, max_attempts=2)
    for _ in range(2):
        claimed(ledger, run_id)
        age_leases(ledger, LEASE + 1)

    assert ledger.chunks.claim(run_id, 0, "again") is None
    assert ledger.chunks.get(run_id, 0).attempt == 2


def test_of_workers_that_claim_one_chunk_at_once_exactly_one_gets_it(ledger: Ledger) -> None:
    run_id = start_run(ledger, count=10)

    for number in range(10):
        found = together(
            [partial(ledger.chunks.claim, run_id, number, f"worker-{i}") for i in range(THREADS)]
        )

        winners = [claim for claim in found if claim is not None]
        assert len(winners) == 1, found
        assert ledger.chunks.get(run_id, number).worker == winners[0].worker  # type: ignore[union-attr]
        assert ledger.chunks.get(run_id, number).attempt == 1


def test_of_workers_that_take_over_an_expired_chunk_at_once_exactly_one_gets_it(
    ledger: Ledger,
) -> None:
    run_id = start_run(ledger)
    claimed(ledger, run_id, worker="dead")
    age_leases(ledger, LEASE + 1)

    found = together(
        [partial(ledger.chunks.claim, run_id, 0, f"worker-{i}") for i in range(THREADS)]
    )

    assert [claim.attempt for claim in found if claim is not None] == [2]  # type: ignore[union-attr]


# Lost leases


def test_an_attempt_that_lost_its_lease_cannot_commit(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    slow, quick = lose(ledger, run_id)
    ledger.chunks.commit(quick, made_by(quick, quarantined=1))
    before = ledger.runs.get(run_id), ledger.chunks.of(run_id)

    with pytest.raises(LeaseLost, match=f"chunk {run_id}/0: attempt 1 lost its lease to attempt 2"):
        ledger.chunks.commit(slow, made_by(slow))

    assert (ledger.runs.get(run_id), ledger.chunks.of(run_id)) == before
    assert ledger.chunks.get(run_id, 0).part == "part-0.attempt-2"


def test_an_attempt_that_lost_its_lease_cannot_commit_before_the_newer_one_did(
    ledger: Ledger,
) -> None:
    run_id = start_run(ledger)
    slow, _ = lose(ledger, run_id)
    before = ledger.runs.get(run_id), ledger.chunks.of(run_id)

    with pytest.raises(LeaseLost, match="attempt 1 lost its lease to attempt 2"):
        ledger.chunks.commit(slow, made_by(slow))

    assert (ledger.runs.get(run_id), ledger.chunks.of(run_id)) == before


def test_an_attempt_that_lost_its_lease_cannot_renew_it(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    slow, _ = lose(ledger, run_id)
    before = ledger.chunks.of(run_id)

    with pytest.raises(LeaseLost, match="attempt 1 lost its lease to attempt 2") as lost:
        ledger.chunks.renew(slow)

    assert (lost.value.mine, lost.value.current) == (1, 2)
    assert ledger.chunks.of(run_id) == before


def test_an_attempt_that_lost_its_lease_can_neither_release_nor_hand_back_the_chunk(
    ledger: Ledger,
) -> None:
    run_id = start_run(ledger)
    slow, _ = lose(ledger, run_id)
    before = ledger.chunks.of(run_id)

    with pytest.raises(LeaseLost, match="attempt 1 lost its lease to attempt 2"):
        ledger.chunks.release(slow, "too slow")
    assert ledger.chunks.hand_back(slow) is False

    assert ledger.chunks.of(run_id) == before


@pytest.mark.parametrize("stop", ["fail", "cancel"])
def test_a_commit_after_the_run_ended_raises_and_counts_nothing(ledger: Ledger, stop: str) -> None:
    run_id = start_run(ledger, count=1)
    claim = claimed(ledger, run_id)
    if stop == "fail":
        ledger.runs.fail(run_id, "another chunk used up its attempts")
    else:
        ledger.runs.cancel(run_id)
    before = ledger.runs.get(run_id), ledger.chunks.of(run_id)

    with pytest.raises(LeaseLost, match="attempt 1 lost its lease because the run ended"):
        ledger.chunks.commit(claim, made_by(claim))

    assert (ledger.runs.get(run_id), ledger.chunks.of(run_id)) == before
    assert ledger.runs.get(run_id).chunks_done == 0


def test_a_renewal_after_the_run_was_cancelled_says_that_the_run_ended(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    claim = claimed(ledger, run_id)
    ledger.runs.cancel(run_id)

    with pytest.raises(LeaseLost, match="because the run ended"):
        ledger.chunks.renew(claim)


def test_an_attempt_from_before_a_retry_cannot_commit(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    old = claimed(ledger, run_id)
    ledger.runs.cancel(run_id)
    ledger.runs.retry(run_id)

    with pytest.raises(LeaseLost):
        ledger.chunks.commit(old, made_by(old))
    fresh = claimed(ledger, run_id)
    with pytest.raises(LeaseLost, match="attempt 1 lost its lease to attempt 2"):
        ledger.chunks.commit(old, made_by(old))
    ledger.chunks.commit(fresh, made_by(fresh))

    assert ledger.runs.get(run_id).rows_scored == ROWS


def test_a_commit_that_comes_twice_counts_once(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    claim = claimed(ledger, run_id)
    ledger.chunks.commit(claim, made_by(claim))

    with pytest.raises(LeaseLost):
        ledger.chunks.commit(claim, made_by(claim))

    run = ledger.runs.get(run_id)
    assert (run.chunks_done, run.rows_scored) == (1, ROWS)


# Commit


def test_a_commit_records_what_the_attempt_made(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    claim = claimed(ledger, run_id)

    ledger.chunks.commit(claim, made_by(claim, quarantined=3))

    chunk, run = ledger.chunks.get(run_id, 0), ledger.runs.get(run_id)
    assert (chunk.state, chunk.part, chunk.lease_until) == ("done", "part-0.attempt-1", None)
    assert (chunk.rows_scored, chunk.rows_quarantined) == (ROWS - 3, 3)
    assert chunk.timings == '{"read": 0.1}'
    assert (run.chunks_done, run.rows_scored, run.rows_quarantined) == (1, ROWS - 3, 3)
    assert (run.engine, run.device, run.state) == ("onnxruntime", "cpu", "running")


def test_the_last_commit_and_only_that_moves_the_run_to_finishing(ledger: Ledger) -> None:
    run_id = start_run(ledger, count=3)
    claims = [claimed(ledger, run_id, number) for number in range(3)]

    assert [ledger.chunks.commit(claim, made_by(claim)) for claim in reversed(claims)] == [
        False,
        False,
        True,
    ]
    assert ledger.runs.get(run_id).state == "finishing"


def test_of_threads_that_commit_at_once_exactly_one_is_told_to_finish(ledger: Ledger) -> None:
    for quarantined in range(5):
        run_id = start_run(ledger, count=THREADS)
        claims = [claimed(ledger, run_id, number) for number in range(THREADS)]

        found = together(
            [
                partial(ledger.chunks.commit, claim, made_by(claim, quarantined=quarantined))
                for claim in claims
            ]
        )

        run = ledger.runs.get(run_id)
        assert sorted(map(repr, found)) == ["False"] * (THREADS - 1) + ["True"]
        assert (run.state, run.chunks_done) == ("finishing", THREADS)
        assert run.rows_scored == THREADS * (ROWS - quarantined)
        assert run.rows_quarantined == THREADS * quarantined


def test_of_processes_that_score_one_run_exactly_one_is_told_to_finish(
    ledger: Ledger, database_url: str
) -> None:
    run_id = start_run(ledger, count=60)
    ledger.database.engine.dispose()

    with multiprocessing.get_context("spawn").Pool(3) as processes:
        found = processes.map(partial(score_what_is_free, database_url, run_id), range(3))

    run = ledger.runs.get(run_id)
    assert sum(last for last, _ in found) == 1
    assert sum(done for _, done in found) == 60
    assert (run.state, run.chunks_done, run.rows_scored) == ("finishing", 60, 60 * ROWS)
    assert {chunk.attempt for chunk in ledger.chunks.of(run_id)} == {1}


def score_what_is_free(url: str, run_id: str, process: int) -> tuple[int, int]:
    """Claim and commit every chunk that is free; how often told to finish, chunks done."""
    ledger = Ledger.open(url, LEASE)
    told = done = 0
    for number in range(ledger.runs.get(run_id).chunks):
        claim = ledger.chunks.claim(run_id, number, f"process-{process}")
        if claim is not None:
            told += ledger.chunks.commit(claim, made_by(claim))
            done += 1
    ledger.database.engine.dispose()
    return told, done


def test_commits_beside_a_cancellation_and_a_retry_count_each_chunk_once(ledger: Ledger) -> None:
    for _ in range(10):
        run_id = start_run(ledger, count=4)
        claims = [claimed(ledger, run_id, number) for number in range(4)]

        actions: list[Callable[[], object]] = [
            partial(ledger.chunks.commit, claim, made_by(claim)) for claim in claims
        ]

        actions += [partial(ledger.runs.cancel, run_id), partial(ledger.runs.retry, run_id)]

        found = together(actions)

        errors = [error for error in found if isinstance(error, BaseException)]
        run, chunks = ledger.runs.get(run_id), ledger.chunks.of(run_id)
        assert all(isinstance(error, LeaseLost | RunNotInState) for error in errors), errors
        done = [chunk for chunk in chunks if chunk.state == "done"]
        assert (run.chunks_done, run.rows_scored) == (len(done), len(done) * ROWS)
        assert (run.state == "finishing") is (len(done) == 4)


# Release, hand back, expire


def test_a_released_chunk_is_free_at_once_and_keeps_its_error(ledger: Ledger) -> None:
    run_id = start_run(ledger, max_attempts=2)
    claim = claimed(ledger, run_id)

    assert ledger.chunks.release(claim, "the store did not answer") is True

    chunk = ledger.chunks.get(run_id, 0)
    assert (chunk.state, chunk.attempt, chunk.error) == ("waiting", 1, "the store did not answer")
    assert claimed(ledger, run_id).attempt == 2


def test_releasing_the_last_attempt_fails_the_chunk_for_good(ledger: Ledger) -> None:
    run_id = start_run(ledger, max_attempts=1)
    claim = claimed(ledger, run_id)

    assert ledger.chunks.release(claim, "out of memory") is False

    assert ledger.chunks.get(run_id, 0).state == "failed"
    assert ledger.chunks.claim(run_id, 0, "again") is None


def test_an_error_that_a_later_attempt_overcame_is_forgotten(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    ledger.chunks.release(claimed(ledger, run_id), "the store did not answer")
    claim = claimed(ledger, run_id)

    ledger.chunks.commit(claim, made_by(claim))

    assert ledger.chunks.get(run_id, 0).error is None


def test_attempts_that_ended_without_a_word_are_counted_and_others_are_not(ledger: Ledger) -> None:
    run_id = start_run(ledger, max_attempts=9)
    deaths = [claimed(ledger, run_id).deaths]
    age_leases(ledger, LEASE + 1)
    died_once = claimed(ledger, run_id)
    deaths.append(died_once.deaths)
    ledger.chunks.release(died_once, "the store did not answer")
    handed_back = claimed(ledger, run_id)
    deaths.append(handed_back.deaths)
    ledger.chunks.hand_back(handed_back)
    deaths.append(claimed(ledger, run_id).deaths)
    age_leases(ledger, LEASE + 1)

    assert [*deaths, claimed(ledger, run_id).deaths] == [0, 1, 1, 1, 2]


def test_an_attempt_can_be_released_as_one_that_died(ledger: Ledger) -> None:
    run_id = start_run(ledger)

    ledger.chunks.release(claimed(ledger, run_id), "the model does not answer", deaths=2)

    assert ledger.chunks.get(run_id, 0).error == "the model does not answer"
    assert claimed(ledger, run_id).deaths == 2


def test_a_released_claim_cannot_commit(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    claim = claimed(ledger, run_id)
    ledger.chunks.release(claim, "the store did not answer")

    with pytest.raises(LeaseLost):
        ledger.chunks.commit(claim, made_by(claim))

    assert ledger.runs.get(run_id).chunks_done == 0


def test_a_chunk_that_is_handed_back_costs_no_attempt(ledger: Ledger) -> None:
    run_id = start_run(ledger, max_attempts=1)

    for _ in range(3):
        assert ledger.chunks.hand_back(claimed(ledger, run_id)) is True

    chunk = ledger.chunks.get(run_id, 0)
    assert (chunk.state, chunk.attempt, chunk.lease_until) == ("waiting", 0, None)
    assert claimed(ledger, run_id).attempt == 1


def test_what_a_stopped_worker_held_is_handed_back_whole(ledger: Ledger) -> None:
    run_id, other = start_run(ledger, count=3), start_run(ledger)
    done = claimed(ledger, run_id, 0, worker="stopped")
    ledger.chunks.commit(done, made_by(done))
    claimed(ledger, run_id, 1, worker="stopped")
    kept = claimed(ledger, run_id, 2, worker="alive")
    claimed(ledger, other, 1, worker="stopped")

    handed = ledger.chunks.hand_back_of("stopped")

    assert sorted(handed) == sorted([(run_id, 1), (other, 1)])
    assert [chunk.state for chunk in ledger.chunks.of(run_id)] == ["done", "waiting", "leased"]
    assert ledger.chunks.get(run_id, 1).attempt == 0
    assert ledger.chunks.hand_back_of("stopped") == []
    ledger.chunks.commit(kept, made_by(kept))


def test_a_claim_that_was_handed_back_cannot_commit_beside_the_next_of_its_number(
    ledger: Ledger,
) -> None:
    run_id = start_run(ledger)
    stopped = claimed(ledger, run_id, worker="stopped")
    ledger.chunks.hand_back(stopped)
    fresh = claimed(ledger, run_id, worker="fresh")
    assert fresh.attempt == stopped.attempt

    with pytest.raises(LeaseLost):
        ledger.chunks.commit(stopped, made_by(stopped))
    with pytest.raises(LeaseLost):
        ledger.chunks.renew(stopped)
    assert ledger.chunks.hand_back(stopped) is False

    assert ledger.chunks.get(run_id, 0).worker == "fresh"
    ledger.chunks.commit(fresh, made_by(fresh))


def test_a_committed_chunk_is_neither_handed_back_nor_expired(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    claim = claimed(ledger, run_id)
    ledger.chunks.commit(claim, made_by(claim))
    before = ledger.chunks.of(run_id)

    assert ledger.chunks.hand_back(claim) is False
    assert ledger.chunks.expire(run_id, 0, claim.attempt) is False

    assert ledger.chunks.of(run_id) == before


def test_expiring_an_attempt_frees_its_chunk_at_once(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    dead = claimed(ledger, run_id, worker="dead")

    assert ledger.chunks.expire(run_id, 0, dead.attempt) is True

    assert claimed(ledger, run_id, worker="quick").attempt == 2


@pytest.mark.parametrize("attempt", [1, 3])
def test_only_the_named_attempt_is_expired(ledger: Ledger, attempt: int) -> None:
    run_id = start_run(ledger)
    lose(ledger, run_id)  # attempt 2 holds the first chunk now
    claimed(ledger, run_id, 1)

    assert ledger.chunks.expire(run_id, 0, attempt) is False

    assert ledger.chunks.claim(run_id, 0, "thief") is None
    assert ledger.chunks.claim(run_id, 1, "thief") is None


def test_marking_chunks_as_sent_remembers_when(ledger: Ledger) -> None:
    run_id = start_run(ledger, count=1200)  # more than fit into one statement

    ledger.chunks.mark_sent(run_id, range(1199))

    sent = [chunk.sent_at is not None for chunk in ledger.chunks.of(run_id)]
    assert sent == [True] * 1199 + [False]


def test_chunks_are_read_back_in_order_and_cover_the_input(ledger: Ledger) -> None:
    run_id = start_run(ledger, count=12)

    chunks = ledger.chunks.of(run_id)

    assert [chunk.number for chunk in chunks] == list(range(12))
    assert sum(chunk.rows for chunk in chunks) == ledger.runs.get(run_id).rows_in == 12 * ROWS
    assert ledger.chunks.get(run_id, 7) == chunks[7]


def test_a_lost_lease_survives_pickling(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    slow, _ = lose(ledger, run_id)
    with pytest.raises(LeaseLost) as lost:
        ledger.chunks.commit(slow, made_by(slow))

    again = pickle.loads(pickle.dumps(lost.value))

    assert str(again) == str(lost.value)
