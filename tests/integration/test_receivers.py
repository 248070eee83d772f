"""Who is told of a run's drift: a real web server and a real Celery worker, however they fail."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import multiprocessing
import os
import signal
import uuid
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import select

from scoring.job import Drift
from scoring.ledger import Ledger, RunRecord
from scoring.ledger.deliveries import HOLD_SECONDS, MOST_ATTEMPTS
from scoring.ledger.tables import metadata
from scoring.runs.context import Context
from scoring.runs.deliveries import compose, deliver_due
from scoring.runs.sweep import sweep
from scoring.settings import Settings
from scoring.stack import _broker
from scoring.wake import Bell
from tests.conftest import make_settings
from tests.contract.ledgers import (
    age_deliveries,
    finishing_run,
    history,
    start_run,
    together,
)
from tests.integration.processes import SCRIPTS, running
from tests.loopback import refusing
from tests.ports import free_port
from tests.receiver import TOKEN, Answer, receiving

DAY = 24 * 3600.0
SECRET = "a shared secret"
REPORT = {
    "severity": "severe",
    "score": 0.31,
    "worst": "delay",
    "verdict": "delay has drifted severely",
    "columns": [{"name": "delay"}],
}
TASK = {"task": "training.retrain", "task_queue": "training"}
BY_WEBHOOK = Drift(retrain={"webhook": "mlops"})  # type: ignore[arg-type]  # as a job file has it
BY_TASK = Drift(
    review={"task": "training.review", "task_queue": "training"}  # type: ignore[arg-type]
)
ANYTHING = ("log", "retrain", "review", "hold")


@pytest.fixture
def nobody() -> str:
    """The address of a broker that is not there."""
    return "redis://:hidden@127.0.0.1:1/0"


@pytest.fixture
def context(ledger: Ledger, tmp_path: Path, nobody: str) -> Context:
    """An installation whose ledger is real, and in which nothing else is reached yet."""
    settings = make_settings(tmp_path / "home", "sqlite://", webhook_secret=SECRET)
    return replace(Context.open(settings, Bell(lambda: nobody)), ledger=ledger)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real one."""
    folder, port = tmp_path_factory.mktemp("broker"), free_port()
    command = _broker(port, folder)
    with running("broker", command, env=os.environ, cwd=folder, logs=folder) as valkey:
        valkey.wait_for("Ready to accept connections")
        yield f"redis://127.0.0.1:{port}/0"


def knowing(context: Context, **addresses: str) -> Context:
    """The same installation, once a person has set SCORING_WEBHOOKS."""
    named = " ".join(f"{name}={address}" for name, address in addresses.items())
    values = context.settings.model_dump() | {"webhooks": named, "MLFLOW_TRACKING_URI": "sqlite://"}
    return replace(context, settings=Settings(**values))


def ended(context: Context, drift: Drift) -> RunRecord:
    """A held run of whose drift its receivers are to be told; nobody is told yet."""
    run_id, hold = finishing_run(context.ledger)
    run = context.ledger.runs.get(run_id)
    told = compose(run, drift, REPORT, ANYTHING)
    assert context.ledger.runs.end(hold, "held", deliveries=told)
    return run


def state(context: Context, run: RunRecord) -> tuple[str, int, str | None]:
    """What became of the run's only delivery."""
    (found,) = context.ledger.deliveries.of(run.id)
    return found.state, found.attempts, found.last_error


# What is told


def test_each_way_of_each_action_with_a_receiver_is_one_delivery_that_is_always_the_same(
    ledger: Ledger,
) -> None:
    run = ledger.runs.get(start_run(ledger))
    drift = Drift(
        retrain={"webhook": "mlops", **TASK},  # type: ignore[arg-type]
        review={"webhook": "people"},  # type: ignore[arg-type]
    )

    found = compose(run, drift, REPORT, ("log", "review", "hold", "retrain"))

    assert [(one.action, one.channel, one.target, one.task_queue) for one in found] == [
        ("review", "webhook", "people", None),
        ("retrain", "webhook", "mlops", None),
        ("retrain", "task", "training.retrain", "training"),
    ]
    assert compose(run, drift, REPORT, ("log", "review", "hold", "retrain")) == found
    assert len({str(uuid.UUID(one.id)) for one in found}) == 3
    assert compose(run, drift, REPORT, ("log", "hold", "fail")) == []
    assert compose(run, Drift(), REPORT, ANYTHING) == []


