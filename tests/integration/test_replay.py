"""Replays: rows that a run left in quarantine are scored again and added to it, each once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import duckdb
import mlflow
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, Schema

from scoring import Job, Settings
from scoring.api import Run
from scoring.errors import (
    JobFileInvalid,
    ModelNotFound,
    NothingToReplay,
    QuarantineUnusable,
    RunNotInState,
)
from scoring.ledger import RunRecord
from scoring.runs import Occasion, create, finish_run, score_chunk
from scoring.runs.context import Context
from scoring.runs.replay import replay
from tests.conftest import make_settings
from tests.integration import models
from tests.integration.terminal import Terminal
from tests.silent_bell import SilentBell

pytestmark = pytest.mark.slow

BAD = {0: [3, 4, 90], 1: [7], 2: []}
"""Rows with a negative amount, by input file."""
ROWS = 100
"""Rows of each input file."""
SIGNATURE = ModelSignature(inputs=Schema([ColSpec("double", "amount")]))


class Stricter(PythonModel):
    """Raises when a batch holds an amount below -50."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        if (model_input["amount"] < -50).any():
            raise ValueError("amount must not be below -50")
        return model_input["amount"].to_numpy() * 3


class Tolerant(PythonModel):
    """Takes any amount."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return model_input["amount"].to_numpy() * 3


class Greedy(PythonModel):
    """Wants a column more."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return model_input["amount"].to_numpy() * model_input["rate"].to_numpy()


cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests


@dataclass
class Night:
    """A published run with rows in quarantine, and an installation to replay it in."""

    context: Context
    job: Job
    name: str
    run: RunRecord

    def again(self) -> RunRecord:
        return self.context.ledger.runs.get(self.run.id)

    def replay(self, version: str | None = None) -> RunRecord:
        return replay(self.context, self.run.id, version, "operator")

    def replayed(self, version: str | None = None) -> RunRecord:
        """A replay that has ended."""
        return work(self.context, self.replay(version))

    def add_version(self, model: Any, signature: ModelSignature = SIGNATURE) -> None:
        """A further version of the model, in production from now on."""
        models.register(
            self.context.settings.tracking_uri,
            mlflow.pyfunc.log_model,
            model,
            name=self.name,
            signature=signature,
        )

    @property
    def output(self) -> Path:
        return Path(self.run.output)

    @property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.output / "_manifest.json").read_text("utf-8"))
        return found

    def scores(self) -> pd.DataFrame:
        return duckdb.sql(f"SELECT * FROM '{self.output}/*.parquet' ORDER BY id").df()

    def still_quarantined(self, replayed: RunRecord) -> list[tuple[str, int, int]]:
        """Input file, row number and key of what is left."""
        table = pq.read_table(Path(replayed.artifacts) / "quarantine").to_pylist()
        return sorted((Path(r["_input_file"]).name, r["_row"], r["id"]) for r in table)


def work(context: Context, run: RunRecord) -> RunRecord:
    """Score and finish a run, as workers would."""
    for number in range(run.chunks):
        score_chunk(context, run.id, number)
    finish_run(context, run.id)
    return context.ledger.runs.get(run.id)


@pytest.fixture
def context(tmp_path: Path, tracking_uri: str) -> Iterator[Context]:
    settings = make_settings(tmp_path / "home", tracking_uri)
    settings.home.mkdir()
    opened = Context.open(settings, SilentBell())
    opened.ledger.database.ready()
    yield opened
    opened.ledger.database.engine.dispose()


@pytest.fixture(scope="module")
def versions(tracking_uri: str) -> str:
    """A model whose version 1 raises below 0, version 2 below -50, and version 3 never."""
    name = "replayed-amounts"
    for model in (models.Picky(), Stricter(), Tolerant()):
        models.register(
            tracking_uri, mlflow.pyfunc.log_model, model, name=name, signature=SIGNATURE
        )
    return name


def input_files(folder: Path) -> pd.DataFrame:
    """Three files of amounts; those in `BAD` are negative, and grow worse."""
    folder.mkdir()
    frames = []
    for number, bad in BAD.items():
        ids = range(number * ROWS, (number + 1) * ROWS)
        amounts = [float(n) for n in ids]
        for row in bad:
            amounts[row] = -float(row)
        frame = pd.DataFrame({"id": ids, "amount": amounts, "place": f"place {number}"})
        frame.to_parquet(folder / f"{number}.parquet", index=False)
        frames.append(frame)
    return pd.concat(frames)


