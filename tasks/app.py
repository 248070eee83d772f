"""The Celery application and its settings.

Children are spawned, not forked: CUDA does not survive a fork. Messages are acknowledged after
the work and may come twice; the ledger decides who works. Results are not kept: the ledger has
them.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from celery import Celery, signals
from celery.utils.log import get_multiprocessing_logger
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from schedules.beat import beat_schedule
from scoring import address, telemetry
from scoring.errors import BrokerNotConfigured, ScoringError
from scoring.job_files import load_jobs
from scoring.runs import Context
from scoring.settings import Settings, cores
from scoring.wake import (
    CONTROL,
    PRIORITY_STEPS,
    SEND_OPTIONS,
    SWEEP,
    TRANSPORT_OPTIONS,
    Bell,
)
from tasks import beat, child, devices, stopping, transport

log = telemetry.logger(__name__)

REDIS_DEFAULT = "redis://127.0.0.1:6379/0"
"""What Celery users expect when nothing is configured."""
CHILD_START_SECONDS = 60.0
"""A spawned child imports everything before it says that it is up: at Celery's four seconds a busy
machine kills each child that it starts, for ever."""


def _broker(settings: Settings) -> str:
    try:
        return address.broker_url(settings)
    except BrokerNotConfigured:
        return REDIS_DEFAULT


def _queue(name: str) -> Queue:
    """A queue with an exchange and key of its own: by default all would share the first's."""
    return Queue(name, Exchange(name), routing_key=name)


def _configured(settings: Settings) -> Celery:
    transport.use()
    jobs, faults = load_jobs(settings.jobs)
    for fault in faults:
        log.error("job_file_invalid", file=fault.source, error=str(fault))
    made = Celery("nightscore", broker=_broker(settings), include=["tasks.scoring_tasks"])
    made.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_track_started=True,
        task_send_sent_event=True,
        task_default_queue="cpu",
        task_queues=[_queue(name) for name in (CONTROL, "cpu", "celery")],
        task_create_missing_queues=True,
        task_queue_max_priority=max(PRIORITY_STEPS),
        worker_consumer="tasks.messages:Consumer",
        worker_prefetch_multiplier=1,
        worker_pool_start_method="spawn",
        worker_proc_alive_timeout=CHILD_START_SECONDS,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        worker_soft_shutdown_timeout=settings.stop_seconds,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options={**TRANSPORT_OPTIONS, "max_retries": None},
        result_backend_transport_options=dict(TRANSPORT_OPTIONS),
        beat_scheduler="celery.beat:Scheduler",
        beat_schedule=beat_schedule(jobs, settings.sweep_seconds),
        timezone="UTC",
        enable_utc=True,
    )
    return made


app = _configured(Settings())


@cache
def context() -> Context:
    """This process's ledger, registry and loaded models."""
    settings = Settings()
    return Context.open(settings, Bell(lambda: str(app.conf.broker_url)), child.host())


@signals.celeryd_init.connect  # type: ignore[untyped-decorator]
def _choose_children(conf: Any, options: Any, **_: Any) -> None:
    """Before Celery settles on one child per core."""
    wanted = devices.children_by_default(options, conf.worker_concurrency)
    if wanted:
        conf.worker_concurrency = wanted


@signals.worker_init.connect  # type: ignore[untyped-decorator]
def _prepare_worker(sender: Any, **_: Any) -> None:
    """Before the children start: each knows its share of the machine, and the tables are there."""
    telemetry.configure(Settings().log)
    if Settings().roots_missing:
        log.warning("data_roots_missing", advice="set SCORING_DATA_ROOTS: jobs may go anywhere now")
    children = devices.children(sender)
    devices.share_cores(children, cores())
    devices.share_gpus(children)
    child.limit_memory(sender, children, Settings())
    try:
        context().ledger.database.ready()
    except ScoringError as error:  # Celery would go on without a word
        raise SystemExit(f"error: {error}") from error


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _prepare_stopping(sender: Any, **_: Any) -> None:
    stopping.install(sender.pool, context, Settings().stop_seconds)


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def _prepare_child(**_: Any) -> None:
    telemetry.configure(Settings().log)
    devices.claim_gpu()


@signals.worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def _end_child(exitcode: int, **_: Any) -> None:
    child.say_why_replaced(exitcode)


@signals.beat_init.connect  # type: ignore[untyped-decorator]
def _prepare_beat(sender: Any, **_: Any) -> None:
    """A beat that was down looks at once for what it missed, not at its first interval."""
    telemetry.configure(Settings().log)
    beat.install(sender)
    try:
        app.send_task(SWEEP, queue=CONTROL, priority=0, **SEND_OPTIONS)
    except (OperationalError, RedisError) as error:
        log.warning("broker_unreachable", error=str(error))  # beat's first interval tries again


@signals.after_setup_logger.connect  # type: ignore[untyped-decorator]
@signals.after_setup_task_logger.connect  # type: ignore[untyped-decorator]
def _guard_log(logger: logging.Logger, **_: Any) -> None:
    """Celery shows parts of messages, which anybody may have sent, and errors with addresses."""
    for one in (logger, get_multiprocessing_logger()):
        telemetry.guard_standard_logging(one)


if Settings().log == "json":

    @signals.setup_logging.connect  # type: ignore[untyped-decorator]
    def _log_as_json(loglevel: int | str | None = None, **_: Any) -> None:
        """Celery's own lines in the same form as ours."""
        telemetry.adopt_standard_logging(loglevel or logging.INFO)
