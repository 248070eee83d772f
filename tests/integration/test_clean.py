"""`scoring clean`: what nobody needs goes, what anybody may need stays, whenever it is run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from scoring import Job
from scoring.data import staging
from scoring.data.publish import STAGING
from scoring.errors import RunNotInState
from scoring.ledger import RunRecord
from scoring.models.search_result import Candidate, SearchResult
from scoring.runs import Context, Occasion, clean, create, finish_run, score_chunk
from scoring.runs.clean import Cleaned
from scoring.runs.leftover import DAY, Policy
from tests.conftest import make_settings
from tests.contract.ledgers import together
from tests.integration.files import contents
from tests.integration.terminal import Terminal
from tests.silent_bell import SilentBell

pytestmark = pytest.mark.slow

FILES, ROWS = 2, 40
"""Input files, a chunk each, and rows of each."""
AT_ONCE = Policy(failed=True, who="operator")
STRANGER = "flights-20260101T023000-abcdef"
"""An id that this ledger has never heard of."""


@dataclass
class House:
    """An installation and a job whose runs a test brings into any state."""

    context: Context
    job: Job

    def start(self, *, scored: int = 0) -> RunRecord:
        """A run of which so many chunks are done."""
        run = create(self.context, self.job, Occasion(), trigger="manual").run
        for number in range(scored):
            assert score_chunk(self.context, run.id, number) == "committed"
        return run

    def run_in(self, state: str) -> RunRecord:
        ledger = self.context.ledger
        if state in ("running", "failed", "cancelled"):
            run = self.start(scored=1)
            if state == "failed":
                ledger.runs.fail(run.id, "x")
            if state == "cancelled":
                ledger.runs.cancel(run.id, "operator")
            return ledger.runs.get(run.id)
        run = self.start(scored=FILES)
        if state == "published":
            finish_run(self.context, run.id)
        elif state in ("held", "rejected"):
            hold = ledger.runs.claim_finish(run.id, "finisher")
            assert hold is not None
            ledger.runs.end(hold, "held")
        if state == "rejected":
            ledger.decisions.reject(run.id, "operator")
        return ledger.runs.get(run.id)

    def clean(self, policy: Policy = AT_ONCE, *, dry_run: bool = False) -> Cleaned:
        found = clean(self.context, policy, dry_run=dry_run)
        assert found.problems == ()
        return found

    def retried(self, run: RunRecord) -> RunRecord:
        """The run when it was retried to its end."""
        undone = self.context.ledger.runs.retry(run.id, "operator")
        return self.ended(run, undone)

    def ended(self, run: RunRecord, undone: list[int]) -> RunRecord:
        for number in undone:
            assert score_chunk(self.context, run.id, number) == "committed"
        finish_run(self.context, run.id)
        return self.context.ledger.runs.get(run.id)

    def is_right(self, run: RunRecord) -> bool:
        """Whether it is published with every row, once and in order."""
        parts = sorted(Path(run.output).glob("part-*.parquet"))
        scores = pd.concat([pq.ParquetFile(part).read().to_pandas() for part in parts])
        assert scores["id"].tolist() == list(range(FILES * ROWS))
        np.testing.assert_allclose(scores["score"], scores["id"] * 3.0)
        return run.state == "published" and run.rows_scored == FILES * ROWS

    def staged(self) -> list[str]:
        place = Path(self.job.output.path).parent / STAGING
        return sorted(os.listdir(place)) if place.is_dir() else []


@pytest.fixture
def house(tmp_path: Path, tracking_uri: str, model: str) -> Iterator[House]:
    settings = make_settings(tmp_path / "home", tracking_uri, lease_seconds=3_600.0)
    settings.home.mkdir()
    context = Context.open(settings, SilentBell())
    context.ledger.database.ready()
    (tmp_path / "in").mkdir()
    for number in range(FILES):
        ids = np.arange(number * ROWS, (number + 1) * ROWS)
        values = ids.astype(np.float32)
        frame = pd.DataFrame({"id": ids, "a": values, "b": values})
        frame.to_parquet(tmp_path / f"in/{number}.parquet", index=False)
    job = Job(
        name="flights",
        model=model,
        key=["id"],
        input={"path": str(tmp_path / "in")},
        output={"path": str(tmp_path / "scores/flights")},
        execution={"device": "cpu", "chunk_rows": ROWS},
        precision={"variant": "native"},
        drift={"reference": "previous", "on_small": ["log"], "on_moderate": ["log"]},
    )
    yield House(context, job)
    context.ledger.database.engine.dispose()


def plant(path: Path, *, days: float = 0.0) -> Path:
    """A file that was written so many days ago, as its folder was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 1000)
    then = time.time() - days * DAY
    for one in (path, path.parent):
        os.utime(one, (then, then))
    return path


