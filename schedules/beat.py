"""The beat schedule: one entry per scheduled job, and the sweep.

Beat only rings: which slots are due is decided by whoever answers, against the ledger, so a beat
that was down, doubled or restarted starts nothing twice and misses nothing. Job files added while
beat runs are found by the sweep. A ring that the broker does not take is not tried again, for the
rest would wait meanwhile: the next sweep finds what was due.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.schedules import BaseSchedule, schedstate

from schedules.cron import next_slot
from scoring.job import Job, Schedule
from scoring.wake import CONTROL, SEND_OPTIONS, START_DUE, SWEEP

STALE_SECONDS = 3600.0
"""After which nobody needs to answer a sweep's message. Long: it is compared with the clock of
whichever worker takes it, and one that is minutes ahead would throw every sweep away."""
NEVER_SECONDS = 24 * 3600.0
"""How often beat looks again at a schedule that has ended."""


class CronSchedule(BaseSchedule):  # type: ignore[misc]  # celery is untyped
    """A job's cron line in the job's own time zone."""

    def __init__(self, schedule: Schedule, **options: Any) -> None:
        super().__init__(**options)
        self.schedule = schedule

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Time until the first slot after ``last_run_at``."""
        slot = next_slot(self.schedule, _aware(last_run_at))
        if slot is None:
            return timedelta(seconds=NEVER_SECONDS)
        return slot.astimezone(UTC) - _aware(self.now())

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether a slot passed since ``last_run_at``, and seconds until the next look."""
        remaining = self.remaining_estimate(last_run_at).total_seconds()
        if remaining > 0:
            return schedstate(False, min(remaining, NEVER_SECONDS))
        following = self.remaining_estimate(self.now()).total_seconds()
        return schedstate(True, max(1.0, min(following, NEVER_SECONDS)))

    def __repr__(self) -> str:
        return f"<cron: {self.schedule.cron} {self.schedule.timezone}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CronSchedule) and other.schedule == self.schedule

    def __hash__(self) -> int:
        return hash(self.schedule)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.schedule,)


def beat_schedule(jobs: Sequence[Job], sweep_seconds: float) -> dict[str, dict[str, Any]]:
    """Celery's ``beat_schedule`` for these jobs."""
    ring = {"queue": CONTROL, "priority": 0, **SEND_OPTIONS}
    entries: dict[str, dict[str, Any]] = {
        "sweep": {
            "task": SWEEP,
            "schedule": sweep_seconds,
            "options": {**ring, "expires": max(2 * sweep_seconds, STALE_SECONDS)},
        }
    }
    for job in jobs:
        if job.schedule is not None:
            entries[f"start {job.name}"] = {  # no job name has a space: none replaces the sweep
                "task": START_DUE,
                "schedule": CronSchedule(job.schedule),
                "kwargs": {"job": job.name},
                "options": ring,
            }
    return entries


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
