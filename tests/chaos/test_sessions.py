"""The short form of the chaos: real services on both ledgers, struck by faults from one seed.

The long form, `make chaos`, strikes with every fault there is and takes half an hour.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.chaos.actor import Actor
from tests.chaos.afterwards import check_ended, check_gone
from tests.chaos.conftest import SEED
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.installation import Kind, installed
from tests.chaos.material import make
from tests.chaos.schedule import Plan
from tests.chaos.session import Session, watched
from tests.chaos.tally import Tally

CHUNKS, CHUNK_ROWS = 60, 500
KILLS = 20
MOST_RUNS = 15
"""However quick the machine is: its runs end before much has struck them."""
STRIKES = (
    *("worker child killed",) * 17,
    *("worker killed",) * 4,
    *("messages twice",) * 2,
    *("messages reordered",) * 2,
    *("broker restarted, data lost", "sweepers at once", "beat killed"),
)
"""What strikes a run, in an order that is drawn."""


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_rows_are_published_once_and_in_order_while_workers_die_and_the_broker_forgets(
    kind: Kind, root: Path, tracking_uri: str
) -> None:
    tally, chance = Tally(seed=SEED), random.Random(f"{SEED} {kind}")
    sizes = ((CHUNKS, CHUNK_ROWS), (CHUNKS, CHUNK_ROWS + 100))
    material = make(root / "material", tracking_uri, seed=SEED, tables=sizes)

    with installed(kind, root / kind, tracking_uri) as installation:
        with (
            Actor(installation.settings, root / kind) as actor,
            watched(installation, tally),
        ):
            session = Session(
                installation=installation,
                actor=actor,
                material=material,
                tally=tally,
                chance=chance,
            )
            while not enough(tally) and tally.runs < MOST_RUNS:
                session.run(struck(chance, table=tally.runs % len(sizes)))
            session.healing.now()
        check_ended(tally, installation)
    check_gone(tally, root / kind)

    assert tally.kept, tally.page()
    assert enough(tally), tally.page()
    assert tally.outcomes == {"published": tally.runs}, tally.page()
    assert tally.looks > 0


def struck(chance: random.Random, *, table: int) -> Plan:
    """A run that its submitter may not outlive, and what strikes it."""
    by_name: dict[str, Fault] = {fault.name: fault for fault in FAULTS}
    names = chance.sample(STRIKES, k=len(STRIKES))
    return Plan(
        table=table,
        model=0,
        variant="native",
        max_attempts=100,
        submitter_dies_before=chance.choice((0, 8)),
        strikes=[(chance.uniform(0.1, 0.4), by_name[name]) for name in names],
    )


def enough(tally: Tally) -> bool:
    """So much has struck that a promise that does not hold would have been seen broken."""
    workers, lost = tally.faults["worker killed"], tally.faults["broker restarted, data lost"]
    return tally.faults["worker child killed"] + workers >= KILLS and workers >= 2 and lost >= 1
