"""A scorer killed or frozen between its steps: its chunk is scored once, whoever comes after it."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import pytest
from sqlalchemy import update

from scoring.ledger import RunRecord
from scoring.ledger.tables import chunks, database_now
from tests.chaos.actor import Acted
from tests.chaos.at_every_step import Bench, freezable
from tests.chaos.checks import standing
from tests.chaos.material import Table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def planned(place: Bench, count: int) -> list[tuple[RunRecord, Table]]:
    """Runs of two chunks, none of them scored."""
    table = place.material.tables[0]
    made = place.actor.act("planned", *[place.job(table)] * count)
    assert made.ended == 0, made
    return [(place.ledger.runs.get(run_id), table) for run_id in made.said]


def score(
    place: Bench, run: RunRecord, number: int, *, strike_before: int = 0, how: int = 0
) -> Acted:
    return place.actor.act("chunk", run.id, number, strike_before=strike_before, how=how)


def expire(place: Bench, run: RunRecord) -> None:
    """Let the lease of its first chunk run out, if there is one."""
    with place.ledger.database.transaction() as connection:
        connection.execute(
            update(chunks)
            .where(chunks.c.run_id == run.id, chunks.c.number == 0, chunks.c.state == "leased")
            .values(lease_until=database_now() - 1.0)
        )


def end(place: Bench, run: RunRecord, table: Table) -> None:
    """Score the second chunk, publish, and look at every row."""
    before = standing(place.output)
    assert score(place, run, 1).said == "committed"
    assert place.finish(run).said == "published"
    place.check(run, table, before)
    assert place.tally.kept, place.tally.page()


@pytest.fixture(scope="module")
def steps(place: Bench) -> Sequence[str]:
    """Every change that a scorer makes, by name, where one has been before it."""
    for run, table in planned(place, 2):
        acted = score(place, run, 0)
        assert acted.said == "committed", acted
        end(place, run, table)
    return acted.steps


def test_a_chunk_is_scored_once_whatever_step_its_scorer_is_killed_before(
    place: Bench, steps: Sequence[str]
) -> None:
    for number, (run, table) in enumerate(planned(place, len(steps)), start=1):
        struck = score(place, run, 0, strike_before=number, how=signal.SIGKILL)
        assert struck.killed, struck

        assert score(place, run, 0).said in ("committed", "not free")

        end(place, run, table)


def test_a_chunk_is_scored_once_whatever_step_its_scorer_is_frozen_before(
    place: Bench, steps: Sequence[str]
) -> None:
    where = freezable(steps)
    for number, (run, table) in zip(where, planned(place, len(where)), strict=True):
        struck = score(place, run, 0, strike_before=number, how=signal.SIGSTOP)
        assert struck.ended is None, struck
        expire(place, run)
        second = score(place, run, 0).said

        woken = place.actor.wake(struck).said

        assert sorted([second, woken]) in (
            ["committed", "lease lost"],
            ["committed", "not free"],
        ), f"frozen before step {number} ({steps[number - 1]})"
        assert place.ledger.runs.get(run.id).chunks_done == 1
        end(place, run, table)
