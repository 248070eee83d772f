"""What is drawn comes from the seed alone."""

from __future__ import annotations

import random
from itertools import islice, pairwise

from tests.chaos.faults import FAULTS
from tests.chaos.schedule import Plan, plans


def drawn(seed: int, count: int = 200) -> list[Plan]:
    return list(islice(plans(random.Random(seed), FAULTS, tables=3, models=2), count))


def test_plans_from_one_seed_are_equal() -> None:
    assert drawn(7) == drawn(7)


def test_plans_from_another_seed_are_others() -> None:
    assert drawn(7) != drawn(8)


def test_every_fault_comes_and_no_two_runs_in_a_row_score_the_same_table() -> None:
    found = drawn(7)

    assert {fault.name for plan in found for _, fault in plan.strikes} == {f.name for f in FAULTS}
    assert all(a.table != b.table for a, b in pairwise(found))


def test_no_two_faults_have_one_name() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
