"""What people decide about a run that is held: released or rejected, by whom and why, once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import structlog
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from scoring import Job, Settings, get_run
from scoring.api import Run, open_context
from scoring.data.publish import STAGING, discard
from scoring.errors import BrokerNotConfigured, RunFailed, RunNotInState
from scoring.models import Registry
from scoring.models.patience import Patience
from scoring.runs import Occasion, create, finish_run, score_chunk
from scoring.runs.context import Context
from scoring.runs.sweep import sweep
from scoring.stack import _broker
from scoring.wake import CONTROL
from tests.conftest import make_settings
from tests.contract.ledgers import age_leases, finishing_run, new_delivery
from tests.integration import models
from tests.integration.processes import running
from tests.integration.terminal import Terminal
from tests.ports import free_port
from tests.silent_bell import SilentBell

WHY = "half of the airports are missing"


@dataclass(frozen=True, slots=True)
class Held:
    """A held run, beside an earlier output of its job."""

    run: Run
    context: Context
    output: Path
    parts: Path
    artifacts: Path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path / "home", "sqlite://")


@pytest.fixture
def held(settings: Settings, tmp_path: Path) -> Iterator[Held]:
    """Its scoring is not what is tested: parts, report and earlier output are stand-ins."""
    context = open_context(settings)
    output, artifacts = tmp_path / "scores", tmp_path / "artifacts"
    parts = tmp_path / STAGING / "held"
    for folder, file in ((output, "earlier"), (artifacts, "drift.html"), (parts, "part")):
        folder.mkdir(parents=True)
        (folder / file).write_text(file)
    run_id, hold = finishing_run(
        context.ledger, output=str(output), artifacts=str(artifacts), staging=str(parts)
    )
    told = [
        new_delivery(target="mlops"),
        new_delivery(action="review", channel="task", target="training.review", task_queue="x"),
    ]
    context.ledger.runs.end(hold, "held", drift_severity="severe", deliveries=told)
    yield Held(Run(run_id, context), context, output, parts, artifacts)
    context.ledger.database.engine.dispose()


@pytest.fixture
def scoring(settings: Settings, tmp_path: Path) -> Terminal:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LOGNAME": "operator"}
    return Terminal(tmp_path, {**environment, "SCORING_HOME": str(settings.home)})


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real one, whose queues nobody reads."""
    folder, port = tmp_path_factory.mktemp("broker"), free_port()
    command = _broker(port, folder)
    with running("broker", command, env=os.environ, cwd=folder, logs=folder) as valkey:
        valkey.wait_for("Ready to accept connections")
        yield f"redis://127.0.0.1:{port}/0"


def test_a_rejected_run_loses_its_parts_and_nothing_else(held: Held) -> None:
    held.run.reject("operator", WHY)

    run = held.run.to_dict()
    assert (run["state"], run["error"]) == ("cancelled", f"rejected by operator: {WHY}")
    assert (run["decision"], run["decided_by"], run["decision_reason"]) == (
        "rejected",
        "operator",
        WHY,
    )
    assert not held.parts.parent.exists()
    assert os.listdir(held.output) == ["earlier"]
    assert os.listdir(held.artifacts) == ["drift.html"]
    with pytest.raises(RunFailed, match=f"is cancelled: rejected by operator: {WHY}"):
        held.run.wait()


def test_a_rejected_run_can_never_be_published(held: Held, settings: Settings, broker: str) -> None:
    held.run.reject("operator", WHY)
    run = get_run(held.run.id, settings=settings.model_copy(update={"broker_url": broker}))

    with pytest.raises(
        RunNotInState, match=f"cancelled, rejected by operator: {WHY}; this needs a run"
    ):
        run.retry()
    with pytest.raises(RunNotInState, match="this needs a run that is held"):
        run.release("reviewer")
    with pytest.raises(RunNotInState, match="this needs a run that is held"):
        run.reject("reviewer")
    with pytest.raises(RunNotInState):
        run.cancel()

    assert held.context.ledger.sweep.unfinished() == []


def test_parts_that_a_rejection_left_behind_are_removed_by_the_sweep(held: Held) -> None:
    held.context.ledger.decisions.reject(
        held.run.id, "operator", WHY
    )  # and whoever did it died here
    assert held.parts.exists()

    done = [sweep(held.context)["rejected"], sweep(held.context)["rejected"]]

    assert done == [1, 0]
    assert not held.parts.exists()
    assert held.artifacts.exists()


def test_parts_out_of_reach_are_left_to_whoever_can_reach_them(held: Held) -> None:
    elsewhere = held.parts.parent.rename(held.parts.parent.with_name("another host"))
    held.output.rename(held.output.with_name("not mounted"))
    held.run.reject("operator", WHY)
    assert sweep(held.context)["rejected"] == 0

    elsewhere.rename(held.parts.parent)

    assert [sweep(held.context)["rejected"] for _ in range(2)] == [1, 0]
    assert not held.parts.exists()


def test_parts_that_somebody_has_removed_are_not_looked_for_again(held: Held) -> None:
    held.context.ledger.decisions.reject(held.run.id, "operator", WHY)
    discard(held.parts)
    assert not held.parts.parent.exists()

    assert sweep(held.context)["rejected"] == 1

    assert held.context.ledger.decisions.with_parts() == []


