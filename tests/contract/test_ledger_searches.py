"""Searches for variants: one at a time, remembered; a run's variant: pinned once."""

from __future__ import annotations

import json
from functools import partial

import pytest
from sqlalchemy import update

from scoring.errors import LeaseLost
from scoring.ledger import Ledger, SearchClaim
from scoring.ledger.tables import database_now, searches
from tests.contract.ledgers import history, start_run, together

KEY, DIGEST, DEVICE = "k" * 64, "d" * 64, "a processor, with its instruction sets"
THREADS = 8


def claim(
    ledger: Ledger, worker: str = "quick", instead_of: str | None = None
) -> SearchClaim | None:
    return ledger.searches.claim(KEY, DIGEST, DEVICE, worker, instead_of=instead_of)


def held(ledger: Ledger, worker: str = "quick") -> SearchClaim:
    found = claim(ledger, worker)
    assert found is not None
    return found


def end_lease(ledger: Ledger) -> None:
    with ledger.database.transaction() as connection:
        connection.execute(update(searches).values(lease_until=database_now() - 1.0))


def test_of_workers_that_come_together_one_searches(ledger: Ledger) -> None:
    claims = together([partial(claim, ledger, f"worker-{n}") for n in range(THREADS)])

    assert sum(found is not None for found in claims) == 1


def test_what_was_found_is_remembered_and_not_searched_for_again(ledger: Ledger) -> None:
    ledger.searches.record(held(ledger), '{"found": 1}')

    assert ledger.searches.result(KEY) == '{"found": 1}'
    assert claim(ledger, "late") is None


def test_nothing_is_known_before_a_search_ends(ledger: Ledger) -> None:
    assert ledger.searches.result(KEY) is None
    held(ledger)
    assert ledger.searches.result(KEY) is None


def test_a_searcher_that_dies_is_replaced_and_its_result_does_not_count(ledger: Ledger) -> None:
    slow = held(ledger, "slow")
    end_lease(ledger)
    quick = held(ledger, "quick")

    with pytest.raises(LeaseLost, match="search kkkk"):
        ledger.searches.renew(slow)
    with pytest.raises(LeaseLost):
        ledger.searches.record(slow, "slow")
    ledger.searches.record(quick, "quick")

    assert ledger.searches.result(KEY) == "quick"


def test_a_renewed_search_stays_with_its_searcher(ledger: Ledger) -> None:
    mine = held(ledger)
    ledger.searches.renew(mine)

    assert claim(ledger, "other") is None


def test_a_search_that_was_given_up_is_free_at_once(ledger: Ledger) -> None:
    ledger.searches.give_up(held(ledger), failed=False)

    assert held(ledger, "next").attempt == 2


def test_a_search_that_is_repeated_leaves_the_result_until_it_has_another(ledger: Ledger) -> None:
    ledger.searches.record(held(ledger), "old")
    again = claim(ledger, "again", instead_of="old")
    assert again is not None

    assert ledger.searches.result(KEY) == "old"
    assert claim(ledger, "other", instead_of="old") is None
    ledger.searches.record(again, "new")
    assert ledger.searches.result(KEY) == "new"


def test_a_search_is_repeated_once_however_many_found_the_same_result_unfit(
    ledger: Ledger,
) -> None:
    ledger.searches.record(held(ledger), "old")
    again = claim(ledger, "again", instead_of="old")
    assert again is not None
    ledger.searches.record(again, "new")

    assert claim(ledger, "late", instead_of="old") is None
    assert claim(ledger, "first", instead_of=None) is None


def test_a_correction_counts_only_against_what_it_corrects(ledger: Ledger) -> None:
    ledger.searches.record(held(ledger), "first")
    ledger.searches.replace(KEY, "other", "wrong")
    ledger.searches.replace(KEY, "first", "second")

    assert ledger.searches.result(KEY) == "second"


def pin(ledger: Ledger, run_id: str, variant: str) -> bool:
    return ledger.runs.pin_variant(
        run_id,
        variant=variant,
        batch_rows=256,
        search=KEY,
        precision=json.dumps({"variant": variant}),
    )


def test_a_run_is_pinned_to_one_variant_whoever_comes_first(ledger: Ledger) -> None:
    run_id = start_run(ledger, variant=None)
    names = [f"v{n}" for n in range(THREADS)]

    won = together([partial(pin, ledger, run_id, name) for name in names])

    run = ledger.runs.get(run_id)
    assert sum(won) == 1
    assert run.variant == names[won.index(True)]
    assert (run.batch_rows, run.search) == (256, KEY)
    assert [event for event in history(ledger, run_id) if "variant_pinned" in event] != []


def test_a_pinned_variant_is_not_replaced(ledger: Ledger) -> None:
    run_id = start_run(ledger, variant=None)
    assert pin(ledger, run_id, "int8")

    assert not pin(ledger, run_id, "native")
    assert ledger.runs.get(run_id).variant == "int8"


def test_a_batch_only_shrinks(ledger: Ledger) -> None:
    run_id = start_run(ledger, variant=None)
    pin(ledger, run_id, "int8")

    for rows in (128, 200, 64):
        ledger.runs.shrink_batch(run_id, rows)

    assert ledger.runs.get(run_id).batch_rows == 64


def test_failures_are_counted_until_something_is_found(ledger: Ledger) -> None:
    for earlier in range(2):
        mine = held(ledger)
        assert mine.failures == earlier
        ledger.searches.give_up(mine, failed=True)
    ledger.searches.record(held(ledger), "found")
    again = claim(ledger, "again", instead_of="found")

    assert again is not None
    assert again.failures == 0


def test_an_ended_run_is_not_pinned(ledger: Ledger) -> None:
    run_id = start_run(ledger, variant=None)
    ledger.runs.cancel(run_id)

    assert not pin(ledger, run_id, "int8")
    assert ledger.runs.get(run_id).variant is None
