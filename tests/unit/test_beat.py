"""The beat schedule: whom beat rings, and when a cron line in the job's own zone is due."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import time_machine
from celery import Celery
from celery.beat import Scheduler

from schedules.beat import NEVER_SECONDS, CronSchedule, beat_schedule
from scoring.job import Input, Job, Output, Schedule
from scoring.wake import CONTROL, START_DUE, SWEEP

SLOT = datetime(2026, 11, 23, 7, 30, tzinfo=UTC)
"""02:30 in New York."""
NIGHTLY = Schedule(cron="30 2 * * *", timezone="America/New_York")
BEFORE = SLOT - timedelta(hours=1)


def job(name: str, schedule: Schedule | None = NIGHTLY) -> Job:
    return Job(
        name=name,
        model="models:/flights@production",
        input=Input(path="data"),
        output=Output(path=f"scores/{name}"),
        schedule=schedule,
    )


@pytest.fixture
def cron() -> CronSchedule:
    return CronSchedule(NIGHTLY)


def at(moment: datetime) -> time_machine.travel:
    return time_machine.travel(moment, tick=False)


# Entries


def test_beat_rings_for_every_scheduled_job_and_for_the_sweep() -> None:
    jobs = [job("flights"), job("ad-hoc", None), job("trains", Schedule(cron="0 * * * *"))]

    entries = beat_schedule(jobs, sweep_seconds=30.0)

    rung = {(entry["task"], str(entry.get("kwargs"))) for entry in entries.values()}
    assert rung == {
        (SWEEP, "None"),
        (START_DUE, "{'job': 'flights'}"),
        (START_DUE, "{'job': 'trains'}"),
    }
    assert len(entries) == 3
    assert {entry["options"]["queue"] for entry in entries.values()} == {CONTROL}


def test_the_sweep_comes_round_and_its_message_outlives_a_clock_that_is_minutes_ahead() -> None:
    (entry,) = beat_schedule([], sweep_seconds=30.0).values()

    assert entry["schedule"] == 30.0
    assert entry["options"]["expires"] == 3600.0


def test_a_ring_is_tried_once_so_that_a_silent_broker_does_not_keep_the_others_waiting() -> None:
    entries = beat_schedule([job("flights")], sweep_seconds=30.0)

    assert [entry["options"]["retry"] for entry in entries.values()] == [False, False]


def test_no_job_whatever_its_name_takes_the_sweeps_place() -> None:
    names = ["sweep", "scoring.sweep", "start", "celery.backend_cleanup"]

    entries = beat_schedule([job(name) for name in names], sweep_seconds=30.0)

    tasks = [entry["task"] for entry in entries.values()]
    assert sorted(tasks) == sorted([SWEEP, *[START_DUE] * len(names)])


# Due


def test_a_schedule_is_not_due_before_its_slot_and_says_how_long_to_wait(
    cron: CronSchedule,
) -> None:
    with at(SLOT - timedelta(seconds=90)):
        found = cron.is_due(BEFORE)

    assert (found.is_due, found.next) == (False, 90.0)


def test_a_schedule_is_due_at_its_slot_and_next_at_the_following_one(cron: CronSchedule) -> None:
    with at(SLOT):
        found = cron.is_due(BEFORE)

    assert (found.is_due, found.next) == (True, 86400.0)


def test_a_schedule_that_just_ran_is_not_due_again(cron: CronSchedule) -> None:
    with at(SLOT + timedelta(seconds=1)):
        found = cron.is_due(SLOT)

    assert (found.is_due, found.next) == (False, 86399.0)


def test_a_schedule_is_due_once_after_a_long_sleep(cron: CronSchedule) -> None:
    woken = SLOT + timedelta(days=3, hours=1)
    with at(woken):
        first, second = cron.is_due(BEFORE), cron.is_due(woken)

    assert (first.is_due, first.next) == (True, 23 * 3600.0)
    assert second.is_due is False


def test_beat_looks_again_within_a_day_however_far_the_next_slot() -> None:
    with at(BEFORE):
        found = CronSchedule(Schedule(cron="0 0 29 2 *")).is_due(BEFORE)

    assert (found.is_due, found.next) == (False, NEVER_SECONDS)


def test_a_time_without_a_zone_is_read_as_utc(cron: CronSchedule) -> None:
    with at(SLOT):
        assert cron.is_due(BEFORE.replace(tzinfo=None)) == cron.is_due(BEFORE)


def test_a_skipped_hour_is_due_at_the_clock_change() -> None:
    change = datetime(2026, 3, 8, 7, tzinfo=UTC)  # 02:00 in New York becomes 03:00
    with at(change - timedelta(seconds=10)):
        found = CronSchedule(NIGHTLY).is_due(change - timedelta(hours=2))

    assert (found.is_due, found.next) == (False, 10.0)


def test_a_schedule_that_ended_is_never_due() -> None:
    ended = CronSchedule(Schedule(cron="* * * * *", end=date(2026, 11, 20)))

    for later in (timedelta(0), timedelta(days=400)):
        with at(SLOT + later):
            found = ended.is_due(BEFORE)
        assert (found.is_due, found.next) == (False, NEVER_SECONDS)


def test_the_last_slot_of_a_schedule_is_due_and_no_other_follows() -> None:
    cron = CronSchedule(
        Schedule(cron="30 2 * * *", timezone="America/New_York", end=date(2026, 11, 23))
    )

    with at(SLOT):
        found = cron.is_due(BEFORE)

    assert (found.is_due, found.next) == (True, NEVER_SECONDS)


def test_a_schedule_that_has_not_started_is_not_due() -> None:
    cron = CronSchedule(Schedule(cron="30 2 * * *", start=date(2026, 12, 1)))

    with at(SLOT):
        assert cron.is_due(BEFORE).is_due is False


# What Celery does with it


def test_a_schedule_survives_pickling(cron: CronSchedule) -> None:
    again = pickle.loads(pickle.dumps(cron))

    assert again == cron
    assert again.schedule == NIGHTLY
    assert hash(again) == hash(cron)
    with at(SLOT):
        assert again.is_due(BEFORE) == cron.is_due(BEFORE)


def test_schedules_are_equal_when_they_mean_the_same(cron: CronSchedule) -> None:
    assert cron == CronSchedule(Schedule(cron="30 2 * * *", timezone="America/New_York"))
    assert cron != CronSchedule(Schedule(cron="30 2 * * *", timezone="Europe/London"))
    assert cron != object()
    assert "30 2 * * * America/New_York" in repr(cron)


@pytest.fixture
def celery_app() -> Iterator[Celery]:
    """A Celery application whose broker is this process's memory."""
    app = Celery("beat-under-test", broker="memory://", set_as_current=False)
    app.conf.beat_schedule = beat_schedule([job("sweep")], sweep_seconds=1800.0)
    yield app
    app.close()


def test_celerys_own_beat_rings_at_the_slot_and_sweeps_between(celery_app: Celery) -> None:
    rung: list[tuple[datetime, str]] = []
    with at(SLOT - timedelta(hours=1)) as clock:
        beat = Scheduler(app=celery_app)
        while datetime.now(UTC) < SLOT + timedelta(hours=1):
            wait = beat.tick()
            rung += [(datetime.now(UTC), task) for task in taken(celery_app)]
            clock.shift(max(float(wait), 0.05))

    starts = [when for when, task in rung if task == START_DUE]
    sweeps = [when for when, task in rung if task == SWEEP]
    assert len(starts) == 1
    assert timedelta(0) <= starts[0] - SLOT <= timedelta(seconds=1)
    assert 3 <= len(sweeps) <= 4


def taken(app: Celery) -> list[str]:
    """The names of the tasks in the control queue, which is empty then."""
    found: list[str] = []
    with app.connection_for_read() as connection:
        queue: Any = connection.SimpleQueue(CONTROL)
        while queue.qsize():
            message = queue.get_nowait()
            found.append(message.headers["task"])
            message.ack()
        queue.close()
    return found
