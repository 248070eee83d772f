"""Which slots of a schedule were decided on, and by which run.

(job, slot) is unique: whoever inserts it first starts the slot's only run (`Runs.create`).
``considered_until`` is how far a job's schedule has been looked at; it only moves forward.
"""

from __future__ import annotations

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from scoring.ledger.database import Database
from scoring.ledger.tables import database_now, schedules, slots


class Slots:
    """The schedule's memory."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def considered_until(self, job: str, first: float | None) -> float:
        """Seconds since the epoch up to which slots were decided on.

        A job seen for the first time starts at ``first``, or now when that is ``None``.
        """
        cursor = select(schedules.c.considered_until).where(schedules.c.job == job)
        with self._database.reading() as connection:
            found = connection.execute(cursor).scalar_one_or_none()
        if found is not None:
            return float(found)
        start = database_now() if first is None else first
        try:
            with self._database.transaction() as connection:
                connection.execute(insert(schedules).values(job=job, considered_until=start))
        except IntegrityError:
            pass  # another beat saw the job first; its start stands
        with self._database.reading() as connection:
            return float(connection.execute(cursor).scalar_one())

    def advance(self, job: str, until: float) -> None:
        """Remember that every slot up to ``until`` was decided on; never moves back."""
        with self._database.transaction() as connection:
            connection.execute(
                update(schedules)
                .where(schedules.c.job == job, schedules.c.considered_until < until)
                .values(considered_until=until)
            )

    def taken(self, job: str) -> dict[str, str]:
        """Run ids by slot."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(slots.c.slot, slots.c.run_id).where(slots.c.job == job)
            ).all()
        return {row.slot: row.run_id for row in rows}

    def now(self) -> float:
        """The ledger's clock, by which slots fall due."""
        with self._database.reading() as connection:
            return float(connection.execute(select(database_now())).scalar_one())
