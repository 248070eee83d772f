"""Handing back: what a worker that is told to stop had begun goes to another at once.

No attempt is used up, as nothing went wrong. Invariant: a chunk is handed back by its own worker,
as the last thing that it does with it, or when that worker is known to be gone: the number of the
attempt is given out again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from scoring import telemetry
from scoring.errors import BrokerUnreachable
from scoring.ledger import Claim, RunRecord
from scoring.runs.context import Context
from scoring.runs.create import wake, wake_finisher
from scoring.runs.identity import is_dead_here

log = telemetry.logger(__name__)


def hand_back(context: Context, run: RunRecord, claim: Claim) -> None:
    """Give a chunk to another worker, unless it is done; then see to it that its run is finished.

    Raises: LedgerUnreachable: the lease runs out, and the sweep takes over.
    """
    if context.ledger.chunks.hand_back(claim):
        log.info("chunk_handed_back", attempt=claim.attempt)
        _wake(context, run.id, [claim.number])
    elif context.ledger.runs.get(run.id).state == "finishing":
        wake_finisher(context, run)


def hand_back_of(context: Context, workers: Sequence[str]) -> int:
    """Give away what workers held that are gone; return how many chunks that were.

    Raises: LedgerUnreachable: the leases run out, and the sweep takes over.
    """
    returned: dict[str, list[int]] = defaultdict(list)
    gone = [worker for worker in workers if is_dead_here(worker)]
    for worker in gone:
        for run_id, number in context.ledger.chunks.hand_back_of(worker):
            returned[run_id].append(number)
    for run_id, numbers in returned.items():
        log.info("chunks_handed_back", run=run_id, chunks=len(numbers))
        _wake(context, run_id, numbers)
    for lease in context.ledger.sweep.leases():
        if lease.number is None and lease.worker in gone:
            context.ledger.runs.expire_finish(lease.run_id, lease.attempt)
            wake_finisher(context, context.ledger.runs.get(lease.run_id))
    return sum(map(len, returned.values()))


def _wake(context: Context, run_id: str, numbers: Sequence[int]) -> None:
    run = context.ledger.runs.get(run_id)
    if run.state != "running":
        return
    try:
        wake(context, run, numbers)
    except BrokerUnreachable as error:
        log.warning("run_not_woken", run=run_id, error=str(error))
