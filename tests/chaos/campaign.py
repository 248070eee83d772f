"""The long form: sessions on SQLite and PostgreSQL in turn until enough was hit, or time is up.

Before them the finisher is killed and frozen before every one of its steps. A session has an
installation of its own with fresh services; the tables and models are made once.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from scoring.models.registry import artifact_location
from tests.chaos import at_every_step
from tests.chaos.actor import Actor
from tests.chaos.afterwards import check_ended, check_gone
from tests.chaos.faults import FAULTS
from tests.chaos.installation import Installation, Kind, installed
from tests.chaos.material import Material, make
from tests.chaos.schedule import plans
from tests.chaos.session import Session, watched
from tests.chaos.tally import Tally

SESSION_RUNS = 13
"""Runs on one installation, before the next session begins with an empty one."""
SMALL = ((2, 300), (2, 200))
"""Tables whose runs are finished step by step: chunks, as many in each, and rows of a chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """How much chaos is enough."""

    runs: int
    """Of sessions; those that are finished step by step come on top."""
    faults: int
    """Of all."""
    minutes: float
    """Whatever was reached by then has to do."""
    kinds: Sequence[Kind] = ("sqlite", "postgresql")
    every_step: bool = True


@dataclass(slots=True, kw_only=True)
class Campaign:
    """Everything under one seed, in one folder."""

    seed: int
    goal: Goal
    root: Path
    tally: Tally
    session_runs: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def reached(self) -> bool:
        faults = sum(self.tally.faults.values())
        return self.session_runs >= self.goal.runs and faults >= self.goal.faults

    @property
    def out_of_time(self) -> bool:
        return time.monotonic() - self.began > 60.0 * self.goal.minutes

    def run(self) -> None:
        """Cause chaos until the goal is reached or the time is up."""
        tracking_uri = registry_in(self.root)
        if self.goal.every_step:
            small = make(self.root / "small", tracking_uri, seed=self.seed, tables=SMALL, width=64)
            every_step(self.root / "steps", tracking_uri, small, self.tally)
        material = make(self.root / "material", tracking_uri, seed=self.seed, models=2)
        for number, kind in enumerate(cycle(self.goal.kinds), start=1):
            if self.reached or self.out_of_time:
                return
            self._session(number, kind, tracking_uri, material)

    def _session(self, number: int, kind: Kind, tracking_uri: str, material: Material) -> None:
        root = self.root / f"{number}-{kind}"
        chance = random.Random(f"{self.seed} {number}")
        with installed(kind, root, tracking_uri) as installation:
            possible = possible_faults(installation, self.tally)
            drawn = plans(
                chance, possible, tables=len(material.tables), models=len(material.models)
            )
            with (
                Actor(installation.settings, root) as actor,
                watched(installation, self.tally),
            ):
                session = Session(
                    installation=installation,
                    actor=actor,
                    material=material,
                    tally=self.tally,
                    chance=random.Random(f"{self.seed} {number} strikes"),
                )
                for _, plan in zip(range(SESSION_RUNS), drawn, strict=False):
                    session.run(plan)
                    self.session_runs += 1
                    if self.reached or self.out_of_time:
                        break
                session.healing.now()
            check_ended(self.tally, installation)
        check_gone(self.tally, root)


def every_step(root: Path, tracking_uri: str, material: Material, tally: Tally) -> None:
    """The finisher killed before each of its steps; frozen, then taken over or replaced."""
    with at_every_step.bench(root, tracking_uri, material, tally) as place:
        names = place.steps_of_finishing()
        at_every_step.killed(place, range(1, len(names) + 1))
        for then in ("taken over", "replaced"):
            at_every_step.frozen(place, at_every_step.freezable(names), then=then)


def possible_faults(installation: Installation, tally: Tally):  # type: ignore[no-untyped-def]
    """Those that can be caused in an installation; why not is noted for the others."""
    possible = []
    for fault in FAULTS:
        why_not = fault.possible(installation)
        if why_not:
            tally.skipped[fault.name] = why_not
        else:
            possible.append(fault)
    return possible


def registry_in(folder: Path) -> str:
    """The address of a registry whose models lie in the same folder."""
    from mlflow import MlflowClient

    folder.mkdir(parents=True, exist_ok=True)
    uri = f"sqlite:///{folder}/mlflow.db"
    MlflowClient(uri).create_experiment("chaos", artifact_location(uri, "chaos"))
    os.environ["MLFLOW_EXPERIMENT_NAME"] = "chaos"
    return uri
