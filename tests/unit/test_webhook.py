"""Posting to a webhook: signed as the standard asks, judged by its answer, discreet in failure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate

import pytest

from scoring.ledger.deliveries import HOLD_SECONDS
from scoring.runs.webhook import (
    CONNECT_SECONDS,
    READ_SECONDS,
    WHOLE_SECONDS,
    Outcome,
    post,
    signature,
)
from tests.loopback import refusing
from tests.receiver import TOKEN, Answer, Receiver, receiving

NOW = 1_795_401_000.0
KEY = bytes(range(24))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
BODY = b'{"version": 1}'
PATIENT, QUICK = (60.0, 60.0), (60.0, 0.2)
"""Seconds to connect and to answer."""


def told(receiver: Receiver, secret: str = "", timeout: tuple[float, float] = PATIENT) -> Outcome:
    return post(
        "mlops",
        receiver.address,
        BODY,
        secret=secret,
        message_id="some-id",
        now=NOW,
        timeout=timeout,
    )


# Signed


def test_a_signature_is_that_of_the_standards_own_library() -> None:
    """Recorded with the package standardwebhooks 1.1.0: Webhook(secret).sign(id, time, body)."""
    assert signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    ) == ("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        (SECRET, KEY),
        ("whsec_AAECAwQ", bytes(range(5))),  # the padding may be left out
        ("a passphrase with blanks", b"a passphrase with blanks"),
    ],
)
def test_what_is_posted_is_signed_with_the_key_over_id_time_and_body(
    secret: str, key: bytes
) -> None:
    with receiving() as receiver:
        assert told(receiver, secret).error is None

    (posted,) = receiver.posted
    assert posted.body == BODY
    assert posted.headers["content-type"] == "application/json"
    stamp = posted.headers["webhook-timestamp"]
    assert (posted.headers["webhook-id"], stamp) == ("some-id", str(int(NOW)))
    signed = b"some-id." + stamp.encode() + b"." + posted.body
    version, _, given = posted.headers["webhook-signature"].partition(",")
    assert version == "v1"
    assert base64.b64decode(given) == hmac.digest(key, signed, hashlib.sha256)


def test_without_a_secret_nothing_is_signed() -> None:
    with receiving() as receiver:
        assert told(receiver).error is None

    assert "webhook-signature" not in receiver.posted[0].headers


@pytest.mark.parametrize("secret", ["whsec_not base64", "whsec_"])
def test_a_secret_that_cannot_be_read_posts_nothing_unsigned(secret: str) -> None:
    with receiving() as receiver:
        outcome = told(receiver, secret)

    assert receiver.posted == []
    assert "SCORING_WEBHOOK_SECRET must have base64 after whsec_" in str(outcome.error)


# Answered


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_whatever_is_answered_with_2xx_was_taken(status: int) -> None:
    with receiving(Answer(status=status)) as receiver:
        assert told(receiver) == Outcome()


@pytest.mark.parametrize("status", [400, 401, 404, 500, 502])
def test_other_answers_are_named_and_may_be_tried_again(status: int) -> None:
    with receiving(Answer(status=status)) as receiver:
        assert told(receiver) == Outcome(error=f"webhook mlops answered HTTP {status}")


def test_a_receiver_that_is_gone_is_not_tried_again() -> None:
    with receiving(Answer(status=410)) as receiver:
        outcome = told(receiver)

    assert outcome.final
    assert "HTTP 410" in str(outcome.error)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with receiving() as elsewhere, receiving() as receiver:
        receiver.answers = [Answer(status=status, headers={"location": elsewhere.address})]

        outcome = told(receiver, SECRET)

    assert (len(receiver.posted), elsewhere.posted) == (1, [])
    assert f"HTTP {status}, a redirect, which is not followed" in str(outcome.error)
    assert not outcome.final


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("120", 120.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("soon", 0.0),
        ("-5", 0.0),
    ],
)
def test_a_busy_receiver_may_say_how_long_to_wait(status: int, said: str, seconds: float) -> None:
    with receiving(Answer(status=status, headers={"retry-after": said})) as receiver:
        outcome = told(receiver)

    assert outcome.asked_seconds == pytest.approx(seconds, abs=1.0)
    assert outcome.error == f"webhook mlops answered HTTP {status}"


def test_an_answer_is_not_read_however_long_it_says_it_is() -> None:
    with receiving(Answer(headers={"content-length": str(10**12)})) as receiver:
        assert told(receiver) == Outcome()  # else it would have run out of time


# Not answered


def test_a_receiver_that_hangs_is_left_after_a_while() -> None:
    with receiving(Answer(hangs=True)) as receiver:
        outcome = told(receiver, timeout=QUICK)
        assert receiver.came.wait(60)

    assert len(receiver.posted) == 1
    assert "webhook mlops did not answer within" in str(outcome.error)


@contextmanager
def answering(*pieces: bytes, drips: bool = False) -> Iterator[str]:
    """The address of a socket that answers so; one that drips says the last for ever."""
    over = threading.Event()

    def answer() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):  # whoever has heard enough hangs up
            connection.recv(65_536)
            for piece in pieces:
                connection.sendall(piece)
            while drips and not over.wait(0.01):
                connection.sendall(pieces[-1])
            over.wait(60)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/{TOKEN}"
        finally:
            over.set()
            thread.join()


def test_a_receiver_that_drips_its_answer_is_left_after_a_while() -> None:
    with answering(b"HTTP/1.1 200 OK\r\n", b"x", drips=True) as address:
        outcome = post(
            "mlops",
            address,
            BODY,
            secret="",
            message_id="id",
            now=NOW,
            timeout=PATIENT,
            whole_seconds=0.2,
        )

        assert outcome.error == "webhook mlops had not answered after 0.2 s in all"
        for thread in threading.enumerate():  # who listened has been told that it is over
            if thread.name == "webhook mlops":
                thread.join(60)
                assert not thread.is_alive()


def test_a_post_is_over_before_another_deliverer_may_try() -> None:
    assert CONNECT_SECONDS + READ_SECONDS <= WHOLE_SECONDS < HOLD_SECONDS / 2


def test_a_damaged_header_does_not_bring_the_address_into_the_log() -> None:
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with answering(b"HTTP/1.1 200 OK\r\n: damaged\r\nno colon\r\n\r\n") as address:
            outcome = post("mlops", address, BODY, secret="", message_id="id", now=NOW)
    finally:
        root.setLevel(before)
        root.removeHandler(handler)

    assert outcome == Outcome()
    for hidden in (TOKEN, "127.0.0.1"):
        assert hidden not in said.getvalue()


def test_what_fails_shows_neither_the_address_nor_the_secret_in_errors_and_logs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with refusing() as port, receiving() as receiver:
        closed = f"http://127.0.0.1:{port}/{TOKEN}"
        not_encrypted = receiver.address.replace("http://", "https://")
        addresses = [closed, not_encrypted, f"http://[{TOKEN}"]
        outcomes = [
            post("mlops", one, BODY, secret=SECRET, message_id="id", now=NOW, timeout=PATIENT)
            for one in [*addresses, receiver.address]
        ]

    *failed, taken = outcomes
    assert taken.error is None
    assert all(str(one.error).startswith("webhook mlops was not reached: ") for one in failed)
    for hidden in (TOKEN, SECRET, "127.0.0.1"):
        assert hidden not in repr(outcomes)
        assert hidden not in caplog.text
