"""Asking a registry: in limited time, again after a pause, and not while it is known to be down.

Every call to a registry goes through its `Circuit`, of which there is one in a process for each
address: a call that no answer came to is tried again for a while, then it counts as failed; after
a few of those the circuit is open, and further calls fail at once until one is let through on
trial. What the registry answers, be it that there is no such model, is an answer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

from pybreaker import (
    STATE_CLOSED,
    STATE_HALF_OPEN,
    STATE_OPEN,
    CircuitBreaker,
    CircuitBreakerError,
    CircuitBreakerListener,
)
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from scoring import telemetry
from scoring.calls import Calls, NotInTime
from scoring.errors import RegistryUnreachable
from scoring.models.patience import Patience

log = telemetry.logger(__name__)

T = TypeVar("T")


class Circuit:
    """What this process knows of whether one registry answers."""

    def __init__(self, shown: str, patience: Patience) -> None:
        self._shown = shown
        self._patience = patience
        self._calls = Calls(f"the registry at {shown}")
        self._breaker = CircuitBreaker(
            fail_max=patience.failures,
            reset_timeout=patience.open,
            exclude=[_is_an_answer],
            listeners=[_Told(shown)],
            throw_new_error_on_trip=False,
        )

    def ask(self, question: Callable[[], T], seconds: float, *, once: bool = False) -> T:
        """The answer to a question, each try of which may take so long; tried ``once``, or again.

        Raises:
            RegistryUnreachable: there was none, or none was sought, as the circuit is open.
        """
        try:
            with self._breaker.calling():
                once = once or self._breaker.current_state == STATE_HALF_OPEN
                answer: T = self._tries(once)(self._in_time, question, seconds)
                return answer
        except CircuitBreakerError:
            wait = self._patience.open
            why = f"it did not answer before, and is asked again within {wait:g} s"
            raise RegistryUnreachable(self._shown, why) from None
        except RegistryUnreachable as error:
            log.warning("registry_unreachable", registry=self._shown, error=error.reason)
            raise

    def _tries(self, once: bool) -> Retrying:
        patience = self._patience
        return Retrying(
            retry=retry_if_exception(_may_pass),
            wait=wait_random_exponential(multiplier=patience.pause, max=patience.pause_most),
            stop=stop_after_attempt(1) if once else stop_before_delay(patience.retrying),
            before_sleep=self._say,
            reraise=True,
        )

    def _say(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.info(
            "registry_asked_again",
            registry=self._shown,
            tries=state.attempt_number,
            error=getattr(error, "reason", str(error)),
        )

    def _in_time(self, question: Callable[[], T], seconds: float) -> T:
        """One try."""
        try:
            return self._calls.within(seconds, question)
        except NotInTime as late:
            raise RegistryUnreachable(self._shown, str(late)) from None


@lru_cache(maxsize=64)
def circuit(uri: str, shown: str, patience: Patience) -> Circuit:
    """The circuit of a registry's address, the same one for every caller in this process."""
    return Circuit(shown, patience)


class _Told(CircuitBreakerListener):
    """Writes to the log when a circuit opens or closes."""

    def __init__(self, shown: str) -> None:
        self._shown = shown

    def state_change(self, cb: CircuitBreaker, old_state: Any, new_state: Any) -> None:
        if new_state.name == STATE_OPEN:
            log.error("circuit_opened", registry=self._shown, seconds=cb.reset_timeout)
        elif new_state.name == STATE_CLOSED:
            log.warning("circuit_closed", registry=self._shown)


def _is_an_answer(error: BaseException) -> bool:
    """Whether a call ended for a reason other than that the registry is away."""
    return not isinstance(error, RegistryUnreachable)


def _may_pass(error: BaseException) -> bool:
    """Whether it is worth trying again at once: a file that is gone or damaged stays so."""
    if not isinstance(error, RegistryUnreachable):
        return False
    return not (
        isinstance(error.__cause__, FileNotFoundError)
        or type(error.__cause__) is sqlite3.DatabaseError
    )
