"""Slots: one run per (job, slot), however many beats look, whatever was missed meanwhile.

The database's clock is stopped and set, so that a night passes at once. The jobs name a model
that does not exist: their runs fail, and are on record, before anything else is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import update

from schedules.cron import ON_TIME
from schedules.due import occasion_of, start_due
from scoring.errors import LedgerUnreachable, ModelNotFound
from scoring.ledger import Ledger
from scoring.ledger.tables import schedules
from scoring.models import ModelCache, Registry
from scoring.runs import PRIORITY_BACKFILL, PRIORITY_TONIGHT, Context
from tests.conftest import make_settings
from tests.contract.ledgers import NIGHT, StoppedClock, together
from tests.silent_bell import SilentBell

DAY = timedelta(days=1)
THREADS = 4
WriteJob = Callable[..., Path]


@pytest.fixture(scope="module")
def registry(tracking_uri: str) -> Registry:
    """A registry that has none of our models."""
    found = Registry(tracking_uri)
    with pytest.raises(ModelNotFound):
        found.resolve("models:/nobody@production")  # the first question creates its database
    return found


@pytest.fixture
def context(ledger: Ledger, registry: Registry, tracking_uri: str, tmp_path: Path) -> Context:
    settings = make_settings(tmp_path / "home", tracking_uri)
    settings.jobs.mkdir(parents=True)
    cache = ModelCache(settings.model_cache, registry)
    return Context(
        settings=settings, ledger=ledger, registry=registry, cache=cache, doorbell=SilentBell()
    )


@pytest.fixture
def clock(ledger: Ledger) -> StoppedClock:
    """The database's clock, at noon before the night."""
    return StoppedClock(ledger, NIGHT - timedelta(hours=14, minutes=30))


@pytest.fixture
def write_job(context: Context) -> WriteJob:
    """Writes a job file with a nightly schedule at 02:30 UTC, or another one."""

    def write(
        name: str = "flights",
        *,
        cron: str = "30 2 * * *",
        catch_up: str = "latest",
        output: str = "scores",
        more: str = "",
    ) -> Path:
        path = context.settings.jobs / f"{name}.toml"
        path.write_text(
            f'name = "{name}"\nmodel = "models:/nobody@production"\n'
            f'[input]\npath = "{context.settings.home}/data"\n'
            f'[output]\npath = "{context.settings.home}/{output}/{name}"\n'
            f'[schedule]\ncron = "{cron}"\ncatch_up = "{catch_up}"\n{more}\n',
            encoding="utf-8",
        )
        return path

    return write


def slots_run(context: Context, job: str = "flights") -> list[str]:
    """Slots that have a run, oldest first."""
    return sorted(str(run.slot) for run in context.ledger.runs.latest(job=job, limit=1000))


def nights(*numbers: int) -> list[str]:
    """The slots of some November nights."""
    return [datetime(2026, 11, day, 2, 30, tzinfo=UTC).isoformat() for day in numbers]


# One run per slot


def test_a_slot_that_falls_due_starts_one_run(
    context: Context, clock: StoppedClock, write_job: WriteJob
) -> None:
    write_job()
    assert start_due(context) == []

    clock.set(NIGHT + timedelta(seconds=1))
    (run_id,) = start_due(context)
    assert start_due(context) == []

    run = context.ledger.runs.get(run_id)
    assert (run.job, run.slot, run.trigger) == ("flights", NIGHT.isoformat(), "schedule")
    assert (run.state, run.priority) == ("failed", PRIORITY_TONIGHT)
    assert "models:/nobody@production is not in the registry" in str(run.error)
    assert context.ledger.slots.taken("flights") == {NIGHT.isoformat(): run_id}


def test_every_night_has_its_run(
    context: Context, clock: StoppedClock, write_job: WriteJob
) -> None:
    write_job()
    for hours in range(72):
        clock.set(NIGHT + timedelta(hours=hours - 1, seconds=1))
        start_due(context)

    assert slots_run(context) == nights(23, 24, 25)


@pytest.mark.parametrize("catch_up", ["latest", "all"])
def test_beats_that_look_at_once_start_each_slot_once(
    context: Context, clock: StoppedClock, write_job: WriteJob, catch_up: str
) -> None:
    write_job(catch_up=catch_up)
    start_due(context)
    clock.set(NIGHT + 2 * DAY)

    found = together([partial(start_due, context) for _ in range(THREADS)])

    expected = nights(25) if catch_up == "latest" else nights(23, 24, 25)
    assert not [error for error in found if isinstance(error, BaseException)]
    assert slots_run(context) == expected
    assert sorted(context.ledger.slots.taken("flights")) == expected