def test_the_document_says_which_run_has_drifted_how_far_and_where_to_read_more(
    ledger: Ledger,
) -> None:
    run = ledger.runs.get(start_run(ledger, slot="2026-11-23T02:30:00-05:00"))

    (told,) = compose(run, BY_WEBHOOK, REPORT, ANYTHING)

    found: dict[str, Any] = json.loads(told.payload)
    created = found.pop("created_at")
    assert created.startswith("20")
    assert created.endswith("+00:00")
    assert found == {
        "version": 1,
        "id": told.id,
        "action": "retrain",
        "run_id": run.id,
        "job": "flights",
        "slot": "2026-11-23T02:30:00-05:00",
        "severity": "severe",
        "score": 0.31,
        "worst": "delay",
        "verdict": "delay has drifted severely",
        "model": "models:/flights@production",
        "model_version": "7",
        "report": "/artifacts/flights/drift.html",
        "drift": "/artifacts/flights/drift.json",
    }


# Webhooks


def test_a_webhook_is_told_once_and_can_tell_who_it_was(context: Context) -> None:
    with receiving() as receiver:
        context = knowing(context, mlops=receiver.address)
        run = ended(context, BY_WEBHOOK)

        assert [deliver_due(context, run.id), deliver_due(context)] == [1, 0]

    (posted,) = receiver.posted
    (delivery,) = context.ledger.deliveries.of(run.id)
    assert posted.path == f"/hooks/{TOKEN}"
    assert posted.body.decode() == delivery.payload
    signed = f"{delivery.id}.{posted.headers['webhook-timestamp']}.{delivery.payload}".encode()
    digest = base64.b64encode(hmac.digest(SECRET.encode(), signed, hashlib.sha256)).decode()
    assert posted.headers["webhook-signature"] == f"v1,{digest}"
    stamp = int(posted.headers["webhook-timestamp"])
    assert stamp == pytest.approx(delivery.created_at, abs=60)
    assert delivery.delivered_at is not None
    assert state(context, run) == ("delivered", 1, None)


def test_a_webhook_that_fails_twice_is_told_the_third_time_under_the_same_id(
    context: Context,
) -> None:
    with receiving(Answer(status=500), Answer(status=500), Answer()) as receiver:
        context = knowing(context, mlops=receiver.address)
        run = ended(context, BY_WEBHOOK)

        taken = []
        for _ in range(3):
            taken += [deliver_due(context), deliver_due(context)]
            age_deliveries(context.ledger, DAY)
        taken.append(deliver_due(context))

    assert taken == [0, 0, 0, 0, 1, 0, 0]
    assert len(receiver.posted) == 3
    assert len({posted.headers["webhook-id"] for posted in receiver.posted}) == 1
    assert len({posted.body for posted in receiver.posted}) == 1
    assert state(context, run) == ("delivered", 3, None)


def test_a_busy_webhook_is_left_alone_as_long_as_it_asks(context: Context) -> None:
    busy = Answer(status=429, headers={"retry-after": "7200"})
    with receiving(busy, Answer()) as receiver:
        context = knowing(context, mlops=receiver.address)
        run = ended(context, BY_WEBHOOK)
        deliver_due(context)

        age_deliveries(context.ledger, 7000)
        assert deliver_due(context) == 0
        assert state(context, run) == ("waiting", 1, "webhook mlops answered HTTP 429")
        age_deliveries(context.ledger, 210)
        assert deliver_due(context) == 1


