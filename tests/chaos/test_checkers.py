"""What counts broken promises sees those that are planted: a checker that cannot fail proves
nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring.ledger import RunRecord
from tests.chaos.afterwards import running_below, staged
from tests.chaos.at_every_step import Bench
from tests.chaos.checks import NOWHERE, check_run, standing
from tests.chaos.material import Table
from tests.chaos.reader import Mixture, look
from tests.chaos.tally import Tally


@pytest.fixture(scope="module")
def published(place: Bench) -> tuple[RunRecord, Table]:
    """A run that was published well."""
    ((run, table),) = place.prepared(1)
    assert place.finish(run).said == "published"
    return run, table


@pytest.fixture
def output(place: Bench, published: tuple[RunRecord, Table], tmp_path: Path) -> Iterator[Path]:
    """The published folder, put back as it was when the test is over."""
    kept = tmp_path / "kept"
    shutil.copytree(place.output, kept)
    yield place.output
    shutil.rmtree(place.output)
    shutil.copytree(kept, place.output)


def checked(place: Bench, published: tuple[RunRecord, Table]) -> Tally:
    run, table = published
    tally = Tally(seed=0)
    check_run(tally, place.ledger, run.id, table, place.material, NOWHERE)
    return tally


def rewrite(output: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the rows of the first part, and nothing that is said of it."""
    part = output / "part-00000.parquet"
    pq.write_table(change(pq.read_table(part)), part)


@pytest.mark.slow
def test_a_run_that_is_well_keeps_every_promise(
    place: Bench, published: tuple[RunRecord, Table], output: Path
) -> None:
    tally = checked(place, published)

    assert tally.kept, tally.page()
    assert tally.rows_in == published[1].rows
    assert look(output) == published[0].id


@pytest.mark.slow
def test_a_lost_row_is_counted(
    place: Bench, published: tuple[RunRecord, Table], output: Path
) -> None:
    rewrite(output, lambda rows: rows.slice(1))

    tally = checked(place, published)

    assert (tally.rows_lost, tally.rows_doubled, tally.kept) == (1, 0, False)
    with pytest.raises(Mixture, match="rows, not"):
        look(output)


@pytest.mark.slow
def test_a_doubled_row_is_counted(
    place: Bench, published: tuple[RunRecord, Table], output: Path
) -> None:
    rewrite(output, lambda rows: pa.concat_tables([rows.slice(0, 1), rows]))

    tally = checked(place, published)

    assert (tally.rows_lost, tally.rows_doubled, tally.kept) == (0, 1, False)


@pytest.mark.slow
def test_rows_out_of_order_are_seen(
    place: Bench, published: tuple[RunRecord, Table], output: Path
) -> None:
    rewrite(output, lambda rows: rows.take(np.arange(len(rows))[::-1]))

    assert not checked(place, published).kept
    with pytest.raises(Mixture, match="not one table in order"):
        look(output)


@pytest.mark.slow
def test_another_rows_score_is_seen(
    place: Bench, published: tuple[RunRecord, Table], output: Path
) -> None:
    def shifted(rows: pa.Table) -> pa.Table:
        scores = np.roll(rows["score"].to_numpy(), 1)
        return rows.set_column(rows.schema.get_field_index("score"), "score", pa.array(scores))

    rewrite(output, shifted)

    assert "a score is off" in checked(place, published).broken[0]


@pytest.mark.slow
def test_a_part_of_another_run_is_a_mixture(
    place: Bench, published: tuple[RunRecord, Table], output: Path
) -> None:
    other = {"nightscore.run": "another"}
    rewrite(output, lambda rows: rows.replace_schema_metadata(other))

    with pytest.raises(Mixture, match="is of another"):
        look(output)


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["_SUCCESS", "_manifest.json", "part-00001.parquet"])
def test_a_folder_that_lacks_a_file_is_a_mixture(
    place: Bench, published: tuple[RunRecord, Table], output: Path, missing: str
) -> None:
    (output / missing).unlink()

    with pytest.raises(Mixture):
        look(output)


@pytest.mark.slow
def test_an_output_that_a_failed_run_changed_is_seen(
    place: Bench, published: tuple[RunRecord, Table], output: Path
) -> None:
    ((run, table),) = place.prepared(1, max_attempts=1)
    shutil.rmtree(Path(str(run.staging)))
    before = standing(output)
    assert place.finish(run).said == "run failed"
    well, broken = Tally(seed=0), Tally(seed=0)
    check_run(well, place.ledger, run.id, table, place.material, before)
    (output / "part-00000.parquet").touch()
    document = json.loads((output / "_manifest.json").read_text())
    (output / "_manifest.json").write_text(json.dumps(document | {"run_id": run.id}))

    check_run(broken, place.ledger, run.id, table, place.material, before)

    assert well.kept, well.page()
    assert "the output changed" in broken.broken[0]


def test_each_kind_of_loss_breaks_the_whole() -> None:
    kept = Tally(seed=1)
    assert kept.kept
    assert kept.line() == (
        "faults=0 runs=0 rows_in=0 rows_lost=0 rows_doubled=0 mixtures=0 (seed 1)"
    )
    for broken in (
        replace(kept, rows_lost=1),
        replace(kept, rows_doubled=1),
        replace(kept, mixtures=1),
        replace(kept, broken=["a promise"]),
    ):
        assert not broken.kept


def test_what_lies_staged_is_found_wherever_it_lies(tmp_path: Path) -> None:
    left = tmp_path / "lake" / ".nightscore" / "a-run"
    left.mkdir(parents=True)

    assert staged(tmp_path) == ["lake/.nightscore/a-run"]


def test_a_process_that_was_left_running_is_found(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print(flush=True); input()", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as left:
        assert left.stdout is not None
        left.stdout.readline()  # until then the kernel may not show its arguments
        assert [one.pid for one in running_below(tmp_path)] == [left.pid]
        left.communicate(b"\n")

    assert running_below(tmp_path) == []
