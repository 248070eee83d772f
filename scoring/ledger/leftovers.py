"""What the ledger knows of the files that runs leave behind: whose they are, and who needs them.

A run that is published needs none, nor does one that was rejected; one that failed or was cancelled
needs its parts only to be retried from where it stopped. Invariant: parts are forgotten here before
anybody removes them, so that a chunk which counts as done has its part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, case, func, select, update

from scoring.ledger import history
from scoring.ledger.database import Database, in_statements
from scoring.ledger.records import ENDED, RunState
from scoring.ledger.runs import locked_chunks
from scoring.ledger.tables import chunks, database_now, runs, searches

RETRYABLE: tuple[RunState, ...] = ("failed", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The run that staged files are of."""

    run_id: str
    state: RunState
    rejected: bool
    ended_ago: float | None
    """Seconds since it ended; ``None``: it has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSearch:
    """A search for variants, with who is at it and what it found."""

    key: str
    live: bool
    """Whether a searcher holds it now."""
    result: str | None
    """JSON, see scoring.models.SearchResult."""
    found_ago: float | None
    """Seconds since that was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedModel:
    """Model files that runs are, or were, pinned to."""

    digest: str
    name: str
    used_ago: float
    """Seconds since the newest of these runs was created."""
    needed: bool
    """Whether some of them has not ended, is held or may be retried."""


class Leftovers:
    """Whose files are whose."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def stagings(self) -> list[str]:
        """Every folder in which parts of a run were ever staged."""
        with self._database.reading() as connection:
            found = connection.execute(select(runs.c.staging).where(runs.c.staging.is_not(None)))
            return [str(staging) for staging in found.scalars()]

    def owners(self, run_ids: Collection[str]) -> Mapping[str, Owner]:
        """The runs of these ids that there are."""
        found: dict[str, Owner] = {}
        ended_ago = (database_now() - runs.c.finished_at).label("ended_ago")
        with self._database.reading() as connection:
            for ids in in_statements(list(run_ids)):
                asked = select(runs.c.id, runs.c.state, runs.c.decision, ended_ago)
                for row in connection.execute(asked.where(runs.c.id.in_(ids))):
                    found[row.id] = Owner(
                        run_id=row.id,
                        state=row.state,
                        rejected=_is_rejected(row.state, row.decision),
                        ended_ago=row.ended_ago if row.state in ENDED else None,
                    )
        return found

    def forget_parts(self, run_id: str, who: str) -> bool:
        """Have every chunk of a failed or cancelled run scored anew, should it be retried.

        Attempts go on from the number they are at, so no earlier one can write what a later one
        does. False if the run is in another state; nothing was changed then.
        """
        forgotten = (
            update(runs)
            .where(runs.c.id == run_id, runs.c.state.in_(RETRYABLE))
            .values(chunks_done=0, rows_scored=0, rows_quarantined=0)
        )
        with self._database.transaction() as connection:
            connection.execute(locked_chunks(run_id))
            if connection.execute(forgotten).rowcount != 1:
                return False
            again = connection.execute(_waiting_again(run_id)).rowcount
            if again:
                history.append(connection, run_id, "cleaned", {"chunks": again, "who": who})
            return True

    @contextmanager
    def needed_parts(self, run_id: str) -> Iterator[frozenset[str] | None]:
        """The parts that a run which has ended still needs; ``None``: all, whatever they are.

        That stays so until the block ends: the run is locked meanwhile, and whoever wants to retry
        it waits.
        """
        locked = select(runs.c.state, runs.c.decision).where(runs.c.id == run_id).with_for_update()
        done = select(chunks.c.part).where(chunks.c.run_id == run_id, chunks.c.state == "done")
        with self._database.transaction() as connection:
            run = connection.execute(locked).one_or_none()
            if run is None or run.state not in (*RETRYABLE, "published"):
                yield None
            elif run.state == "published" or _is_rejected(run.state, run.decision):
                yield frozenset()
            else:
                yield frozenset(map(str, connection.execute(done).scalars()))

    def parts(self, run_id: str) -> frozenset[str]:
        """The parts that a run's finished chunks have now."""
        done = select(chunks.c.part).where(chunks.c.run_id == run_id, chunks.c.state == "done")
        with self._database.reading() as connection:
            return frozenset(map(str, connection.execute(done).scalars()))

    def searches(self) -> list[KnownSearch]:
        """Every search for variants."""
        live = and_(searches.c.lease_until.is_not(None), searches.c.lease_until >= database_now())
        found_ago = database_now() - searches.c.found_at
        asked = select(
            searches.c.key, searches.c.result, live.label("live"), found_ago.label("found_ago")
        )
        with self._database.reading() as connection:
            return [
                KnownSearch(
                    key=row.key, live=bool(row.live), result=row.result, found_ago=row.found_ago
                )
                for row in connection.execute(asked)
            ]

    def pins(self) -> list[tuple[str, str]]:
        """Search and precision (JSON) of the runs that may yet score with what they pinned."""
        needed = select(runs.c.search, runs.c.precision).where(
            runs.c.search.is_not(None), runs.c.precision.is_not(None), _may_score()
        )
        with self._database.reading() as connection:
            return [(row.search, row.precision) for row in connection.execute(needed)]

    def models(self) -> list[UsedModel]:
        """Every model that a run was pinned to."""
        wanted = select(
            runs.c.model_digest,
            runs.c.model_name,
            (database_now() - func.max(runs.c.created_at)).label("used_ago"),
            func.max(case((_may_score(), 1), else_=0)).label("needed"),
        ).where(runs.c.model_digest.is_not(None))
        grouped = wanted.group_by(runs.c.model_digest, runs.c.model_name)
        with self._database.reading() as connection:
            return [
                UsedModel(
                    digest=row.model_digest,
                    name=str(row.model_name),
                    used_ago=row.used_ago,
                    needed=bool(row.needed),
                )
                for row in connection.execute(grouped)
            ]


def _is_rejected(state: str, decision: str | None) -> bool:
    return state == "cancelled" and decision == "rejected"


def _may_score() -> ColumnElement[bool]:
    return and_(runs.c.state != "published", runs.c.decision.is_distinct_from("rejected"))


def _waiting_again(run_id: str):  # type: ignore[no-untyped-def]  # an Update
    return (
        update(chunks)
        .where(chunks.c.run_id == run_id, chunks.c.state == "done")
        .values(
            state="waiting",
            sent_at=None,
            committed_at=None,
            part=None,
            part_digest=None,
            rows_scored=None,
            rows_quarantined=None,
            timings=None,
        )
    )