def test_only_runs_that_are_over_lose_their_parts_and_the_others_go_on(house: House) -> None:
    states = ("running", "held", "failed", "cancelled", "rejected", "published")
    runs = {state: house.run_in(state) for state in states}
    plant(Path(str(runs["published"].staging)) / "part-00000.attempt-1")  # its finisher died
    output, quarantine = Path(house.job.output.path), house.context.settings.artifacts
    before = contents(output)

    found = house.clean(Policy(who="operator"))

    assert {one.run for one in found.leftovers} == {runs["rejected"].id, runs["published"].id}
    assert {one.kind for one in found.leftovers} == {"parts", "frame"}
    kept = [runs[state].id for state in ("running", "held", "failed", "cancelled")]
    assert house.staged() == sorted(kept)
    assert contents(output) == before
    assert {path.name for path in quarantine.rglob("drift.*")} == {"drift.json", "drift.html"}
    house.context.ledger.decisions.release(runs["held"].id, "operator")
    assert house.is_right(house.ended(runs["held"], []))
    assert house.is_right(house.ended(runs["running"], [1]))
    for state in ("failed", "cancelled"):
        again = house.retried(runs[state])
        assert house.is_right(again)
        attempts = [chunk.attempt for chunk in house.context.ledger.chunks.of(again.id)]
        assert attempts == [1, 1], "what was done was not done again"


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_run_that_lost_its_parts_is_scored_anew_by_a_retry(house: House, state: str) -> None:
    run = house.run_in(state)

    found = house.clean(AT_ONCE)

    assert [(one.kind, one.run) for one in found.leftovers] == [("parts", run.id)]
    assert found.bytes > 0
    assert house.staged() == []
    assert not Path(str(run.staging)).parent.exists()
    assert house.is_right(house.retried(run))
    assert house.clean(AT_ONCE).leftovers == ()


def test_failed_runs_keep_their_parts_for_as_long_as_was_asked(house: House) -> None:
    run = house.run_in("failed")

    assert house.clean(Policy(older_seconds=DAY)).leftovers == ()
    assert house.staged() == [run.id]
    assert len(house.clean(Policy(older_seconds=0.0)).leftovers) == 1
    assert house.staged() == []


def test_of_a_failed_run_only_what_no_chunk_goes_by_is_removed(house: House) -> None:
    run = house.run_in("failed")
    folder = Path(str(run.staging))
    kept = contents(folder)
    plant(folder / "part-00001.attempt-7")
    plant(folder / "part-00000.attempt-1.spare")
    plant(folder / "ready-2" / "part-00000.parquet")

    found = house.clean(Policy())

    assert [(one.kind, one.bytes) for one in found.leftovers] == [("parts", 3000)]
    assert contents(folder) == kept
    assert house.staged() == [run.id]
    assert house.clean(Policy()).leftovers == ()
    assert house.is_right(house.retried(run))


def test_a_dry_run_lists_what_would_go_and_touches_nothing(house: House) -> None:
    house.run_in("failed")
    before = contents(Path(house.job.output.path).parent)
    events = house.context.ledger.audit.log()

    listed = house.clean(AT_ONCE, dry_run=True)

    assert contents(Path(house.job.output.path).parent) == before
    assert house.context.ledger.audit.log() == events
    assert house.clean(AT_ONCE).leftovers == listed.leftovers


class Killed(BaseException):
    """What stands in for the end of the process."""