@pytest.fixture
def night(context: Context, versions: str, tmp_path: Path) -> Night:
    """Version 1 has scored 300 rows but four, with a chunk for each file."""
    input_files(tmp_path / "in")
    job = Job(
        name="amounts",
        model=f"models:/{versions}/1",
        key=["id"],
        input={"path": str(tmp_path / "in")},
        output={"path": str(tmp_path / "scores"), "passthrough": ["place"]},
        execution={"device": "cpu", "chunk_rows": ROWS, "error_budget": 0.1},
        precision={"variant": "native"},
        drift={"on_small": ["hold"], "on_moderate": ["hold"], "on_severe": ["fail"]},
    )
    run = work(context, create(context, job, Occasion(), trigger="manual").run)
    assert (run.state, run.rows_scored, run.rows_quarantined, run.chunks) == (
        "published",
        296,
        4,
        3,
    )
    return Night(context, job, versions, run)


def balanced(night: Night) -> None:
    """Every input row once: in the output or in quarantine; the ledger and the manifest agree."""
    run, manifest = night.again(), night.manifest
    rows = len(night.scores())
    assert night.scores()["id"].is_unique
    assert (run.rows_scored, manifest["rows_scored"]) == (rows, rows)
    assert run.rows_in == manifest["rows_in"] == rows + run.rows_quarantined
    assert manifest["rows_quarantined"] == run.rows_quarantined
    assert sum(part["rows"] for part in manifest["parts"]) == rows
    assert sorted(os.listdir(night.output)) == sorted(
        ["_SUCCESS", "_manifest.json", *(part["file"] for part in manifest["parts"])]
    )


def test_replayed_rows_are_added_to_the_run_and_every_input_row_is_there_once(
    night: Night, tmp_path: Path
) -> None:
    replayed = night.replayed("3")

    assert (replayed.state, replayed.rows_in, replayed.rows_scored) == ("published", 4, 4)
    assert (replayed.replay_of, replayed.trigger) == (night.run.id, "replay")
    found = night.scores()
    assert found["id"].tolist() == list(range(300))
    given = pd.concat(pd.read_parquet(path) for path in sorted((tmp_path / "in").iterdir()))
    assert found["score"].tolist() == (given["amount"] * 3).tolist()
    assert found["place"].tolist() == given["place"].tolist()
    balanced(night)
    (entry,) = night.manifest["replays"]
    assert entry["run_id"] == replayed.id
    assert (entry["model_version"], entry["model_digest"]) == ("3", replayed.model_digest)
    assert (entry["rows_scored"], entry["rows_quarantined"]) == (4, 0)
    assert entry["parts"] == ["part-00003.parquet"]
    assert night.manifest["model_version"] == "1"
    assert not (tmp_path / ".nightscore").exists()


def test_what_still_cannot_be_scored_stays_with_its_own_file_and_row_until_it_can(
    night: Night,
) -> None:
    first = night.replayed("2")
    assert (first.state, first.rows_scored, first.rows_quarantined) == ("published", 3, 1)
    assert night.still_quarantined(first) == [("0.parquet", 90, 90)]
    balanced(night)

    again = night.replayed("2")
    assert (again.rows_in, again.rows_scored, again.rows_quarantined) == (1, 0, 1)
    assert night.still_quarantined(again) == [("0.parquet", 90, 90)]
    balanced(night)

    last = night.replayed("3")
    assert (last.rows_in, last.rows_scored, last.rows_quarantined) == (1, 1, 0)
    balanced(night)
    assert night.scores()["id"].tolist() == list(range(300))
    added = [(one["run_id"], one["parts"]) for one in night.manifest["replays"]]
    assert added == [
        (first.id, ["part-00003.parquet"]),
        (again.id, []),
        (last.id, ["part-00004.parquet"]),
    ]
    with pytest.raises(NothingToReplay, match="has no row in quarantine"):
        night.replay("3")


def test_a_replay_is_in_the_history_of_both_and_in_what_commands_show(night: Night) -> None:
    replayed = night.replayed("2")

    def events(run_id: str) -> list[tuple[str, dict[str, Any]]]:
        return [(one.event, one.detail) for one in night.context.ledger.runs.history(run_id)]

    counts = {"rows_scored": 3, "rows_quarantined": 1}
    assert events(night.run.id)[-1] == ("replayed", {"run": replayed.id, **counts})
    assert events(replayed.id)[-1] == ("published", counts)
    assert events(replayed.id)[0] == (
        "created",
        {"trigger": "replay", "slot": None, "who": "operator"},
    )
    of_run = Run(night.run.id, night.context).to_dict()
    of_replay = Run(replayed.id, night.context).to_dict()
    assert (of_run["replay_of"], of_run["replays"]) == (None, [replayed.id])
    assert (of_replay["replay_of"], of_replay["replays"]) == (night.run.id, [])
    assert Run(replayed.id, night.context).scores().count_rows() == 299


