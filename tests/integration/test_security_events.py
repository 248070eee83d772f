"""Everything that is done with runs is in the log of events, with who did it; and stays there."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from sqlalchemy import event as sqlalchemy_event

from scoring import Settings
from scoring.api import Run, open_context
from scoring.errors import BrokerNotConfigured, BrokerUnreachable, SubmissionRefused
from scoring.runs import Occasion, create, create_or_record, this_caller
from scoring.runs.context import Context
from tests.conftest import make_settings
from tests.integration.in_process import created, finished, job, opened, rows, scored
from tests.integration.terminal import Terminal

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Place:
    """An installation, rows and a model with two versions; nothing was done yet."""

    settings: Settings
    context: Context
    model: str
    source: Path
    output: Path

    def events(self, run_id: str) -> list[tuple[str, dict[str, Any]]]:
        return [(one.event, one.detail) for one in self.context.ledger.runs.history(run_id)]


@pytest.fixture
def place(tmp_path: Path, tracking_uri: str, model: str) -> Iterator[Place]:
    broker = "redis://127.0.0.1:1/0"  # nobody: what wakes is not what is tested
    settings = make_settings(tmp_path / "home", tracking_uri, broker_url=broker)
    with opened(settings) as context:
        yield Place(settings, context, model, rows(tmp_path / "in.parquet"), tmp_path / "out")


@pytest.fixture
def scoring(place: Place, tmp_path: Path) -> Terminal:
    settings = place.settings
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": str(tmp_path),
        "LOGNAME": "operator",
        "SCORING_HOME": str(settings.home),
        "SCORING_BROKER_URL": settings.broker_url,
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "SCORING_SUBMISSIONS_PER_MINUTE": "1",
    }
    return Terminal(tmp_path, environment)


def promoted(place: Place) -> None:
    """Register the model's files as another version, and put it into production."""
    client = MlflowClient(place.settings.tracking_uri)
    name = place.context.registry.resolve(place.model).name
    source = client.get_model_version_by_alias(name, "production").source
    fresh = client.create_model_version(name, source)
    client.set_registered_model_alias(name, "production", fresh.version)


def test_a_promotion_is_seen_by_the_first_run_after_it_and_by_no_other(place: Place) -> None:
    wanted = job(place.model, place.source, place.output)
    first = created(place.context, wanted)
    second = created(place.context, wanted)
    promoted(place)
    third = created(place.context, wanted)
    fourth = created(place.context, wanted)

    seen = {run.id: dict(place.events(run.id)) for run in (first, second, third, fourth)}
    assert [("promotion_seen" in events) for events in seen.values()] == [False, False, True, False]
    told = seen[third.id]["promotion_seen"]
    assert (told["from"], told["to"]) == (
        f"models:/{second.model_name}/{second.model_version}",
        f"models:/{third.model_name}/{third.model_version}",
    )
    assert told["before"] == second.id
    other = created(place.context, job(place.model, place.source, place.output, name="other"))
    assert "promotion_seen" not in dict(place.events(other.id))


def test_each_thing_that_is_done_is_an_event_with_who_did_it(place: Place) -> None:
    context, wanted = place.context, job(place.model, place.source, place.output)
    run = created(context, wanted, who="somebody@somewhere")
    assert Run(run.id, context).cancel().status == "cancelled"
    Run(run.id, context).retry("operator")
    assert scored(context, run).state == "published"
    assert [(name, detail.get("who")) for name, detail in place.events(run.id)] == [
        ("created", "somebody@somewhere"),
        ("cancelled", this_caller()),
        ("retried", "operator"),
        ("variant_pinned", None),
        ("published", None),
    ]

    far = pq.read_table(place.source).to_pandas()
    far[["a", "b"]] += 100
    far.to_parquet(place.source)
    drift = {"reference": "previous", "on_severe": ["hold"]}
    for decide in ("reject", "release"):  # what is released is what the next is compared with
        held = created(context, job(place.model, place.source, place.output, drift=drift))
        assert scored(context, held).state == "held"
        getattr(Run(held.id, context), decide)("reviewer", "a reason")
        finished(context, held)
        names = [name for name, _ in place.events(held.id)]
        after = ["released", "published"] if decide == "release" else ["rejected"]
        assert names[-len(after) - 1 :] == ["held", *after]
        decision = dict(place.events(held.id))[after[0]]
        assert decision == {"who": "reviewer", "reason": "a reason"}

    assert context.ledger.audit.verify().intact


