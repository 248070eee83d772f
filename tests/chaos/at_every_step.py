"""The finisher killed or frozen before every one of its steps: nothing of it is left to chance.

A clean run is counted first. Then, for each step, a run of its own is finished by a process that
is struck there; a second finisher takes over, or another run is published meanwhile; and what
lies in the output is looked at after each.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import update

from scoring.job import Job
from scoring.ledger import Ledger, RunRecord
from scoring.ledger.tables import database_now, runs
from scoring.settings import Settings
from tests.chaos.actor import Acted, Actor
from tests.chaos.checks import Standing, check_run, standing
from tests.chaos.material import Material, Table
from tests.chaos.reader import Mixture, look
from tests.chaos.services import migrated
from tests.chaos.tally import Tally

LEASE_SECONDS = 60.0
"""Long: nobody takes over unless a test lets the lease run out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A ledger, an actor and an output folder: no services, so nothing happens by itself."""

    settings: Settings
    ledger: Ledger
    actor: Actor
    material: Material
    tally: Tally
    output: Path

    def prepared(self, count: int, *, max_attempts: int = 50) -> list[tuple[RunRecord, Table]]:
        """Runs whose chunks are all done, over the tables in turn."""
        tables = [self.material.tables[n % len(self.material.tables)] for n in range(count)]
        jobs = [self.job(table, max_attempts=max_attempts) for table in tables]
        made = self.actor.act("prepare", *jobs)
        assert made.ended == 0, made
        found = [self.ledger.runs.get(run_id) for run_id in made.said]
        return list(zip(found, tables, strict=True))

    def job(self, table: Table, *, max_attempts: int = 50) -> str:
        return Job(
            name="chaos",
            model=self.material.models[0],
            key=["row"],
            input={"path": str(table.path)},
            output={"path": str(self.output)},
            execution={"max_attempts": max_attempts, "chunk_rows": table.chunk_rows},
            precision={"variant": "native"},
        ).to_json()

    def steps_of_finishing(self) -> Sequence[str]:
        """The changes that finishing makes when it goes well, over an output that is there."""
        (first, _), (second, _) = self.prepared(2)
        assert self.finish(first).said == "published"
        acted = self.finish(second)
        assert acted.said == "published", acted
        return acted.steps

    def finish(self, run: RunRecord, *, strike_before: int = 0, how: int = signal.SIGKILL) -> Acted:
        return self.actor.act("finish", run.id, strike_before=strike_before, how=how)

    def expire(self, run: RunRecord) -> None:
        """Let the finisher's lease run out."""
        with self.ledger.database.transaction() as connection:
            connection.execute(
                update(runs)
                .where(runs.c.id == run.id)
                .values(finish_lease_until=database_now() - 1.0)
            )

    def check(self, run: RunRecord, table: Table, before: Standing) -> None:
        check_run(self.tally, self.ledger, run.id, table, self.material, before)

    def read(self, where: str) -> str | None:
        """What a reader sees now; no complete run is a mixture."""
        try:
            return look(self.output)
        except Mixture as mixture:
            self.tally.mixtures += 1
            self.tally.broken.append(f"{where}: a reader saw {mixture}")
            return None


@contextmanager
def bench(root: Path, tracking_uri: str, material: Material, tally: Tally) -> Iterator[Bench]:
    """A bench in a folder of its own."""
    settings = Settings(
        home=root / "home",
        jobs=root / "jobs",
        database_url=migrated(f"sqlite:///{root}/ledger.db"),
        broker_url="redis://127.0.0.1:1/0",
        MLFLOW_TRACKING_URI=tracking_uri,
        lease_seconds=LEASE_SECONDS,
    )
    ledger = Ledger.open(settings.database_url, LEASE_SECONDS)
    with Actor(settings, root) as actor:
        yield Bench(
            settings=settings,
            ledger=ledger,
            actor=actor,
            material=material,
            tally=tally,
            output=root / "lake" / "scores",
        )
    ledger.database.engine.dispose()


def killed(place: Bench, steps: Sequence[int]) -> None:
    """A finisher killed before each of these steps; the next one ends its run."""
    for number, (run, table) in zip(steps, place.prepared(len(steps)), strict=True):
        before = standing(place.output)
        acted = place.finish(run, strike_before=number)
        _count(place, acted.killed, "finisher killed", acted)
        where = f"killed before step {number} ({acted.steps[-1]})"
        _check_seen(place, run, before, where)
        place.finish(run)
        place.check(run, table, before)
        if place.ledger.runs.get(run.id).state != "published":
            place.tally.broken.append(f"{where}: the next finisher did not publish")


def frozen(place: Bench, steps: Sequence[int], *, then: str) -> None:
    """A finisher frozen before each of these steps, which wakes when the world has gone on.

    ``then`` is what happened meanwhile: ``taken over``, another finisher has ended the run;
    ``replaced``, so it has, and a later run has been published in its place. Neither can happen
    while the frozen one holds the output's lock: the run is its own then.
    """
    made = place.prepared(2 * len(steps))
    for index, number in enumerate(steps):
        (run, table), (later, later_table) = made[2 * index], made[2 * index + 1]
        before = standing(place.output)
        acted = place.finish(run, strike_before=number, how=signal.SIGSTOP)
        _count(place, acted.ended is None, f"finisher frozen, {then}", acted)
        where = f"frozen before step {number} ({acted.steps[-1]}), {then}"
        place.expire(run)
        busy = place.finish(run).said == "output busy"
        if then == "replaced" and not busy:
            meanwhile = standing(place.output)
            place.finish(later)
            place.check(later, later_table, meanwhile)
        meanwhile = standing(place.output)
        place.actor.wake(acted)
        place.read(where)
        if busy and meanwhile != before:
            place.tally.broken.append(f"{where}: somebody published past the lock")
        if not busy and standing(place.output) != meanwhile:
            place.tally.broken.append(f"{where}: it changed the output when it woke")
        if then == "taken over" or busy:
            place.check(run, table, before)
            meanwhile = standing(place.output)
            place.finish(later)
            place.check(later, later_table, meanwhile)


def freezable(names: Sequence[str]) -> list[int]:
    """Numbers of the steps before which a frozen finisher can be overtaken.

    Before a commit it holds the ledger's lock: nobody goes on until it wakes or is killed.
    """
    return [number for number, name in enumerate(names, start=1) if name != "before a commit"]


def _check_seen(place: Bench, run: RunRecord, before: Standing, where: str) -> None:
    """The output is the earlier run's, untouched, or this one's, complete."""
    if place.read(where) != run.id and standing(place.output) != before:
        place.tally.broken.append(f"{where}: the earlier output was touched")


def _count(place: Bench, struck: bool, name: str, acted: Acted) -> None:
    if struck:
        place.tally.faults[name] += 1
    else:
        place.tally.broken.append(f"{name}: it was not struck: {acted}")
