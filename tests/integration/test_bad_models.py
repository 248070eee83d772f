"""Bad models: for each, what becomes of its rows and of the run, and what the user is told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from scoring import Job, Settings, submit
from scoring.errors import ModelUnsupported, SignatureMissing
from scoring.job import Precision
from scoring.ledger import RunRecord
from scoring.runs import Context, Occasion, calling, create, finish_run, score_chunk
from scoring.stack import Stack
from tests.conftest import make_settings
from tests.integration import bad_models
from tests.integration.models import register
from tests.integration.processes import until
from tests.silent_bell import SilentBell

pytestmark = pytest.mark.slow

WAIT = 400
"""Seconds after which a run counts as stuck."""
ROWS = 40
"""Rows of a chunk; acts are in the first ones."""


@dataclass(frozen=True, slots=True)
class Place:
    """An installation in which nothing happens by itself, and folders of its own."""

    context: Context
    folder: Path

    def job(self, model: str, **execution: Any) -> Job:
        return Job(
            name="bad-models",
            model=model,
            key=("id",),
            input={"path": str(self.folder / "in")},
            output={"path": str(self.folder / "out")},
            execution={"device": "cpu", "error_budget": 0.5, "max_attempts": 2, **execution},
        )

    def create(self, model: str, acts: list[str], **execution: Any) -> RunRecord:
        write(self.folder / "in", acts)
        job = self.job(model, **execution)
        return create(self.context, job, Occasion(), trigger="manual").run

    def score(self, run: RunRecord) -> RunRecord:
        """What the workers would do, in this process, until the run has ended."""
        for _ in range(run.max_attempts):
            for number in range(run.chunks):
                score_chunk(self.context, run.id, number)
        finish_run(self.context, run.id)
        return self.context.ledger.runs.get(run.id)

    def lose_workers(self, run: RunRecord, deaths: int) -> None:
        """So many attempts at the first chunk whose worker died without a word."""
        for _ in range(deaths):
            claim = self.context.ledger.chunks.claim(run.id, 0, "somebody who died")
            assert claim is not None
            self.context.ledger.chunks.expire(run.id, 0, claim.attempt)

    @property
    def scores(self) -> dict[int, Any]:
        found = pq.read_table(self.folder / "out").to_pydict()
        return dict(zip(found["id"], found["score"], strict=True))


def write(folder: Path, acts: list[str], rows: int = ROWS) -> Path:
    """Rows of which the first ones name an act each."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {
        "id": range(rows),
        "amount": [float(number) for number in range(rows)],
        "act": [*acts, *[""] * (rows - len(acts))],
    }
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    return folder / "rows.parquet"


