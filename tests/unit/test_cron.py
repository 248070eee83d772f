"""Slots: which times a cron line means, across clock changes, and which of them start a run."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedules.cron import ON_TIME, before_first, next_slot, slots_between, to_start
from scoring.job import Schedule

NEW_YORK, LONDON = "America/New_York", "Europe/London"
LINES = [
    "30 2 * * *",  # falls into the hour that New York skips
    "30 1 * * *",  # falls into the hours that New York repeats, and London skips and repeats
    "0 0 * * *",
    "0,30 2 * * *",
    "15,45 1 * * *",
    "*/15 * * * *",
    "0 * * * *",
    "*/20 1 * * *",
    "0 6 L * *",
    "0 6 29 2 *",
    "0 6 1 * MON",
    "0 22 * * MON-FRI",
    "0 9 * * FRI#2",
    "* * 8 3 *",
]
ZONES = [
    "UTC",
    NEW_YORK,
    LONDON,
    "America/Havana",  # skips and repeats midnight itself
    "Australia/Lord_Howe",  # shifts by half an hour
    "Asia/Kathmandu",  # 5:45 ahead
]
DAY = timedelta(days=1)


def utc(*numbers: int) -> datetime:
    return datetime(*numbers, tzinfo=UTC)  # type: ignore[misc, arg-type]


def days(schedule: Schedule, first: date, count: int) -> list[str]:
    """Slots of some days in the schedule's zone, as people there read them."""
    midnight = datetime.combine(first, datetime.min.time(), ZoneInfo(schedule.timezone))
    after = midnight - timedelta(seconds=1)
    until = after.replace(tzinfo=None) + count * DAY
    found = slots_between(schedule, after, until.replace(tzinfo=midnight.tzinfo))
    return [slot.isoformat(timespec="minutes") for slot in found]


# Clock changes


def test_a_daily_slot_that_the_clock_skips_in_spring_is_due_once_at_the_change() -> None:
    assert days(Schedule(cron="30 2 * * *", timezone=NEW_YORK), date(2026, 3, 7), 3) == [
        "2026-03-07T02:30-05:00",
        "2026-03-08T03:00-04:00",
        "2026-03-09T02:30-04:00",
    ]
    assert days(Schedule(cron="30 1 * * *", timezone=LONDON), date(2026, 3, 28), 3) == [
        "2026-03-28T01:30+00:00",
        "2026-03-29T02:00+01:00",
        "2026-03-30T01:30+01:00",
    ]


def test_two_slots_that_the_clock_skips_in_spring_are_due_once_together() -> None:
    assert days(Schedule(cron="0,30 2 * * *", timezone=NEW_YORK), date(2026, 3, 8), 1) == [
        "2026-03-08T03:00-04:00"
    ]


def test_a_daily_slot_that_the_clock_repeats_in_autumn_is_due_the_first_time() -> None:
    assert days(Schedule(cron="30 1 * * *", timezone=NEW_YORK), date(2026, 10, 31), 3) == [
        "2026-10-31T01:30-04:00",
        "2026-11-01T01:30-04:00",
        "2026-11-02T01:30-05:00",
    ]
    assert days(Schedule(cron="30 1 * * *", timezone=LONDON), date(2026, 10, 24), 3) == [
        "2026-10-24T01:30+01:00",
        "2026-10-25T01:30+01:00",
        "2026-10-26T01:30+00:00",
    ]


def test_a_look_between_the_two_passes_of_the_repeated_hour_starts_nothing_again() -> None:
    schedule = Schedule(cron="30 1 * * *", timezone=NEW_YORK)
    second_pass = utc(2026, 11, 1, 6, 15)  # 01:15 for the second time

    assert next_slot(schedule, second_pass) == datetime(
        2026, 11, 2, 1, 30, tzinfo=ZoneInfo(NEW_YORK)
    )


def test_an_hourly_line_goes_by_elapsed_hours_across_both_changes() -> None:
    schedule = Schedule(cron="0 * * * *", timezone=NEW_YORK)

    for day in (date(2026, 3, 8), date(2026, 11, 1)):
        start = datetime.combine(day, datetime.min.time(), UTC)
        found = [slot.astimezone(UTC) for slot in slots_between(schedule, start, start + DAY)]
        assert found == [start + timedelta(hours=hour) for hour in range(1, 25)]


def test_the_two_passes_of_a_repeated_hour_have_names_of_their_own() -> None:
    assert days(Schedule(cron="*/30 1 * * *", timezone=NEW_YORK), date(2026, 11, 1), 1) == [
        "2026-11-01T01:00-04:00",
        "2026-11-01T01:30-04:00",
        "2026-11-01T01:00-05:00",
        "2026-11-01T01:30-05:00",
    ]


def test_a_midnight_that_the_clock_skips_is_due_at_the_change_on_its_own_date() -> None:
    assert days(Schedule(cron="0 0 * * *", timezone="America/Havana"), date(2026, 3, 7), 3) == [
        "2026-03-07T00:00-05:00",
        "2026-03-08T01:00-04:00",
        "2026-03-09T00:00-04:00",
    ]


