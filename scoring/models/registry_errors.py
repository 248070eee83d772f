"""What a registry's failures mean: it is away, it refuses, or it has no such thing.

Only the first is an outage, which is waited for; the others are answers, and the same ones would
be given again. MLflow says most of it in an error code, some of it only in the text or the cause.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from scoring.errors import (
    ModelFilesGone,
    ModelNotFound,
    OutputFull,
    RegistryRefused,
    RegistryUnreachable,
)
from scoring.telemetry import without_credentials

MISSING = frozenset(
    {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND", "ENDPOINT_NOT_FOUND"}
)
REFUSED = frozenset(
    {
        *("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"),
        *("BAD_REQUEST", "NOT_IMPLEMENTED", "RESOURCE_ALREADY_EXISTS", "RESOURCE_CONFLICT"),
    }
)
"""MLflow's codes for what is not to be had, and for what may not be asked."""
STATUS = re.compile(r"\b(4\d\d) (?:Client Error|Unauthorized|Forbidden)")
"""In what is said of a file that a server would not hand out."""
DOWNLOAD = re.compile(r"The following failures occurred while downloading .*? from (\S+?):?\.?$")
"""What MLflow says first of files that it could not fetch; why, in a line after that."""
CAUSE = re.compile(r"Caused by \w+\([\"']?(?:.*: )?(.+?)[\"']?\)+$")
"""What went wrong, behind the names of the classes that it went through."""
GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def in_our_words(model: str, shown: str) -> Iterator[None]:
    """Whatever MLflow and what lies below it raise in the block, as one of our errors.

    Raises:
        ModelNotFound, ModelFilesGone, RegistryRefused: that is its answer.
        RegistryUnreachable: it did not answer.
        OutputFull: there is no room here for what it sent.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        raise _of_mlflow(model, shown, error) from error
    except SQLAlchemyError as error:
        raise RegistryUnreachable(shown, reason(str(error))) from error
    except OSError as error:
        raise _of_system(model, shown, error) from error


def reason(text: str) -> str:
    """The line of a message that tells most, to stand inside a sentence; without a password."""
    lines = [line for line in text.strip().splitlines() if not line.startswith("#####")]
    telling = lines[1:] if lines and DOWNLOAD.match(lines[0]) else lines
    line = (telling or lines or ["no reason given"])[0]
    cause = CAUSE.search(line)
    return without_credentials(cause[1] if cause else line).rstrip(".")


def _of_mlflow(model: str, shown: str, error: Any) -> Exception:
    from sqlalchemy.exc import SQLAlchemyError

    text = str(error.message)
    if isinstance(error.__cause__, SQLAlchemyError):  # called a bad request where a file is damaged
        return RegistryUnreachable(shown, reason(str(error.__cause__)))
    status = STATUS.search(text)
    if error.error_code in MISSING or (status and int(status[1]) in GONE):
        place = DOWNLOAD.match(text.strip().partition("\n")[0])
        if place:
            return ModelFilesGone(model, without_credentials(place[1]))
        return ModelNotFound(model, shown, reason(text))
    if error.error_code in REFUSED:
        return RegistryRefused(shown, reason(text))
    return _by_status(model, shown, reason(text), status)


def _of_system(model: str, shown: str, error: OSError) -> Exception:
    if error.errno in FULL:
        return OutputFull(str(error.filename or "the model cache"), str(error.strerror))
    said = reason(str(error))
    return _by_status(model, shown, said, STATUS.search(str(error)))


def _by_status(model: str, shown: str, said: str, found: re.Match[str] | None) -> Exception:
    status = int(found[1]) if found else 0
    if status in GONE:
        return ModelNotFound(model, shown, said)
    if status and status not in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS):
        return RegistryRefused(shown, said)
    return RegistryUnreachable(shown, said)
