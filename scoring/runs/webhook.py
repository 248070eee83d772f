"""Posting one signed JSON document to a webhook, as Standard Webhooks 1.0.0 asks.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

An address may hold a token, so it goes to the socket and nowhere else: what is said of a post
names the webhook and the HTTP status, or the kind of the failure, and never quotes the error of a
library, which would. Redirects are not followed: the signed document is for that address alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import version

from scoring.runs.webhook_line import Line

CONNECT_SECONDS = 5.0
"""How long a receiver may take to accept the connection."""
READ_SECONDS = 15.0
"""How long a receiver may be silent before it answers."""
WHOLE_SECONDS = 30.0
"""How long a post may take in all, however a receiver stretches its answer."""
PREFIX = "whsec_"
GONE = 410
BUSY = (429, 503)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one try to tell somebody."""

    error: str | None = None
    """Why it was not taken, fit to be shown; ``None``: it was."""
    asked_seconds: float = 0.0
    """How long the receiver wants to be left alone."""
    final: bool = False
    """Whether the receiver never wants this again."""


def post(
    name: str,
    address: str,
    body: bytes,
    *,
    secret: str,
    message_id: str,
    now: float,
    timeout: tuple[float, float] = (CONNECT_SECONDS, READ_SECONDS),
    whole_seconds: float = WHOLE_SECONDS,
) -> Outcome:
    """Post a JSON document to the webhook of this name, signed unless ``secret`` is empty.

    ``now`` is in seconds since the epoch; ``timeout`` in seconds, to connect and of silence;
    ``whole_seconds`` bounds all of it. Taken is what is answered with 2xx; 410 means never again;
    429 and 503 may say how long to wait.
    """
    try:
        headers = _headers(message_id, int(now), body, secret)
    except ValueError as error:
        return Outcome(error=f"webhook {name}: {error}")
    outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    line = Line()

    def send() -> None:
        outcomes.put(_send(name, address, body, headers, now, timeout, line))

    # No library bounds the whole: looking up a name has no limit, each byte of an answer its own.
    threading.Thread(target=send, name=f"webhook {name}", daemon=True).start()
    try:
        return outcomes.get(timeout=whole_seconds)
    except queue.Empty:
        line.hang_up()
        return Outcome(error=f"webhook {name} had not answered after {whole_seconds:g} s in all")


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """``v1,`` and the base64 of HMAC-SHA256(secret, ``id.timestamp.body``).

    ``secret`` is ``whsec_`` and the key in base64, or the key itself as text. Raises: ValueError.
    """
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    digest = hmac.new(_key(secret), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _send(
    name: str,
    address: str,
    body: bytes,
    headers: Mapping[str, str],
    now: float,
    timeout: tuple[float, float],
    line: Line,
) -> Outcome:
    """One request. Raises nothing: the traceback of a thread would show the address."""
    import requests

    try:
        with (
            line.session() as session,
            session.post(
                address,
                data=body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                stream=True,  # nobody reads what is answered, however long it is
            ) as answer,
        ):
            return _outcome(name, answer.status_code, answer.headers.get("retry-after", ""), now)
    except requests.ConnectTimeout:
        return Outcome(error=f"webhook {name} did not connect within {timeout[0]:.0f} s")
    except requests.Timeout:
        return Outcome(error=f"webhook {name} did not answer within {timeout[1]:.0f} s")
    except Exception as error:
        return Outcome(error=f"webhook {name} was not reached: {type(error).__name__}")
    finally:
        line.put_down()


def _headers(message_id: str, timestamp: int, body: bytes, secret: str) -> dict[str, str]:
    headers = {
        "content-type": "application/json",
        "user-agent": f"nightscore/{version('nightscore')}",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
    }
    if secret:
        headers["webhook-signature"] = signature(secret, message_id, timestamp, body)
    return headers


def _key(secret: str) -> bytes:
    if not secret.startswith(PREFIX):
        return secret.encode()
    text = secret.removeprefix(PREFIX)
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        key = b""
    if not key:
        raise ValueError(f"SCORING_WEBHOOK_SECRET must have base64 after {PREFIX}")
    return key


def _outcome(name: str, status: int, retry_after: str, now: float) -> Outcome:
    if 200 <= status < 300:
        return Outcome()
    said = f"webhook {name} answered HTTP {status}"
    if 300 <= status < 400:
        return Outcome(
            error=f"{said}, a redirect, which is not followed: name the address itself in "
            "SCORING_WEBHOOKS"
        )
    if status == GONE:
        return Outcome(error=f"{said}: it wants no more of these", final=True)
    return Outcome(error=said, asked_seconds=_seconds(retry_after, now) if status in BUSY else 0.0)


def _seconds(retry_after: str, now: float) -> float:
    """A Retry-After header (RFC 9110, 10.2.3) in seconds from now; 0 if it makes no sense."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - now)
    except (ValueError, OverflowError):
        return 0.0
