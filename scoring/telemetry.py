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
    are written. What libraries would say of addresses with a token in them is not, in any case.
    """
    for library, level in _DISCREET.items():
        logging.getLogger(library).setLevel(level)
    if not structlog.is_configured():
        configure("console", logging.WARNING)
    return structlog.get_logger(module=name.removeprefix("scoring."))


def configure(style: Literal["console", "json"], level: int = logging.INFO) -> None:
    """Set up logging for this process; called once, by commands and workers."""
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *_FIELDS, _renderer(style)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def adopt_standard_logging(level: int | str) -> None:
    """Write what libraries log with the standard library as JSON lines too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *_FIELDS],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer("json"),
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)


_DISCREET = {
    "urllib3.connection": logging.ERROR,  # an answer with a damaged header is a warning, with URL
    "urllib3.connectionpool": logging.INFO,  # each request is a debug line
    "urllib3.util.retry": logging.INFO,
}
"""From which level on libraries may speak: below it their lines show whole addresses."""

_FIELDS: tuple[Any, ...] = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
)


def _renderer(style: Literal["console", "json"]) -> Any:
    if style == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
