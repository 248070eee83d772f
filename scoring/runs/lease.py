"""A claim that is renewed in the background for as long as its work goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable

from scoring import telemetry
from scoring.errors import LeaseLost, LedgerUnreachable

log = telemetry.logger(__name__)

RENEW_SECONDS = 2.0
"""Longest time between two renewals: also how soon a cancelled run is noticed in mid-chunk."""


class Lease:
    """Calls ``renew`` a few times a lease; `check` says whether the claim still stands."""

    def __init__(self, renew: Callable[[], None], seconds: float) -> None:
        self._renew_once = renew
        self._every = min(seconds / 4, RENEW_SECONDS)
        self._stopped = threading.Event()
        self._lost: LeaseLost | None = None
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def check(self) -> None:
        """Raise `LeaseLost` once another attempt has the claim, or the run ended."""
        if self._lost is not None:
            raise self._lost

    def _renew(self) -> None:
        while not self._stopped.wait(self._every):
            try:
                self._renew_once()
            except LeaseLost as error:
                self._lost = error
                return
            except Exception as error:  # tried again, until it is lost
                known = isinstance(error, LedgerUnreachable)
                log.warning("lease_not_renewed", error=str(error), exc_info=not known)
