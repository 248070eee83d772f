"""Publishing to a store: a reader with a listing sees one run, whole, or none, whoever dies."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from scoring.data.claim import Publisher
from scoring.data.publish import part_file
from scoring.data.staged import StoreStaging
from scoring.data.store_output import StoreOutput, hidden_place, staging_prefix
from scoring.data.stores import Stores
from scoring.errors import (
    OutputClaimed,
    OutputIncomplete,
    OutputOccupied,
    PartMissing,
    StoreUnreachable,
)
from tests.stores import Bucket

pytestmark = pytest.mark.slow


class Died(BaseException):
    """A process that is killed before a request."""


@dataclass(slots=True)
class Steps:
    """The changing requests of one publisher, and which of them is its last."""

    die_at: int = 0
    """Number of the request that is not made any more, from 1; 0: none."""
    how: BaseException = field(default_factory=Died)
    told: Callable[[int], None] = lambda _: None
    made: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, what: str) -> None:
        with self._lock:
            if self.die_at and len(self.made) + 1 >= self.die_at:
                raise self.how
            self.made.append(what)
            number = len(self.made)
        self.told(number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted(Stores):
    """A store each of whose changing requests is a step."""

    steps: Steps = field(default_factory=Steps)

    def put(self, url: str, content: bytes | Path, *, only_if_absent: bool = False) -> bool:
        self.steps.next(f"put {_name(url)}")
        return Stores.put(self, url, content, only_if_absent=only_if_absent)

    def replace(self, url: str, content: bytes, stamp: str) -> bool:
        self.steps.next(f"replace {_name(url)}")
        return Stores.replace(self, url, content, stamp)

    def copy(self, source: str, target: str) -> None:
        self.steps.next(f"copy {_name(target)}")
        Stores.copy(self, source, target)

    def delete(self, found: Sequence[str]) -> None:
        if found:
            self.steps.next(f"delete {' '.join(map(_name, found))}")
        Stores.delete(self, found)


def _name(url: str) -> str:
    return url.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Table:
    """One output, several runs."""

    bucket: Bucket
    over: set[str] = field(default_factory=set)
    """Runs that have ended."""

    @property
    def output(self) -> StoreOutput:
        return StoreOutput(
            url=f"{self.bucket.url}/scores", stores=self.bucket.stores(), wait_seconds=0.0
        )

    def stage(self, run: str, parts: int = 3) -> dict[str, Any]:
        """Stage a run's parts; the manifest that it is to have."""
        for number in range(parts):
            key = f".nightscore/{run}/part-{number:05d}.attempt-1"
            self.bucket.put(key, f"{run} {number}".encode())
        files = [{"file": part_file(number)} for number in range(parts)]
        return {"run_id": run, "parts": files}

    def publish(
        self,
        run: str,
        parts: int = 3,
        *,
        steps: Steps | None = None,
        earlier_parts: int = 0,
        manifest: dict[str, Any] | None = None,
        attempt: int = 1,
        still_mine: Callable[[], bool] = lambda: True,
        resume: bool = False,
        wait_seconds: float = 0.0,
    ) -> bool:
        stores = Counted(options=self.bucket.stores().options, steps=steps or Steps())
        output = replace(self.output, stores=stores, wait_seconds=wait_seconds)
        staging = StoreStaging(f"{self.bucket.url}/.nightscore/{run}", stores)
        by = Publisher(
            run_id=run, attempt=attempt, still_mine=still_mine, is_over=self.over.__contains__
        )
        if resume:
            output.resume(staging, by)
            return True
        names = [f"part-{number:05d}.attempt-1" for number in range(parts)]
        described = manifest or {
            "run_id": run,
            "parts": [{"file": part_file(number)} for number in range(parts)],
        }
        return output.publish(staging, names, described, by, earlier_parts)

    def look(self) -> dict[str, str] | None:
        """What a reader takes for a complete run: names and contents, all of one listing."""
        etags = self.bucket.listing("scores/")
        names = {key.removeprefix("scores/"): etag for key, etag in etags.items()}
        if "_SUCCESS" not in names:
            return None
        try:
            return {
                name: self.bucket.get(f"scores/{name}", IfMatch=etag).decode()
                for name, etag in names.items()
            }
        except ClientError as error:
            if error.response["Error"]["Code"] in ("PreconditionFailed", "NoSuchKey"):
                return None  # it is being replaced: look again
            raise


