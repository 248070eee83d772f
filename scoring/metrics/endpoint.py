"""Where Prometheus asks for the metrics: a thread of this process, or text for who asks once."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scoring.errors import PortUnusable
from scoring.ledger import Database
from scoring.metrics.collector import Collector
from scoring.settings import Settings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

SILENT_SECONDS = 10.0
"""How long whoever connects may say nothing."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Metrics that are being served by a thread of this process."""

    address: str
    _server: Any
    _thread: threading.Thread
    _database: Database

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._database.engine.dispose()


def serve(settings: Settings, host: str = "127.0.0.1", port: int = 0) -> Endpoint:
    """Serve the metrics until `Endpoint.close`; port 0 is any that is free.

    Raises:
        PortUnusable: the address is taken, or is not this machine's.
    """
    from prometheus_client import start_http_server

    database = Database(settings.database_url)
    try:
        server, thread = start_http_server(port, host, _registry(database))
    except (OSError, OverflowError) as error:
        raise PortUnusable(host, port, str(error)) from error
    server.RequestHandlerClass = _patient_for_seconds(server.RequestHandlerClass)
    shown = f"[{host}]" if ":" in host else host
    return Endpoint(f"http://{shown}:{server.server_port}/metrics", server, thread, database)


def _patient_for_seconds(handler: Any) -> Any:
    """The same handler, which hangs up on who connects and asks nothing."""

    class Handler(handler):  # type: ignore[misc]  # whatever the library made
        timeout = SILENT_SECONDS

        def handle(self) -> None:
            with suppress(TimeoutError):
                super().handle()

    return Handler


def exposition(settings: Settings) -> str:
    """The metrics as text, in Prometheus's format."""
    from prometheus_client import generate_latest

    database = Database(settings.database_url)
    try:
        return generate_latest(_registry(database)).decode()
    finally:
        database.engine.dispose()


def _registry(database: Database) -> CollectorRegistry:
    """A registry of these metrics alone."""
    from prometheus_client import CollectorRegistry

    found = CollectorRegistry(auto_describe=False)
    found.register(Collector(database))
    return found
