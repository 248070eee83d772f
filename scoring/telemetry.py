"""Logs: structlog, one event name per line, as text for people or JSON for machines.

Log lines go to standard error, so that ``--json`` has standard output for itself.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import structlog


def logger(name: str) -> Any:
    """A logger whose events are snake_case names with fields, never sentences.

    Where nobody has configured logging (`scoring` imported into an application), only warnings
    are written.
    """
    if not structlog.is_configured():
        configure("console", logging.WARNING)
    return structlog.get_logger(module=name.removeprefix("scoring."))


def configure(style: Literal["console", "json"], level: int = logging.INFO) -> None:
    """Set up logging for this process; called once, by commands and workers."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
