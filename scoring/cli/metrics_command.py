"""The metrics command: what Prometheus is told, served or printed."""

from __future__ import annotations

import sys

import typer

from scoring import metrics as fleet
from scoring.cli import show
from scoring.cli.stopping import asked_to_stop
from scoring.settings import Settings

PORT = 9808


def register(app: typer.Typer) -> None:
    """Add this command to the root."""
    app.command()(metrics)


def metrics(
    host: str = typer.Option("127.0.0.1", help="Address to listen on; 0.0.0.0 for all."),
    port: int = typer.Option(PORT, min=0, max=65_535, help="Port to listen on; 0 for a free one."),
    once: bool = typer.Option(False, "--once", help="Print the metrics and end."),
) -> None:
    """Serve runs, chunks and drift to Prometheus until Ctrl-C."""
    settings = Settings()
    if once:
        sys.stdout.write(fleet.exposition(settings))
        return
    asked = asked_to_stop()
    endpoint = fleet.serve(settings, host, port)
    show.say(f"metrics at {endpoint.address}; Ctrl-C stops")
    asked.wait()
    endpoint.close()
