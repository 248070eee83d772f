"""What searches for variants found, and who is searching now.

One search per key, ever: whoever claims it holds a lease like a chunk's, and a searcher that dies
is replaced when its lease runs out. A result stays until a person wants it anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from scoring.errors import LeaseLost
from scoring.ledger.database import Database
from scoring.ledger.tables import database_now, searches


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchClaim:
    """A worker's hold on one search; ``attempt`` is the fencing token."""

    key: str
    attempt: int
    failures: int
    """Searches before this one that ended without a result."""
    worker: str

    def __str__(self) -> str:
        return f"search {self.key[:12]}"


class Searches:
    """Claim a search, renew the claim, record what was found."""

    def __init__(self, database: Database, lease_seconds: float) -> None:
        self._database = database
        self._lease_seconds = lease_seconds

    def result(self, key: str) -> str | None:
        """What was found, as JSON; ``None`` while nothing is."""
        with self._database.reading() as connection:
            found: str | None = connection.execute(
                select(searches.c.result).where(searches.c.key == key)
            ).scalar_one_or_none()
        return found

    def claim(
        self,
        key: str,
        model_digest: str,
        device: str,
        worker: str,
        *,
        instead_of: str | None = None,
    ) -> SearchClaim | None:
        """Become the searcher, for a result in place of the one named, or for the first.

        ``None`` if there is a live searcher, or another result meanwhile.
        """
        self._introduce(key, model_digest, device)
        free = or_(searches.c.lease_until.is_(None), searches.c.lease_until < database_now())
        unchanged = searches.c.result.is_not_distinct_from(instead_of)
        taken = (
            update(searches)
            .where(searches.c.key == key, unchanged, free)
            .values(
                attempt=searches.c.attempt + 1,
                worker=worker,
                lease_until=database_now() + self._lease_seconds,
            )
            .returning(searches.c.attempt, searches.c.failures)
        )
        with self._database.transaction() as connection:
            row = connection.execute(taken).one_or_none()
        if row is None:
            return None
        return SearchClaim(key=key, attempt=row.attempt, failures=row.failures, worker=worker)

    def renew(self, claim: SearchClaim) -> None:
        """Raises: LeaseLost."""
        renewed = (
            update(searches)
            .where(_held_by(claim))
            .values(lease_until=database_now() + self._lease_seconds)
        )
        with self._database.transaction() as connection:
            if connection.execute(renewed).rowcount != 1:
                raise LeaseLost(str(claim), claim.attempt, None)

    def record(self, claim: SearchClaim, result: str) -> None:
        """Keep what was found, in place of what was before. Raises: LeaseLost."""
        recorded = (
            update(searches)
            .where(_held_by(claim))
            .values(result=result, found_at=database_now(), lease_until=None, failures=0)
        )
        with self._database.transaction() as connection:
            if connection.execute(recorded).rowcount != 1:
                raise LeaseLost(str(claim), claim.attempt, None)

    def give_up(self, claim: SearchClaim, *, failed: bool) -> None:
        """Let another worker search at once; ``failed``: because nothing was found."""
        failures = searches.c.failures + (1 if failed else 0)
        freed = update(searches).where(_held_by(claim)).values(lease_until=None, failures=failures)
        with self._database.transaction() as connection:
            connection.execute(freed)

    def replace(self, key: str, before: str, after: str) -> None:
        """Correct a result, unless somebody else has meanwhile."""
        with self._database.transaction() as connection:
            connection.execute(
                update(searches)
                .where(searches.c.key == key, searches.c.result == before)
                .values(result=after)
            )

    def _introduce(self, key: str, model_digest: str, device: str) -> None:
        with self._database.reading() as connection:
            known = select(searches.c.key).where(searches.c.key == key)
            if connection.execute(known).one_or_none() is not None:
                return
        try:
            with self._database.transaction() as connection:
                connection.execute(
                    insert(searches).values(
                        key=key,
                        model_digest=model_digest,
                        device=device[:200],
                        attempt=0,
                        failures=0,
                    )
                )
        except IntegrityError:
            pass  # another worker introduced it first


def _held_by(claim: SearchClaim) -> Any:
    return and_(
        searches.c.key == claim.key,
        searches.c.attempt == claim.attempt,
        searches.c.lease_until.is_not(None),
    )