# Start and end


def test_start_and_end_are_whole_days_in_the_schedules_own_zone() -> None:
    schedule = Schedule(
        cron="0 0,12 * * *",
        timezone="Asia/Kathmandu",
        start=date(2026, 11, 1),
        end=date(2026, 11, 2),
    )

    found = slots_between(schedule, utc(2026, 1, 1), utc(2027, 1, 1))

    assert [slot.isoformat(timespec="minutes") for slot in found] == [
        "2026-11-01T00:00+05:45",
        "2026-11-01T12:00+05:45",
        "2026-11-02T00:00+05:45",
        "2026-11-02T12:00+05:45",
    ]


def test_the_first_slot_of_a_schedule_is_after_the_moment_before_its_start() -> None:
    schedule = Schedule(cron="0 0 * * *", timezone=NEW_YORK, start=date(2026, 11, 1))
    before = before_first(schedule)
    assert before is not None

    (first,) = slots_between(schedule, before, utc(2026, 11, 2))

    assert first == datetime(2026, 11, 1, tzinfo=ZoneInfo(NEW_YORK))
    assert before_first(Schedule(cron="0 0 * * *")) is None


def test_a_schedule_that_ended_has_no_next_slot() -> None:
    schedule = Schedule(cron="0 6 * * *", end=date(2026, 11, 30))

    assert next_slot(schedule, utc(2026, 11, 29, 6)) == utc(2026, 11, 30, 6)
    assert next_slot(schedule, utc(2026, 11, 30, 6)) is None


def test_the_next_slot_before_the_start_is_the_first_after_it() -> None:
    schedule = Schedule(cron="0 6 * * *", start=date(2026, 12, 1))

    assert next_slot(schedule, utc(2026, 1, 1)) == utc(2026, 12, 1, 6)


# The calendar


def test_the_last_day_of_the_month_follows_the_months() -> None:
    schedule = Schedule(cron="0 6 L * *")

    found = [slot.day for slot in slots_between(schedule, utc(2027, 12, 31, 12), utc(2028, 6, 1))]

    assert found == [31, 29, 31, 30, 31]


def test_months_without_a_thirty_first_are_left_out() -> None:
    schedule = Schedule(cron="0 6 31 * *")

    found = [slot.month for slot in slots_between(schedule, utc(2026, 1, 1), utc(2027, 1, 1))]

    assert found == [1, 3, 5, 7, 8, 10, 12]


def test_a_leap_day_is_due_in_leap_years_only() -> None:
    schedule = Schedule(cron="0 6 29 2 *")

    found = [slot.year for slot in slots_between(schedule, utc(2026, 1, 1), utc(2037, 1, 1))]

    assert found == [2028, 2032, 2036]


# Bounds


def test_a_slot_at_the_beginning_was_due_before_and_one_at_the_end_is_due() -> None:
    schedule = Schedule(cron="30 2 * * *")

    found = slots_between(schedule, utc(2026, 11, 23, 2, 30), utc(2026, 11, 24, 2, 30))

    assert list(found) == [utc(2026, 11, 24, 2, 30)]


def test_a_slot_is_due_at_its_second_and_not_a_microsecond_before() -> None:
    schedule, slot = Schedule(cron="30 2 * * *"), utc(2026, 11, 23, 2, 30)
    instant = timedelta(microseconds=1)

    assert next_slot(schedule, slot - instant) == slot
    assert list(slots_between(schedule, slot - DAY, slot - instant)) == []
    assert list(slots_between(schedule, slot - instant, slot)) == [slot]


def test_nothing_is_due_when_time_went_backwards() -> None:
    schedule = Schedule(cron="* * * * *")

    assert list(slots_between(schedule, utc(2026, 11, 24), utc(2026, 11, 23))) == []


# Laws

schedules_ = st.builds(
    Schedule, cron=st.sampled_from(LINES), timezone=st.sampled_from(ZONES)
) | st.builds(
    Schedule,
    cron=st.sampled_from(LINES),
    timezone=st.sampled_from(ZONES),
    start=st.dates(date(2026, 1, 1), date(2026, 7, 1)),
    end=st.dates(date(2026, 7, 1), date(2026, 12, 31)),
)
near_a_change = st.sampled_from(
    [
        utc(2026, 3, 8, 7),  # New York, spring
        utc(2026, 3, 8, 5),  # Havana, spring
        utc(2026, 3, 29, 1),  # London, spring
        utc(2026, 4, 4, 15),  # Lord Howe, autumn
        utc(2026, 10, 3, 15, 30),  # Lord Howe, spring
        utc(2026, 10, 25, 1),  # London, autumn
        utc(2026, 11, 1, 5),  # Havana, autumn
        utc(2026, 11, 1, 6),  # New York, autumn
    ]
)
instants = st.builds(
    lambda change, seconds: change + timedelta(seconds=seconds),
    near_a_change,
    st.integers(-2 * 86400, 2 * 86400) | st.integers(-90, 90).map(lambda minutes: 60 * minutes),
)
three_instants = st.tuples(instants, st.timedeltas(0 * DAY, DAY), st.timedeltas(0 * DAY, DAY)).map(
    lambda it: (it[0], it[0] + it[1], it[0] + it[1] + it[2])
)


