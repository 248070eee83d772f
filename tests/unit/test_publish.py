"""Publishing: a reader sees a complete run or the one before it, whenever it looks."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from scoring.data import publish
from scoring.data.publish import (
    assemble,
    check_output,
    discard,
    part_file,
    published_manifest,
    staging_folder,
)
from scoring.errors import OutputOccupied

Assembler = Callable[..., Path]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "scores"


@pytest.fixture
def ready(tmp_path: Path) -> Assembler:
    """Assembles a run of so many parts in a staging folder of its own."""

    def make(run: str, parts: int = 2, attempt: int = 1) -> Path:
        staging = tmp_path / publish.STAGING / run
        staging.mkdir(parents=True, exist_ok=True)
        names = [f"part-{number:05d}.attempt-{number + 1}" for number in range(parts)]
        for number, name in enumerate(names):
            (staging / name).write_text(f"{run} {number}")
        return assemble(staging, attempt, names, {"run_id": run, "parts": parts})

    return make


def mine() -> bool:
    return True


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def complete(run: str, parts: int = 2) -> dict[str, str]:
    """What a reader of a complete run finds."""
    manifest = json.dumps({"run_id": run, "parts": parts}, indent=2, sort_keys=True) + "\n"
    scores = {part_file(number): f"{run} {number}" for number in range(parts)}
    return {"_SUCCESS": "", "_manifest.json": manifest, **scores}


def test_a_run_is_published_with_its_manifest_and_success(output: Path, ready: Assembler) -> None:
    assert publish.publish(ready("r1"), output, mine)

    assert contents(output) == complete("r1")
    assert (published_manifest(output) or {})["run_id"] == "r1"


def test_parts_are_published_in_chunk_order_whatever_their_attempts(
    output: Path, ready: Assembler
) -> None:
    publish.publish(ready("r1", parts=12), output, mine)

    parts = sorted(name for name in os.listdir(output) if name.startswith("part"))
    assert [(output / part).read_text() for part in parts] == [f"r1 {n}" for n in range(12)]


def test_publishing_replaces_the_earlier_run_as_a_whole(output: Path, ready: Assembler) -> None:
    publish.publish(ready("long", parts=5), output, mine)

    publish.publish(ready("short", parts=1), output, mine)

    assert contents(output) == complete("short", parts=1)


def test_publishing_the_same_run_twice_changes_nothing(output: Path, ready: Assembler) -> None:
    publish.publish(ready("r1", attempt=1), output, mine)
    before = contents(output)

    assert publish.publish(ready("r1", attempt=2), output, mine)

    assert contents(output) == before


def test_assembling_again_begins_from_nothing(ready: Assembler) -> None:
    first = ready("r1", parts=3)
    (first / "half-written").write_text("from a finisher that died")

    again = ready("r1", parts=2)

    assert again == first
    assert contents(again) == complete("r1", parts=2)


def test_a_finisher_that_lost_its_lease_leaves_the_newer_run(
    output: Path, ready: Assembler
) -> None:
    publish.publish(ready("newer"), output, mine)

    assert not publish.publish(ready("stale"), output, lambda: False)

    assert contents(output) == complete("newer")


def test_the_lease_is_asked_for_while_nobody_else_can_publish_there(
    output: Path, ready: Assembler
) -> None:
    """A finisher that is frozen between asking and swapping could put an old run over a new one."""
    stale, newer = ready("stale"), ready("newer")
    asked, published = threading.Event(), threading.Event()

    def publish_newer() -> None:
        asked.wait()
        publish.publish(newer, output, mine)
        published.set()

    def lost_meanwhile() -> bool:
        asked.set()
        assert not published.wait(0.2), "the newer run was published although we hold the lock"
        return True

    other = threading.Thread(target=publish_newer)
    other.start()
    publish.publish(stale, output, lost_meanwhile)
    other.join()

    assert contents(output) == complete("newer")


def test_a_reader_sees_only_complete_runs(output: Path, ready: Assembler) -> None:
    runs = [ready(f"r{number}", parts=1 + number % 4) for number in range(200)]
    publish.publish(runs[0], output, mine)
    looks: list[tuple[list[str], str]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            folder = os.open(output, os.O_RDONLY)
            try:
                manifest = os.open("_manifest.json", os.O_RDONLY, dir_fd=folder)
                with os.fdopen(manifest, encoding="utf-8") as file:
                    looks.append((os.listdir(folder), file.read()))
            finally:
                os.close(folder)

    reader = threading.Thread(target=read)
    reader.start()
    for run in runs[1:]:
        publish.publish(run, output, mine)
    done.set()
    reader.join()

    seen = {json.loads(manifest)["run_id"] for _, manifest in looks}
    assert len(seen) > 10, "the reader was meant to look while runs were published"
    for names, manifest in looks:
        found = json.loads(manifest)
        assert set(names) == complete(found["run_id"], found["parts"]).keys()


def test_two_finishers_of_different_dates_do_not_disturb_each_other(
    tmp_path: Path, ready: Assembler
) -> None:
    runs = [(ready(f"r{day}"), tmp_path / "scores" / f"date={day}") for day in range(8)]
    threads = [threading.Thread(target=publish.publish, args=(run, day, mine)) for run, day in runs]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for day in range(8):
        assert contents(tmp_path / "scores" / f"date={day}") == complete(f"r{day}")


# What is not ours


def test_an_empty_or_missing_folder_is_free(output: Path) -> None:
    check_output(output)
    output.mkdir()
    check_output(output)


def test_a_folder_that_we_published_may_be_replaced(output: Path, ready: Assembler) -> None:
    publish.publish(ready("r1"), output, mine)
    (output / ".DS_Store").touch()

    check_output(output)


def test_a_folder_of_somebody_elses_files_is_refused(output: Path, ready: Assembler) -> None:
    output.mkdir()
    (output / "part-00000.parquet").write_text("theirs")
    run = ready("r1")

    with pytest.raises(OutputOccupied, match=r"1 files \(part-00000\.parquet"):
        publish.publish(run, output, mine)

    assert contents(output) == {"part-00000.parquet": "theirs"}


def test_a_file_that_somebody_put_among_our_parts_is_not_destroyed(
    output: Path, ready: Assembler
) -> None:
    publish.publish(ready("r1"), output, mine)
    (output / "notes.txt").write_text("keep me")

    with pytest.raises(OutputOccupied, match=r"notes\.txt"):
        publish.publish(ready("r2"), output, mine)

    assert contents(output) == {**complete("r1"), "notes.txt": "keep me"}


def test_a_file_in_the_place_of_the_folder_is_refused(output: Path) -> None:
    output.write_text("theirs")

    with pytest.raises(OutputOccupied, match="holds a file"):
        check_output(output)


def test_a_folder_without_a_manifest_has_no_published_run(output: Path) -> None:
    assert published_manifest(output) is None
    output.mkdir()
    assert published_manifest(output) is None


# Staging


@pytest.mark.parametrize(
    ("template", "path", "staging"),
    [
        ("scores/flights", "scores/flights", "scores/.nightscore/r1"),
        ("scores/flights/date={date}", "scores/flights/date=2024-05-01", "scores/.nightscore/r1"),
        ("scores/flights/{date}", "scores/flights/2024-05-01", "scores/.nightscore/r1"),
        ("scores/{job}/date={date}", "scores/flights/date=2024-05-01", ".nightscore/r1"),
        ("scores/date={date}/flights", "scores/date=2024-05-01/flights", ".nightscore/r1"),
        ("scores/f/y={date}/{slot}", "scores/f/y=1/2", "scores/.nightscore/r1"),
        ("scores/f/region=eu", "scores/f/region=eu", "scores/.nightscore/r1"),
        ("scores/f-{date}", "scores/f-2024-05-01", ".nightscore/r1"),
        ("./scores//f/", "scores/f", "scores/.nightscore/r1"),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_staging_lies_beside_the_tables_root(
    tmp_path: Path, template: str, path: str, staging: str, absolute: bool
) -> None:
    if absolute:
        template = f"{tmp_path}/{template}"

    found = staging_folder(template, tmp_path / path, "r1")

    assert found == tmp_path / staging


def test_a_root_that_is_a_filesystem_of_its_own_holds_its_staging_hidden(tmp_path: Path) -> None:
    root = Path("/dev/shm")
    if not root.is_dir() or root.stat().st_dev == root.parent.stat().st_dev:
        pytest.skip("there is no second filesystem here")

    found = staging_folder("/dev/shm/date={date}", root / "date=2024-05-01", "r1")

    assert found == root / ".nightscore" / "r1"


def test_discarding_a_run_leaves_the_other_runs_staging(ready: Assembler) -> None:
    one, two = ready("r1").parent, ready("r2").parent

    discard(one)
    assert not one.exists()
    assert two.exists()

    discard(two)
    discard(two)
    assert not two.parent.exists()