def complete(run: str, parts: int = 3) -> dict[str, str]:
    """What a reader of a complete run finds."""
    files = [{"file": part_file(number)} for number in range(parts)]
    manifest = json.dumps({"run_id": run, "parts": files}, indent=2, sort_keys=True) + "\n"
    scores = {part_file(number): f"{run} {number}" for number in range(parts)}
    return {"_SUCCESS": "", "_manifest.json": manifest, **scores}


@pytest.fixture
def table(bucket: Bucket) -> Table:
    return Table(bucket)


def claims(table: Table) -> list[str]:
    return [key for key in table.bucket.keys(".nightscore/") if "claim@" in key]


def test_a_run_is_published_with_its_manifest_and_success(table: Table) -> None:
    table.stage("r1")

    assert table.publish("r1")

    assert table.look() == complete("r1")
    assert table.output.manifest() == table.stage("r1")
    assert claims(table) == []


def test_publishing_replaces_the_earlier_run_as_a_whole(table: Table) -> None:
    table.stage("long", 5)
    table.stage("short", 1)
    table.publish("long", 5)

    table.publish("short", 1)

    assert table.look() == complete("short", 1)


def test_success_goes_first_and_comes_last(table: Table) -> None:
    table.stage("r1", 4)
    table.stage("r2", 2)
    table.publish("r1", 4)
    steps = Steps()

    table.publish("r2", 2, steps=steps)

    parts = " ".join(part_file(number) for number in range(4))
    copies = {f"copy {part_file(number)}" for number in range(2)}
    claim, *changes, released = steps.made
    assert (claim, released) == ("put claim@scores", "delete claim@scores")
    assert changes[:3] == ["delete _SUCCESS", "delete _manifest.json", f"delete {parts}"]
    assert set(changes[3:5]) == copies
    assert changes[5:] == ["put _manifest.json", "put _SUCCESS"]


def test_publishing_the_same_run_again_changes_nothing(table: Table) -> None:
    table.stage("r1")
    table.publish("r1")
    steps = Steps()

    assert table.publish("r1", steps=steps, attempt=2)

    assert [step for step in steps.made if "claim" not in step] == []


# Whoever dies, and when


def deaths(publish: Callable[[Steps], object]) -> Iterator[int]:
    """Publish once for each of its steps, and die before it; then once to the end."""
    for number in range(1, 100):
        steps = Steps(die_at=number)
        try:
            publish(steps)
        except Died:
            yield number
            continue
        assert len(steps.made) < number
        return
    raise AssertionError("publishing has no end")


def test_a_publisher_killed_between_any_two_steps_is_continued_by_the_next_finisher(
    table: Table,
) -> None:
    table.stage("old", 4)
    table.stage("new", 3)
    table.publish("old", 4)
    died = []
    for number in deaths(lambda steps: table.publish("new", 3, steps=steps)):
        died.append(number)
        assert table.look() in (None, complete("old", 4), complete("new", 3))

        assert table.publish("new", 3, attempt=2)

        assert table.look() == complete("new", 3)
        assert claims(table) == []
        table.publish("old", 4)
    assert len(died) >= 9