@pytest.mark.parametrize("step", ["set_aside", "remove", "remove_if_empty"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_clean_up_that_is_killed_is_ended_by_the_next(
    house: House, monkeypatch: pytest.MonkeyPatch, step: str, before: bool
) -> None:
    run = house.run_in("failed")
    does = getattr(staging, step)

    def dies(*arguments: object) -> None:
        if not before:
            does(*arguments)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(staging, step, dies)
        with pytest.raises(Killed):
            house.clean(AT_ONCE)

    house.clean(AT_ONCE)
    assert house.staged() == []
    assert house.is_right(house.retried(run))


def test_several_clean_ups_at_once_remove_everything_once(house: House) -> None:
    runs = [house.run_in("failed") for _ in range(3)]

    done = together([partial(house.clean, AT_ONCE)] * 4)

    found = [one.run for cleaned in done for one in cleaned.leftovers]
    removed = [run for run in found if run is not None]  # None: what another is removing already
    assert sorted(removed) == sorted(run.id for run in runs)
    assert house.staged() == []


def test_a_retry_while_it_is_cleaned_publishes_every_row(house: House) -> None:
    for _ in range(6):
        run = house.run_in("failed")

        retry = partial(house.context.ledger.runs.retry, run.id, "operator")
        _, undone = together([partial(house.clean, AT_ONCE), retry])

        assert isinstance(undone, list)
        assert house.is_right(house.ended(run, undone))


def test_a_retry_between_looking_and_removing_keeps_the_parts(house: House) -> None:
    run = house.run_in("failed")
    (listed,) = house.clean(AT_ONCE, dry_run=True).leftovers

    undone = house.context.ledger.runs.retry(run.id, "operator")

    assert listed.remove() is False
    assert undone == [1]
    assert house.is_right(house.ended(run, undone))


def test_what_no_run_is_known_for_goes_when_nobody_can_be_at_it(
    house: House, tmp_path: Path
) -> None:
    house.run_in("published")
    place = Path(house.job.output.path).parent / STAGING
    old = plant(place / STRANGER / "part-00000.attempt-1", days=8)
    young = plant(place / STRANGER.replace("abcdef", "000000") / "part", days=6)
    not_ours = plant(place / "somebody's notes" / "file", days=100)
    outside = plant(tmp_path / "elsewhere" / "file", days=100)
    (place / STRANGER.replace("abcdef", "111111")).symlink_to(outside.parent)
    plant(place / ".removed-flights-0011aabb" / "part")
    frames = house.context.settings.artifacts / "flights"
    frame = plant(frames / STRANGER / "frame.json", days=8)

    found = house.clean(AT_ONCE)

    assert {one.where for one in found.leftovers} == {
        str(old.parent),
        str(place / ".removed-flights-0011aabb"),
        str(frame),
    }
    assert young.exists()
    assert not_ours.exists()
    assert outside.exists()
    assert not frame.parent.exists()


def test_variants_that_are_found_best_or_pinned_or_being_built_stay(house: House) -> None:
    searches, shared = house.context.ledger.searches, house.context.settings.artifacts / "_variants"
    keys = {name: name * 64 for name in "abc"}  # a: found, b: being searched for, c: died
    claims = {}
    for name, key in keys.items():
        claims[name] = searches.claim(key, "d" * 64, "cpu", "worker")
        assert claims[name] is not None
    searches.record(claims["a"], found_in("2/int8-static"))
    searches.give_up(claims["c"], failed=False)
    run = house.start()
    house.context.ledger.runs.pin_variant(
        run.id,
        variant="int8",
        batch_rows=1,
        search=keys["a"],
        precision=json.dumps({"folder": "1/int8-static"}),
    )
    kept = [
        plant(shared / ("a" * 32) / "2" / "int8-static" / "model.onnx", days=2),
        plant(shared / ("a" * 32) / "1" / "int8-static" / "model.onnx", days=9),
        plant(shared / ("b" * 32) / "1" / "model.onnx", days=9),
        plant(shared / f".building-{'b' * 32}-xyz" / "rows.arrow", days=9),
        plant(shared / ("e" * 32) / "1" / "model.onnx"),
    ]
    for folder in (shared / ("a" * 32) / "1", shared / ("a" * 32) / "2"):
        os.utime(folder, (1, 1))
    gone = [
        plant(shared / ("a" * 32) / "3" / "model.onnx", days=2),
        plant(shared / ("c" * 32) / "1" / "model.onnx", days=2),
        plant(shared / f".building-{'c' * 32}-xyz" / "rows.arrow"),
    ]

    found = house.clean(Policy())

    assert {one.where for one in found.leftovers} == {str(path.parent) for path in gone}
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in gone)


def found_in(folder: str) -> str:
    """A result that names a variant's folder."""
    return SearchResult(
        model="m",
        model_digest="d" * 64,
        device="cpu",
        runtimes="",
        rows=1,
        sample="input",
        seconds=1.0,
        candidates=(
            Candidate(variant="native", recipe=""),
            Candidate(variant="int8", recipe="", folder=folder),
        ),
    ).to_json()


def test_the_model_cache_loses_what_never_arrived_and_if_asked_what_nobody_uses(
    house: House,
) -> None:
    run = house.run_in("published")
    cache = house.context.settings.model_cache
    arriving = plant(cache / "arriving-now" / "model.onnx")
    never = plant(cache / "arriving-never" / "model.onnx", days=2)
    unused = plant(cache / ("0" * 64) / "MLmodel", days=40)
    known = plant(cache / "known" / "version", days=40)

    found = house.clean(Policy())
    assert [one.where for one in found.leftovers] == [str(never.parent)]

    found = house.clean(Policy(models_seconds=30 * DAY))
    assert [one.where for one in found.leftovers] == [str(unused.parent)]
    assert arriving.exists()
    assert known.exists()
    assert house.clean(Policy(models_seconds=0.0)).leftovers == ()
    assert (cache / str(run.model_digest)).is_dir(), "the last one that its jobs went by"


def test_what_cannot_be_removed_is_said_and_the_rest_goes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = house.run_in("failed"), house.run_in("failed")
    rename = os.rename

    def refuse(source: Path, target: Path) -> None:
        if Path(source).name == first.id:
            raise PermissionError(13, "Permission denied", str(source))
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    found = clean(house.context, AT_ONCE)

    assert [one.run for one in found.leftovers] == [second.id]
    assert len(found.problems) == 1
    assert first.id in found.problems[0]


def test_who_cleaned_is_in_the_log(house: House) -> None:
    run = house.run_in("failed")

    cleaned = house.clean(AT_ONCE)

    *_, forgotten, summary = house.context.ledger.audit.log()
    assert (forgotten.run_id, forgotten.event) == (run.id, "cleaned")
    assert forgotten.detail == {"chunks": 1, "who": "operator"}
    assert (summary.run_id, summary.event) == (None, "cleaned")
    assert summary.detail == {"leftovers": 1, "bytes": cleaned.bytes, "who": "operator"}
    assert house.context.ledger.audit.verify().intact


def test_the_command_lists_then_removes_then_finds_nothing(house: House, tmp_path: Path) -> None:
    run = house.run_in("failed")
    settings = house.context.settings
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LOGNAME": "operator"}
    environment |= {
        "SCORING_HOME": str(settings.home),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    scoring = Terminal(tmp_path, environment)

    listed = scoring("clean", "--failed", "--dry-run", "--json")
    removed = scoring("clean", "--older-than", "0")
    nothing = scoring("clean", "--failed")

    assert (listed.code, removed.code, nothing.code) == (0, 0, 0), removed.err
    (leftover,) = listed.json["leftovers"]
    assert listed.json["dry_run"] is True
    assert (leftover["kind"], leftover["run"], leftover["where"]) == ("parts", run.id, run.staging)
    assert listed.json["bytes"] == leftover["bytes"] > 0
    assert str(run.staging) in removed.out
    assert "a retry scores all of it anew" in removed.out
    assert "1 leftover with" in removed.err
    assert "nothing is left over" in nothing.err
    events = house.context.ledger.runs.history(run.id)
    assert events[-1].detail == {"chunks": 1, "who": "operator"}


@pytest.mark.parametrize("links", [1, 2])
def test_bytes_are_those_that_removing_frees(tmp_path: Path, links: int) -> None:
    file = plant(tmp_path / "staged" / "part")
    inside, outside = tmp_path / "staged" / "again", tmp_path / "published"
    os.link(file, inside)
    if links == 2:
        os.link(file, outside)

    assert staging.freed_bytes(tmp_path / "staged") == (1000 if links == 1 else 0)


def test_a_run_that_was_cleaned_can_be_retried_only_as_far_as_it_could_before(
    house: House,
) -> None:
    run = house.run_in("rejected")
    house.clean(AT_ONCE)

    with pytest.raises(RunNotInState, match="rejected by operator"):
        house.context.ledger.runs.retry(run.id)
