"""Runs: created once, moved through their states by conditional statements, on both databases."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from scoring.errors import LeaseLost, RunNotFound, RunNotInState
from scoring.ledger import Created, Finishing, Ledger
from scoring.ledger.tables import chunks, events, inputs, runs, slots
from scoring.plan import InputFile, RowGroup, cut
from tests.conftest import LEASE
from tests.contract.ledgers import (
    NIGHT,
    ROWS,
    StoppedClock,
    age_leases,
    age_messages,
    claimed,
    commit_all,
    end_leases_in,
    finishing_run,
    history,
    made_by,
    new_run,
    planned,
    run_in,
    start_run,
    together,
)

SLOT = "2026-11-23T02:30:00+00:00"
THREADS = 8


def rows_in_all_tables(ledger: Ledger) -> list[int]:
    with ledger.database.reading() as connection:
        return [
            connection.scalar(select(func.count()).select_from(table)) or 0
            for table in (runs, inputs, chunks, slots, events)
        ]


# Create


def test_a_created_run_is_running_and_has_its_manifest_and_its_chunks(ledger: Ledger) -> None:
    groups = (RowGroup(rows=5, bytes=40), RowGroup(rows=7, bytes=56))
    files = [
        InputFile(
            path="/data/a.parquet",
            size=96,
            stamp="11",
            row_groups=groups,
            partitions=(("date", "2026-11-23"),),
        ),
        InputFile(path="/data/b.parquet", size=40, stamp="12", row_groups=groups[:1]),
    ]

    created = ledger.runs.create(new_run(id="flights-1"), files, cut(files, chunk_rows=6))

    assert created.new
    run = created.run
    assert run == ledger.runs.get("flights-1")
    assert (run.state, run.rows_in, run.chunks, run.chunks_done) == ("running", 17, 4, 0)
    manifest = ledger.runs.manifest("flights-1")
    assert [(line.path, line.rows, line.row_groups) for line in manifest] == [
        ("/data/a.parquet", 12, 2),
        ("/data/b.parquet", 5, 1),
    ]
    assert manifest[0].partitions == (("date", "2026-11-23"),)
    assert ledger.runs.inputs_of("flights-1", [1]) == {1: manifest[1]}
    assert [chunk.state for chunk in ledger.chunks.of("flights-1")] == ["waiting"] * 4
    assert history(ledger, "flights-1") == [("created", {"trigger": "manual", "slot": None})]


def test_a_run_that_cannot_be_written_whole_is_not_written_at_all(ledger: Ledger) -> None:
    files, cut_chunks = planned(2)
    twice = (cut_chunks[0], cut_chunks[0])  # the second breaks the primary key of chunks
    before = rows_in_all_tables(ledger)

    with pytest.raises(IntegrityError):
        ledger.runs.create(new_run(slot=SLOT, idempotency_key="key"), files, twice, take_slot=True)

    assert rows_in_all_tables(ledger) == before == [0, 0, 0, 0, 0]


def test_an_unknown_run_is_not_found(ledger: Ledger) -> None:
    with pytest.raises(RunNotFound, match="no run 'nobody' in the ledger"):
        ledger.runs.get("nobody")
    assert ledger.runs.with_idempotency_key("nothing") is None


def test_the_same_idempotency_key_returns_the_first_run(ledger: Ledger) -> None:
    first = ledger.runs.create(new_run(idempotency_key="tonight"), *planned(2))

    again = ledger.runs.create(new_run(idempotency_key="tonight"), *planned(5))

    assert first.new
    assert not again.new
    assert again.run == first.run == ledger.runs.with_idempotency_key("tonight")
    assert rows_in_all_tables(ledger)[:3] == [1, 1, 2]


def test_runs_without_an_idempotency_key_are_all_different(ledger: Ledger) -> None:
    assert all(ledger.runs.create(new_run(), *planned(1)).new for _ in range(3))


def test_threads_that_submit_one_key_at_once_make_one_run(ledger: Ledger) -> None:
    for key in ("one", "two", "three"):
        found = together(
            [
                partial(ledger.runs.create, new_run(idempotency_key=key), *planned(2))
                for _ in range(THREADS)
            ]
        )

        created = [one for one in found if isinstance(one, Created)]
        assert len(created) == THREADS, found
        assert sum(one.new for one in created) == 1
        assert len({one.run.id for one in created}) == 1
    assert rows_in_all_tables(ledger) == [3, 3, 6, 0, 3]


def test_threads_that_take_one_slot_at_once_make_one_run_and_all_are_given_it(
    ledger: Ledger,
) -> None:
    found = together(
        [
            partial(ledger.runs.create, new_run(slot=SLOT), *planned(2), take_slot=True)
            for _ in range(THREADS)
        ]
    )

    created = [one for one in found if isinstance(one, Created)]
    assert len(created) == THREADS, found
    assert sum(one.new for one in created) == 1
    winner = next(one.run.id for one in created if one.new)
    assert {one.run.id for one in created} == {winner}
    assert ledger.slots.taken("flights") == {SLOT: winner}
    assert rows_in_all_tables(ledger) == [1, 1, 2, 1, 1]


def test_a_slot_belongs_to_one_job(ledger: Ledger) -> None:
    ours = ledger.runs.create(new_run(slot=SLOT), *planned(1), take_slot=True)
    theirs = ledger.runs.create(new_run(job="trains", slot=SLOT), *planned(1), take_slot=True)

    assert ours.new
    assert theirs.new


def test_a_manual_run_for_a_taken_slot_is_a_run_of_its_own(ledger: Ledger) -> None:
    scheduled = ledger.runs.create(new_run(slot=SLOT), *planned(1), take_slot=True)
    manual = ledger.runs.create(new_run(slot=SLOT), *planned(1))

    assert manual.new
    assert ledger.slots.taken("flights") == {SLOT: scheduled.run.id}


def test_a_taken_slot_is_found_also_for_a_run_with_a_key_of_its_own(ledger: Ledger) -> None:
    first = ledger.runs.create(new_run(slot=SLOT), *planned(1), take_slot=True)

    again = ledger.runs.create(
        new_run(slot=SLOT, idempotency_key="mine"), *planned(1), take_slot=True
    )

    assert (again.new, again.run.id) == (False, first.run.id)


def test_a_run_that_could_not_be_planned_is_on_record_with_its_reason(ledger: Ledger) -> None:
    created = ledger.runs.record_failed(
        new_run(slot=SLOT), "no Parquet files at data/flights", take_slot=True
    )

    run = created.run
    assert created.new
    assert (run.state, run.error, run.chunks) == ("failed", "no Parquet files at data/flights", 0)
    assert run.ended
    assert run.finished_at is not None
    assert ledger.slots.taken("flights") == {SLOT: run.id}
    assert [event for event, _ in history(ledger, run.id)] == ["created", "failed"]


def test_a_slot_that_has_a_run_is_not_recorded_as_failed(ledger: Ledger) -> None:
    first = ledger.runs.create(new_run(slot=SLOT), *planned(1), take_slot=True)

    again = ledger.runs.record_failed(new_run(slot=SLOT), "too late", take_slot=True)

    assert (again.new, again.run) == (False, first.run)
    assert ledger.runs.get(first.run.id).state == "running"


def test_the_latest_runs_come_first_by_job_and_state(ledger: Ledger) -> None:
    first, second = start_run(ledger), start_run(ledger)
    third = start_run(ledger, job="trains")
    ledger.runs.cancel(first)

    assert [run.id for run in ledger.runs.latest()] == [third, second, first]
    assert [run.id for run in ledger.runs.latest(limit=1)] == [third]
    assert [run.id for run in ledger.runs.latest(job="flights")] == [second, first]
    assert [run.id for run in ledger.runs.latest(states=["cancelled", "failed"])] == [first]


def test_the_latest_runs_before_one_are_those_created_earlier(ledger: Ledger) -> None:
    for _ in range(3):
        start_run(ledger)
        age_messages(ledger, 60)
    newest, middle, oldest = ledger.runs.latest()

    assert ledger.runs.latest(before=newest.created_at) == [middle, oldest]
    assert ledger.runs.latest(before=newest.created_at, limit=1) == [middle]
    assert ledger.runs.latest(before=oldest.created_at) == []


# Finish


def test_only_a_finishing_run_can_be_finished(ledger: Ledger) -> None:
    for state in ("running", "published", "held", "failed", "cancelled"):
        run_id = run_in(ledger, state)

        assert ledger.runs.claim_finish(run_id, "finisher") is None, state


def test_a_run_has_one_finisher_until_its_lease_runs_out(ledger: Ledger) -> None:
    run_id, hold = finishing_run(ledger)
    assert hold.attempt == 1

    assert ledger.runs.claim_finish(run_id, "other") is None
    age_leases(ledger, LEASE + 1)
    second = ledger.runs.claim_finish(run_id, "other")

    assert second is not None
    assert (second.attempt, second.worker) == (2, "other")


@pytest.mark.parametrize(("ends_in", "free"), [(0.0, False), (-0.001, True)])
def test_a_finish_lease_still_holds_at_its_last_instant_and_not_after_it(
    ledger: Ledger, ends_in: float, free: bool
) -> None:
    StoppedClock(ledger, NIGHT)
    run_id, _ = finishing_run(ledger)
    end_leases_in(ledger, ends_in)

    assert (ledger.sweep.unfinished() == [run_id]) is free
    assert (ledger.runs.claim_finish(run_id, "other") is not None) is free


def test_a_renewed_finisher_keeps_the_run(ledger: Ledger) -> None:
    run_id, hold = finishing_run(ledger)
    age_leases(ledger, LEASE - 20)

    assert ledger.runs.renew_finish(hold) is True
    age_leases(ledger, LEASE - 20)

    assert ledger.runs.claim_finish(run_id, "other") is None


def test_a_finisher_that_lost_its_lease_can_neither_renew_nor_end_the_run(ledger: Ledger) -> None:
    run_id, stale = finishing_run(ledger)
    age_leases(ledger, LEASE + 1)
    fresh = ledger.runs.claim_finish(run_id, "other")
    assert fresh is not None
    before = ledger.runs.get(run_id), history(ledger, run_id)

    assert ledger.runs.renew_finish(stale) is False
    assert ledger.runs.end(stale, "failed", error="I was slow") is False

    assert (ledger.runs.get(run_id), history(ledger, run_id)) == before
    assert ledger.runs.end(fresh, "published", drift_severity="none") is True
    assert ledger.runs.end(fresh, "published") is False
    assert ledger.runs.get(run_id).state == "published"


def test_of_finishers_that_claim_one_run_at_once_exactly_one_gets_it(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    commit_all(ledger, run_id)

    found = together(
        [partial(ledger.runs.claim_finish, run_id, f"finisher-{i}") for i in range(THREADS)]
    )

    assert [hold.attempt for hold in found if isinstance(hold, Finishing)] == [1], found


def test_only_the_named_finisher_is_expired(ledger: Ledger) -> None:
    run_id, _ = finishing_run(ledger)

    assert ledger.runs.expire_finish(run_id, 2) is False
    assert ledger.runs.claim_finish(run_id, "other") is None
    assert ledger.runs.expire_finish(run_id, 1) is True
    second = ledger.runs.claim_finish(run_id, "other")

    assert second is not None
    assert second.attempt == 2


def test_the_end_of_a_run_is_recorded_with_what_it_found(ledger: Ledger) -> None:
    run_id, hold = finishing_run(ledger)

    ledger.runs.end(hold, "held", drift_severity="severe", report="/artifacts/drift.html")

    run = ledger.runs.get(run_id)
    assert (run.state, run.drift_severity) == ("held", "severe")
    assert run.report == "/artifacts/drift.html"
    assert run.finished_at is not None
    assert run.finish_lease_until is None


# Fail, cancel, retry


def test_a_held_run_can_be_cancelled_but_not_failed(ledger: Ledger) -> None:
    run_id = run_in(ledger, "held")

    assert ledger.runs.fail(run_id, "too late") is False
    assert ledger.runs.cancel(run_id) is True

    assert ledger.runs.get(run_id).state == "cancelled"


@pytest.mark.parametrize("state", ["finishing", "published", "failed", "cancelled"])
def test_a_run_that_ended_can_be_neither_failed_nor_cancelled(ledger: Ledger, state: str) -> None:
    run_id = run_in(ledger, state)
    before = ledger.runs.get(run_id), history(ledger, run_id)

    assert ledger.runs.fail(run_id, "too late") is False
    assert ledger.runs.cancel(run_id) is False

    assert (ledger.runs.get(run_id), history(ledger, run_id)) == before


def test_a_failed_run_keeps_the_first_reason(ledger: Ledger) -> None:
    run_id = start_run(ledger)

    found = [ledger.runs.fail(run_id, "first"), ledger.runs.fail(run_id, "second")]

    assert found == [True, False]
    assert (ledger.runs.get(run_id).state, ledger.runs.get(run_id).error) == ("failed", "first")


def test_of_threads_that_fail_and_cancel_a_run_at_once_exactly_one_does(ledger: Ledger) -> None:
    run_id = start_run(ledger)

    found = together(
        [partial(ledger.runs.fail, run_id, f"reason {i}") for i in range(THREADS)]
        + [partial(ledger.runs.cancel, run_id) for _ in range(THREADS)]
    )

    assert sorted(map(repr, found)) == ["False"] * (2 * THREADS - 1) + ["True"]
    assert len(history(ledger, run_id)) == 2


@pytest.mark.parametrize("state", ["running", "finishing", "published", "held"])
def test_only_a_failed_or_cancelled_run_can_be_retried(ledger: Ledger, state: str) -> None:
    run_id = run_in(ledger, state)
    before = ledger.runs.get(run_id), ledger.chunks.of(run_id)

    with pytest.raises(RunNotInState, match=f"is {state}; this needs a run that is failed or canc"):
        ledger.runs.retry(run_id)

    assert (ledger.runs.get(run_id), ledger.chunks.of(run_id)) == before


def test_retrying_an_unknown_run_says_so(ledger: Ledger) -> None:
    with pytest.raises(RunNotFound):
        ledger.runs.retry("nobody")


def test_a_run_that_was_never_planned_cannot_be_retried(ledger: Ledger) -> None:
    run = ledger.runs.record_failed(new_run(), "no Parquet files", take_slot=False).run

    with pytest.raises(RunNotInState, match="was planned"):
        ledger.runs.retry(run.id)

    assert ledger.runs.get(run.id).state == "failed"


@pytest.mark.parametrize("stop", ["failed", "cancelled"])
def test_a_retry_keeps_committed_chunks_and_reopens_the_others(ledger: Ledger, stop: str) -> None:
    run_id = start_run(ledger, count=4)
    done = claimed(ledger, run_id, 0)
    ledger.chunks.commit(done, made_by(done, quarantined=2))
    claimed(ledger, run_id, 1, worker="slow")
    ledger.chunks.release(claimed(ledger, run_id, 2), "the store did not answer")
    ledger.chunks.mark_sent(run_id, [0, 1, 2, 3])
    committed = ledger.chunks.get(run_id, 0)
    assert ledger.runs.fail(run_id, "x") if stop == "failed" else ledger.runs.cancel(run_id)

    undone = ledger.runs.retry(run_id)

    run, now = ledger.runs.get(run_id), ledger.chunks.of(run_id)
    assert undone == [1, 2, 3]
    assert (run.state, run.error, run.finished_at) == ("running", None, None)
    assert (run.chunks_done, run.rows_scored, run.rows_quarantined) == (1, ROWS - 2, 2)
    assert now[0] == committed
    assert [(chunk.state, chunk.attempt) for chunk in now[1:]] == [
        ("waiting", 1),
        ("waiting", 1),
        ("waiting", 0),
    ]
    assert {(chunk.lease_until, chunk.sent_at) for chunk in now[1:]} == {(None, None)}
    assert [event for event, _ in history(ledger, run_id)] == ["created", stop, "retried"]


def test_a_retry_grants_as_many_attempts_as_the_job_did(ledger: Ledger) -> None:
    run_id = start_run(ledger, count=1, max_attempts=3)

    attempts = []
    for _ in range(3):
        for _ in range(3):
            claim = claimed(ledger, run_id)
            attempts.append(claim.attempt)
            more = ledger.chunks.release(claim, "the model raised")
        assert not more
        ledger.runs.fail(run_id, "chunk 1 failed 3 times")
        assert ledger.chunks.claim(run_id, 0, "early") is None
        ledger.runs.retry(run_id)

    assert attempts == list(range(1, 10))


def test_a_retry_grants_finishers_as_many_attempts_too(ledger: Ledger) -> None:
    run_id, hold = finishing_run(ledger)
    for _ in range(2):
        ledger.runs.expire_finish(run_id, hold.attempt)
        again = ledger.runs.claim_finish(run_id, "finisher")
        assert again is not None
        hold = again
    ledger.runs.end(hold, "failed", error="finishing failed 3 times")

    ledger.runs.retry(run_id)

    assert ledger.runs.get(run_id).max_attempts == hold.attempt + 3


def test_a_retry_of_an_overdue_run_has_time_again(ledger: Ledger) -> None:
    run_id = start_run(ledger, deadline_seconds=-1.0)
    assert ledger.sweep.overdue() == [run_id]

    ledger.runs.retry(run_id)

    assert ledger.sweep.overdue() == []
    run = ledger.runs.get(run_id)
    assert run.state == "running"
    assert run.deadline_at == pytest.approx(run.created_at + 180 * 60, abs=30)


def test_a_retry_of_a_run_whose_chunks_are_all_done_goes_on_to_finish(ledger: Ledger) -> None:
    run_id, hold = finishing_run(ledger)
    ledger.runs.end(hold, "failed", error="the disk is full")

    assert ledger.runs.retry(run_id) == []

    assert ledger.runs.get(run_id).state == "finishing"
    second = ledger.runs.claim_finish(run_id, "finisher")
    assert second is not None
    assert second.attempt == 2
    assert ledger.runs.end(hold, "published") is False


def test_of_people_who_retry_a_run_at_once_one_does_and_the_others_are_told(
    ledger: Ledger,
) -> None:
    run_id = run_in(ledger, "failed")

    found = together([partial(ledger.runs.retry, run_id) for _ in range(THREADS)])

    assert sum(one == [0, 1] for one in found) == 1
    assert sum(isinstance(one, RunNotInState) for one in found) == THREADS - 1
    assert ledger.runs.get(run_id).max_attempts == 3


def test_a_worker_of_a_cancelled_and_retried_run_cannot_renew(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    old = claimed(ledger, run_id)
    ledger.runs.cancel(run_id)
    ledger.runs.retry(run_id)

    with pytest.raises(LeaseLost):
        ledger.chunks.renew(old)


# History


def test_the_history_of_a_run_tells_its_life_in_order(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    ledger.runs.fail(run_id, "a worker's GPU broke")
    ledger.runs.retry(run_id)
    commit_all(ledger, run_id)
    ledger.runs.note(run_id, "drift", severity="severe", column="delay")
    hold = ledger.runs.claim_finish(run_id, "finisher")
    assert hold is not None
    ledger.runs.end(hold, "held")
    ledger.decisions.release(run_id, "operator")
    second = ledger.runs.claim_finish(run_id, "finisher")
    assert second is not None
    ledger.runs.end(second, "published")

    assert history(ledger, run_id) == [
        ("created", {"trigger": "manual", "slot": None}),
        ("failed", {"error": "a worker's GPU broke"}),
        ("retried", {"chunks": 2}),
        ("drift", {"severity": "severe", "column": "delay"}),
        ("held", {}),
        ("released", {"who": "operator", "reason": ""}),
        ("published", {}),
    ]


def test_an_overdue_run_has_its_failure_in_its_history(ledger: Ledger) -> None:
    run_id = start_run(ledger)
    with ledger.database.transaction() as connection:
        connection.execute(update(runs).values(deadline_at=1.0))

    ledger.sweep.overdue()

    assert [event for event, _ in history(ledger, run_id)] == ["created", "failed"]
