"""A disk that is full costs attempts and time, never rows: the run goes on when there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scoring.errors import LedgerUnreachable, OutputFull
from scoring.job import Job
from scoring.ledger import Ledger, RunRecord
from scoring.runs import create, finish_run, on_date, score_chunk
from scoring.runs.context import Context
from scoring.settings import Settings
from tests.chaos.checks import NOWHERE, check_run
from tests.chaos.conftest import SEED
from tests.chaos.faults.disk import FILLER, fill_up
from tests.chaos.material import Material
from tests.chaos.services import migrated
from tests.chaos.tally import Tally
from tests.silent_bell import SilentBell

pytestmark = pytest.mark.slow


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of a few MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount a small filesystem")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def context(tmp_path: Path, tracking_uri: str) -> Iterator[Context]:
    settings = Settings(
        home=tmp_path / "home",
        jobs=tmp_path / "jobs",
        database_url=migrated(f"sqlite:///{tmp_path}/ledger.db"),
        MLFLOW_TRACKING_URI=tracking_uri,
    )
    opened = Context.open(settings, SilentBell())
    yield opened
    opened.ledger.database.engine.dispose()


def planned(context: Context, small: Material, output: Path) -> RunRecord:
    """A run with two attempts for each chunk and for its end."""
    table = small.tables[0]
    job = Job(
        name="full",
        model=small.models[0],
        key=["row"],
        input={"path": str(table.path)},
        output={"path": str(output)},
        execution={"max_attempts": 2, "chunk_rows": table.chunk_rows},
        precision={"variant": "native"},
    )
    return create(context, job, on_date(None), trigger="manual").run


def check(context: Context, run: RunRecord, small: Material) -> None:
    tally = Tally(seed=SEED)
    check_run(tally, context.ledger, run.id, small.tables[0], small, NOWHERE)
    assert tally.kept, tally.page()


def test_parts_that_find_no_room_fail_the_run_with_that_message_and_retry_goes_on(
    context: Context, small: Material, volume: Path
) -> None:
    run = planned(context, small, volume / "scores")
    assert score_chunk(context, run.id, 0) == "committed"
    fill_up(volume / FILLER)

    assert score_chunk(context, run.id, 1) == "attempt failed"
    assert score_chunk(context, run.id, 1) == "run failed"

    failed = context.ledger.runs.get(run.id)
    assert failed.state == "failed"
    assert f"no space left under {run.staging} (No space left on device)" in str(failed.error)
    assert not (volume / "scores").exists()
    (volume / FILLER).unlink()
    assert context.ledger.runs.retry(run.id) == [1]
    assert score_chunk(context, run.id, 1) == "committed"
    assert finish_run(context, run.id) == "published"
    check(context, run, small)


def test_a_report_that_finds_no_room_is_tried_again_and_fails_with_that_message(
    context: Context, small: Material, volume: Path
) -> None:
    roomy = context.settings.model_copy(update={"artifacts": volume / "artifacts"})
    context = Context.open(roomy, SilentBell())
    run = planned(context, small, volume.parent / "scores")
    assert [score_chunk(context, run.id, number) for number in (0, 1)] == ["committed"] * 2
    fill_up(volume / FILLER)

    assert finish_run(context, run.id) == "finish failed"
    assert context.ledger.runs.get(run.id).state == "finishing"
    assert finish_run(context, run.id) == "run failed"

    failed = context.ledger.runs.get(run.id)
    assert f"no space left under {run.artifacts}" in str(failed.error)
    assert not (volume.parent / "scores").exists()
    (volume / FILLER).unlink()
    assert context.ledger.runs.retry(run.id) == []
    assert finish_run(context, run.id) == "published"
    check(context, run, small)


def test_a_ledger_that_finds_no_room_is_unreachable_until_there_is_some(volume: Path) -> None:
    ledger = Ledger.open(migrated(f"sqlite:///{volume}/ledger.db"), 60.0)
    fill_up(volume / FILLER)

    with pytest.raises(LedgerUnreachable, match=r"database or disk is full|disk I/O error"):
        note_often(ledger)

    (volume / FILLER).unlink()
    written = len(ledger.audit.log(limit=20_000))
    ledger.runs.note(None, "noted", text="again")
    assert len(ledger.audit.log(limit=20_000)) == written + 1
    assert ledger.audit.verify().intact
    ledger.database.engine.dispose()


def test_a_submission_that_finds_no_room_says_so_and_records_nothing(
    context: Context, small: Material, volume: Path
) -> None:
    full = context.settings.model_copy(update={"artifacts": volume / "artifacts"})
    context = Context.open(full, SilentBell())
    fill_up(volume / FILLER)

    with pytest.raises(OutputFull, match="no space left under"):
        planned(context, small, volume.parent / "scores")
    assert context.ledger.runs.latest() == []


def note_often(ledger: Ledger) -> None:
    """Write more than fits."""
    for _ in range(10_000):
        ledger.runs.note(None, "noted", text="x" * 1_000)