def test_nothing_in_the_product_changes_or_removes_an_event(place: Place) -> None:
    """A whole life of runs, with every statement that reaches the database looked at."""
    statements: list[str] = []
    engine = place.context.ledger.database.engine

    def look(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(" ".join(statement.lower().split()))

    sqlalchemy_event.listen(engine, "before_cursor_execute", look)
    with engine.begin() as connection:
        for verb in ("UPDATE", "DELETE"):
            connection.exec_driver_sql(
                f"CREATE TRIGGER no_{verb} BEFORE {verb} ON events "
                "BEGIN SELECT RAISE(ABORT, 'events are append-only'); END"
            )

    test_each_thing_that_is_done_is_an_event_with_who_did_it(place)

    told = [one for one in statements if " events" in one and not one.startswith("create trigger")]
    assert len(told) > 10
    assert {one.split()[0] for one in told} == {"insert", "select"}


TAMPERING = {
    "a changed reason": (
        "UPDATE events SET detail = replace(detail, 'operator', 'nobody') WHERE event = 'retried'",
        "changed",
    ),
    "a changed time": ("UPDATE events SET at = at - 3600 WHERE position = 2", "changed"),
    "a removed row": ("DELETE FROM events WHERE event = 'cancelled'", "gap"),
    "a removed end": (
        "DELETE FROM events WHERE position = (SELECT max(position) FROM events)",
        "removed from the end",
    ),
    "an inserted row": (
        "INSERT INTO events (position, run_id, at, event, detail, hash) SELECT "
        "max(position) + 1, max(run_id), max(at), 'released', '{}', max(hash) FROM events",
        "beyond the end",
    ),
    "all rows removed": ("DELETE FROM events", "removed from the end"),
}


def test_the_command_finds_what_was_done_to_the_file(place: Place, scoring: Terminal) -> None:
    run = created(place.context, job(place.model, place.source, place.output), who="a@b")
    Run(run.id, place.context).cancel("operator")
    Run(run.id, place.context).retry("operator")
    place.context.ledger.runs.note(run.id, "noted", text="the last")
    file = place.settings.home / "ledger.db"
    assert scoring("audit", "verify", "--json").json["intact"] is True

    for name, (statement, told) in TAMPERING.items():
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("SAVEPOINT before")
            kept = connection.execute("SELECT * FROM events").fetchall()
            connection.execute(statement)
            connection.commit()

        verdict = place.context.ledger.audit.verify()

        assert not verdict.intact, name
        assert told in str([fault.what for fault in verdict.faults]), name
        if name == "a changed reason":
            typed = scoring("audit", "verify", "--json")
            assert (typed.code, typed.json["intact"]) == (1, False)
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("DELETE FROM events")
            marks = ",".join("?" * len(kept[0]))
            connection.executemany(f"INSERT INTO events VALUES ({marks})", kept)
            connection.commit()
        assert place.context.ledger.audit.verify().intact, name


def test_a_caller_who_submits_too_often_is_told_and_schedules_are_not(place: Place) -> None:
    few = place.settings.model_copy(update={"submissions_per_minute": 1})
    wanted = job(place.model, place.source, place.output)
    with opened(few) as context:
        created(context, wanted, who="a@b")
        with pytest.raises(SubmissionRefused, match="a@b") as refused:
            created(context, wanted, who="a@b")
        with pytest.raises(SubmissionRefused):  # so that its message is tried again, not lost
            create_or_record(context, wanted, Occasion(), trigger="manual", priority=3, who="a@b")
        for slot in range(3):
            occasion = Occasion(slot=f"2026-11-2{slot}T02:30:00+00:00", scheduled=True)
            assert create(context, wanted, occasion, trigger="schedule").new
        created(context, wanted, who="somebody@else")

        assert "SCORING_SUBMISSIONS_PER_MINUTE" in str(refused.value)
        assert len(context.ledger.runs.latest()) == 5


def test_the_command_and_the_api_count_as_one_caller(place: Place, scoring: Terminal) -> None:
    from scoring import submit

    few = place.settings.model_copy(update={"submissions_per_minute": 1})
    wanted = job(place.model, place.source, place.output)
    with pytest.raises((BrokerUnreachable, BrokerNotConfigured)):  # recorded, not woken
        submit(wanted, settings=few)

    with pytest.raises(SubmissionRefused, match="minute") as refused:
        submit(wanted, settings=few)

    assert this_caller() in str(refused.value)
    assert len(open_context(few).ledger.runs.latest()) == 1
    assert scoring("runs", "--json").json[0]["trigger"] == "manual"