def quarantine(run: RunRecord) -> dict[int, dict[str, Any]]:
    """Every quarantined row of a run that has ended, by its row number."""
    files = sorted(Path(run.artifacts, "quarantine").glob("*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert len({row["_row"] for row in rows}) == len(rows)
    return {row["_row"]: row for row in rows}


@pytest.fixture(scope="module")
def actor(tracking_uri: str) -> str:
    return register(
        tracking_uri, mlflow.pyfunc.log_model, bad_models.Actor(), signature=bad_models.ACTS
    )


def open_place(folder: Path, tracking_uri: str) -> Place:
    settings = make_settings(folder / "home", tracking_uri)
    settings.home.mkdir(parents=True)
    context = Context.open(settings, SilentBell())
    context.ledger.database.ready()
    return Place(context, folder)


@pytest.fixture
def place(tmp_path: Path, tracking_uri: str) -> Iterator[Place]:
    opened = open_place(tmp_path, tracking_uri)
    yield opened
    opened.context.ledger.database.engine.dispose()


# Rows that the model refuses, in whatever way

REFUSED = {
    "value": "the model raised ValueError: amount must be even",
    "silent": "the model raised ValueError: without a message",
    "long": f"the model raised ValueError: {'x' * 300}",
    "control": "the model raised ValueError: "
    r"bell \x07, null \x00, colour \x1b[31m and \ud800",
    "unspeakable": "the model raised Unspeakable: "
    "its message cannot be shown, that raises TypeError",
    "stop": "the model raised StopIteration: the end",
    "recursion": "the model raised RecursionError: maximum recursion depth exceeded",
    "memory": "the model raised MemoryError: one row does not fit into memory: "
    "it asked for a petabyte",
    "exit": "the model raised SystemExit: 3",
    "interrupt": "the model raised KeyboardInterrupt: without a message",
    "generator": "the model raised GeneratorExit: without a message",
    "key": "the model raised KeyError: 'missing'",
}
"""What makes the model raise, and the reason that is kept with the row."""
STOPPED = {
    "leave": "the model's process ended itself with code 3 on this row",
    "crash": "the model's process died with SIGSEGV on this row",
    "kill": "the model's process died with SIGKILL on this row",
    "hang with the lock": "the model did not answer within 10 s on this row",
    "close": "the model's process closed its connection to the worker on this row",
    "leave somebody": "the model's process ended itself with code 4 on this row",
}
"""What stops the process that the model is in."""

Refusing = tuple[RunRecord, Place]


@pytest.fixture(scope="module")
def refused(actor: str, tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Refusing:
    """A run whose model raises on a row in every way, scored in this process."""
    place = open_place(tmp_path_factory.mktemp("refused"), tracking_uri)
    return place.score(place.create(actor, list(REFUSED))), place


@pytest.fixture(scope="module")
def stopped(actor: str, tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Refusing:
    """The same with every way to stop the process too, once two workers have died of it."""
    place = open_place(tmp_path_factory.mktemp("stopped"), tracking_uri)
    acts = [*STOPPED, *REFUSED]
    run = place.create(actor, acts, error_budget=0.6, batch_seconds=10.0, max_attempts=3)
    place.lose_workers(run, 2)
    return place.score(run), place


@pytest.mark.parametrize("act", REFUSED)
def test_a_row_that_the_model_refuses_is_quarantined_with_what_it_said(
    refused: Refusing, act: str
) -> None:
    run, _ = refused
    row = list(REFUSED).index(act)

    found = quarantine(run)[row]

    assert found["_reason"] == REFUSED[act]
    assert (found["id"], found["act"], Path(found["_input_file"]).name) == (
        row,
        act,
        "rows.parquet",
    )


@pytest.mark.parametrize("act", [*STOPPED, *REFUSED])
def test_a_row_that_stops_the_models_process_is_quarantined_with_how(
    stopped: Refusing, act: str
) -> None:
    run, _ = stopped
    row = [*STOPPED, *REFUSED].index(act)

    found = quarantine(run)[row]

    assert found["_reason"] == {**STOPPED, **REFUSED}[act]
    assert (found["id"], found["act"]) == (row, act)


def test_all_other_rows_are_scored_in_either_process(refused: Refusing, stopped: Refusing) -> None:
    for (run, place), bad in ((refused, REFUSED), (stopped, {**STOPPED, **REFUSED})):
        assert (run.state, run.error) == ("published", None)
        assert (run.rows_scored, run.rows_quarantined) == (ROWS - len(bad), len(bad))
        assert place.scores == {row: 2.0 * row for row in range(len(bad), ROWS)}


def test_an_exit_that_the_model_asks_for_costs_no_attempt(refused: Refusing) -> None:
    run, place = refused

    assert [chunk.attempt for chunk in place.context.ledger.chunks.of(run.id)] == [1]


def test_a_process_of_its_own_gives_the_same_scores(place: Place, model: str) -> None:
    rng = np.random.default_rng(5)
    rows = {name: rng.normal(size=1_000).astype(np.float32) for name in ("a", "b")}
    (place.folder / "in").mkdir()
    pq.write_table(pa.table({"id": range(1_000), **rows}), place.folder / "in" / "rows.parquet")
    job = place.job(model).model_copy(update={"precision": Precision(variant="native")})
    scores = []
    for deaths in (0, 1):
        run = create(place.context, job, Occasion(), trigger="manual").run
        place.lose_workers(run, deaths)
        assert place.score(run).state == "published"
        scores.append(pq.read_table(place.folder / "out"))

    assert scores[0].schema.field("score").type == pa.float32()
    assert scores[1].equals(scores[0])


def test_a_run_can_be_cancelled_while_its_model_hangs_in_a_process_of_its_own(
    place: Place, actor: str
) -> None:
    run = place.create(actor, ["hang"], max_attempts=3)
    place.lose_workers(run, 2)
    before = set(psutil.Process().children())
    with ThreadPoolExecutor(1) as worker:
        scored = worker.submit(score_chunk, place.context, run.id, 0)
        until(lambda: bool(set(psutil.Process().children()) - before))

        place.context.ledger.runs.cancel(run.id)

        assert scored.result(WAIT) == "lease lost"
    assert set(psutil.Process().children()) <= before


# Models that behave badly, and score

HARMLESS = ("print", "work in place", "move away", "threads")


@pytest.mark.parametrize("careful", [False, True], ids=["here", "apart"])
def test_a_model_that_behaves_badly_is_scored_all_the_same(
    place: Place, actor: str, monkeypatch: pytest.MonkeyPatch, careful: bool
) -> None:
    for name in ("SCORING_HOME", "HOME", "PYTHONPATH"):  # set back what it sets here
        monkeypatch.setenv(name, os.environ.get(name, ""))
    before = Path.cwd()
    for act in HARMLESS:  # a file is a call of its own
        write(place.folder / "in" / act, [act])
    run = create(place.context, place.job(actor), Occasion(), trigger="manual").run
    if careful:
        place.lose_workers(run, 1)

    ended = place.score(run)

    assert (ended.state, ended.error, ended.chunks) == ("published", None, 1)
    assert (ended.rows_scored, ended.rows_quarantined) == (len(HARMLESS) * ROWS, 0)
    assert place.scores == {row: 2.0 * row for row in range(ROWS)}
    assert Path.cwd() == before


@pytest.mark.parametrize("act", ["nan", "infinite"])
def test_scores_that_are_no_numbers_are_scores(place: Place, actor: str, act: str) -> None:
    some = place.score(place.create(actor, [act] * 3))

    assert (some.state, some.rows_quarantined) == ("published", 0)
    odd = [place.scores[row] for row in range(1, 3)]
    assert all(not abs(value) < float("inf") for value in odd)
    assert place.scores[5] == 10.0

    every = place.score(place.create(actor, [act] * ROWS))

    assert (every.state, every.rows_scored) == ("published", ROWS)


# Models that fail the run

FAILS = {
    "fewer": "it returned 39 values of 'score' for 40 rows",
    "more": "it returned 80 values of 'score' for 40 rows",
    "zero": "it returned 0 values of 'score' for 40 rows",
    "text": "it returned 'a score' instead of a value for each row",
    "object": "the values of an output differ in type",
    "none": "it returned None instead of a value for each row",
    "empty": "it returned a table without a column",
    "cube": "an output has shape ('rows', 2, 2); a table holds at most 2",
    "mixed": "the values of an output differ in type",
    "ragged": "it returned 1 values of 'b' for 40 rows",
    "named like the key": "its output id has the name of a key or passthrough column",
}


@pytest.mark.parametrize("act", FAILS)
def test_a_model_that_returns_something_else_fails_the_run(
    place: Place, actor: str, act: str
) -> None:
    ended = place.score(place.create(actor, [act]))

    assert ended.state == "failed"
    assert FAILS[act] in str(ended.error)
    assert "models:/" in str(ended.error)
    assert not (place.folder / "out").exists()


@pytest.mark.parametrize(
    ("act", "why"),
    [
        ("words", "its output score was double in one batch and is string in the next"),
        ("columns", "its outputs were score in one batch and are score, extra in the next"),
        ("ragged", "its outputs were score in one batch and are a, b in the next"),
    ],
)
def test_outputs_that_change_from_batch_to_batch_fail_the_run(
    place: Place, actor: str, act: str, why: str
) -> None:
    write(place.folder / "in" / "first", [])
    write(place.folder / "in" / "second", [act])
    job = place.job(actor, chunk_rows=ROWS)

    ended = place.score(create(place.context, job, Occasion(), trigger="manual").run)

    assert ended.state == "failed"
    assert why in str(ended.error)
    assert "the next: return" in str(ended.error)


@pytest.mark.parametrize("careful", [False, True], ids=["raises", "crashes"])
def test_a_model_that_scores_no_row_ends_with_the_error_budget(
    place: Place, actor: str, careful: bool
) -> None:
    act, reason = ("crash", STOPPED["crash"]) if careful else ("value", REFUSED["value"])
    run = place.create(actor, [act] * ROWS, error_budget=0.05, max_attempts=3)
    if careful:
        place.lose_workers(run, 2)

    ended = place.score(run)

    assert ended.state == "failed"
    assert "3 of 40 rows could not be scored" in str(ended.error)
    assert reason in str(ended.error)
    assert [row["_reason"] for row in quarantine(ended).values()] == [reason] * 3
    assert not (place.folder / "out").exists()


# Models that are never called

AMOUNT = ModelSignature(inputs=Schema([ColSpec("double", "amount")]))

AT_LOAD = {
    "value": "does not load on this worker: ValueError: amount must be even. Nothing was scored",
    "exit": "does not load on this worker: the model raised SystemExit: 3. Nothing was scored",
    "crash": "the model's process died with SIGSEGV while it was loaded. Nothing is published",
    "hang": "the model did not answer within 10 s while it was loaded. Nothing is published",
}


@pytest.mark.parametrize("act", AT_LOAD)
def test_a_model_that_goes_wrong_at_loading_fails_the_run_and_says_how(
    place: Place, tracking_uri: str, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    if act == "hang":  # else it may take as long as a busy machine needs
        monkeypatch.setattr(calling, "LOAD_SECONDS", 5.0)
    model = register(
        tracking_uri, mlflow.pyfunc.log_model, bad_models.AtLoad(act), signature=AMOUNT
    )
    run = place.create(model, [], batch_seconds=10.0, max_attempts=3)
    if act in ("crash", "hang"):
        place.lose_workers(run, 2)

    ended = place.score(run)

    assert ended.state == "failed"
    assert AT_LOAD[act] in str(ended.error)
    assert not (place.folder / "out").exists()


def spoil(context: Context, run: RunRecord, change: Callable[[Path], None]) -> None:
    """Change the files of a run's model in this machine's cache."""
    change(context.settings.model_cache / str(run.model_digest))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda folder: (folder / "python_model.pkl").write_bytes(b"\x80"), "does not load"),
        (lambda folder: (folder / "python_model.pkl").unlink(), "does not load"),
        (
            lambda folder: (folder / "python_model.pkl").write_bytes(b"cno_such_package\nf\n."),
            "ModuleNotFoundError: No module named 'no_such_package'",
        ),
    ],
    ids=["corrupt file", "missing file", "missing package"],
)
def test_a_model_whose_files_cannot_be_read_fails_the_run(
    place: Place, actor: str, change: Callable[[Path], None], why: str
) -> None:
    run = place.create(actor, [])
    spoil(place.context, run, change)

    ended = place.score(run)

    assert ended.state == "failed"
    assert why in str(ended.error)
    assert "Let the workers have the packages that it was logged with" in str(ended.error)


@pytest.mark.parametrize("content", ["\t: {", "- no mapping", "", "signature: {inputs: '{'}"])
def test_a_description_that_cannot_be_read_is_refused_when_the_run_is_planned(
    place: Place, tracking_uri: str, content: str
) -> None:
    name = "described-badly"
    model = register(
        tracking_uri,
        mlflow.pyfunc.log_model,
        bad_models.AtLoad(""),
        name=name,
        signature=AMOUNT,
    )
    for described in files_of(tracking_uri, name).rglob("MLmodel"):
        described.write_text(content)
    write(place.folder / "in", [])

    with pytest.raises((ModelUnsupported, SignatureMissing), match=name):
        create(place.context, place.job(model), Occasion(), trigger="manual")


def test_a_model_without_a_signature_is_refused_when_the_run_is_planned(
    place: Place, tracking_uri: str
) -> None:
    model = register(tracking_uri, mlflow.pyfunc.log_model, bad_models.AtLoad(""))
    write(place.folder / "in", [])

    with pytest.raises(SignatureMissing, match="infer_signature"):
        create(place.context, place.job(model), Occasion(), trigger="manual")


def files_of(tracking_uri: str, name: str) -> Path:
    """Where the registry keeps the files of a model's latest version."""
    client = mlflow.MlflowClient(tracking_uri, tracking_uri)
    version = client.get_model_version_by_alias(name, "production")
    place = client.get_model_version_download_uri(name, version.version)
    if place.startswith("models:/"):
        place = client.get_logged_model(place.removeprefix("models:/")).artifact_location
    return Path(place.removeprefix("file://"))


def test_a_model_that_vanishes_in_mid_run_is_scored_from_the_cache(
    place: Place, tracking_uri: str
) -> None:
    run = _vanished(place, tracking_uri, "vanished-cached")

    assert place.score(run).state == "published"


def test_a_model_that_vanishes_in_mid_run_fails_it_where_it_is_not_cached(
    place: Place, tracking_uri: str
) -> None:
    run = _vanished(place, tracking_uri, "vanished-uncached")
    shutil.rmtree(place.context.settings.model_cache)

    ended = place.score(run)

    assert ended.state == "failed"
    assert "models:/vanished-uncached/1" in str(ended.error)
    assert "is not in the registry" in str(ended.error)


def _vanished(place: Place, tracking_uri: str, name: str) -> RunRecord:
    model = register(
        tracking_uri, mlflow.pyfunc.log_model, bad_models.AtLoad(""), name=name, signature=AMOUNT
    )
    run = place.create(model, [])
    mlflow.MlflowClient(tracking_uri, tracking_uri).delete_registered_model(name)
    return run


def test_a_model_whose_files_change_in_the_registry_fails_the_run(
    place: Place, tracking_uri: str
) -> None:
    name = "changed-in-place"
    model = register(
        tracking_uri, mlflow.pyfunc.log_model, bad_models.AtLoad(""), name=name, signature=AMOUNT
    )
    run = place.create(model, [])
    shutil.rmtree(place.context.settings.model_cache)
    (files_of(tracking_uri, name) / "conda.yaml").write_text("changed: yes\n")

    ended = place.score(run)

    assert ended.state == "failed"
    assert "somebody changed a registered version in place" in str(ended.error)


# Through real workers


def test_a_row_that_crashes_and_one_that_hangs_cost_two_rows_and_no_run(
    stack: Settings, actor: str, tmp_path: Path
) -> None:
    acts = [""] * (3 * ROWS)
    acts[7], acts[2 * ROWS + 5] = "crash", "hang"
    file = write(tmp_path / "in", acts, rows=3 * ROWS)
    place = Place(Context.open(stack, SilentBell()), tmp_path)
    job = place.job(actor, chunk_rows=ROWS, batch_seconds=10.0, max_attempts=3)

    run = submit(job, settings=stack).wait(timeout=WAIT)

    found = quarantine(run.record)
    assert {row: one["_reason"] for row, one in found.items()} == {
        7: STOPPED["crash"],
        2 * ROWS + 5: "the model did not answer within 10 s on this row",
    }
    assert {one["_input_file"] for one in found.values()} == {str(file)}
    good = [row for row in range(3 * ROWS) if not acts[row]]
    assert place.scores == {row: 2.0 * row for row in good}
    attempts = [chunk.attempt for chunk in place.context.ledger.chunks.of(run.id)]
    assert max(attempts) <= 3


def test_a_model_that_leaks_costs_children_and_no_attempt(
    tracking_uri: str, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()
    model = register(
        tracking_uri, mlflow.pyfunc.log_model, bad_models.Leaky(str(calls)), signature=AMOUNT
    )
    write(tmp_path / "in", [], rows=3 * ROWS)
    settings = make_settings(
        tmp_path / "home", tracking_uri, workers=1, child_memory_mb=900, lease_seconds=60.0
    )
    with Stack(settings) as running:
        served = settings.model_copy(update={"broker_url": running.ensure().broker})
        place = Place(Context.open(served, SilentBell()), tmp_path)
        job = place.job(model, chunk_rows=ROWS, max_attempts=1)

        run = submit(job, settings=served).wait(timeout=WAIT)

        attempts = [chunk.attempt for chunk in place.context.ledger.chunks.of(run.id)]
        log = (settings.logs / "worker.log").read_text()
    assert place.scores == {row: 2.0 * row for row in range(3 * ROWS)}
    assert attempts == [1] * 3
    assert len(list(calls.iterdir())) > 1
    assert "child_replaced" in log