def test_beats_that_see_a_job_for_the_first_time_at_once_agree_on_its_beginning(
    context: Context, clock: StoppedClock, write_job: WriteJob
) -> None:
    write_job(catch_up="all", more="start = 2026-11-21")
    clock.set(NIGHT)

    found = together([partial(start_due, context) for _ in range(THREADS)])

    assert not [error for error in found if isinstance(error, BaseException)]
    assert slots_run(context) == nights(21, 22, 23)


def test_a_beat_that_died_before_it_remembered_starts_nothing_twice(
    context: Context, clock: StoppedClock, write_job: WriteJob
) -> None:
    write_job(catch_up="all")
    start_due(context)
    clock.set(NIGHT + DAY)
    start_due(context)
    with context.ledger.database.transaction() as connection:
        connection.execute(update(schedules).values(considered_until=(NIGHT - DAY).timestamp()))

    assert start_due(context) == slots_run(context, "nobody") == []

    assert slots_run(context) == nights(23, 24)


def test_a_slot_is_named_and_dated_in_the_schedules_own_zone(
    context: Context, clock: StoppedClock, write_job: WriteJob
) -> None:
    write_job(cron="30 1 * * *", catch_up="all", more='timezone = "America/New_York"')
    clock.set(datetime(2026, 10, 31, tzinfo=UTC))
    start_due(context)
    clock.set(datetime(2026, 11, 3, tzinfo=UTC))
    start_due(context)

    slots = slots_run(context)

    assert slots == [
        "2026-10-31T01:30:00-04:00",
        "2026-11-01T01:30:00-04:00",
        "2026-11-02T01:30:00-05:00",
    ]
    occasion = occasion_of(datetime.fromisoformat(slots[0]))
    assert (occasion.date, occasion.slot, occasion.scheduled) == ("2026-10-31", slots[0], True)


# Catching up


@pytest.mark.parametrize(
    ("catch_up", "started"), [("none", []), ("latest", [25]), ("all", [23, 24, 25])]
)
def test_after_a_downtime_a_job_catches_up_as_it_says(
    context: Context, clock: StoppedClock, write_job: WriteJob, catch_up: str, started: list[int]
) -> None:
    write_job(catch_up=catch_up)
    start_due(context)

    clock.set(NIGHT + 2 * DAY + timedelta(hours=6))
    start_due(context)
    start_due(context)

    assert slots_run(context) == nights(*started)
    runs = context.ledger.runs.latest(job="flights")
    assert {run.priority for run in runs} <= {PRIORITY_BACKFILL}
    clock.set(NIGHT + 3 * DAY)
    start_due(context)
    assert slots_run(context) == nights(*started, 26)
    assert context.ledger.runs.latest(job="flights", limit=1)[0].priority == PRIORITY_TONIGHT


@pytest.mark.parametrize(("late_by", "started"), [(0.0, True), (0.01, False)])
def test_a_slot_seen_within_five_minutes_was_not_missed(
    context: Context, clock: StoppedClock, write_job: WriteJob, late_by: float, started: bool
) -> None:
    write_job(catch_up="none")
    start_due(context)

    clock.set(NIGHT + ON_TIME + timedelta(seconds=late_by - 0.005))
    start_due(context)

    assert slots_run(context) == (nights(23) if started else [])


def test_a_job_seen_first_starts_nothing_for_the_past(
    context: Context, clock: StoppedClock, write_job: WriteJob
) -> None:
    write_job(cron="* * * * *", catch_up="all")

    assert start_due(context) == []

    assert slots_run(context) == []


@pytest.mark.parametrize(
    ("catch_up", "started"), [("none", []), ("latest", [22]), ("all", [20, 21, 22])]
)
def test_a_job_seen_first_after_its_start_catches_up_from_there(
    context: Context, clock: StoppedClock, write_job: WriteJob, catch_up: str, started: list[int]
) -> None:
    write_job(catch_up=catch_up, more="start = 2026-11-20")

    start_due(context)

    assert slots_run(context) == nights(*started)


def test_a_schedule_starts_on_its_first_day_and_ends_on_its_last(
    context: Context, clock: StoppedClock, write_job: WriteJob
) -> None:
    write_job(catch_up="all", more="start = 2026-11-24\nend = 2026-11-25")
    for days in range(6):
        clock.set(NIGHT + days * DAY)
        start_due(context)

    assert slots_run(context) == nights(24, 25)


def test_a_start_that_is_taken_away_again_does_not_hold_the_job_back(
    context: Context, clock: StoppedClock, write_job: WriteJob
) -> None:
    write_job(more="start = 2027-11-23")
    start_due(context)

    write_job()
    clock.set(NIGHT)
    start_due(context)

    assert slots_run(context) == nights(23)


