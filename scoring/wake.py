"""The doorbell: tells workers that there is something to do, by task name.

Messages to our own tasks carry ids only. They are sent after the ledger's commit, and losing one
costs time, never rows. Celery is imported when the bell first rings, so that planning and reading
never pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from scoring.calls import Calls, NotInTime
from scoring.errors import BrokerUnreachable
from scoring.ledger import RunRecord

T = TypeVar("T")

SCORE_CHUNK = "scoring.score_chunk"
FINISH_RUN = "scoring.finish_run"
SWEEP = "scoring.sweep"
START_RUN = "scoring.start_run"
START_DUE = "scoring.start_due"
CONTROL = "control"
"""Queue of everything that is not scoring."""

VISIBILITY_SECONDS = 12 * 3600
"""After which Redis gives an unacknowledged message out again. Generous: the ledger's lease is
what recovers a chunk, and a message delivered twice only finds its chunk taken."""
CONNECT_SECONDS = 3.0
"""How long the broker may take to accept a connection."""
SILENT_SECONDS = 10.0
"""How long the broker may be silent before it answers the doorbell."""
RING_SECONDS, MESSAGE_SECONDS = 30.0, 0.1
"""How long one ring may take in all, and so much more for each message."""
PRIORITY_STEPS = (0, 3, 6, 9)
FINISH_PRIORITY = 0
SEND_OPTIONS: Mapping[str, Any] = {"retry": False, "ignore_result": True}
"""Options of every message; Celery accepts misspelt ones silently, so they stand here once."""

TRANSPORT_OPTIONS: Mapping[str, Any] = {
    "visibility_timeout": VISIBILITY_SECONDS,
    "queue_order_strategy": "priority",
    "priority_steps": list(PRIORITY_STEPS),
    "sep": ":",
    "socket_connect_timeout": CONNECT_SECONDS,
    "socket_timeout": 30.0,
    "socket_keepalive": True,
    "max_retries": 0,
}
"""How kombu talks to Redis or Valkey, for workers and for this producer alike."""


class Bell:
    """Sends wake-up messages through a broker, whose URL is asked for at the first ring."""

    def __init__(
        self,
        broker: Callable[[], str],
        *,
        seconds: float = RING_SECONDS,
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        self._broker = broker
        self._seconds = seconds
        self._silent_seconds = silent_seconds
        self._calls = Calls("the broker")

    def chunks(self, run: RunRecord, numbers: Sequence[int], delay: float = 0.0) -> None:
        """Wake workers for these chunks of a run. Raises: BrokerUnreachable."""
        label = " ".join(part for part in (run.job, (run.slot or "")[:16]) if part)

        def send(producer: Any) -> None:
            for number in numbers:
                self._app.send_task(
                    SCORE_CHUNK,
                    args=[run.id, number],
                    argsrepr=f"{label} chunk {number + 1}/{run.chunks}",
                    kwargsrepr="",
                    queue=run.queue,
                    priority=run.priority,
                    countdown=delay or None,
                    producer=producer,
                    **SEND_OPTIONS,
                )

        self._ring(send, messages=len(numbers))

    def finish(self, run: RunRecord) -> None:
        """Wake a finisher. Raises: BrokerUnreachable."""
        label = " ".join(part for part in (run.job, (run.slot or "")[:16]) if part)
        self._ring(
            lambda producer: self._app.send_task(
                FINISH_RUN,
                args=[run.id],
                argsrepr=f"{label} finish",
                kwargsrepr="",
                queue=CONTROL,
                priority=FINISH_PRIORITY,
                producer=producer,
                **SEND_OPTIONS,
            )
        )

    def messages_lost(self) -> None:
        """Have a worker look for what was sent before this broker began. Raises: BrokerUnreachable.

        It is read before anything else that waits there.
        """
        self._ring(
            lambda producer: self._app.send_task(
                SWEEP,
                kwargs={"messages_lost": True},
                queue=CONTROL,
                priority=FINISH_PRIORITY,
                producer=producer,
                **SEND_OPTIONS,
            )
        )

    def call(self, task: str, *, event: Mapping[str, Any], queue: str, message_id: str) -> None:
        """Call somebody else's task as ``task(event=...)``, in JSON. Raises: BrokerUnreachable."""
        self._ring(
            lambda producer: self._app.send_task(
                task,
                kwargs={"event": dict(event)},
                queue=queue,
                task_id=message_id,
                producer=producer,
                **SEND_OPTIONS,
            )
        )

    def waiting(self, queue: str) -> int:
        """Messages in a queue that no worker has taken yet. Raises: BrokerUnreachable."""
        return self._ring(
            lambda producer: int(producer.channel.queue_declare(queue, passive=False).message_count)
        )

    def check(self) -> None:
        """Raise BrokerUnreachable unless the broker answers."""
        self._ring(lambda producer: None)

    @cached_property
    def _url(self) -> str:
        return self._broker()

    @cached_property
    def _app(self) -> Any:
        from celery import Celery

        app = Celery("nightscore-doorbell", broker=self._url, set_as_current=False)
        app.conf.update(
            broker_transport_options={**TRANSPORT_OPTIONS, "socket_timeout": self._silent_seconds},
            broker_connection_timeout=CONNECT_SECONDS,
            task_serializer="json",
            accept_content=["json"],
            task_ignore_result=True,
        )
        return app

    def _ring(self, send: Callable[[Any], T], messages: int = 1) -> T:
        """Do something with a producer; every way the broker can fail becomes one error."""
        from kombu.exceptions import OperationalError as KombuError

        seconds = self._seconds + messages * MESSAGE_SECONDS
        self._app  # noqa: B018 - imports Celery, outside the time that the broker is given
        try:
            return self._calls.within(seconds, lambda: self._connected(send))
        except NotInTime as late:
            raise BrokerUnreachable(without_password(self._url), str(late)) from None
        except (KombuError, OSError, *_redis_errors()) as error:
            raise BrokerUnreachable(without_password(self._url), _short(error)) from error

    def _connected(self, send: Callable[[Any], T]) -> T:
        with self._app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=1.0)
            with connection.Producer(serializer="json") as producer:
                producer.channel  # noqa: B018 - connects now, not at the first message
                return send(producer)


def _redis_errors() -> tuple[type[Exception], ...]:
    from redis.exceptions import RedisError

    return (RedisError,)


def without_password(url: str) -> str:
    """A URL that may be shown."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
