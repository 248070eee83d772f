"""One run under every interleaving of workers, sweepers and people, against a model of it.

The model is the contract in plain Python: who may claim, commit, release, expire, cancel, retry.
After every step the ledger must agree with it, and with itself: counts are those of the done
chunks, attempts only rise, and nothing is committed twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import update

from scoring.errors import LeaseLost, RunNotInState
from scoring.ledger import ChunkRecord, Claim, Finishing, Ledger, RunRecord
from scoring.ledger.tables import chunks, database_now
from tests.contract.ledgers import JOB, ROWS, made_by, start_run

LIVES = {"sqlite": 100, "postgresql": 30}
"""Runs to live through: as many as take a few seconds."""
GRANTED = JOB.execution.max_attempts
Chunks = list[ChunkRecord]
picks = st.integers(min_value=0, max_value=10**6)


@dataclass(slots=True)
class ModelChunk:
    """A chunk as the contract has it."""

    state: str = "waiting"
    attempt: int = 0
    holder: Claim | None = None
    """Whose commit would count, if the run is running."""
    expired: bool = False
    commits: list[int] = field(default_factory=list)
    """Attempts whose commit was accepted."""


class OneRun(RuleBasedStateMachine):
    """A run of a few chunks and everybody who may touch it."""

    ledger: Ledger

    @initialize(count=st.integers(min_value=1, max_value=3))
    def create(self, count: int) -> None:
        self.run_id = start_run(self.ledger, count=count, max_attempts=GRANTED)
        self.state, self.most, self.rejected = "running", GRANTED, False
        self.chunks = [ModelChunk() for _ in range(count)]
        self.claims: list[Claim] = []
        self.finishers: list[Finishing] = []
        self.finisher_lives = False
        self.quarantined = 0
        self.workers = 0
        self.seen = [0] * count

    # Workers

    @rule(pick=picks)
    def claim(self, pick: int) -> None:
        number = pick % len(self.chunks)
        chunk = self.chunks[number]
        free = chunk.state == "waiting" or (chunk.state == "leased" and chunk.expired)
        allowed = self.state == "running" and free and chunk.attempt < self.most
        self.workers += 1

        claim = self.ledger.chunks.claim(self.run_id, number, f"worker-{self.workers}")

        assert (claim is not None) is allowed
        if claim is not None:
            assert claim.attempt == chunk.attempt + 1
            chunk.state, chunk.attempt = "leased", claim.attempt
            chunk.holder, chunk.expired = claim, False
            self.claims.append(claim)

    @precondition(lambda self: self.claims)
    @rule(pick=picks, quarantined=st.integers(min_value=0, max_value=ROWS))
    def commit(self, pick: int, quarantined: int) -> None:
        claim = self.claims[pick % len(self.claims)]
        chunk = self.chunks[claim.number]
        made = made_by(claim, quarantined=quarantined)
        if self.state != "running" or chunk.holder is not claim:
            with pytest.raises(LeaseLost):
                self.ledger.chunks.commit(claim, made)
            return

        last = self.ledger.chunks.commit(claim, made)

        chunk.state, chunk.holder = "done", None
        chunk.commits.append(claim.attempt)
        self.quarantined += quarantined
        assert last is all(other.state == "done" for other in self.chunks)
        if last:
            self.state = "finishing"

    @precondition(lambda self: self.claims)
    @rule(pick=picks)
    def renew(self, pick: int) -> None:
        claim = self.claims[pick % len(self.claims)]
        chunk = self.chunks[claim.number]
        if self.state == "running" and chunk.holder is claim:
            self.ledger.chunks.renew(claim)
            chunk.expired = False
        else:
            with pytest.raises(LeaseLost):
                self.ledger.chunks.renew(claim)

    @precondition(lambda self: self.claims)
    @rule(pick=picks)
    def release(self, pick: int) -> None:
        claim = self.claims[pick % len(self.claims)]
        chunk = self.chunks[claim.number]
        if chunk.holder is not claim:
            with pytest.raises(LeaseLost):
                self.ledger.chunks.release(claim, "the model raised")
            return

        more = self.ledger.chunks.release(claim, "the model raised")

        assert more is (claim.attempt < self.most)
        chunk.state, chunk.holder = "waiting" if more else "failed", None

    @precondition(lambda self: self.claims)
    @rule(pick=picks)
    def hand_back(self, pick: int) -> None:
        claim = self.claims[pick % len(self.claims)]
        chunk = self.chunks[claim.number]
        mine = chunk.holder is claim

        assert self.ledger.chunks.hand_back(claim) is mine

        if mine:
            chunk.state, chunk.holder = "waiting", None
            chunk.attempt -= 1
            self.seen[claim.number] -= 1  # the one way down, and only for an unused attempt

    # Time and the sweep

    @rule(pick=picks)
    def a_lease_runs_out(self, pick: int) -> None:
        number = pick % len(self.chunks)
        with self.ledger.database.transaction() as connection:
            connection.execute(
                update(chunks)
                .where(
                    chunks.c.run_id == self.run_id,
                    chunks.c.number == number,
                    chunks.c.lease_until.is_not(None),
                )
                .values(lease_until=database_now() - 1.0)
            )
        self.chunks[number].expired = True

    @rule(pick=picks, older=st.integers(min_value=0, max_value=2))
    def a_sweeper_expires_an_attempt(self, pick: int, older: int) -> None:
        number = pick % len(self.chunks)
        chunk = self.chunks[number]
        attempt = chunk.attempt - older
        held = chunk.state == "leased" and older == 0

        assert self.ledger.chunks.expire(self.run_id, number, attempt) is held

        if held:
            chunk.expired = True

    @rule()
    def a_sweeper_fails_what_is_exhausted(self) -> None:
        exhausted = {
            number
            for number, chunk in enumerate(self.chunks)
            if chunk.state == "failed"
            or (
                chunk.attempt >= self.most
                and (chunk.state == "waiting" or (chunk.state == "leased" and chunk.expired))
            )
        }

        found = [row for row in self.ledger.sweep.exhausted() if row[0] == self.run_id]

        assert {number for _, number, _, _ in found} == (
            exhausted if self.state == "running" else set()
        )
        if found:
            assert self.ledger.runs.fail(self.run_id, "exhausted")
            self.state = "failed"

    # Finishers

    @rule()
    def claim_finish(self) -> None:
        free = self.state == "finishing" and not self.finisher_lives

        hold = self.ledger.runs.claim_finish(self.run_id, "finisher")

        assert (hold is not None) is free
        if hold is not None:
            assert hold.attempt == len(self.finishers) + 1
            self.finishers.append(hold)
            self.finisher_lives = True

    @precondition(lambda self: self.finishers)
    @rule()
    def a_finisher_dies(self) -> None:
        held = self.state == "finishing"

        assert self.ledger.runs.expire_finish(self.run_id, len(self.finishers)) is held

        if held:
            self.finisher_lives = False

    @precondition(lambda self: self.finishers)
    @rule(pick=picks)
    def renew_finish(self, pick: int) -> None:
        hold = self.finishers[pick % len(self.finishers)]
        mine = self.state == "finishing" and hold is self.finishers[-1]

        assert self.ledger.runs.renew_finish(hold) is mine

        if mine:
            self.finisher_lives = True

    @precondition(lambda self: self.finishers)
    @rule(pick=picks, state=st.sampled_from(["published", "held", "failed"]))
    def end(self, pick: int, state: str) -> None:
        hold = self.finishers[pick % len(self.finishers)]
        mine = self.state == "finishing" and hold is self.finishers[-1]

        assert self.ledger.runs.end(hold, state) is mine

        if mine:
            self.state, self.finisher_lives = state, False

    # People

    @rule()
    def cancel(self) -> None:
        assert self.ledger.runs.cancel(self.run_id) is (self.state in ("running", "held"))
        if self.state in ("running", "held"):
            self.state = "cancelled"

    @rule()
    def retry(self) -> None:
        if self.state not in ("failed", "cancelled") or self.rejected:
            with pytest.raises(RunNotInState):
                self.ledger.runs.retry(self.run_id)
            return
        undone = [number for number, chunk in enumerate(self.chunks) if chunk.state != "done"]

        assert self.ledger.runs.retry(self.run_id) == undone

        for number in undone:
            self.chunks[number].state, self.chunks[number].holder = "waiting", None
        self.state = "running" if undone else "finishing"
        used = [self.chunks[number].attempt for number in undone]
        self.most = GRANTED + max([*used, len(self.finishers)])

    @rule()
    def let_go(self) -> None:
        if self.state != "held":
            with pytest.raises(RunNotInState):
                self.ledger.decisions.release(self.run_id, "operator")
            return

        self.ledger.decisions.release(self.run_id, "operator")

        self.state = "finishing"
        self.most = GRANTED + len(self.finishers)

    @rule()
    def reject(self) -> None:
        if self.state != "held":
            with pytest.raises(RunNotInState):
                self.ledger.decisions.reject(self.run_id, "operator")
            return

        self.ledger.decisions.reject(self.run_id, "operator")

        self.state = "cancelled"
        self.rejected = True

    # What always holds

    @invariant()
    def what_always_holds(self) -> None:
        run, found = self.ledger.runs.get(self.run_id), self.ledger.chunks.of(self.run_id)
        self._the_ledger_agrees_with_the_contract(run, found)
        self._the_counts_are_those_of_the_done_chunks(run, found)
        self._attempts_only_rise_and_stay_within_what_was_granted(run, found)
        self._a_chunk_is_committed_once_and_by_the_attempt_on_record(found)
        self._a_run_goes_on_to_finish_only_when_every_chunk_is_done(run, found)

    def _the_ledger_agrees_with_the_contract(self, run: RunRecord, found: Chunks) -> None:
        assert run.state == self.state
        assert run.max_attempts == self.most
        assert [(chunk.state, chunk.attempt) for chunk in found] == [
            (chunk.state, chunk.attempt) for chunk in self.chunks
        ]

    def _the_counts_are_those_of_the_done_chunks(self, run: RunRecord, found: Chunks) -> None:
        done = [chunk for chunk in found if chunk.state == "done"]
        assert run.chunks_done == len(done)
        assert run.rows_scored == sum(chunk.rows_scored or 0 for chunk in done)
        assert run.rows_quarantined == sum(chunk.rows_quarantined or 0 for chunk in done)
        assert run.rows_quarantined == self.quarantined
        assert run.rows_scored + run.rows_quarantined == len(done) * ROWS

    def _attempts_only_rise_and_stay_within_what_was_granted(
        self, run: RunRecord, found: Chunks
    ) -> None:
        for chunk in found:
            assert self.seen[chunk.number] <= chunk.attempt
            assert chunk.state == "done" or chunk.attempt <= run.max_attempts
            self.seen[chunk.number] = chunk.attempt

    def _a_chunk_is_committed_once_and_by_the_attempt_on_record(self, found: Chunks) -> None:
        for chunk, model in zip(found, self.chunks, strict=True):
            assert len(model.commits) == (1 if chunk.state == "done" else 0)
            if model.commits:
                assert chunk.part == f"part-{chunk.number}.attempt-{model.commits[0]}"

    def _a_run_goes_on_to_finish_only_when_every_chunk_is_done(
        self, run: RunRecord, found: Chunks
    ) -> None:
        if run.state in ("finishing", "published", "held"):
            assert all(chunk.state == "done" for chunk in found)


def test_a_run_keeps_its_counts_whatever_its_workers_sweepers_and_people_do(
    ledger: Ledger,
) -> None:
    class OverThisLedger(OneRun):
        pass

    OverThisLedger.ledger = ledger
    run_state_machine_as_test(
        OverThisLedger,
        settings=settings(
            max_examples=LIVES[ledger.database.engine.dialect.name],
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