def test_an_edited_schedule_starts_nothing_for_the_time_before_the_edit(
    context: Context, clock: StoppedClock, write_job: WriteJob
) -> None:
    write_job(catch_up="all")
    start_due(context)
    clock.set(NIGHT + timedelta(hours=9, minutes=10))
    start_due(context)

    write_job(catch_up="all", cron="0 * * * *")
    clock.set(NIGHT + timedelta(hours=9, minutes=20))
    assert start_due(context) == []
    clock.set(NIGHT + timedelta(hours=9, minutes=30))
    start_due(context)

    assert slots_run(context) == [*nights(23), "2026-11-23T12:00:00+00:00"]


# Several jobs


def test_a_broken_job_file_does_not_stop_the_others(
    context: Context, clock: StoppedClock, write_job: WriteJob
) -> None:
    (context.settings.jobs / "broken.toml").write_text("name = \n")
    (context.settings.jobs / "a-folder.toml").mkdir()
    write_job("trains", cron="61 * * * *")
    write_job("flights")
    start_due(context)
    clock.set(NIGHT)

    assert len(start_due(context)) == 1

    assert slots_run(context, "flights") == nights(23)


def test_a_job_that_cannot_even_be_recorded_does_not_stop_the_others(
    context: Context, clock: StoppedClock, write_job: WriteJob
) -> None:
    write_job("a-first", output="x" * 300)  # longer than a file's name may be
    write_job("flights")
    start_due(context)
    clock.set(NIGHT)

    start_due(context)

    assert slots_run(context, "flights") == nights(23)


def test_a_beat_that_rings_for_one_job_leaves_the_others_to_theirs(
    context: Context, clock: StoppedClock, write_job: WriteJob
) -> None:
    write_job("flights")
    write_job("trains")
    start_due(context)
    clock.set(NIGHT)

    start_due(context, "trains")
    assert (slots_run(context, "flights"), slots_run(context, "trains")) == ([], nights(23))
    start_due(context)

    assert slots_run(context, "flights") == slots_run(context, "trains") == nights(23)


def test_jobs_without_a_schedule_and_no_jobs_at_all_start_nothing(
    context: Context, clock: StoppedClock, write_job: WriteJob
) -> None:
    assert start_due(context) == []
    path = write_job()
    path.write_text(path.read_text().partition("[schedule]")[0])
    clock.set(NIGHT)

    assert start_due(context) == start_due(context, "nobody") == []


def test_a_ledger_that_is_away_is_not_taken_for_a_jobs_fault(
    registry: Registry, context: Context, write_job: WriteJob
) -> None:
    write_job()
    away = Context(
        settings=context.settings,
        ledger=Ledger.open(f"sqlite:///{context.settings.jobs}", 60.0),  # a folder
        registry=registry,
        cache=context.cache,
        doorbell=context.doorbell,
    )

    with pytest.raises(LedgerUnreachable):
        start_due(away)


# The memory of a schedule


def test_a_job_is_first_considered_from_now_or_from_its_start(
    ledger: Ledger, clock: StoppedClock
) -> None:
    start = datetime.combine(date(2026, 11, 1), datetime.min.time(), UTC).timestamp()
    clock.set(NIGHT)

    assert ledger.slots.considered_until("flights", None) == pytest.approx(
        NIGHT.timestamp(), abs=0.001
    )
    assert ledger.slots.considered_until("trains", start) == start
    clock.set(NIGHT + DAY)
    assert ledger.slots.considered_until("flights", start) == pytest.approx(
        NIGHT.timestamp(), abs=0.001
    )


def test_what_was_considered_never_moves_back(ledger: Ledger) -> None:
    ledger.slots.considered_until("flights", 100.0)

    for until in (300.0, 200.0, 300.0, 299.0):
        ledger.slots.advance("flights", until)

    assert ledger.slots.considered_until("flights", None) == 300.0


def test_what_was_considered_ends_at_the_latest_of_many_at_once(ledger: Ledger) -> None:
    ledger.slots.considered_until("flights", 0.0)
    ledger.slots.considered_until("trains", 5.0)

    together([partial(ledger.slots.advance, "flights", float(i)) for i in (3, 7, 1, 8, 2, 6)])

    assert ledger.slots.considered_until("flights", None) == 8.0
    assert ledger.slots.considered_until("trains", None) == 5.0


def test_a_clock_that_went_back_starts_nothing_twice(
    context: Context, clock: StoppedClock, write_job: WriteJob
) -> None:
    write_job(catch_up="all")
    start_due(context)
    for moment in (NIGHT, NIGHT - timedelta(minutes=10), NIGHT, NIGHT + timedelta(minutes=1)):
        clock.set(moment)
        start_due(context)

    assert slots_run(context) == nights(23)
