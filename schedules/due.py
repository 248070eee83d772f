"""Start what is due: one run per (job, slot), however many beats look.

A job's slots are decided on in order and remembered in the ledger only after their runs are
recorded, so that a crash in between makes the next look decide again and find the slot taken.
"""

from __future__ import annotations

from datetime import UTC, datetime

from schedules.cron import ON_TIME, before_first, slots_between, to_start
from scoring import telemetry
from scoring.errors import RegistryUnreachable, ServiceError
from scoring.job import Job, Schedule
from scoring.job_files import load_jobs
from scoring.runs import (
    PRIORITY_BACKFILL,
    PRIORITY_TONIGHT,
    Context,
    Occasion,
    create_or_record,
)

log = telemetry.logger(__name__)


def start_due(context: Context, name: str | None = None) -> list[str]:
    """Start the due slots of all scheduled jobs, or of one; return the new runs' ids."""
    jobs, faults = load_jobs(context.settings.jobs)
    for fault in faults:
        log.error("job_file_invalid", file=fault.source, error=str(fault))
    started = []
    for job in jobs:
        if job.schedule is not None and name in (None, job.name):
            try:
                started += _start_due(context, job, job.schedule)
            except ServiceError:  # down for every job
                raise
            except RegistryUnreachable as error:  # the slot stays open
                log.warning("slot_waits_for_registry", job=job.name, error=str(error))
            except Exception:  # not decided on, so looked at again; the other jobs go on
                log.exception("schedule_failed", job=job.name)
    return started


def _start_due(context: Context, job: Job, schedule: Schedule) -> list[str]:
    slots = context.ledger.slots
    now = slots.now()
    after = slots.considered_until(job.name, _first_look(schedule, now))
    due = list(slots_between(schedule, _utc(after), _utc(now)))
    taken = slots.taken(job.name) if due else {}
    started = []
    for slot in to_start(due, _utc(now), schedule.catch_up):
        if slot.isoformat() not in taken:
            started.append(_start(context, job, slot, late=_utc(now) - slot > ON_TIME))
    slots.advance(job.name, now)  # by this schedule: one that is edited later decides on no past
    return started


def _first_look(schedule: Schedule, now: float) -> float | None:
    """Where a schedule that was never looked at begins: at its start, if that has passed."""
    first = before_first(schedule)
    return None if first is None or first.timestamp() > now else first.timestamp()


def _start(context: Context, job: Job, slot: datetime, *, late: bool) -> str:
    run = create_or_record(
        context,
        job,
        occasion_of(slot),
        trigger="schedule",
        priority=PRIORITY_BACKFILL if late else PRIORITY_TONIGHT,
    )
    log.info("slot_started", job=job.name, slot=run.slot, run=run.id)
    return run.id


def occasion_of(slot: datetime) -> Occasion:
    """A slot's logical date is its own calendar date in the schedule's zone."""
    return Occasion(date=slot.date().isoformat(), slot=slot.isoformat(), scheduled=True)


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