def test_a_webhook_that_is_gone_is_given_up_at_once_where_people_see_it(context: Context) -> None:
    with receiving(Answer(status=410)) as receiver, structlog.testing.capture_logs() as lines:
        context = knowing(context, mlops=receiver.address)
        run = ended(context, BY_WEBHOOK)
        deliver_due(context)
        age_deliveries(context.ledger, DAY)
        deliver_due(context)

    assert len(receiver.posted) == 1
    assert state(context, run)[:2] == ("failed", 1)
    event, detail = history(context.ledger, run.id)[-1]
    assert (event, detail["target"]) == ("delivery_failed", "mlops")
    (line,) = [line for line in lines if line["log_level"] == "error"]
    assert (line["event"], line["run"], line["target"]) == ("delivery_failed", run.id, "mlops")


def test_a_webhook_that_never_takes_it_is_given_up_after_eight_attempts(context: Context) -> None:
    with receiving(Answer(status=500)) as receiver:
        context = knowing(context, mlops=receiver.address)
        run = ended(context, BY_WEBHOOK)
        for _ in range(MOST_ATTEMPTS + 2):
            deliver_due(context)
            age_deliveries(context.ledger, DAY)

    assert len(receiver.posted) == MOST_ATTEMPTS == 8
    assert state(context, run) == ("failed", 8, "webhook mlops answered HTTP 500")


def test_a_webhook_that_nobody_has_named_is_told_once_somebody_does(context: Context) -> None:
    run = ended(context, BY_WEBHOOK)

    assert deliver_due(context) == 0

    said = state(context, run)[2]
    assert "no webhook mlops in SCORING_WEBHOOKS: give its address there" in str(said)
    age_deliveries(context.ledger, DAY)
    with receiving() as receiver:
        assert deliver_due(knowing(context, mlops=receiver.address)) == 1


def test_one_that_fails_does_not_keep_the_others_from_being_told(context: Context) -> None:
    drift = Drift(
        retrain={"webhook": "broken", **TASK},  # type: ignore[arg-type]
        review={"webhook": "works"},  # type: ignore[arg-type]
    )
    with receiving(Answer(status=500)) as broken, receiving() as works:
        context = knowing(context, broken=broken.address, works=works.address)
        run = ended(context, drift)

        assert deliver_due(context) == 1

    found = {one.target: one.state for one in context.ledger.deliveries.of(run.id)}
    assert found == {"broken": "waiting", "training.retrain": "waiting", "works": "delivered"}


def test_the_sweep_tells_what_the_finisher_could_not(context: Context) -> None:
    with receiving(Answer(status=503), Answer()) as receiver:
        context = knowing(context, mlops=receiver.address)
        run = ended(context, BY_WEBHOOK)
        deliver_due(context, run.id)
        age_deliveries(context.ledger, DAY)

        assert sweep(context)["delivered"] == 1

    assert state(context, run) == ("delivered", 2, None)


def test_of_deliverers_that_look_at_once_one_tells(context: Context) -> None:
    with receiving() as receiver:
        context = knowing(context, mlops=receiver.address)
        runs = [ended(context, BY_WEBHOOK) for _ in range(3)]

        taken = together([partial(deliver_due, context) for _ in range(6)])

    assert sum(int(str(one)) for one in taken) == 3, taken
    told = [json.loads(posted.body)["run_id"] for posted in receiver.posted]
    assert sorted(told) == sorted(run.id for run in runs)


def test_what_a_killed_deliverer_had_in_hand_is_told_again_under_the_same_id(
    context: Context,
) -> None:
    with receiving(Answer(hangs=True), Answer()) as receiver:
        context = knowing(context, mlops=receiver.address)
        run = ended(context, BY_WEBHOOK)
        url = context.ledger.database.url
        process = multiprocessing.get_context("spawn").Process(
            target=deliver_there, args=(context.settings, url)
        )
        process.start()
        assert receiver.came.wait(180)
        os.kill(int(process.pid or 0), signal.SIGKILL)
        process.join(60)

        assert deliver_due(context) == 0  # it may still be alive, for all that anybody knows
        age_deliveries(context.ledger, HOLD_SECONDS + 1)
        assert deliver_due(context) == 1

    first, second = (posted.headers["webhook-id"] for posted in receiver.posted)
    assert first == second
    assert state(context, run) == ("delivered", 2, None)