def test_a_run_that_failed_half_way_does_not_block_later_ones(table: Table) -> None:
    for run, parts in (("old", 4), ("failed", 3), ("later", 2)):
        table.stage(run, parts)
    table.publish("old", 4)
    for _ in deaths(lambda steps: table.publish("failed", 3, steps=steps)):
        table.over.add("failed")
        table.output.check()

        assert table.publish("later", 2)

        assert table.look() == complete("later", 2)
        assert claims(table) == []
        table.over.clear()
        table.publish("old", 4)


def test_an_addition_killed_between_any_two_steps_is_continued(table: Table) -> None:
    """It keeps the earlier parts, and knows what it is about when the manifest is gone."""
    table.stage("run", 2)
    table.stage("replay", 2)
    parts = [{"file": part_file(number)} for number in range(4)]
    extended = {"run_id": "run", "parts": parts, "replays": [{"run_id": "replay"}]}
    table.publish("run", 2)
    died: list[int] = []

    def add(steps: Steps, attempt: int = 1) -> None:
        table.publish("replay", steps=steps, attempt=attempt, resume=True)
        if table.output.manifest() != extended:
            assert table.publish(
                "replay", 2, steps=steps, attempt=attempt, earlier_parts=2, manifest=extended
            )

    for number in deaths(add):
        died.append(number)
        seen = table.look()
        assert seen is None or len(seen) in (4, 6)

        add(Steps(), attempt=2)

        found = table.look()
        assert found is not None
        assert {name: text for name, text in found.items() if name.startswith("part")} == {
            part_file(0): "run 0",
            part_file(1): "run 1",
            part_file(2): "replay 0",
            part_file(3): "replay 1",
        }
        assert json.loads(found["_manifest.json"]) == extended
        assert claims(table) == []
        table.stage("other", 1)
        table.publish("other", 1)
        table.publish("run", 2)
    assert len(died) >= 8


def test_a_finisher_that_lost_its_lease_stops_at_once(table: Table) -> None:
    table.stage("old", 4)
    table.stage("new", 3)
    for lost_at in range(1, 14):
        table.over.add("new")
        table.publish("old", 4)
        table.over.clear()
        asked: list[int] = []
        steps = Steps()

        def still_mine(asked: list[int] = asked, lost_at: int = lost_at) -> bool:
            asked.append(1)
            return len(asked) < lost_at

        if table.publish("new", 3, steps=steps, still_mine=still_mine):
            break
        assert len(steps.made) <= lost_at
        assert table.look() in (None, complete("old", 4), complete("new", 3))
        assert table.publish("new", 3, attempt=2)
        assert table.look() == complete("new", 3)
    assert lost_at > 8


def test_a_finisher_that_wakes_up_after_another_has_done_its_work_changes_nothing(
    table: Table,
) -> None:
    table.stage("old", 4)
    table.stage("new", 3)
    for frozen_at in range(2, 10):
        table.publish("old", 4)
        asked = itertools.count(1)

        def frozen(asked: Iterator[int] = asked, frozen_at: int = frozen_at) -> bool:
            question = next(asked)
            if question == frozen_at:
                assert table.publish("new", 3, attempt=2)
            return question < frozen_at

        assert not table.publish("new", 3, still_mine=frozen)

        assert table.look() == complete("new", 3)
        assert claims(table) == []


# Two at once


def test_a_second_publisher_loses_and_changes_nothing(table: Table) -> None:
    table.stage("first", 3)
    table.stage("second", 2)
    lost: list[OutputClaimed] = []

    def meanwhile(number: int) -> None:
        if 2 <= number <= 8:
            with pytest.raises(OutputClaimed, match="run first is being published") as caught:
                table.publish("second", 2)
            lost.append(caught.value)

    assert table.publish("first", 3, steps=Steps(told=meanwhile))

    assert len(lost) == 7
    assert table.look() == complete("first", 3)
    assert table.publish("second", 2)
    assert table.look() == complete("second", 2)


