"""The log of events: everything that is done to a run is in it, and nobody changes it unseen.

Whoever can write to the database is the adversary here: each test does to the tables what such a
person could, and asks whether the walk along the chain names the place.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from scoring.errors import LedgerUnreachable
from scoring.ledger import Ledger, Verdict, audit
from scoring.ledger import history as log
from scoring.ledger.chain import GENESIS, MOST_FAULTS, link
from tests.conftest import LEASE
from tests.contract.ledgers import (
    finishing_run,
    held_run,
    history,
    new_delivery,
    new_run,
    planned,
    run_in,
    start_run,
    together,
)

PROCESSES, ROUNDS = 4, 8


def noted(ledger: Ledger, count: int) -> Verdict:
    """The log after so many events, which must be in order."""
    for number in range(1, count + 1):
        ledger.runs.note(f"run-{number}", "published", number=number)
    found = ledger.audit.verify()
    assert found.intact
    return found


def meddle(ledger: Ledger, *statements: str) -> None:
    """What somebody with the database's password does to it."""
    with ledger.database.engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def faults(ledger: Ledger, since: str | None = None) -> list[tuple[int | None, str]]:
    """(position, what is wrong) of everything that the walk finds."""
    found = ledger.audit.verify(since)
    assert not found.intact
    assert found.faults_found == len(found.faults)
    return [(one.position, one.what) for one in found.faults]


def test_a_log_without_events_is_in_order_and_its_hash_is_the_beginning(ledger: Ledger) -> None:
    found = ledger.audit.verify(GENESIS)

    assert (found.intact, found.events, found.head) == (True, 0, GENESIS)
    assert (found.first_at, found.last_at, found.since_position) == (None, None, 0)


def test_a_log_in_order_is_told_of_by_its_length_its_times_and_its_last_hash(
    ledger: Ledger,
) -> None:
    found = noted(ledger, 7)

    events = ledger.audit.log()
    assert [one.position for one in events] == list(range(1, 8))
    assert (found.events, found.head) == (7, events[-1].hash)
    assert (found.first_at, found.last_at) == (events[0].at, events[-1].at)
    assert found.faults == ()


def test_each_events_hash_covers_the_event_and_the_one_before(ledger: Ledger) -> None:
    noted(ledger, 3)

    previous = GENESIS
    for one in ledger.audit.log():
        detail = json.dumps(one.detail)
        previous = link(previous, one.position, one.run_id, one.at, one.event, detail)
        assert one.hash == previous


