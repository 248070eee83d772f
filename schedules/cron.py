"""Cron arithmetic: the slots of a schedule. Pure: times come in, times go out.

Cron lines are read in the schedule's own time zone and follow Debian's cron across clock changes:
a time that the clock skips in spring is due once at the change, a time it repeats in autumn once,
the first time round. A line with a star in minute or hour goes by elapsed time instead: nothing
in the hour that is skipped, twice as often in the hour that is repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from scoring.job import Schedule

ON_TIME = timedelta(minutes=5)
"""A slot that is looked at within this time of being due was not missed."""


def slots_between(schedule: Schedule, after: datetime, until: datetime) -> Iterator[datetime]:
    """Slots in (after, until], in order, as times in the schedule's zone.

    Args:
        after, until: aware times.
    """
    zone = ZoneInfo(schedule.timezone)
    first = _start(schedule, zone)
    begin = max(after, first - timedelta(seconds=1)) if first else after
    for slot in CronSim(schedule.cron, begin.astimezone(zone)):
        slot = slot.astimezone(UTC).astimezone(zone)  # one name per instant, on the clock's face
        ended = schedule.end is not None and slot.date() > schedule.end
        if ended or slot.astimezone(UTC) > until:
            return
        if slot.astimezone(UTC) > after:
            yield slot


def next_slot(schedule: Schedule, after: datetime) -> datetime | None:
    """The first slot later than ``after``; ``None`` once the schedule has ended."""
    return next(slots_between(schedule, after, datetime.max.replace(tzinfo=UTC)), None)


def to_start(slots: Sequence[datetime], now: datetime, catch_up: str) -> list[datetime]:
    """Which of the due slots start a run: those on time, and missed ones as ``catch_up`` says.

    ``none``: only the newest, if it is on time; ``latest``: the newest, missed or not; ``all``:
    every one.
    """
    if catch_up == "all":
        return list(slots)
    newest = list(slots[-1:])
    if catch_up == "latest":
        return newest
    return [slot for slot in newest if now - slot <= ON_TIME]


def before_first(schedule: Schedule) -> datetime | None:
    """The moment from which a schedule with a ``start`` is due; ``None`` without one."""
    first = _start(schedule, ZoneInfo(schedule.timezone))
    return first - timedelta(seconds=1) if first else None


def _start(schedule: Schedule, zone: ZoneInfo) -> datetime | None:
    if schedule.start is None:
        return None
    return datetime.combine(schedule.start, datetime.min.time(), zone)
