"""The outbox: written with the end of a run, claimed by one at a time, tried for about a day."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from scoring.ledger import DeliveryClaim, Ledger
from scoring.ledger.deliveries import (
    FIRST_PAUSE_SECONDS,
    HOLD_SECONDS,
    LONGEST_PAUSE_SECONDS,
    MOST_ATTEMPTS,
    pause_seconds,
)
from tests.contract.ledgers import (
    NIGHT,
    StoppedClock,
    age_deliveries,
    age_leases,
    finishing_run,
    held_run,
    history,
    new_delivery,
    together,
)

THREADS = 8
DAY = 24 * 3600.0
ids = st.text(min_size=1, max_size=40)


def claim(ledger: Ledger, run_id: str | None = None) -> DeliveryClaim:
    """A claim that must succeed."""
    found = ledger.deliveries.claim(run_id)
    assert found is not None
    return found


# Written with the run


def test_what_a_run_is_to_tell_is_due_from_its_end(ledger: Ledger) -> None:
    told = new_delivery(channel="task", target="training.retrain", task_queue="training")

    run_id = held_run(ledger, told)

    (found,) = ledger.deliveries.of(run_id)
    assert (found.id, found.run_id, found.payload) == (told.id, run_id, told.payload)
    assert (found.action, found.channel, found.target) == ("retrain", "task", "training.retrain")
    assert (found.task_queue, found.state, found.attempts) == ("training", "waiting", 0)
    assert found.next_at == pytest.approx(found.created_at, abs=1.0)
    assert claim(ledger).id == told.id


def test_a_finisher_that_lost_the_run_writes_nothing_to_tell(ledger: Ledger) -> None:
    run_id, stale = finishing_run(ledger)
    age_leases(ledger, 1000)
    ledger.runs.claim_finish(run_id, "other")

    assert ledger.runs.end(stale, "held", deliveries=[new_delivery()]) is False

    assert ledger.deliveries.of(run_id) == []


def test_what_drift_sets_off_is_in_the_history_of_the_end_that_happened(ledger: Ledger) -> None:
    run_id, stale = finishing_run(ledger)
    age_leases(ledger, 1000)
    hold = ledger.runs.claim_finish(run_id, "other")
    assert hold is not None
    held, retrained = {"action": "hold", "worst": "delay"}, {"action": "retrain", "worst": "delay"}

    ended = [
        ledger.runs.end(one, "held", drift_events=[held, retrained]) for one in (stale, hold, hold)
    ]

    assert ended == [False, True, False]
    assert history(ledger, run_id)[1:] == [("drift", held), ("drift", retrained), ("held", {})]


def test_an_end_whose_deliveries_cannot_be_written_did_not_happen(ledger: Ledger) -> None:
    run_id, hold = finishing_run(ledger)
    taken = held_run(ledger, new_delivery(id="taken"))

    with pytest.raises(Exception, match=r"(?i)unique"):
        ledger.runs.end(hold, "held", deliveries=[new_delivery(), new_delivery(id="taken")])

    assert ledger.runs.get(run_id).state == "finishing"
    assert ledger.deliveries.of(run_id) == []
    assert len(ledger.deliveries.of(taken)) == 1


def test_a_run_that_is_finished_again_does_not_tell_twice(ledger: Ledger) -> None:
    first, second = new_delivery(), new_delivery(action="review")
    run_id = held_run(ledger, first)
    ledger.deliveries.delivered(claim(ledger))
    ledger.decisions.release(run_id, "operator")
    hold = ledger.runs.claim_finish(run_id, "finisher")
    assert hold is not None

    assert ledger.runs.end(hold, "published", deliveries=[first, second])

    found = {one.id: one.state for one in ledger.deliveries.of(run_id)}
    assert found == {first.id: "delivered", second.id: "waiting"}


# Claimed


def test_nothing_is_due_where_nothing_was_written(ledger: Ledger) -> None:
    held_run(ledger)

    assert ledger.deliveries.claim() is None


def test_a_delivery_in_somebodys_hands_is_not_due(ledger: Ledger) -> None:
    held_run(ledger, new_delivery())
    first = claim(ledger)
    age_deliveries(ledger, HOLD_SECONDS - 20)

    assert ledger.deliveries.claim() is None
    assert first.attempt == 1


def test_a_delivery_whose_deliverer_died_is_due_again_under_the_same_id(ledger: Ledger) -> None:
    held_run(ledger, new_delivery(id="same"))
    claim(ledger)
    age_deliveries(ledger, HOLD_SECONDS + 1)

    again = claim(ledger)

    assert (again.id, again.attempt) == ("same", 2)


@pytest.mark.parametrize(("seconds", "due"), [(HOLD_SECONDS - 0.001, False), (HOLD_SECONDS, True)])
def test_a_hold_ends_at_its_instant(ledger: Ledger, seconds: float, due: bool) -> None:
    StoppedClock(ledger, NIGHT)
    held_run(ledger, new_delivery())
    claim(ledger)
    age_deliveries(ledger, seconds)

    assert (ledger.deliveries.claim() is not None) is due


def test_a_claim_says_when_it_was_made_by_the_databases_clock(ledger: Ledger) -> None:
    StoppedClock(ledger, NIGHT)
    held_run(ledger, new_delivery())

    assert claim(ledger).at == pytest.approx(NIGHT.timestamp(), abs=0.001)


def test_of_deliverers_that_look_at_once_each_gets_one_of_its_own(ledger: Ledger) -> None:
    held_run(ledger, *[new_delivery(action=f"action {n}") for n in range(3)])

    found = together([partial(ledger.deliveries.claim) for _ in range(THREADS)])

    claims = [one for one in found if isinstance(one, DeliveryClaim)]
    assert len({one.id for one in claims}) == len(claims) == 3, found
    assert [one for one in found if not isinstance(one, DeliveryClaim)] == [None] * (THREADS - 3)


def test_a_run_can_ask_for_its_own_and_what_is_due_the_longest_goes_first(ledger: Ledger) -> None:
    held_run(ledger, new_delivery(id="old"))
    age_deliveries(ledger, 60)
    mine = held_run(ledger, new_delivery(id="mine"))

    assert claim(ledger, mine).id == "mine"
    assert ledger.deliveries.claim(mine) is None
    assert claim(ledger).id == "old"


# Settled


def test_what_was_taken_is_on_record_and_never_due_again(ledger: Ledger) -> None:
    run_id = held_run(ledger, new_delivery())

    assert ledger.deliveries.delivered(claim(ledger)) is True

    age_deliveries(ledger, DAY)
    assert ledger.deliveries.claim() is None
    (found,) = ledger.deliveries.of(run_id)
    assert (found.state, found.last_error) == ("delivered", None)
    assert found.delivered_at is not None
    assert history(ledger, run_id)[-1] == (
        "delivered",
        {"action": "retrain", "channel": "webhook", "target": "mlops", "attempts": 1},
    )


def test_what_was_put_off_is_due_after_its_pause(ledger: Ledger) -> None:
    run_id = held_run(ledger, new_delivery())
    first = claim(ledger)
    pause = pause_seconds(first.id, 1)

    assert ledger.deliveries.put_off(first, "webhook mlops answered HTTP 500") is True

    age_deliveries(ledger, pause - 20)
    assert ledger.deliveries.claim() is None
    age_deliveries(ledger, 21)
    assert claim(ledger).attempt == 2
    assert ledger.deliveries.of(run_id)[0].last_error == "webhook mlops answered HTTP 500"


def test_a_receiver_that_asks_for_time_is_given_it(ledger: Ledger) -> None:
    held_run(ledger, new_delivery())
    ledger.deliveries.put_off(claim(ledger), "webhook mlops answered HTTP 429", asked_seconds=3600)

    age_deliveries(ledger, 3580)
    assert ledger.deliveries.claim() is None
    age_deliveries(ledger, 21)
    assert claim(ledger).attempt == 2


def test_what_was_given_up_is_never_due_again_and_in_the_history(ledger: Ledger) -> None:
    run_id = held_run(ledger, new_delivery())

    assert ledger.deliveries.give_up(claim(ledger), "webhook mlops answered HTTP 410") is True

    age_deliveries(ledger, DAY)
    assert ledger.deliveries.claim() is None
    (found,) = ledger.deliveries.of(run_id)
    assert (found.state, found.last_error) == ("failed", "webhook mlops answered HTTP 410")
    event, detail = history(ledger, run_id)[-1]
    assert event == "delivery_failed"
    assert detail["error"] == "webhook mlops answered HTTP 410"


def test_a_deliverer_that_was_slow_cannot_put_off_or_end_what_another_has(ledger: Ledger) -> None:
    run_id = held_run(ledger, new_delivery())
    slow = claim(ledger)
    age_deliveries(ledger, HOLD_SECONDS + 1)
    claim(ledger)
    before = ledger.deliveries.of(run_id), history(ledger, run_id)

    assert ledger.deliveries.put_off(slow, "too slow") is False
    assert ledger.deliveries.give_up(slow, "too slow") is False

    assert (ledger.deliveries.of(run_id), history(ledger, run_id)) == before


def test_a_receipt_counts_whichever_attempt_brought_it_and_once(ledger: Ledger) -> None:
    run_id = held_run(ledger, new_delivery())
    slow = claim(ledger)
    age_deliveries(ledger, HOLD_SECONDS + 1)
    quick = claim(ledger)

    found = [
        ledger.deliveries.delivered(slow),
        ledger.deliveries.delivered(quick),
        ledger.deliveries.put_off(quick, "no answer"),
    ]

    assert found == [True, False, False]
    assert ledger.deliveries.of(run_id)[0].state == "delivered"
    assert [event for event, _ in history(ledger, run_id)].count("delivered") == 1


def test_looking_for_what_is_due_reads_an_index(ledger: Ledger) -> None:
    query = "SELECT id FROM deliveries WHERE state = 'waiting' AND next_at <= 5 ORDER BY next_at"
    sqlite = ledger.database.engine.dialect.name == "sqlite"
    with ledger.database.transaction() as connection:
        if not sqlite:  # tables of a few rows are read whole, unless that is made dear
            connection.execute(text("SET LOCAL enable_seqscan = off"))
        explain = "EXPLAIN QUERY PLAN" if sqlite else "EXPLAIN"
        plan = str(connection.execute(text(f"{explain} {query} LIMIT 1")).all())

    assert "ix_deliveries_state_next_at" in plan
    assert "Sort" not in plan
    assert "TEMP B-TREE" not in plan


# Pauses


@given(delivery_id=ids)
def test_the_attempts_at_a_delivery_take_about_a_day(delivery_id: str) -> None:
    pauses = [pause_seconds(delivery_id, attempt) for attempt in range(1, MOST_ATTEMPTS)]

    assert 0.7 * DAY < sum(pauses) < 1.2 * DAY


@given(delivery_id=ids, attempt=st.integers(1, MOST_ATTEMPTS))
def test_pauses_grow_threefold_with_jitter_that_is_always_the_same(
    delivery_id: str, attempt: int
) -> None:
    least = FIRST_PAUSE_SECONDS * 3 ** (attempt - 1)

    pause = pause_seconds(delivery_id, attempt)

    assert least <= pause <= 1.5 * least
    assert pause == pause_seconds(delivery_id, attempt)


def test_deliveries_that_failed_together_are_not_tried_again_together() -> None:
    pauses = sorted(pause_seconds(f"delivery {n}", 1) for n in range(100))

    assert len(set(pauses)) == 100
    assert pauses[-1] - pauses[0] > 0.4 * FIRST_PAUSE_SECONDS


@given(delivery_id=ids, attempt=st.integers(1, MOST_ATTEMPTS), asked=st.floats(0, 1e9))
def test_a_pause_is_never_shorter_than_asked_within_bounds(
    delivery_id: str, attempt: int, asked: float
) -> None:
    pause = pause_seconds(delivery_id, attempt, asked)

    assert pause >= min(asked, LONGEST_PAUSE_SECONDS)
    assert pause <= max(pause_seconds(delivery_id, attempt), LONGEST_PAUSE_SECONDS)