def deliver_there(settings: Settings, url: str) -> None:
    """Deliver in a process of its own."""
    opened = Context.open(settings, Bell(lambda: "redis://127.0.0.1:1"))
    deliver_due(replace(opened, ledger=Ledger.open(url, 60.0)))


def test_what_kills_every_deliverer_ends_without_being_told(context: Context) -> None:
    with receiving() as receiver:
        context = knowing(context, mlops=receiver.address)
        run = ended(context, BY_WEBHOOK)
        for _ in range(MOST_ATTEMPTS):
            assert context.ledger.deliveries.claim() is not None
            age_deliveries(context.ledger, HOLD_SECONDS + 1)

        assert deliver_due(context) == 0

    assert receiver.posted == []
    assert state(context, run)[0] == "failed"
    assert "whoever told it died each time" in str(state(context, run)[2])


def test_the_address_and_the_secret_are_in_no_table_and_no_log(context: Context) -> None:
    with (
        structlog.testing.capture_logs() as lines,
        receiving(Answer(status=500)) as receiver,
        refusing() as port,
    ):
        for address in (receiver.address, f"http://127.0.0.1:{port}/{TOKEN}"):
            ended(context, BY_WEBHOOK)
            deliver_due(knowing(context, mlops=address))

    with context.ledger.database.reading() as connection:
        rows = [connection.execute(select(table)).all() for table in metadata.sorted_tables]
    said = [line for line in lines if line["event"] == "delivery_put_off"]
    assert len(said) == 2
    for hidden in (TOKEN, SECRET, "127.0.0.1"):
        assert hidden not in repr(rows)
        assert hidden not in repr(lines)
    assert TOKEN in receiver.posted[0].path


# Tasks


def test_a_task_waits_for_a_broker_that_is_away(context: Context, nobody: str) -> None:
    run = ended(context, BY_TASK)

    assert deliver_due(context) == 0

    found, attempts, said = state(context, run)
    assert (found, attempts) == ("waiting", 1)
    assert str(said).startswith("task training.review: the broker did not answer: ")
    assert "hidden" not in str(said)


WORKER = """
import json
from pathlib import Path
from celery import Celery

app = Celery("theirs", broker={broker!r})
app.conf.update(accept_content=["json"], worker_hijack_root_logger=False)


@app.task(name="training.review", bind=True)
def review(self, event):
    fresh = Path({told!r} + ".new")
    fresh.write_text(json.dumps({{"id": self.request.id, "event": event}}))
    fresh.rename({told!r})
"""


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_worker_of_somebody_else_is_sent_the_task_by_its_name(
    context: Context, broker: str, tmp_path: Path
) -> None:
    told = tmp_path / "told.json"
    (tmp_path / "theirs.py").write_text(WORKER.format(broker=broker, told=str(told)))
    context = replace(context, doorbell=Bell(lambda: broker))
    run = ended(context, BY_TASK)
    assert deliver_due(context) == 1

    command = ["-A", "theirs", "worker", "--pool=solo", "--queues=training", "--loglevel=INFO"]
    celery = [str(SCRIPTS / "celery"), *command]
    with running("theirs", celery, env=os.environ, cwd=tmp_path, logs=tmp_path) as worker:
        worker.wait_for(told.exists)

    (delivery,) = context.ledger.deliveries.of(run.id)
    found = json.loads(told.read_text())
    assert found["id"] == found["event"]["id"] == delivery.id
    assert found["event"] == json.loads(delivery.payload)
    assert found["event"]["action"] == "review"
    assert state(context, run) == ("delivered", 1, None)
