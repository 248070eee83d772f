"""Who may submit how much more: one token bucket for each caller.

A bucket holds a minute's worth of tokens and fills at a steady rate, by the database's clock; a
submission takes one. Invariant: in any span of t seconds nobody is given more than the capacity
and rate * t, however many processes ask at once, as a token is taken by one conditional statement.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, case, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from scoring.ledger.database import Database
from scoring.ledger.tables import callers, database_now

MINUTE = 60.0
IDLE_SECONDS = 3600.0
"""After which a bucket is forgotten: it has been full for long, and a new one is full too."""


class Callers:
    """Take tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, caller: str, per_minute: int) -> float:
        """Take a token of a caller who has ``per_minute`` of them at the most, and again a minute.

        Returns 0.0 where there was one, or else the seconds until there is.
        """
        rate = per_minute / MINUTE
        while True:
            with self._database.transaction() as connection:
                if connection.execute(_taken(caller, per_minute)).rowcount == 1:
                    return 0.0
                left = connection.scalar(_left(caller, per_minute))
            if left is not None:
                return float(max(1.0 - left, 0.001) / rate)
            self._introduce(caller, per_minute)

    def _introduce(self, caller: str, per_minute: int) -> None:
        """Give a caller who is new a full bucket; forget those who have not come for long."""
        full = insert(callers).values(caller=caller, tokens=per_minute, filled_at=database_now())
        try:
            with self._database.transaction() as connection:
                connection.execute(full)
        except IntegrityError:
            return  # somebody else has introduced them just now
        with self._database.transaction() as connection:
            idle = callers.c.filled_at < database_now() - IDLE_SECONDS
            connection.execute(delete(callers).where(idle))


def _taken(caller: str, per_minute: int) -> Any:
    """One token less, if there is one. The clock is read once: it moves within a statement."""
    clock = select(database_now().label("now")).subquery("clock")
    level = _level(clock.c.now, per_minute)
    # Another may have filled the bucket after this statement began: then it is not turned back.
    later = or_(clock.c.now > callers.c.filled_at, _astray(clock.c.now))
    filled = case((later, clock.c.now), else_=callers.c.filled_at)
    return (
        update(callers)
        .where(callers.c.caller == caller, level >= 1.0)
        .values(tokens=level - 1.0, filled_at=filled)
    )


def _left(caller: str, per_minute: int) -> Any:
    return select(_level(database_now(), per_minute)).where(callers.c.caller == caller)


def _level(now: ColumnElement[float], per_minute: int) -> ColumnElement[float]:
    """Tokens at a moment."""
    passed = case(
        (_astray(now), MINUTE),
        (now > callers.c.filled_at, now - callers.c.filled_at),
        else_=0.0,
    )
    filled = callers.c.tokens + passed * (per_minute / MINUTE)
    return case((filled < per_minute, filled), else_=float(per_minute))


def _astray(now: ColumnElement[float]) -> ColumnElement[bool]:
    """Whether a bucket was last filled so far ahead that the clock has been set back since."""
    return now < callers.c.filled_at - MINUTE
