"""The right to change what lies at one place of a store: an object that one publisher has put.

Whoever finds no claim puts one, which a store lets only one of several do. A publisher that died
leaves its claim: the next finisher of the same run takes it over and goes on, and so does any
other run once that one is over. Taking over is conditional on the version that was read, so only
one of several does. A claim that was taken over means that the place may be half changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random

from scoring.data.stores import Stores
from scoring.errors import OutputClaimed

CLAIM_SECONDS = 30.0
"""How long a publisher waits for another one to finish with its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """Who publishes, and what it can ask the ledger."""

    run_id: str
    attempt: int
    """Number of this finisher among the run's."""
    still_mine: Callable[[], bool]
    """Whether the run is still this finisher's; asked before each step."""
    unchanged: Callable[[], bool] = lambda: True
    """Whether the output is still what it has to be; asked once, when nobody else can change it."""
    is_over: Callable[[str], bool] = lambda _: False
    """Whether a run has ended, so that nobody publishes it now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The claim on one output."""

    url: str
    output: str
    stores: Stores
    wait_seconds: float = CLAIM_SECONDS

    def take(self, by: Publisher) -> bool:
        """Have the place to oneself; True if another publisher left its claim there.

        Raises:
            OutputClaimed: another run is being published there, for as long as we can wait.
        """
        for attempt in Retrying(
            retry=retry_if_exception_type(OutputClaimed),
            wait=wait_random(0.1, 0.5),
            stop=stop_after_delay(self.wait_seconds),
            reraise=True,
        ):
            with attempt:
                return self._take(by)
        raise AssertionError("unreachable")  # the last attempt raises

    def is_of(self, run_id: str) -> bool:
        """Whether a publisher of this run has it."""
        found = self._held()
        return found is not None and found[0] == run_id

    def exists(self) -> bool:
        """Whether anybody has it."""
        return self.stores.exists(self.url)

    def release(self) -> None:
        """Let the next publisher have the place."""
        self.stores.delete([self.url])

    def _take(self, by: Publisher) -> bool:
        mine = self._document(by)
        held = self._held()
        if held is None:
            if self.stores.put(self.url, mine, only_if_absent=True):
                return False
            held = self._held() or ("unknown", "")
        owner, stamp = held
        free = owner == by.run_id or by.is_over(owner)
        if free and self.stores.replace(self.url, mine, stamp):
            return True
        raise OutputClaimed(self.output, owner, self.url)

    def _held(self) -> tuple[str, str] | None:
        """The run that has it, and the version of the claim."""
        try:
            text, stamp = self.stores.read_version(self.url)
        except FileNotFoundError:
            return None
        return _owner(text), stamp

    def _document(self, by: Publisher) -> bytes:
        document = {"output": self.output, "run_id": by.run_id, "finisher": by.attempt}
        return json.dumps(document, indent=2, sort_keys=True).encode()


def _owner(text: bytes) -> str:
    try:
        document: Any = json.loads(text)
        return str(document["run_id"])
    except (ValueError, KeyError, TypeError):
        return "unknown"
