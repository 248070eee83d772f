"""Logs: structlog, one event name per line, as text for people or JSON for machines.

Log lines go to standard error, so that ``--json`` has standard output for itself. Whatever a value
holds, it stays within its line: control characters are written out, so that nobody can forge a line
or speak to a terminal. Addresses are logged without name and password by those who log them; that
they are taken out here once more is a second line of defence.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

USER_INFO = re.compile(r"(?<=://)[^/\s\"'<>]*@")
"""Name and password in an address: for a connection, never for a message."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What moves a terminal's cursor or ends a line, but for tab and line feed."""


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
        processors=[structlog.contextvars.merge_contextvars, *_FIELDS, *_rendering(style)],
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
                *_rendering("json"),
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)


def guard_standard_logging(library: logging.Logger) -> None:
    """Let the handlers that a library has set up write what is safe to write, in their own form."""
    for handler in library.handlers:
        if not isinstance(handler.formatter, _Guarded):
            handler.setFormatter(_Guarded(handler.formatter or logging.Formatter()))


def without_credentials(text: str) -> str:
    """A text whose addresses may be shown: without names and passwords."""
    return USER_INFO.sub("", text)


def on_one_line(text: str) -> str:
    """A text as one line that says nothing to a terminal: control characters are written out."""
    return _written_out(text).replace("\n", "\\n")


class _Guarded(logging.Formatter):
    """What another formatter makes, without credentials; lines that follow the first are set in."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return without_credentials(_set_in(_written_out(self._inner.format(record), _COLOURS)))


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
_MANY_LINES = ("exception", "stack")
"""Fields that are told on lines of their own."""
_COLOURS = re.compile(r"(\x1b\[[0-9;]*m)")


def _rendering(style: Literal["console", "json"]) -> tuple[Any, ...]:
    if style == "json":  # which writes control characters out by itself
        return structlog.processors.JSONRenderer(), _discreet
    colors = sys.stderr.isatty()
    # plain: a richer traceback would show the values of variables
    exceptions = structlog.dev.plain_traceback
    rendered = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=exceptions)
    return _flat, rendered, _discreet


def _discreet(_logger: object, _method: str, line: str) -> str:
    return without_credentials(line)


def _flat(
    _logger: object, _method: str, fields: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Every value as one line, but for tracebacks, which are set in."""
    for name, value in fields.items():
        if name in _MANY_LINES:
            fields[name] = _set_in(_written_out(str(value)))
        elif not isinstance(value, (bool, int, float, type(None))):
            fields[name] = on_one_line(value if isinstance(value, str) else repr(value))
    return fields


def _written_out(text: str, but: re.Pattern[str] | None = None) -> str:
    """Control characters as escapes; where colours are meant, ``but`` those."""
    if but is None:
        return CONTROL.sub(_escape, text)
    return "".join(
        part if at % 2 else CONTROL.sub(_escape, part) for at, part in enumerate(but.split(text))
    )


def _escape(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


def _set_in(text: str) -> str:
    return text.replace("\n", "\n    ")
