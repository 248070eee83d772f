"""The finisher struck between every two of its steps: its run ends as if nothing had happened."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import pytest

from tests.chaos.at_every_step import Bench, freezable, frozen, killed
from tests.chaos.checks import standing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def steps(place: Bench) -> Sequence[str]:
    """Every change that a finisher makes, by name."""
    return place.steps_of_finishing()


def test_a_run_is_published_whole_whatever_step_its_finisher_is_killed_before(
    place: Bench, steps: Sequence[str]
) -> None:
    killed(place, range(1, len(steps) + 1))

    assert place.tally.faults["finisher killed"] == len(steps)
    assert place.tally.kept, place.tally.page()


@pytest.mark.parametrize("then", ["taken over", "replaced"])
def test_a_finisher_that_wakes_late_changes_nothing(
    place: Bench, steps: Sequence[str], then: str
) -> None:
    around = around_the_swap(steps)
    assert set(around) <= set(freezable(steps))

    frozen(place, around, then=then)

    assert place.tally.faults[f"finisher frozen, {then}"] == len(around)
    assert place.tally.kept, place.tally.page()


def test_a_run_that_readers_see_is_not_failed_when_its_finishers_are_used_up(
    place: Bench, steps: Sequence[str]
) -> None:
    ((run, table),) = place.prepared(1, max_attempts=1)
    before = standing(place.output)
    assert place.finish(run, strike_before=steps.index("exchange") + 2).killed
    assert place.read("after the swap") == run.id

    assert place.finish(run).said == "published"

    place.check(run, table, before)
    assert place.tally.kept, place.tally.page()


def test_a_run_is_not_failed_while_a_frozen_finisher_may_still_publish_it(
    place: Bench, steps: Sequence[str]
) -> None:
    ((run, table),) = place.prepared(1, max_attempts=1)
    before = standing(place.output)
    acted = place.finish(run, strike_before=steps.index("exchange") + 1, how=signal.SIGSTOP)
    assert acted.steps[-1] == "exchange"
    place.expire(run)

    assert place.finish(run).said == "output busy"
    assert place.ledger.runs.get(run.id).state == "finishing"
    assert place.actor.wake(acted).said == "published"

    place.check(run, table, before)
    assert place.tally.kept, place.tally.page()


def around_the_swap(steps: Sequence[str]) -> list[int]:
    """Before it is assembled, at the swap, before the end is recorded, and after; `make chaos`
    freezes at every step."""
    swap = steps.index("exchange") + 1
    return [steps.index("os.mkdir ready-1") + 1, swap, swap + 2]
