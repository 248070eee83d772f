"""Ports for the services that the tests start.

The kernel draws a port for whoever asks for any, so one that was free a moment ago may be taken
before a service binds it. These lie below the kernel's range, and each worker of the tests has its
own: what is given out here nobody else is given.
"""

from __future__ import annotations

import itertools
import os

from scoring.stack import _is_free

FIRST, EACH = 10_000, 800
"""The first port, and how many each worker of the tests has."""


def _own() -> range:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 12
    return range(FIRST + EACH * worker, FIRST + EACH * (worker + 1))


_elsewhere = os.getpid() % EACH  # another run of the tests at the same time begins there
_ports = itertools.islice(itertools.cycle(_own()), _elsewhere, None)


def free_port() -> int:
    """A loopback port that nothing listens on, and that is given out once."""
    return next(port for port in _ports if _is_free(port))