def test_a_replay_uses_the_version_that_the_jobs_model_names_now(night: Night) -> None:
    client = mlflow.MlflowClient(night.context.settings.tracking_uri)
    client.set_registered_model_alias(night.name, "nightly", "2")
    job = night.job.model_copy(update={"model": f"models:/{night.name}@nightly"})
    run = work(night.context, create(night.context, job, Occasion(), trigger="manual").run)
    assert (run.model_version, run.rows_quarantined) == ("2", 1)
    client.set_registered_model_alias(night.name, "nightly", "3")

    replayed = work(night.context, replay(night.context, run.id))

    assert (replayed.model_version, replayed.model) == ("3", f"models:/{night.name}@nightly")
    assert night.context.ledger.runs.get(run.id).rows_quarantined == 0


def test_a_version_that_is_none_is_refused(night: Night) -> None:
    with pytest.raises(JobFileInvalid, match="model"):
        night.replay("two")
    with pytest.raises(ModelNotFound):
        night.replay("99")


def test_the_drift_of_a_replay_is_written_down_but_holds_and_tells_nothing(night: Night) -> None:
    replayed = night.replayed("3")

    report = Run(replayed.id, night.context).report()
    assert (report["rows"], report["outcome"], report["actions"]) == (4, "publish", [])
    assert night.context.ledger.deliveries.of(replayed.id) == []
    events = [one.event for one in night.context.ledger.runs.history(replayed.id)]
    assert "drift" not in events


def test_of_two_replays_at_once_one_is_published_and_the_other_says_why_not(
    night: Night,
) -> None:
    one, other = night.replay("2"), night.replay("3")

    first, late = work(night.context, other), work(night.context, one)

    assert first.state == "published"
    assert late.state == "failed"
    assert f"replay {one.id} of run {night.run.id} was overtaken by {other.id}" in str(late.error)
    balanced(night)
    assert [entry["run_id"] for entry in night.manifest["replays"]] == [first.id]
    night.context.ledger.runs.retry(late.id)
    finish_run(night.context, late.id)
    assert night.context.ledger.runs.get(late.id).state == "failed"
    balanced(night)


def test_a_replay_of_a_run_that_was_replaced_meanwhile_changes_nothing(night: Night) -> None:
    started = night.replay("3")
    job = night.job.model_copy(update={"model": f"models:/{night.name}/3"})
    later = create(night.context, job, Occasion(), trigger="manual").run
    later = work(night.context, later)
    assert later.state == "published", later.error
    before = night.manifest

    late = work(night.context, started)

    assert late.state == "failed"
    assert f"replaced by {later.id}" in str(late.error)
    assert night.manifest == before
    assert (night.again().rows_scored, night.again().rows_quarantined) == (296, 4)
    with pytest.raises(RunNotInState, match=f"replaced by {later.id}"):
        night.replay("3")


@pytest.mark.parametrize("state", ["held", "failed", "cancelled", "running"])
def test_what_to_do_with_a_run_that_is_not_published_is_said(night: Night, state: str) -> None:
    from sqlalchemy import update

    from scoring.ledger.tables import runs

    with night.context.ledger.database.transaction() as connection:
        connection.execute(update(runs).values(state=state))

    instead = {"held": "scoring release", "running": "wait"}.get(state, "scoring retry")
    with pytest.raises(RunNotInState, match=rf"is {state}; .*published.*{instead}"):
        night.replay()


def test_a_replay_is_not_replayed_itself(night: Night) -> None:
    replayed = night.replayed("2")

    with pytest.raises(RunNotInState, match=f"`scoring replay {night.run.id}`"):
        replay(night.context, replayed.id)


def test_scores_of_another_type_are_not_mixed_into_the_run(night: Night) -> None:
    night.add_version(models.Whole())
    before = night.manifest

    refused = night.replayed(latest_version(night))

    assert refused.state == "failed"
    assert "its parts do not have the same columns" in str(refused.error)
    assert night.manifest == before
    balanced(night)


def latest_version(night: Night) -> str:
    client = mlflow.MlflowClient(night.context.settings.tracking_uri)
    found = client.search_model_versions(f"name='{night.name}'")
    return str(max(int(one.version) for one in found))


def test_a_version_that_needs_what_was_not_read_is_refused(night: Night) -> None:
    schema = Schema([ColSpec("double", "amount"), ColSpec("double", "rate")])
    night.add_version(Greedy(), ModelSignature(inputs=schema))

    with pytest.raises(QuarantineUnusable, match="lacks rate, which this version needs"):
        night.replay(latest_version(night))