CHANGES = {
    "run_id": "run_id = 'another'",
    "no run_id": "run_id = NULL",
    "at": "at = at + 0.001",
    "event": "event = 'held'",
    "detail": "detail = '{\"number\": 9}'",
    "detail's blanks": "detail = '{\"number\":  4}'",
    "hash": f"hash = '{'a' * 64}'",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_event_is_found_and_named(ledger: Ledger, change: str) -> None:
    noted(ledger, 7)

    meddle(ledger, f"UPDATE events SET {CHANGES[change]} WHERE position = 4")

    found = ledger.audit.verify()
    assert not found.intact
    first = found.faults[0]
    assert first.position == 4
    assert "this event was changed" in first.what
    if change == "hash":  # what follows does not fit it either
        assert [one.position for one in found.faults] == [4, 5]
    else:
        assert found.faults_found == 1
        assert change.endswith("run_id") or first.run_id == "run-4"


def test_a_change_whose_hash_was_made_to_fit_is_found_at_the_event_behind_it(
    ledger: Ledger,
) -> None:
    noted(ledger, 7)
    third, fourth = ledger.audit.log()[2:4]
    fresh = link(third.hash, 4, fourth.run_id, fourth.at, "rejected", '{"number": 4}')

    meddle(ledger, f"UPDATE events SET event = 'rejected', hash = '{fresh}' WHERE position = 4")

    ((position, what),) = faults(ledger)
    assert position == 5
    assert "does not follow from 4 (rejected of run run-4)" in what
    assert "or that one and its hash" in what


@pytest.mark.parametrize(
    ("removed", "said"),
    [("position = 4", "event 4 was"), ("position BETWEEN 3 AND 5", "events 3 to 5 were")],
)
def test_removed_events_are_a_gap_that_is_named(ledger: Ledger, removed: str, said: str) -> None:
    noted(ledger, 7)

    meddle(ledger, f"DELETE FROM events WHERE {removed}")

    ((position, what),) = faults(ledger)
    assert position == (5 if "=" in removed else 6)
    assert f"follows a gap: {said} removed" in what


def test_the_first_events_cannot_be_removed_either(ledger: Ledger) -> None:
    noted(ledger, 7)

    meddle(ledger, "DELETE FROM events WHERE position <= 2")

    ((position, what),) = faults(ledger)
    assert (position, "events 1 to 2 were removed" in what) == (3, True)


def test_a_gap_that_was_closed_by_renumbering_is_found(ledger: Ledger) -> None:
    noted(ledger, 7)

    meddle(
        ledger,
        "DELETE FROM events WHERE position = 4",
        "UPDATE events SET position = -(position - 1) WHERE position > 4",
        "UPDATE events SET position = -position WHERE position < 0",
        "UPDATE event_chain SET length = 6",
    )

    assert [position for position, _ in faults(ledger)] == [4, 5, 6]


def test_an_inserted_event_is_found_and_named(ledger: Ledger) -> None:
    noted(ledger, 7)
    third, fourth = ledger.audit.log()[2:4]
    fits = link(third.hash, 4, "run-4", fourth.at, "released", "{}")

    meddle(
        ledger,
        "UPDATE events SET position = -(position + 1) WHERE position >= 4",
        "UPDATE events SET position = -position WHERE position < 0",
        "INSERT INTO events (position, run_id, at, event, detail, hash) "
        f"VALUES (4, 'run-4', {fourth.at!r}, 'released', '{{}}', '{fits}')",
        "UPDATE event_chain SET length = 8",
    )

    (position, what), *_ = faults(ledger)
    assert position == 5
    assert "was written before 4 (released of run run-4)" in what
    assert "moved or inserted" in what


@pytest.mark.parametrize("position", [0, -3])
def test_an_event_ahead_of_the_first_is_found(ledger: Ledger, position: int) -> None:
    noted(ledger, 3)

    meddle(
        ledger,
        "INSERT INTO events (position, run_id, at, event, detail, hash) "
        f"VALUES ({position}, 'run-0', 1.0, 'created', '{{}}', '{GENESIS}')",
    )

    ((found, what),) = faults(ledger)
    assert (found, "put into the log from outside" in what) == (position, True)


def test_an_event_behind_the_end_is_found(ledger: Ledger) -> None:
    last = noted(ledger, 3)
    fits = link(last.head, 4, "run-4", 1.0, "published", "{}")

    meddle(
        ledger,
        "INSERT INTO events (position, run_id, at, event, detail, hash) "
        f"VALUES (4, 'run-4', 1.0, 'published', '{{}}', '{fits}')",
    )

    ((position, what),) = faults(ledger)
    assert (position, "is beyond the end: event_chain counts 3" in what) == (4, True)


def test_two_events_that_changed_places_are_found(ledger: Ledger) -> None:
    noted(ledger, 7)

    meddle(
        ledger,
        "UPDATE events SET position = -5 WHERE position = 3",
        "UPDATE events SET position = 3 WHERE position = 5",
        "UPDATE events SET position = 5 WHERE position = -5",
    )

    found = faults(ledger)
    assert [position for position, _ in found] == [3, 4, 5, 6]
    assert "moved or inserted" in found[1][1]


@pytest.mark.parametrize(("lost", "said"), [(1, "event 7 was"), (3, "events 5 to 7 were")])
def test_an_end_that_was_cut_off_is_found(ledger: Ledger, lost: int, said: str) -> None:
    noted(ledger, 7)

    meddle(ledger, f"DELETE FROM events WHERE position > {7 - lost}")

    ((position, what),) = faults(ledger)
    assert (position, what) == (None, f"{said} removed from the end: event_chain counts 7")


def test_a_log_that_was_emptied_is_found(ledger: Ledger) -> None:
    noted(ledger, 7)

    meddle(ledger, "DELETE FROM events")

    ((position, what),) = faults(ledger)
    assert (position, what.startswith("events 1 to 7 were removed from the end")) == (None, True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (f"UPDATE event_chain SET hash = '{'b' * 64}'", "does not have the hash that event_chain"),
        ("UPDATE event_chain SET length = 5", "beyond the end: event_chain counts 5"),
        ("UPDATE event_chain SET length = 9", "events 8 to 9 were removed from the end"),
        ("DELETE FROM event_chain", "event_chain has 0 rows"),
        (
            "INSERT INTO event_chain (id, length, hash) SELECT 2, length, hash FROM event_chain",
            "event_chain has 2 rows",
        ),
    ],
)
def test_a_changed_end_of_the_chain_is_found(ledger: Ledger, change: str, said: str) -> None:
    noted(ledger, 7)

    meddle(ledger, change)

    ((_, what),) = faults(ledger)
    assert said in what


