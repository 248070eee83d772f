"""What a message must look like before a worker touches it; anybody may have sent it.

Celery refuses what is not JSON, but takes its headers and arguments on trust: one without an id
ends its connection to the broker, where it is given out again, for ever. Here such a message is
refused instead, told of on one line of the log, and never seen again. Nothing is lost with it: a
message only wakes, and what is really due the sweep sends again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import date as calendar_date
from typing import Annotated, Any

from celery.utils.time import maybe_iso8601
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.exceptions import KombuError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from scoring import telemetry
from scoring.wake import FINISH_RUN, SCORE_CHUNK, START_DUE, START_RUN, SWEEP

log = telemetry.logger(__name__)

MOST_BYTES = 256 * 1024
"""Of a message's body: ours carry a name and a number, so there is room to spare."""
SHOWN = 200
"""Characters of what is wrong that are logged."""


def _text(value: object) -> object:
    if isinstance(value, str) and not value.isprintable():
        raise ValueError("it holds characters that cannot be seen")
    return value


def _moment(value: object) -> object:
    if isinstance(value, str):
        maybe_iso8601(value)
    return value


RunId = Annotated[str, BeforeValidator(_text), Field(min_length=1, max_length=160)]
Name = Annotated[str, BeforeValidator(_text), Field(min_length=1, max_length=200)]
Number = Annotated[int, Field(ge=0, lt=2**31)]
Moment = Annotated[str, BeforeValidator(_moment)]
Seconds = Annotated[float, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ScoreChunk(_Strict):
    """Arguments of `scoring.score_chunk`, in order."""

    run_id: RunId
    number: Number


class FinishRun(_Strict):
    """Arguments of `scoring.finish_run`."""

    run_id: RunId


class StartRun(_Strict):
    """Arguments of `scoring.start_run`."""

    job: Name
    date: str | calendar_date | None = None
    idempotency_key: Name | None = None
    caller: str | None = None


class StartDue(_Strict):
    """Arguments of `scoring.start_due`."""

    job: Name


class Sweep(_Strict):
    """Arguments of `scoring.sweep`."""

    messages_lost: bool = False


ARGUMENTS: Mapping[str, type[BaseModel]] = {
    SCORE_CHUNK: ScoreChunk,
    FINISH_RUN: FinishRun,
    START_RUN: StartRun,
    START_DUE: StartDue,
    SWEEP: Sweep,
}
"""Of each of our tasks."""


class Headers(BaseModel):
    """The headers that a worker reads, as Celery's protocol has them."""

    model_config = ConfigDict(strict=True, extra="ignore")

    task: Name
    id: Name
    root_id: Name | None = None
    parent_id: Name | None = None
    group: Name | None = None
    origin: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    shadow: str | None = None
    eta: Moment | None = None
    expires: Moment | float | None = None
    retries: Number | None = None
    timelimit: Annotated[
        list[Seconds | None] | tuple[Seconds | None, ...], Field(min_length=2, max_length=2)
    ] = (None, None)


class Consumer(CeleryConsumer):  # type: ignore[misc]  # celery is untyped
    """Celery's, which hands on what may be worked on, and no more."""

    def create_task_handler(self, *arguments: Any, **options: Any) -> Any:
        handle = super().create_task_handler(*arguments, **options)

        def on_task_received(message: Any) -> None:
            why = refusal(message)
            if not why:
                handle(message)
                return
            log.error("message_refused", why=why, queue=_queue(message))
            message.ack_log_error(logging.getLogger(__name__), self.connection_errors)

        return on_task_received


def refusal(message: Any) -> str:
    """Why a message may not be worked on; nothing, if it may be."""
    if message.content_type != "application/json":
        return f"its content type is {_short(message.content_type)}, and must be application/json"
    if len(message.body or "") > MOST_BYTES:
        return f"its body has {len(message.body):,} bytes, {MOST_BYTES:,} at the most"
    try:
        headers = Headers.model_validate(message.headers)
        if headers.task not in ARGUMENTS:
            return f"there is no task {_short(headers.task)}"
        _check(ARGUMENTS[headers.task], message.decode())
    except ValidationError as error:
        return _told(error)
    except (KombuError, LookupError, TypeError, ValueError, RecursionError) as error:
        return f"its body cannot be read: {_short(str(error))}"
    return ""


def _check(expected: type[BaseModel], body: Any) -> None:
    """Raise unless a body holds the task's arguments. Raises: ValueError."""
    match body:
        case [list(args), dict(kwargs), dict() | None]:
            names = list(expected.model_fields)
            if len(args) > len(names):
                raise ValueError(f"{len(args)} arguments are too many")
            given = dict(zip(names, args, strict=False))
            if twice := given.keys() & kwargs:
                raise ValueError(f"{', '.join(twice)} is given twice")
            expected.model_validate(given | kwargs)
        case _:
            raise ValueError("it is not a list of arguments, named arguments and options")


def _told(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    place = ".".join(map(str, fault["loc"])) or "the whole"
    return f"{place} is {_short(fault['input'])}: {fault['msg']}"


def _queue(message: Any) -> str:
    found = message.delivery_info
    return _short(found.get("routing_key")) if isinstance(found, Mapping) else "unknown"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