def test_rows_that_were_written_as_text_are_refused(night: Night) -> None:
    (first, _) = sorted((Path(night.run.artifacts) / "quarantine").iterdir())
    table = pq.read_table(first)
    column, amounts = table.schema.get_field_index("amount"), table["amount"].cast(pa.string())
    pq.write_table(table.set_column(column, "amount", amounts), first)

    with pytest.raises(QuarantineUnusable, match=r"column amount of part-00000\.parquet is text"):
        night.replay("3")


@pytest.mark.parametrize("damage", ["gone", "shorter"])
def test_a_quarantine_that_is_not_whole_is_refused(night: Night, damage: str) -> None:
    folder = Path(night.run.artifacts) / "quarantine"
    if damage == "gone":
        shutil.rmtree(folder)
    else:
        min(folder.iterdir()).unlink()
    expected = {"gone": "its files are gone", "shorter": "it holds 1 rows, and .* left 4"}[damage]

    with pytest.raises(QuarantineUnusable, match=expected):
        night.replay("3")


KILLED = """
import os, signal, sys
from pathlib import Path
from scoring.data import publish
from scoring.ledger import replays
from scoring.runs import finish_run
from scoring.runs.context import Context
from scoring.settings import Settings
from tests.conftest import make_settings
from tests.silent_bell import SilentBell

home, tracking_uri, run_id, where = sys.argv[1:]
context = Context.open(make_settings(Path(home), tracking_uri), SilentBell())
places = {"assembled": (publish, "publish"), "swapped": (replays.Replays, "publish"),
          "counted": (publish, "discard")}
owner, name = places[where]
setattr(owner, name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
finish_run(context, run_id)
"""


@pytest.mark.parametrize("where", ["assembled", "swapped", "counted"])
def test_a_replay_whose_finisher_is_killed_is_the_same_in_the_end(
    night: Night, where: str, tracking_uri: str
) -> None:
    started = night.replay("3")
    for number in range(started.chunks):
        score_chunk(night.context, started.id, number)
    home = str(night.context.settings.home)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, home, tracking_uri, started.id, where],
        check=False,
        timeout=180,
    )
    assert killed.returncode == -signal.SIGKILL

    finish_run(night.context, started.id)

    assert night.context.ledger.runs.get(started.id).state == "published"
    assert night.again().rows_quarantined == 0
    assert [one["run_id"] for one in night.manifest["replays"]] == [started.id]
    balanced(night)
    assert night.scores()["id"].tolist() == list(range(300))


def test_nights_are_compared_with_nights_and_not_with_replays(night: Night) -> None:
    night.replayed("3")
    job = night.job.model_copy(
        update={"drift": night.job.drift.model_copy(update={"reference": "previous"})}
    )

    later = create(night.context, job, Occasion(), trigger="manual").run

    report = work(night.context, later)
    document = Run(report.id, night.context).report()
    assert document["compared_with"]["runs"] == [night.run.id]
    assert [one["run_id"] for one in document["trend"]] == [night.run.id, later.id]


def test_replay_typed_waits_for_the_workers_and_is_shown_by_the_other_commands(
    tmp_path: Path, stack: Settings, versions: str, write_job: Callable[..., Path]
) -> None:
    given = input_files(tmp_path / "in")
    more = '[execution]\ndevice = "cpu"\nerror_budget = 0.1\n[precision]\nvariant = "native"\n'
    job = write_job(
        "typed", f"models:/{versions}/1", str(tmp_path / "in"), str(tmp_path / "out"), more
    )
    job.write_text(job.read_text("utf-8").replace("\n[input]", '\nkey = ["id"]\n[input]', 1))
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    environment |= {"SCORING_HOME": str(stack.home), "MLFLOW_TRACKING_URI": stack.tracking_uri}
    scoring = Terminal(tmp_path, environment)
    run = scoring("run", str(job), "--json").json
    assert run["rows_quarantined"] == 4

    typed = scoring("replay", "latest", "--version", "3", "--json")

    assert typed.code == 0, typed.err
    assert (typed.json["replay_of"], typed.json["state"]) == (run["id"], "published")
    assert "4 rows were added" in typed.err
    found = pd.read_parquet(tmp_path / "out").sort_values("id")
    assert found["score"].tolist() == (given["amount"] * 3).tolist()
    status = scoring("status", run["id"], "--json").json
    assert (status["replays"], status["rows_scored"]) == ([typed.json["id"]], 300)
    listed = scoring("runs")
    assert "replay of" in listed.out
    nothing = scoring("replay", run["id"], "--json")
    assert (nothing.code, nothing.json["id"]) == (0, run["id"])
    assert "has no row in quarantine" in nothing.err
    refused = scoring("replay", typed.json["id"])
    assert (refused.code, refused.out) == (2, "")
    assert not (tmp_path / ".nightscore").exists()