def test_a_hash_that_was_kept_proves_that_the_log_still_has_everything_up_to_it(
    ledger: Ledger,
) -> None:
    kept = noted(ledger, 4).head
    noted(ledger, 3)

    found = ledger.audit.verify(kept)

    assert (found.intact, found.events, found.since_position) == (True, 7, 4)


def test_a_log_that_was_written_anew_in_full_is_found_by_a_hash_that_was_kept(
    ledger: Ledger,
) -> None:
    kept = noted(ledger, 7).head
    written_anew(ledger, changed=4)
    assert ledger.audit.verify().intact  # nothing within the log tells

    ((position, what),) = faults(ledger, since=kept)

    assert position is None
    assert f"no event has the hash {kept}: the log was cut off before it, or written anew" in what


def test_an_end_that_was_cut_off_neatly_is_found_by_a_hash_that_was_kept(ledger: Ledger) -> None:
    kept = noted(ledger, 7).head
    last = ledger.audit.log()[4]
    meddle(
        ledger,
        "DELETE FROM events WHERE position > 5",
        f"UPDATE event_chain SET length = 5, hash = '{last.hash}'",
    )
    assert ledger.audit.verify().intact

    assert len(faults(ledger, since=kept)) == 1


def written_anew(ledger: Ledger, changed: int) -> None:
    """What a forger does who knows how the chain is made."""
    previous, statements = GENESIS, []
    for one in ledger.audit.log():
        detail = '{"forged": true}' if one.position == changed else json.dumps(one.detail)
        previous = link(previous, one.position, one.run_id, one.at, one.event, detail)
        statements.append(
            f"UPDATE events SET detail = '{detail}', hash = '{previous}' "
            f"WHERE position = {one.position}"
        )
    meddle(
        ledger,
        *(one.replace(":", r"\:") for one in statements),
        f"UPDATE event_chain SET hash = '{previous}'",
    )


def test_of_many_faults_the_first_hundred_are_kept_and_all_are_counted(ledger: Ledger) -> None:
    noted(ledger, MOST_FAULTS + 20)

    meddle(ledger, "UPDATE events SET event = 'held'")

    found = ledger.audit.verify()
    assert (len(found.faults), found.faults_found) == (MOST_FAULTS, MOST_FAULTS + 20)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7])
