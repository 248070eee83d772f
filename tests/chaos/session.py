"""A session of chaos on one installation: one run after another over the same output folder.

Successive runs score different tables, so that a reader would see it if two of them mixed.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from scoring.errors import LedgerUnreachable, RunNotFound
from scoring.job import Job
from scoring.ledger import RunRecord
from tests.chaos import checks
from tests.chaos.actor import Actor
from tests.chaos.faults import Fault, Target
from tests.chaos.healing import Healing
from tests.chaos.installation import Installation
from tests.chaos.material import Material, Table
from tests.chaos.schedule import Plan
from tests.chaos.services import Service
from tests.chaos.tally import Tally

END_SECONDS = 300.0
"""How long a run may take to end after its last fault."""
SUBMIT_TIMES = 20


@dataclass(slots=True, kw_only=True)
class Session:
    """What stays the same from run to run."""

    installation: Installation
    actor: Actor
    material: Material
    tally: Tally
    chance: random.Random
    healing: Healing = field(default_factory=Healing)
    said: list[str] = field(default_factory=list)
    """One line for each thing that happened: where to look for the cause of a broken promise."""

    def run(self, plan: Plan) -> RunRecord:
        """Submit a run, cause its faults, wait for its end, and check it."""
        table = self.material.tables[plan.table]
        job = self._job(plan, table)
        before = checks.standing(self.installation.output)
        run_id = self._submitted(job, plan)
        self._note(f"{run_id}: table {table.number}, {plan.variant}, {plan.max_attempts} attempts")
        self._cause(run_id, plan)
        self._await(run_id)
        checks.check_run(self.tally, self.installation.ledger, run_id, table, self.material, before)
        run = self.installation.run(run_id)
        self._note(f"{run_id}: {run.state} {run.error or ''}")
        return run

    def _job(self, plan: Plan, table: Table) -> str:
        return Job(
            name="chaos",
            model=self.material.models[plan.model],
            key=["row"],
            input={"path": str(table.path)},
            output={"path": str(self.installation.output)},
            execution={"max_attempts": plan.max_attempts, "chunk_rows": table.chunk_rows},
            precision={"variant": plan.variant, "max_mean_error": 1e-6},
        ).to_json()

    def _submitted(self, job: str, plan: Plan) -> str:
        """The run of this job, submitted with one key as often as it takes."""
        key = f"key {self.tally.runs} {self.installation.kind}"
        dies_before = plan.submitter_dies_before
        for _ in range(SUBMIT_TIMES):
            acted = self.actor.act("submit", job, key, strike_before=dies_before)
            if acted.killed:
                self._hit("submitting process killed")
            elif acted.ended != 0:
                self._note(f"not submitted: {acted}")
            dies_before = 0
            self.installation.tend()
            with suppress(LedgerUnreachable):
                run = self.installation.ledger.runs.with_idempotency_key(key)
                if run is not None:
                    return run.id
            time.sleep(0.2)  # an outage: tried again, as a person would
        raise AssertionError(f"cannot submit: {acted}")

    def _cause(self, run_id: str, plan: Plan) -> None:
        target = Target(
            installation=self.installation, actor=self.actor, run_id=run_id, chance=self.chance
        )
        for pause, fault in plan.strikes:
            if self._ended_within(run_id, pause):
                return
            self.strike(fault, target)

    def strike(self, fault: Fault, target: Target) -> bool:
        """Cause one fault, and count it if it hit something."""
        hit = fault.strike(target)
        if hit is None:
            return False
        if hit.heal is not None:
            self.healing.after(hit.lasts, hit.heal)
        self._hit(fault.name)
        return True

    def _await(self, run_id: str) -> None:
        if not self._ended_within(run_id, 40.0):
            self.healing.now()  # the longest of them is over by now
        if not self._ended_within(run_id, END_SECONDS):
            self._note(f"{run_id} does not end")

    def _ended_within(self, run_id: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            self.installation.tend()
            with suppress(LedgerUnreachable, RunNotFound):
                if self.installation.run(run_id).ended:
                    return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.03)

    def _hit(self, name: str) -> None:
        self.tally.faults[name] += 1
        self._note(f"    {name}")

    def _note(self, line: str) -> None:
        self.said.append(f"{time.strftime('%H:%M:%S')} {line}")
        with (self.installation.logs / "chaos.log").open("a", encoding="utf-8") as log:
            print(self.said[-1], file=log)


@contextmanager
def watched(installation: Installation, tally: Tally) -> Iterator[Service]:
    """A reader polls the output for the length of the block; what it saw is counted at its end."""
    report = installation.root / "reader.json"
    command = [sys.executable, "-m", "tests.chaos.reader", str(installation.output), str(report)]
    reader = Service("reader", command, {}, installation.logs)
    reader.start()
    try:
        yield reader
    finally:
        alive = reader.alive
        reader.end()
        _count(report, alive, tally)


def _count(report: Path, alive: bool, tally: Tally) -> None:
    if not alive or not report.is_file():
        tally.broken.append("the reader died: see its log")
        return
    seen = json.loads(report.read_text(encoding="utf-8"))
    tally.looks += seen.get("looks", 0)
    tally.mixtures += seen["mixed"]
    tally.broken += [f"a reader saw: {mixture}" for mixture in seen["mixtures"]]
