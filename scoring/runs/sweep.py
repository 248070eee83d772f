"""The sweep: find what was lost between two processes, and wake somebody for it.

Safe to run anywhere, any number of times at once: each finding is acted on by a conditional
statement or by a message whose duplicate does nothing.
"""

from __future__ import annotations

from scoring import telemetry
from scoring.errors import BrokerUnreachable
from scoring.runs.chunk import exhausted
from scoring.runs.context import Context
from scoring.runs.create import wake
from scoring.runs.deliveries import deliver_due
from scoring.runs.identity import is_dead_here
from scoring.runs.reject import remove_rejected

log = telemetry.logger(__name__)


def sweep(context: Context, *, messages_lost: bool = False) -> dict[str, int]:
    """Look once; return what was done, by kind.

    ``messages_lost`` when the broker is known to have begun anew: no message is waited for then.
    """
    done = {
        "overdue": _fail_overdue(context),
        "dead": _expire_dead(context),
        "exhausted": _fail_exhausted(context),
        "woken": 0,
        "finishing": 0,
    }
    try:
        done["woken"] = _wake_lost(context, messages_lost=messages_lost)
        done["finishing"] = _wake_finishers(context)
    except BrokerUnreachable as error:
        log.warning("broker_unreachable", error=str(error))
    done["rejected"] = remove_rejected(context)
    done["delivered"] = deliver_due(context)  # last, as a receiver may keep us waiting
    if any(done.values()):
        log.info("swept", **done)
    return done


def _fail_overdue(context: Context) -> int:
    late = context.ledger.sweep.overdue()
    for run_id in late:
        log.error("run_overdue", run=run_id)
    return len(late)


def _expire_dead(context: Context) -> int:
    """End the leases of processes that ran on this host and are gone."""
    dead = [lease for lease in context.ledger.sweep.leases() if is_dead_here(lease.worker)]
    for lease in dead:
        if lease.number is None:
            context.ledger.runs.expire_finish(lease.run_id, lease.attempt)
        else:
            context.ledger.chunks.expire(lease.run_id, lease.number, lease.attempt)
    return len(dead)


def _fail_exhausted(context: Context) -> int:
    failed = 0
    for run_id, number, attempts, error in context.ledger.sweep.exhausted():
        if context.ledger.runs.fail(run_id, exhausted(number, attempts, error)):
            log.error("run_failed", run=run_id, chunk=number, attempts=attempts)
            failed += 1
    return failed


def _wake_lost(context: Context, *, messages_lost: bool) -> int:
    woken = 0
    settle_seconds = 0.0 if messages_lost else context.settings.sweep_seconds
    empty: dict[str, bool] = {}  # before anything is sent here
    for lost in context.ledger.sweep.lost(settle_seconds=settle_seconds):
        unanswered = lost.unanswered
        if unanswered and not messages_lost:
            if lost.queue not in empty:
                empty[lost.queue] = context.doorbell.waiting(lost.queue) == 0
            unanswered = unanswered if empty[lost.queue] else ()  # they would be next
        indexes = sorted({*lost.never_sent, *lost.abandoned, *unanswered})
        if indexes:
            wake(context, context.ledger.runs.get(lost.run_id), indexes)
            log.info("chunks_woken", run=lost.run_id, chunks=len(indexes))
            woken += len(indexes)
    return woken


def _wake_finishers(context: Context) -> int:
    unfinished = context.ledger.sweep.unfinished()
    for run_id in unfinished:
        context.doorbell.finish(context.ledger.runs.get(run_id))
    return len(unfinished)