def test_a_log_of_several_pages_is_one_chain(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(audit, "PAGE", 3)

    assert noted(ledger, count).events == count
    meddle(ledger, f"DELETE FROM events WHERE position = {count}")
    assert len(faults(ledger)) == 1


def test_the_log_of_one_run_is_its_events_in_order(ledger: Ledger) -> None:
    run_id, other = held_run(ledger), start_run(ledger)

    ledger.decisions.release(run_id, "operator", "a holiday")

    logged = ledger.audit.log(run_id=run_id)
    assert [one.event for one in logged] == ["created", "held", "released"]
    assert logged[-1].detail == {"who": "operator", "reason": "a holiday"}
    assert [one.event for one in ledger.audit.log(limit=2)] == ["created", "released"]
    assert ledger.audit.log(run_id=other)[0].run_id == other


# What is hashed is what is stored


TEXTS = st.text(st.characters(codec=None), max_size=8)  # surrogates and NULs too
DETAILS = st.dictionaries(
    TEXTS,
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=5,
    ),
    max_size=4,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(detail=DETAILS)
def test_whatever_an_event_tells_is_stored_as_it_was_hashed(
    ledger: Ledger, detail: dict[str, Any]
) -> None:
    with ledger.database.transaction() as connection:
        log.append(connection, "flights-1", "drift", detail)

    told = ledger.runs.history("flights-1")[-1].detail
    assert told.keys() == json.loads(json.dumps(detail)).keys()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert ledger.audit.verify().intact


def test_a_figure_that_is_no_number_is_told_as_null(ledger: Ledger) -> None:
    ledger.runs.note("flights-1", "drift", score=float("nan"), more=[float("inf"), 1.5])

    (event,) = ledger.audit.log()
    assert event.detail == {"score": None, "more": [None, 1.5]}
    with ledger.database.reading() as connection:
        stored = connection.scalar(text("SELECT detail FROM events"))
    assert stored == '{"score": null, "more": [null, 1.5]}'


# Everything that is done to a run is an event


def retried(ledger: Ledger) -> str:
    run_id = run_in(ledger, "failed")
    ledger.runs.retry(run_id)
    return run_id


def decided(ledger: Ledger, decide: str) -> str:
    run_id = held_run(ledger)
    getattr(ledger.decisions, decide)(run_id, "operator", "a holiday")
    return run_id


def refused(ledger: Ledger) -> str:
    run = ledger.runs.record_failed(new_run(), "no such model", take_slot=False, who="ann@host")
    return run.run.id


def overdue(ledger: Ledger) -> str:
    run_id = start_run(ledger, deadline_seconds=-1.0)
    assert ledger.sweep.overdue() == [run_id]
    return run_id


def pinned(ledger: Ledger) -> str:
    run_id = start_run(ledger, variant=None)
    assert ledger.runs.pin_variant(
        run_id, variant="int8", batch_rows=256, search=None, precision='{"variant": "int8"}'
    )
    return run_id


def evaluated(ledger: Ledger) -> str:
    run_id = run_in(ledger, "published")
    ledger.runs.record_evaluation(run_id, "small", {"auc": 0.75})
    return run_id


def told(ledger: Ledger) -> str:
    run_id = held_run(ledger, new_delivery())
    claim = ledger.deliveries.claim(run_id)
    assert claim is not None
    assert ledger.deliveries.delivered(claim)
    return run_id


def drifted(ledger: Ledger) -> str:
    run_id, hold = finishing_run(ledger)
    ledger.runs.end(hold, "held", drift_events=[{"action": "hold"}], deliveries=[new_delivery()])
    return run_id


ACTIONS: dict[str, tuple[Callable[[Ledger], str], str, dict[str, Any]]] = {
    "submit": (
        lambda ledger: ledger.runs.create(new_run(), *planned(1), who="ann@host").run.id,
        "created",
        {"trigger": "manual", "slot": None, "who": "ann@host"},
    ),
    "schedule": (
        lambda ledger: start_run(ledger, trigger="schedule", slot="2026-11-23T02:30:00-05:00"),
        "created",
        {"trigger": "schedule", "slot": "2026-11-23T02:30:00-05:00"},
    ),
    "refuse": (refused, "failed", {"error": "no such model"}),
    "pin": (pinned, "variant_pinned", {"variant": "int8"}),
    "publish": (partial(run_in, state="published"), "published", {}),
    "hold": (held_run, "held", {}),
    "drift": (drifted, "held", {}),
    "release": (
        partial(decided, decide="release"),
        "released",
        {"who": "operator", "reason": "a holiday"},
    ),
    "reject": (
        partial(decided, decide="reject"),
        "rejected",
        {"who": "operator", "reason": "a holiday"},
    ),
    "fail": (partial(run_in, state="failed"), "failed", {"error": "x"}),
    "overdue": (overdue, "failed", {}),
    "cancel": (partial(run_in, state="cancelled"), "cancelled", {}),
    "retry": (retried, "retried", {"chunks": 2}),
    "evaluate": (evaluated, "evaluated", {"auc": 0.75}),
    "tell": (told, "delivered", {"target": "mlops"}),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_whatever_is_done_to_a_run_is_an_event_of_the_chain(ledger: Ledger, action: str) -> None:
    act, event, detail = ACTIONS[action]

    run_id = act(ledger)

    said, found = history(ledger, run_id)[-1]
    assert said == event
    assert detail.items() <= found.items()
    assert ledger.audit.verify().intact


# Many at once


def test_events_of_many_threads_are_one_chain_without_gaps(ledger: Ledger) -> None:
    run_id = held_run(ledger)
    before = ledger.audit.verify().events

    found = together(
        [partial(ledger.runs.note, run_id, "promoted", number=number) for number in range(6)]
        + [partial(ledger.decisions.release, run_id, "operator")]
        + [partial(start_run, ledger) for _ in range(5)]
    )

    assert [one for one in found if isinstance(one, BaseException)] == []
    verdict = ledger.audit.verify()
    assert (verdict.intact, verdict.events) == (True, before + 12)


@pytest.mark.slow
def test_events_of_many_processes_are_one_chain_without_gaps(
    ledger: Ledger, database_url: str
) -> None:
    context = multiprocessing.get_context("spawn")
    walks = 0

    with context.Pool(PROCESSES) as pool:
        going = [pool.apply_async(lead_runs, (database_url, n)) for n in range(PROCESSES)]
        while not all(one.ready() for one in going):  # while they write, too
            assert ledger.audit.verify().intact
            walks += 1
        written = sum(one.get(timeout=60) for one in going)

    found = ledger.audit.verify()
    assert (found.intact, found.events) == (True, written)
    assert walks > 0


def lead_runs(url: str, number: int) -> int:
    """Take runs through their lives in a process of its own; how many events that makes."""
    ledger, events = Ledger.open(url, LEASE), 0
    for round_ in range(ROUNDS):
        run_id, hold = finishing_run(ledger, id=f"flights-{number}-{round_}")
        ledger.runs.end(hold, "held", drift_events=[{}], deliveries=[new_delivery(id=run_id)])
        ledger.decisions.release(run_id, f"operator-{number}")
        again = ledger.runs.claim_finish(run_id, "finisher")
        assert again is not None
        ledger.runs.end(again, "failed", error="no room")
        ledger.runs.retry(run_id)
        ledger.runs.cancel(run_id)
        events += 6  # created, drift, held, released, failed, retried; it is finishing, not running
    return events


def test_a_chain_that_has_lost_its_end_takes_no_event_and_says_so(ledger: Ledger) -> None:
    run_id = held_run(ledger)
    meddle(ledger, "DELETE FROM event_chain")

    with pytest.raises(LedgerUnreachable, match=r"lost its end, see `scoring audit verify`"):
        ledger.decisions.release(run_id, "operator")

    assert ledger.runs.get(run_id).state == "held"