def test_a_claim_of_which_no_ledger_knows_says_what_to_delete(table: Table) -> None:
    table.stage("r1")
    table.bucket.put(".nightscore/claim@scores", b"not json")

    with pytest.raises(OutputClaimed, match=r"delete s3://.*/\.nightscore/claim@scores"):
        table.publish("r1")

    table.bucket.delete(".nightscore/claim@scores")
    assert table.publish("r1")


def test_a_reader_never_sees_a_mixture_while_runs_replace_each_other(table: Table) -> None:
    sizes = {"a": 1, "b": 4, "c": 2}
    for run, parts in sizes.items():
        table.stage(run, parts)
    seen: list[dict[str, str] | None] = []
    listed: set[frozenset[str]] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(table.look())

    def list_only() -> None:
        while not done.is_set():
            keys = table.bucket.keys("scores/")
            listed.add(frozenset(key.removeprefix("scores/") for key in keys))

    def publish(run: str) -> None:
        for _ in range(4):
            assert table.publish(run, sizes[run], wait_seconds=60.0)

    readers = [threading.Thread(target=what) for what in (read, list_only, list_only)]
    publishers = [threading.Thread(target=publish, args=(run,)) for run in sizes]
    for thread in (*readers, *publishers):
        thread.start()
    for thread in publishers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()

    whole = [complete(run, parts) for run, parts in sizes.items()]
    assert [one for one in seen if one is not None and one not in whole] == []
    assert {names for names in listed if "_SUCCESS" in names} <= {frozenset(one) for one in whole}
    assert any(one is not None for one in seen)
    assert table.look() in whole


# What is in the way


def test_objects_of_somebody_else_are_not_destroyed(table: Table) -> None:
    table.stage("r1")
    table.bucket.put("scores/part-00000.parquet", b"theirs")

    with pytest.raises(OutputOccupied, match=r"1 objects \(part-00000\.parquet"):
        table.output.check()
    with pytest.raises(OutputOccupied):
        table.publish("r1")

    assert table.bucket.get("scores/part-00000.parquet") == b"theirs"
    assert claims(table) == []


def test_an_object_that_somebody_put_among_our_parts_is_not_destroyed(table: Table) -> None:
    table.stage("r1")
    table.stage("r2")
    table.publish("r1")
    table.bucket.put("scores/deep/notes.txt", b"keep me")
    table.bucket.put("scores/.hidden", b"of no account")

    with pytest.raises(OutputOccupied, match=r"1 objects \(deep"):
        table.publish("r2")

    table.bucket.delete("scores/deep/notes.txt")
    assert table.look() == {**complete("r1"), ".hidden": "of no account"}


def test_an_empty_prefix_is_free(table: Table) -> None:
    table.output.check()
    table.bucket.put("scores/", b"")

    table.output.check()

    assert table.output.manifest() is None


def test_a_staged_part_that_is_gone_leaves_the_earlier_output(table: Table) -> None:
    table.stage("r1")
    table.stage("r2")
    table.publish("r1")
    table.bucket.delete(".nightscore/r2/part-00001.attempt-1")

    with pytest.raises(PartMissing, match=r"part-00001\.attempt-1 is gone"):
        table.publish("r2")

    assert table.look() == complete("r1")
    assert claims(table) == []


def test_a_claim_that_was_left_before_anything_was_changed_changes_no_message(
    table: Table,
) -> None:
    table.stage("r1")
    table.stage("r2")
    table.publish("r1")
    with pytest.raises(Died):
        table.publish("r2", steps=Steps(die_at=2))
    table.bucket.delete(".nightscore/r2/part-00001.attempt-1")

    with pytest.raises(PartMissing, match="the earlier output stands"):
        table.publish("r2", attempt=2)

    assert table.look() == complete("r1")
    assert claims(table) == []


def test_a_claim_that_cannot_be_released_is_taken_over(table: Table) -> None:
    table.stage("r1")
    table.stage("r2")
    away = StoreUnreachable(table.bucket.url, "503 Slow Down (SlowDown)")

    assert table.publish("r1", steps=Steps(die_at=9, how=away))

    assert len(claims(table)) == 1
    assert table.look() == complete("r1")
    table.over.add("r1")
    assert table.publish("r2")
    assert table.look() == complete("r2")