def names(schedule: Schedule, after: datetime, until: datetime) -> list[str]:
    return [slot.isoformat() for slot in slots_between(schedule, after, until)]


@given(schedules_, three_instants)
def test_looking_twice_finds_what_looking_once_finds(
    schedule: Schedule, moments: tuple[datetime, datetime, datetime]
) -> None:
    first, middle, last = moments

    once = names(schedule, first, last)
    twice = names(schedule, first, middle) + names(schedule, middle, last)

    assert once == twice


@given(schedules_, three_instants)
def test_slots_are_in_order_without_repeats_and_within_their_bounds(
    schedule: Schedule, moments: tuple[datetime, datetime, datetime]
) -> None:
    after, _, until = moments

    found = list(slots_between(schedule, after, until))

    instants = [slot.astimezone(UTC) for slot in found]
    assert instants == sorted(set(instants))
    assert all(after < instant <= until for instant in instants)
    assert len({slot.isoformat() for slot in found}) == len(found)
    for slot in found:
        assert slot.tzinfo is ZoneInfo(schedule.timezone)
        assert (slot.second, slot.microsecond) == (0, 0)
        assert slot.isoformat() == slot.astimezone(UTC).astimezone(slot.tzinfo).isoformat()
        assert schedule.start is None or schedule.start <= slot.date()
        assert schedule.end is None or slot.date() <= schedule.end


@given(schedules_, instants)
def test_the_next_slot_is_the_first_that_follows(schedule: Schedule, after: datetime) -> None:
    slot = next_slot(schedule, after)

    if slot is not None:
        assert names(schedule, after, slot.astimezone(UTC)) == [slot.isoformat()]


@given(st.sampled_from(LINES), three_instants, st.sampled_from(ZONES))
def test_the_zone_in_which_a_moment_is_written_makes_no_difference(
    line: str, moments: tuple[datetime, datetime, datetime], zone: str
) -> None:
    schedule = Schedule(cron=line, timezone=NEW_YORK)
    after, _, until = moments

    elsewhere = names(schedule, after.astimezone(ZoneInfo(zone)), until.astimezone(ZoneInfo(zone)))

    assert elsewhere == names(schedule, after, until)


# Which due slots start


def test_missed_slots_all_start_or_the_newest_or_none() -> None:
    missed = [utc(2026, 11, day, 2, 30) for day in (20, 21, 22)]
    now = utc(2026, 11, 22, 9)

    assert to_start(missed, now, "all") == missed
    assert to_start(missed, now, "latest") == missed[-1:]
    assert to_start(missed, now, "none") == []


def test_a_slot_on_time_starts_whatever_was_missed_before_it() -> None:
    due = [utc(2026, 11, 21, 2, 30), utc(2026, 11, 22, 2, 30)]
    now = utc(2026, 11, 22, 2, 31)

    assert to_start(due, now, "all") == due
    assert to_start(due, now, "latest") == due[-1:]
    assert to_start(due, now, "none") == due[-1:]


def test_of_slots_that_fell_due_together_only_the_newest_was_not_missed() -> None:
    due = [utc(2026, 11, 22, 2, minute) for minute in (28, 29, 30)]
    now = utc(2026, 11, 22, 2, 30, 5)

    assert to_start(due, now, "latest") == to_start(due, now, "none") == due[-1:]


@pytest.mark.parametrize(("late_by", "on_time"), [(0, True), (1, False)])
def test_a_slot_is_on_time_for_exactly_five_minutes(late_by: int, on_time: bool) -> None:
    slot = utc(2026, 11, 22, 2, 30)
    now = slot + ON_TIME + timedelta(microseconds=late_by)

    assert timedelta(minutes=5) == ON_TIME
    assert (to_start([slot], now, "none") == [slot]) is on_time


def test_nothing_due_starts_nothing() -> None:
    for catch_up in ("none", "latest", "all"):
        assert to_start([], utc(2026, 11, 22), catch_up) == []


@given(three_instants, st.sampled_from(["*/2 * * * *", "*/7 * * * *", "0 * * * *"]))
def test_none_starts_no_more_than_latest_and_latest_no_more_than_all(
    moments: tuple[datetime, datetime, datetime], line: str
) -> None:
    after, now, _ = moments
    due = list(slots_between(Schedule(cron=line), after, now))

    none, latest, every = (to_start(due, now, kind) for kind in ("none", "latest", "all"))

    assert set(none) <= set(latest) <= set(every)
    assert every == due
    assert not due or latest[-1] == due[-1]
    assert set(latest) - set(none) <= set(due[-1:])
