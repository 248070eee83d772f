"""Telling others of a run's drift: the `retrain` and `review` of a job file.

The finisher composes what is to be told and writes it to the ledger with the end of the run, so
neither happens without the other. Telling comes after it, by the finisher or by any later sweep,
and changes nothing about the run: a receiver that is away costs time and, after a day of trying,
an event in the run's history and an error in the log.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoring import telemetry
from scoring.errors import BrokerUnreachable
from scoring.job import Drift, Job, Receiver
from scoring.ledger import DeliveryClaim, NewDelivery, RunRecord
from scoring.ledger.deliveries import MOST_ATTEMPTS
from scoring.runs import webhook
from scoring.runs.context import Context
from scoring.runs.places import DRIFT_FILE, PAGE_FILE
from scoring.runs.times import iso_time
from scoring.runs.webhook import Outcome

if TYPE_CHECKING:
    from scoring.runs.report import Reported

log = telemetry.logger(__name__)

PAYLOAD_VERSION = 1
"""Raised when a field of the payload goes or changes its meaning; new ones may join any time."""
BUDGET_SECONDS = 10.0
"""How long one call goes on to the next delivery: the sweep has more to do than to wait."""
NAMESPACE = uuid.UUID("cb77930b-dcd3-55b7-bd99-7caac9b17ef8")


def payload(
    run: RunRecord, document: Mapping[str, Any], action: str, delivery_id: str
) -> dict[str, Any]:
    """The JSON document that a webhook is posted, and that a task gets as ``event``.

    ``document`` is the run's drift.json. Fields:

    - ``version``: of this document, 1;
    - ``id``: of the delivery; the same when it comes again, so that doubles can be dropped;
    - ``action``: ``retrain`` or ``review``;
    - ``run_id``, ``job``, ``slot``: the run, its job, and the due time or date that it was for;
    - ``severity``: of its drift, ``small``, ``moderate`` or ``severe``;
    - ``score``: the run's figure, in the measure that leads, or null;
    - ``worst``: name of the column that has drifted most, or null;
    - ``verdict``: the drift report in one sentence;
    - ``model``, ``model_version``: the model as the job names it, and the version that scored;
    - ``report``, ``drift``: paths of the report as a page (drift.html) and as data (drift.json);
    - ``created_at``: when the run was created, ISO 8601 in UTC.
    """
    artifacts = Path(run.artifacts)
    return {
        "version": PAYLOAD_VERSION,
        "id": delivery_id,
        "action": action,
        "run_id": run.id,
        "job": run.job,
        "slot": run.slot,
        "severity": document["severity"],
        "score": document["score"],
        "worst": document["worst"],
        "verdict": document["verdict"],
        "model": run.model,
        "model_version": run.model_version,
        "report": str(artifacts / PAGE_FILE),
        "drift": str(artifacts / DRIFT_FILE),
        "created_at": iso_time(run.created_at),
    }


def owed(run: RunRecord, reported: Reported) -> list[NewDelivery]:
    """What a run's receivers are to be told of its drift report, for `Runs.end` to write."""
    drift = Job.from_json(run.job_json).drift
    return compose(run, drift, reported.document, reported.decision.actions)


def compose(
    run: RunRecord, drift: Drift, document: Mapping[str, Any], actions: Iterable[str]
) -> list[NewDelivery]:
    """What receivers are to be told of these actions, given the run's drift.json.

    One delivery for each way of each action that has a receiver; other actions tell nobody. Its
    id is made of run, action and channel, so a run that is finished again tells nobody twice.
    """
    receivers = {"retrain": drift.retrain, "review": drift.review}
    return [
        _new(run, document, action, channel, target, queue)
        for action in actions
        if action in receivers
        for channel, target, queue in _ways(receivers[action])
    ]


def deliver_due(context: Context, run_id: str | None = None) -> int:
    """Tell what is due, of one run or of all; return how much was taken.

    May be called anywhere, any number of times at once. What is not taken is due again later.

    Raises:
        LedgerUnreachable: what is in hand stays claimed, and is due again when that runs out.
    """
    taken, until = 0, time.monotonic() + BUDGET_SECONDS
    while time.monotonic() < until:
        claim = context.ledger.deliveries.claim(run_id)
        if claim is None:
            break
        taken += _settle(context, claim, _tell(context, claim))
    return taken


def _ways(receiver: Receiver) -> list[tuple[str, str, str | None]]:
    """(channel, target, queue) of each way in which a receiver is told."""
    ways: list[tuple[str, str, str | None]] = []
    if receiver.webhook:
        ways.append(("webhook", receiver.webhook, None))
    if receiver.task:
        ways.append(("task", receiver.task, receiver.task_queue))
    return ways


def _new(
    run: RunRecord,
    document: Mapping[str, Any],
    action: str,
    channel: str,
    target: str,
    queue: str | None,
) -> NewDelivery:
    delivery_id = str(uuid.uuid5(NAMESPACE, f"{run.id}/{action}/{channel}"))
    return NewDelivery(
        id=delivery_id,
        action=action,
        channel=channel,
        target=target,
        task_queue=queue,
        payload=json.dumps(payload(run, document, action, delivery_id), allow_nan=False),
    )


def _tell(context: Context, claim: DeliveryClaim) -> Outcome:
    """Try once. Every way to fail is an outcome: an error may hold an address, a word does not."""
    if claim.attempt > MOST_ATTEMPTS:
        return Outcome(error=f"{claim.channel} {claim.target}: whoever told it died each time")
    try:
        if claim.channel == "webhook":
            return _post(context, claim)
        return _call(context, claim)
    except Exception as error:
        return Outcome(error=f"{claim.channel} {claim.target}: {type(error).__name__}")


def _post(context: Context, claim: DeliveryClaim) -> Outcome:
    address = context.settings.webhooks.get(claim.target)
    if address is None:
        return Outcome(
            error=f"no webhook {claim.target} in SCORING_WEBHOOKS: give its address there, as "
            f"{claim.target}=https://..., to the workers of the queue control"
        )
    return webhook.post(
        claim.target,
        address.get_secret_value(),
        claim.payload.encode(),
        secret=context.settings.webhook_secret.get_secret_value(),
        message_id=claim.id,
        now=claim.at,
    )


def _call(context: Context, claim: DeliveryClaim) -> Outcome:
    try:
        context.doorbell.call(
            claim.target,
            event=json.loads(claim.payload),
            queue=str(claim.task_queue),
            message_id=claim.id,
        )
    except BrokerUnreachable as error:
        return Outcome(error=f"task {claim.target}: the broker did not answer: {error.reason}")
    return Outcome()


def _settle(context: Context, claim: DeliveryClaim, outcome: Outcome) -> int:
    """Record what became of a try; 1 if it was taken."""
    deliveries = context.ledger.deliveries
    said = log.bind(
        run=claim.run_id,
        action=claim.action,
        channel=claim.channel,
        target=claim.target,
        attempt=claim.attempt,
    )
    if outcome.error is None:
        deliveries.delivered(claim)
        said.info("delivered")
        return 1
    if outcome.final or claim.attempt >= MOST_ATTEMPTS:
        if deliveries.give_up(claim, outcome.error):
            said.error("delivery_failed", error=outcome.error)
    elif deliveries.put_off(claim, outcome.error, asked_seconds=outcome.asked_seconds):
        said.warning("delivery_put_off", error=outcome.error)
    return 0