def test_a_store_that_fails_half_way_leaves_no_success_and_is_gone_on_with(table: Table) -> None:
    table.stage("r1")
    table.stage("r2")
    table.publish("r1")
    away = StoreUnreachable(f"{table.bucket.url}/scores", "503 Slow Down (SlowDown)")

    with pytest.raises(OutputIncomplete, match=r"half-way: 503 Slow Down .*scoring retry r2"):
        table.publish("r2", steps=Steps(die_at=5, how=away))

    assert table.look() is None
    assert table.publish("r2", attempt=2)
    assert table.look() == complete("r2")


def test_a_store_that_fails_before_anything_is_changed_leaves_the_earlier_output(
    table: Table,
) -> None:
    table.stage("r1")
    table.stage("r2")
    table.publish("r1")
    away = StoreUnreachable(f"{table.bucket.url}/scores", "503 Slow Down (SlowDown)")

    with pytest.raises(StoreUnreachable):
        table.publish("r2", steps=Steps(die_at=1, how=away))

    assert table.look() == complete("r1")


# Staging


@pytest.mark.parametrize(
    ("template", "output", "staging"),
    [
        ("scores/flights", "scores/flights", "scores/.nightscore/r1"),
        ("scores/flights/date={date}", "scores/flights/date=2024-05-01", "scores/.nightscore/r1"),
        ("scores/{job}/date={date}", "scores/f/date=2024-05-01", ".nightscore/r1"),
        ("scores/f-{date}/", "scores/f-2024-05-01", ".nightscore/r1"),
        ("{job}/x", "f/x", ".nightscore/r1"),
        ("scores", "scores", ".nightscore/r1"),
        ("", "", ".nightscore/r1"),
    ],
)
def test_staging_lies_beside_the_tables_root_in_its_bucket(
    template: str, output: str, staging: str
) -> None:
    found = staging_prefix(f"s3://b/{template}", f"s3://b/{output}".rstrip("/"), "r1")

    assert found == f"s3://b/{staging}"


def test_nothing_is_staged_outside_the_roots() -> None:
    roots = ("s3://b/ours", "/srv")

    assert hidden_place("s3://b/ours", roots) == "s3://b/ours/.nightscore"
    assert hidden_place("s3://b/ours/x", roots) == "s3://b/ours/.nightscore"
    assert staging_prefix("s3://b/ours/{date}", "s3://b/ours/1", "r", roots) == (
        "s3://b/ours/.nightscore/r"
    )


def test_an_attempt_is_staged_whole_or_not_at_all(table: Table, tmp_path: Path) -> None:
    staging = StoreStaging(f"{table.bucket.url}/.nightscore/r1", table.bucket.stores())

    def fail() -> None:
        with staging.attempt(tmp_path / "scratch") as folder:
            (folder / "half").write_text("x")
            raise RuntimeError("the model")

    with pytest.raises(RuntimeError):
        fail()
    assert table.bucket.keys() == []
    with staging.attempt(tmp_path / "scratch") as folder:
        (folder / "part").write_text("whole")

    assert staging.text("part") == "whole"
    assert list((tmp_path / "scratch").iterdir()) == []
    staging.fetch("part", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_text() == "whole"
    staging.drop(["part", "never there"])
    with pytest.raises(PartMissing):
        staging.reader("part")


def test_discarding_a_run_leaves_the_other_runs_staging(table: Table) -> None:
    table.stage("r1", 1)
    table.stage("r10", 1)

    StoreStaging(f"{table.bucket.url}/.nightscore/r1", table.bucket.stores()).discard()

    assert table.bucket.keys() == [".nightscore/r10/part-00000.attempt-1"]
