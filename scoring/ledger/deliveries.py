"""The outbox: what somebody outside is to be told of a run, until it is told or given up.

A delivery is written in the transaction that ends its run, so nobody is told of an end that did
not happen, and no end goes untold. It is waiting -> delivered, or failed when its attempts are
used up. Whoever claims it holds it until ``next_at``: two deliverers do not send one at the same
time, and one that dies is followed by another. Told at least once is the promise, as an answer
can be lost on its way back; a delivery's id stays the same, so that receivers can drop doubles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sqlalchemy import Connection, insert, select, update

from scoring.ledger import history
from scoring.ledger.database import Database
from scoring.ledger.records import DeliveryClaim, DeliveryRecord, NewDelivery
from scoring.ledger.tables import database_now, deliveries

MOST_ATTEMPTS = 8
"""Tries at one delivery, over about a day, before it is given up."""
FIRST_PAUSE_SECONDS = 60.0
"""Least time between the first try and the second; each pause is three times the one before."""
LONGEST_PAUSE_SECONDS = 12 * 3600.0
"""Most time that a receiver may ask us to wait."""
HOLD_SECONDS = 120.0
"""How long one try may take; more than every timeout of a webhook or the broker together."""


class Deliveries:
    """Claim what is due, and record what became of it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, run_id: str | None = None) -> DeliveryClaim | None:
        """Take the delivery that is due the longest (of one run), or ``None`` if none is."""
        due = (
            select(deliveries.c.id)
            .where(deliveries.c.state == "waiting", deliveries.c.next_at <= database_now())
            .order_by(deliveries.c.next_at)
            .limit(1)
            .with_for_update(skip_locked=True)  # PostgreSQL; SQLite has one writer at a time
        )
        if run_id is not None:
            due = due.where(deliveries.c.run_id == run_id)
        taken = (
            update(deliveries)
            .where(deliveries.c.id == due.scalar_subquery())
            .values(
                attempts=deliveries.c.attempts + 1,
                next_at=database_now() + HOLD_SECONDS,
            )
            .returning(
                *(deliveries.c[name] for name in ("id", "run_id", "action", "channel", "target")),
                deliveries.c.task_queue,
                deliveries.c.payload,
                deliveries.c.attempts.label("attempt"),
                database_now().label("at"),
            )
        )
        with self._database.transaction() as connection:
            row = connection.execute(taken).one_or_none()
        return DeliveryClaim(**row._mapping) if row else None

    def delivered(self, claim: DeliveryClaim) -> bool:
        """Record that the receiver has it. False if that is on record already.

        Counts whichever attempt says so: that a later one was begun does not undo the receipt.
        """
        done = (
            update(deliveries)
            .where(deliveries.c.id == claim.id, deliveries.c.state != "delivered")
            .values(state="delivered", delivered_at=database_now(), last_error=None)
        )
        with self._database.transaction() as connection:
            if connection.execute(done).rowcount != 1:
                return False
            history.append(connection, claim.run_id, "delivered", _detail(claim))
            return True

    def put_off(self, claim: DeliveryClaim, error: str, *, asked_seconds: float = 0.0) -> bool:
        """Let it be tried again after a pause. False if another attempt has it, or it ended."""
        pause = pause_seconds(claim.id, claim.attempt, asked_seconds)
        later = (
            update(deliveries)
            .where(*_held(claim))
            .values(next_at=database_now() + pause, last_error=error)
        )
        with self._database.transaction() as connection:
            return connection.execute(later).rowcount == 1

    def give_up(self, claim: DeliveryClaim, error: str) -> bool:
        """End it untold. False if another attempt has it, or it ended."""
        ended = update(deliveries).where(*_held(claim)).values(state="failed", last_error=error)
        with self._database.transaction() as connection:
            if connection.execute(ended).rowcount != 1:
                return False
            why = {**_detail(claim), "error": error}
            history.append(connection, claim.run_id, "delivery_failed", why)
            return True

    def of(self, run_id: str) -> list[DeliveryRecord]:
        """The deliveries of a run, in the order in which they were written."""
        query = (
            select(deliveries)
            .where(deliveries.c.run_id == run_id)
            .order_by(deliveries.c.created_at, deliveries.c.action, deliveries.c.channel)
        )
        with self._database.reading() as connection:
            return [DeliveryRecord(**row._mapping) for row in connection.execute(query)]


def write(connection: Connection, run_id: str, new: Sequence[NewDelivery]) -> None:
    """Add a run's deliveries, in the transaction that ends it, but for those it has already."""
    if not new:
        return
    query = select(deliveries.c.id).where(deliveries.c.run_id == run_id)
    known = set(connection.execute(query).scalars())
    for one in new:
        if one.id not in known:
            connection.execute(insert(deliveries).values(**_values(run_id, one)))


def pause_seconds(delivery_id: str, attempt: int, asked_seconds: float = 0.0) -> float:
    """Time to wait after an attempt (from 1): exponential, with jitter of up to half as much.

    The jitter is made of the id, so that deliveries that failed together are not all tried again
    together, and one's times can be told in advance. Never sooner than the receiver asked, which
    may be up to ``LONGEST_PAUSE_SECONDS``.
    """
    digest = hashlib.sha256(f"{delivery_id}/{attempt}".encode()).digest()
    jitter = int.from_bytes(digest[:8]) / 2**64
    usual = FIRST_PAUSE_SECONDS * 3.0 ** (attempt - 1) * (1.0 + jitter / 2.0)
    return max(usual, min(asked_seconds, LONGEST_PAUSE_SECONDS))


def _values(run_id: str, new: NewDelivery) -> dict[str, object]:
    return {
        "id": new.id,
        "run_id": run_id,
        "action": new.action,
        "channel": new.channel,
        "target": new.target,
        "task_queue": new.task_queue,
        "payload": new.payload,
        "state": "waiting",
        "attempts": 0,
        "next_at": database_now(),
        "created_at": database_now(),
    }


def _held(claim: DeliveryClaim):  # type: ignore[no-untyped-def]  # boolean column expressions
    return (
        deliveries.c.id == claim.id,
        deliveries.c.state == "waiting",
        deliveries.c.attempts == claim.attempt,
    )


def _detail(claim: DeliveryClaim) -> dict[str, object]:
    return {
        "action": claim.action,
        "channel": claim.channel,
        "target": claim.target,
        "attempts": claim.attempt,
    }
