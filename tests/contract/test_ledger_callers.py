"""Token buckets: never more than the capacity and the rate allow, however many ask at once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from scoring.ledger import Ledger
from scoring.ledger.callers import IDLE_SECONDS
from scoring.ledger.tables import callers
from tests.conftest import LEASE
from tests.contract.ledgers import NIGHT, StoppedClock, together

LIMIT = 6
"""Submissions a minute: one every ten seconds."""
PROCESSES, TRIES = 4, 50
CLOCK_ERROR = 0.001
"""Seconds by which a stopped clock may be read wrong."""
_numbers = iter(range(10**9))


@pytest.fixture
def clock(ledger: Ledger) -> Callable[[float], None]:
    """Sets the database's clock, in seconds after the night began."""
    stopped = StoppedClock(ledger, NIGHT)
    return lambda seconds: stopped.set(NIGHT + timedelta(seconds=seconds))


def take(ledger: Ledger, count: int, caller: str = "ann@host", limit: int = LIMIT) -> int:
    """How many of so many submissions are let in."""
    return sum(ledger.callers.take(caller, limit) == 0.0 for _ in range(count))


def test_a_caller_may_submit_a_minutes_worth_at_once_and_then_must_wait(
    ledger: Ledger, clock: Callable[[float], None]
) -> None:
    assert take(ledger, LIMIT + 3) == LIMIT

    assert ledger.callers.take("ann@host", LIMIT) == pytest.approx(10.0, abs=0.01)
    clock(4.0)
    assert ledger.callers.take("ann@host", LIMIT) == pytest.approx(6.0, abs=0.01)
    clock(10.1)
    assert take(ledger, 3) == 1
    clock(29.0)
    assert take(ledger, 3) == 1
    clock(30.1)
    assert take(ledger, 3) == 1


def test_a_bucket_never_holds_more_than_a_minutes_worth(
    ledger: Ledger, clock: Callable[[float], None]
) -> None:
    take(ledger, LIMIT)

    clock(3_000.0)

    assert take(ledger, 3 * LIMIT) == LIMIT


def test_callers_do_not_share_a_bucket(ledger: Ledger, clock: Callable[[float], None]) -> None:
    clock(0.0)
    assert take(ledger, LIMIT + 1, "ann@host") == LIMIT

    assert take(ledger, 1, "bob@host") == 1


def test_a_limit_that_is_lowered_counts_at_once(
    ledger: Ledger, clock: Callable[[float], None]
) -> None:
    assert take(ledger, 1, limit=600) == 1
    clock(60.0)

    assert take(ledger, LIMIT + 3, limit=LIMIT) == LIMIT


def test_a_clock_that_was_far_ahead_and_is_set_right_locks_nobody_out(
    ledger: Ledger, clock: Callable[[float], None]
) -> None:
    clock(86_400.0)
    assert take(ledger, LIMIT) == LIMIT

    clock(0.0)  # it was a day ahead
    assert take(ledger, LIMIT + 3) == LIMIT
    clock(10.1)
    assert take(ledger, 3) == 1


def test_a_clock_that_is_set_back_a_little_gives_nothing(
    ledger: Ledger, clock: Callable[[float], None]
) -> None:
    clock(5.0)
    assert take(ledger, LIMIT) == LIMIT

    clock(0.0)
    assert take(ledger, 1) == 0
    clock(10.1)
    assert take(ledger, 1) == 0
    clock(15.1)
    assert take(ledger, 1) == 1


def test_buckets_of_callers_who_have_gone_are_forgotten(
    ledger: Ledger, clock: Callable[[float], None]
) -> None:
    take(ledger, LIMIT, "gone@host")
    clock(IDLE_SECONDS - 1.0)
    take(ledger, 1, "still@host")
    clock(IDLE_SECONDS + 1.0)

    take(ledger, 1, "new@host")

    with ledger.database.reading() as connection:
        names = connection.execute(select(callers.c.caller).order_by(callers.c.caller)).scalars()
        assert list(names) == ["new@host", "still@host"]
    assert take(ledger, LIMIT + 1, "gone@host") == LIMIT


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    limit=st.integers(1, 40),
    asked=st.lists(
        st.tuples(st.floats(0.0, 40.0), st.integers(1, 8)), min_size=1, max_size=12
    ),  # seconds since the ones before, and how many
)
def test_in_any_span_of_time_no_more_are_let_in_than_the_capacity_and_the_rate(
    ledger: Ledger,
    clock: Callable[[float], None],
    limit: int,
    asked: list[tuple[float, int]],
) -> None:
    caller, now, let_in = f"caller-{next(_numbers)}", 0.0, []
    level, rate = float(limit), limit / 60.0

    for passed, count in asked:
        now += passed
        clock(now)
        level = min(float(limit), level + rate * passed)
        granted = take(ledger, count, caller, limit)
        error = rate * CLOCK_ERROR * len(asked)
        assert min(count, int(level - error)) <= granted <= min(count, int(level + error))
        level -= granted
        let_in.append((now, granted))

    for first in range(len(let_in)):
        for last in range(first, len(let_in)):
            span = let_in[last][0] - let_in[first][0]
            total = sum(granted for _, granted in let_in[first : last + 1])
            assert total <= limit + rate * (span + CLOCK_ERROR * len(asked))


def test_threads_that_ask_at_once_get_what_there_is_and_no_more(
    ledger: Ledger, clock: Callable[[float], None]
) -> None:
    clock(0.0)

    found = together([partial(ledger.callers.take, "ann@host", LIMIT) for _ in range(3 * LIMIT)])

    assert [one for one in found if isinstance(one, BaseException)] == []
    assert found.count(0.0) == LIMIT


@pytest.mark.slow
def test_processes_that_ask_at_once_get_what_there_is_and_no_more(
    ledger: Ledger, database_url: str
) -> None:
    limit = 60
    began = now(ledger)

    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        asking = [pool.apply_async(ask, (database_url, limit)) for _ in range(PROCESSES)]
        granted = sum(one.get(timeout=180) for one in asking)

    assert limit <= granted <= limit + (now(ledger) - began) * limit / 60.0
    with ledger.database.reading() as connection:
        assert connection.scalar(select(func.count()).select_from(callers)) == 1


def ask(url: str, limit: int) -> int:
    """Ask as often as a process of its own can."""
    ledger = Ledger.open(url, LEASE)
    return take(ledger, TRIES, "ann@host", limit)


def now(ledger: Ledger) -> float:
    return ledger.slots.now()
