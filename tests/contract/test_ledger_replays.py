"""Replays in the ledger: added once, to the quarantine they were planned from, or not at all."""

from __future__ import annotations

from functools import partial

import pytest

from scoring.errors import ReplayOvertaken, RunNotInState
from scoring.ledger import Added, Finishing, Ledger
from scoring.ledger.overview import look
from tests.contract.ledgers import (
    ROWS,
    claimed,
    finishing_run,
    history,
    made_by,
    new_run,
    planned,
    run_in,
    start_run,
    together,
)

QUARANTINED = 4


def published_run(ledger: Ledger, **values: object) -> str:
    """A published run of two chunks with `QUARANTINED` rows in quarantine."""
    run_id = start_run(ledger, **values)
    for chunk in ledger.chunks.of(run_id):
        claim = claimed(ledger, run_id, chunk.number)
        ledger.chunks.commit(claim, made_by(claim, quarantined=QUARANTINED // 2))
    hold = ledger.runs.claim_finish(run_id, "finisher")
    assert hold is not None
    assert ledger.runs.end(hold, "published")
    return run_id


def finishing_replay(ledger: Ledger, of: str, *, left: int) -> tuple[Finishing, Added]:
    """A replay of the outstanding quarantine, about to be published with so many rows left."""
    run, added = ledger.runs.get(of), ledger.replays.of(of)
    _, hold = finishing_run(ledger, replay_of=of, trigger="replay", count=1)
    return hold, Added(
        replay_of=of,
        base=added[-1].id if added else of,
        rows_in=run.rows_quarantined,
        rows_scored=run.rows_quarantined - left,
        rows_quarantined=left,
    )


def publish(ledger: Ledger, hold: Finishing, added: Added) -> bool:
    return ledger.replays.publish(hold, added, drift_severity=None, report="drift.html")


def counts(ledger: Ledger, run_id: str) -> tuple[int, int, int]:
    run = ledger.runs.get(run_id)
    return run.rows_in, run.rows_scored, run.rows_quarantined


def test_a_replay_ends_and_its_rows_count_for_the_run_at_once(ledger: Ledger) -> None:
    run_id = published_run(ledger)
    assert counts(ledger, run_id) == (2 * ROWS, 2 * ROWS - 4, 4)

    hold, added = finishing_replay(ledger, run_id, left=1)
    assert publish(ledger, hold, added)

    assert counts(ledger, run_id) == (2 * ROWS, 2 * ROWS - 1, 1)
    replay = ledger.runs.get(hold.run_id)
    assert (replay.state, replay.report, replay.finish_lease_until) == (
        "published",
        "drift.html",
        None,
    )
    told = {"rows_scored": 3, "rows_quarantined": 1}
    assert history(ledger, hold.run_id)[-1] == ("published", told)
    assert history(ledger, run_id)[-1] == ("replayed", {"run": hold.run_id, **told})


def test_replays_are_listed_in_the_order_in_which_they_were_added(ledger: Ledger) -> None:
    run_id, other = published_run(ledger), published_run(ledger)
    ids = []
    for left in (3, 3, 0):
        hold, added = finishing_replay(ledger, run_id, left=left)
        assert publish(ledger, hold, added)
        ids.append(hold.run_id)
    run_in(ledger, "published")

    assert [one.id for one in ledger.replays.of(run_id)] == ids
    assert ledger.replays.of(other) == []
    assert ledger.replays.by_run([run_id, other, "nobody"]) == {run_id: ids}
    assert counts(ledger, run_id) == (2 * ROWS, 2 * ROWS, 0)


def test_of_replays_published_at_once_one_is_added_and_the_others_are_told(ledger: Ledger) -> None:
    run_id = published_run(ledger)
    started = [finishing_replay(ledger, run_id, left=left) for left in (4, 4, 2, 0)]

    found = together([partial(publish, ledger, hold, added) for hold, added in started])

    assert found.count(True) == 1
    (won,) = ledger.replays.of(run_id)
    for (hold, _), one in zip(started, found, strict=True):
        if one is not True:
            assert isinstance(one, ReplayOvertaken), one
            assert (one.run, one.replay, one.other) == (run_id, hold.run_id, won.id)
            assert ledger.runs.get(hold.run_id).state == "finishing"
            assert [event for event, _ in history(ledger, hold.run_id)] == ["created"]
    rows_in, scored, quarantined = counts(ledger, run_id)
    assert rows_in == scored + quarantined
    assert [event for event, _ in history(ledger, run_id)].count("replayed") == 1


def test_a_replay_of_a_quarantine_that_another_has_scored_is_refused_though_rows_agree(
    ledger: Ledger,
) -> None:
    run_id = published_run(ledger)
    late, added_late = finishing_replay(ledger, run_id, left=0)
    first, added_first = finishing_replay(ledger, run_id, left=QUARANTINED)  # it scored none
    assert publish(ledger, first, added_first)

    with pytest.raises(ReplayOvertaken):
        publish(ledger, late, added_late)

    assert counts(ledger, run_id) == (2 * ROWS, 2 * ROWS - 4, 4)


def test_a_finisher_that_lost_the_replay_changes_nothing(ledger: Ledger) -> None:
    run_id = published_run(ledger)
    slow, added = finishing_replay(ledger, run_id, left=0)
    ledger.runs.expire_finish(slow.run_id, slow.attempt)
    quick = ledger.runs.claim_finish(slow.run_id, "quick")
    assert quick is not None

    assert not publish(ledger, slow, added)

    assert counts(ledger, run_id)[2] == QUARANTINED
    assert publish(ledger, quick, added)
    assert not publish(ledger, quick, added)
    assert counts(ledger, run_id)[2] == 0


@pytest.mark.parametrize("rows", [QUARANTINED - 1, QUARANTINED + 1])
def test_rows_that_the_run_has_not_in_quarantine_are_not_counted(ledger: Ledger, rows: int) -> None:
    run_id = published_run(ledger)
    hold, _ = finishing_replay(ledger, run_id, left=0)
    added = Added(replay_of=run_id, base=run_id, rows_in=rows, rows_scored=rows, rows_quarantined=0)

    with pytest.raises(RunNotInState, match="published with 4 rows in quarantine"):
        publish(ledger, hold, added)

    assert ledger.runs.get(hold.run_id).state == "finishing"
    assert counts(ledger, run_id)[2] == QUARANTINED


def test_replays_are_no_nights(ledger: Ledger) -> None:
    run_id = published_run(ledger)
    hold, added = finishing_replay(ledger, run_id, left=0)
    assert publish(ledger, hold, added)

    assert [run.id for run in ledger.runs.latest()] == [hold.run_id, run_id]
    assert [run.id for run in ledger.runs.latest(replays=False)] == [run_id]
    overview = look(ledger.database)
    assert overview.last["flights"].id == run_id
    assert overview.measured == {}
    assert overview.runs == {("flights", "published"): 2}


def test_a_job_with_nothing_but_a_replay_can_be_looked_at(ledger: Ledger) -> None:
    ledger.runs.create(new_run(replay_of="elsewhere"), *planned(1))

    overview = look(ledger.database)

    assert (overview.jobs, overview.last) == (1, {})
    assert overview.runs == {("flights", "running"): 1}


def test_who_cancelled_or_retried_a_run_is_on_record(ledger: Ledger) -> None:
    run_id = start_run(ledger)

    assert ledger.runs.cancel(run_id, "operator")
    assert ledger.runs.get(run_id).error == "cancelled by operator"
    ledger.runs.retry(run_id, "reviewer")
    assert ledger.runs.cancel(run_id)

    told = [(event, detail.get("who")) for event, detail in history(ledger, run_id)]
    assert told == [
        ("created", None),
        ("cancelled", "operator"),
        ("retried", "reviewer"),
        ("cancelled", None),
    ]
    assert ledger.runs.get(run_id).error == "cancelled by a person"