def test_parts_that_cannot_be_removed_hold_up_neither_the_sweep_nor_other_rejected_runs(
    held: Held, tmp_path: Path
) -> None:
    ledger = held.context.ledger
    link = tmp_path / STAGING / "link"  # which nobody follows to remove what it leads to
    link.symlink_to(held.artifacts)
    no_folder = held.artifacts / "drift.html" / "parts"
    ledger.decisions.reject(held.run.id, "operator", WHY)
    for staging in (link, no_folder):
        run_id, hold = finishing_run(ledger, output=str(held.output), staging=str(staging))
        ledger.runs.end(hold, "held")
        ledger.decisions.reject(run_id, "operator", WHY)
    ready, _ = finishing_run(ledger)
    age_leases(ledger, 1000)

    with structlog.testing.capture_logs() as lines:
        done = sweep(replace(held.context, doorbell=SilentBell()))

    assert (done["rejected"], done["finishing"]) == (2, 1)
    assert link.is_symlink()
    assert len(ledger.decisions.with_parts()) == 1
    (said,) = [line for line in lines if line["event"] == "parts_not_removed"]
    assert said["path"] == str(link)
    assert ledger.sweep.unfinished() == [ready]


def test_a_held_run_that_is_left_alone_keeps_its_parts(held: Held) -> None:
    sweep(held.context)

    assert held.parts.exists()
    assert held.run.status == "held"


def test_a_released_run_has_a_finisher_called_and_its_history_says_by_whom(
    held: Held, settings: Settings, broker: str
) -> None:
    run = get_run(held.run.id, settings=settings.model_copy(update={"broker_url": broker}))
    waiting = run._context.doorbell.waiting(CONTROL)

    run.release("operator", "a holiday, as every year")

    assert run.status == "finishing"
    assert run._context.doorbell.waiting(CONTROL) == waiting + 1
    event = run.history()[-1]
    assert event["event"] == "released"
    assert event["detail"] == {"who": "operator", "reason": "a holiday, as every year"}
    assert event["at"].endswith("+00:00")
    with pytest.raises(RunNotInState, match="is finishing; this needs a run that is held"):
        run.reject("reviewer")


def test_a_release_without_a_broker_leaves_the_run_held(held: Held) -> None:
    with pytest.raises(BrokerNotConfigured):
        held.run.release("operator")

    assert held.run.status == "held"
    assert held.run.to_dict()["decision"] is None


@pytest.mark.slow
def test_a_run_with_one_attempt_is_published_when_released_and_its_drift_is_told_once(
    tmp_path: Path, tracking_uri: str
) -> None:
    settings = make_settings(tmp_path / "home", tracking_uri)
    settings.home.mkdir()
    patient = Registry(tracking_uri, Patience(optional=120.0))  # that it was slow is an event too
    context = replace(Context.open(settings, SilentBell()), registry=patient)
    context.ledger.database.ready()
    job = Job(
        name="released",
        model=models.register(
            tracking_uri,
            mlflow.pyfunc.log_model,
            models.AsSeries(),
            signature=ModelSignature(inputs=Schema([ColSpec("double", "amount")])),
        ),
        input={"path": str(tmp_path / "in")},
        output={"path": str(tmp_path / "out")},
        execution={"device": "cpu", "max_attempts": 1},
        precision={"variant": "native"},
        drift={"reference": "previous", "on_severe": ["hold"]},
    )

    def scored(first: float) -> str:
        (tmp_path / "in").mkdir(exist_ok=True)
        amounts = pa.table({"amount": [first + n for n in range(2_000)]})
        pq.write_table(amounts, tmp_path / "in" / "rows.parquet")
        run = create(context, job, Occasion(), trigger="manual").run
        score_chunk(context, run.id, 0)
        finish_run(context, run.id)
        return run.id

    assert context.ledger.runs.get(scored(0.0)).state == "published"
    held = scored(9_000.0)
    assert context.ledger.runs.get(held).state == "held"
    context.ledger.decisions.release(held, "operator")

    assert finish_run(context, held) == "published"

    events = [event.event for event in context.ledger.runs.history(held)]
    assert events[-4:] == ["drift", "held", "released", "published"]
    assert events.count("drift") == 1
    context.ledger.database.engine.dispose()


@pytest.mark.slow
def test_reject_typed_drops_the_run_and_status_shows_who_decided_and_who_is_told(
    held: Held, scoring: Terminal
) -> None:
    rejected = scoring("reject", held.run.id, "--reason", WHY, "--json")
    assert rejected.code == 0, rejected.err
    assert rejected.json["state"] == "cancelled"
    assert rejected.json["error"] == f"rejected by operator: {WHY}"

    again = scoring("reject", held.run.id)
    assert again.code == 2
    assert f"is cancelled, rejected by operator: {WHY}; this needs a run that is held" in again.err

    sweep(held.context)  # nobody is there yet to tell
    status = scoring("status", held.run.id, "--history", "--json").json
    assert status["decided_by"] == "operator"
    assert [event["event"] for event in status["history"]] == ["created", "held", "rejected"]
    assert {one["target"]: one["attempts"] for one in status["deliveries"]} == {
        "mlops": 1,
        "training.review": 1,
    }
    plain = scoring("status", held.run.id, "--history")
    for shown in (
        WHY,
        "webhook mlops",
        "task training.review",
        "no webhook mlops in SCORING_WEBHOOKS",
        f"who: operator, reason: {WHY}",
    ):
        assert shown in plain.out, plain.out
    assert "history" not in scoring("status", held.run.id, "--json").json


@pytest.mark.slow
def test_a_rejection_without_a_reason_is_said_in_one_line(held: Held, scoring: Terminal) -> None:
    typed = scoring("reject", "latest")

    assert (typed.code, typed.out) == (0, "")
    assert typed.err == f"{held.run.id} is cancelled\n"
    assert held.run.error == "rejected by operator"
