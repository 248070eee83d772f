"""People: who cancels a run, and goes on with it after all."""

from __future__ import annotations

import time
from functools import partial

from tests.chaos.faults.fault import Fault, Hit, Target


def cancel(target: Target, *, and_retry: bool) -> Hit | None:
    done = target.actor.act("cancel", target.run_id)
    if done.ended != 0:
        return None
    if not and_retry:
        return Hit()

    time.sleep(target.chance.uniform(0.0, 1.5))  # not healed later: the run has ended until then
    target.actor.act("retry", target.run_id)
    return Hit()


FAULTS = (
    Fault(name="cancelled", weight=0.25, strike=partial(cancel, and_retry=False)),
    Fault(name="cancelled and retried", weight=0.8, strike=partial(cancel, and_retry=True)),
)
