"""kombu's way to Redis, which lives through what is no message at all.

A worker takes whatever lies in its queue. What is not an envelope that kombu knows would end the
worker, or its connection, each time that somebody puts it there; here it is told of on one line of
the log and dropped. So is what is compressed: nobody of ours does that, and a few bytes of it may
fill the memory before anything can look at them.
"""

from __future__ import annotations

from collections.abc import Mapping
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis

from scoring import telemetry

log = telemetry.logger(__name__)

UNREADABLE = (ValueError, TypeError, ArithmeticError, RecursionError)
"""What reading an envelope raises when it is none."""


class Channel(kombu_redis.Channel):  # type: ignore[misc]  # kombu is untyped
    """A channel that drops what cannot be read."""

    def _brpop_read(self, **options: Any) -> Any:
        self.connection.handed_on = False
        try:
            return super()._brpop_read(**options)
        except UNREADABLE as error:
            if self.connection.handed_on:  # it was read: this is of what was done with it
                raise
            log.error("message_refused", why=f"it is no message: {type(error).__name__}: {error}")
            raise Empty from None


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """A transport that hands on nothing but envelopes."""

    Channel = Channel
    handed_on = False

    def _deliver(self, message: Any, queue: str) -> None:
        _check(message)
        self.handed_on = True
        super()._deliver(message, queue)


def use() -> None:
    """Let redis:// and rediss:// mean this transport, in this process."""
    here = f"{__name__}:Transport"
    TRANSPORT_ALIASES.update(redis=here, rediss=here)


def _check(message: Any) -> None:
    """Raise ValueError unless it is an envelope."""
    if not isinstance(message, Mapping):
        raise ValueError(f"a {type(message).__name__}, where an envelope should be")
    properties, headers = message.get("properties"), message.get("headers")
    if not isinstance(properties, Mapping) or not isinstance(headers or {}, Mapping):
        raise ValueError("its properties or headers are none")
    if not isinstance(properties.get("delivery_tag"), str):
        raise ValueError("it has no delivery tag")
    if not isinstance(properties.get("delivery_info"), Mapping):
        raise ValueError("it does not say where it goes")
    if not isinstance(message.get("body"), str):
        raise ValueError("its body is no text")
    if headers and "compression" in headers:
        raise ValueError("it is compressed")
