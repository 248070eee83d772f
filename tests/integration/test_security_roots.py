"""A job reads and writes below the data roots only, whatever links, names and values say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring import Settings
from scoring.cli import checks
from scoring.errors import DateInvalid, JobFileInvalid, PathOutsideRoots, ScoringError
from scoring.runs import Occasion, create, on_date, score_chunk
from scoring.runs.context import Context
from scoring.runs.prepare import prepare
from tests.conftest import make_settings
from tests.integration.in_process import created, finished, job, opened, rows, scored

SECRET = "planted_column"
"""A column of the file that no job may read; no message may tell of it."""


@dataclass(frozen=True, slots=True)
class Land:
    """A root, what lies beside it, and a context whose jobs may use the root alone."""

    context: Context
    root: Path
    beside: Path

    @property
    def source(self) -> Path:
        return self.root / "in" / "rows.parquet"

    @property
    def secret(self) -> Path:
        return self.beside / "rows.parquet"


@pytest.fixture
def land(tmp_path: Path, tracking_uri: str) -> Iterator[Land]:
    root, beside = tmp_path / "data", tmp_path / "data-secret"
    rows(root / "in" / "rows.parquet")
    rows(beside / "rows.parquet")
    settings = make_settings(tmp_path / "home", tracking_uri, data_roots=(str(root),))
    with opened(settings) as context:
        yield Land(context, root, beside)


READS = {
    "beside": "{beside}/rows.parquet",
    "up": "{root}/../data-secret/rows.parquet",
    "up and down": "{root}/in/../../data-secret/*.parquet",
    "a prefix": "{root}-secret",
    "another case": "{upper}/in",
    "a glob above": "{above}/*/rows.parquet",
    "a glob of the root's name": "{above}/dat?/in",
    "a glob with up": "{root}/*/../../data-secret/*.parquet",
    "a file link": "{root}/in/link.parquet",
    "a folder link": "{root}/folder/rows.parquet",
    "a folder link, all of it": "{root}/folder",
    "a glob over links": "{root}/i*/**/*.parquet",
    "a link to a link": "{root}/twice/rows.parquet",
    "a file address": "file://{beside}/rows.parquet",
    "a file address with up": "file://{root}/../data-secret/rows.parquet",
    "a home": "~/rows.parquet",
    "nobody's home": "~nobody-at-all/rows.parquet",
    "relative": "../data-secret/rows.parquet",
    "a device": "/dev/stdin",
    "this process": "/proc/self/root{beside}/rows.parquet",
}


@pytest.mark.parametrize("name", READS)
def test_nothing_outside_is_read(land: Land, model: str, name: str) -> None:
    (land.root / "in" / "link.parquet").symlink_to(land.secret)
    (land.root / "folder").symlink_to(land.beside)
    (land.root / "twice").symlink_to(land.root / "folder")
    path = READS[name].format(
        root=land.root, beside=land.beside, above=land.root.parent, upper=str(land.root).upper()
    )

    with pytest.raises(PathOutsideRoots) as refused:
        created(land.context, job(model, path, land.root / "out"))

    assert refused.value.key == "input.path"
    assert refused.value.roots == (str(land.root),)
    assert all(said in str(refused.value) for said in ("input.path", str(land.root)))
    assert land.context.ledger.runs.latest() == []


@pytest.mark.parametrize("path", ["{root}/%2e%2e/data-secret", "{root}/..%2fdata-secret"])
def test_what_is_encoded_is_a_name_like_any_other(land: Land, model: str, path: str) -> None:
    with pytest.raises(ScoringError, match="no Parquet files"):
        created(land.context, job(model, path.format(root=land.root), land.root / "out"))


def test_no_message_tells_what_is_in_a_file_outside(land: Land, model: str) -> None:
    pq.write_table(pa.table({SECRET: [1]}), land.secret)
    (land.root / "in" / "link.parquet").symlink_to(land.secret)

    with pytest.raises(ScoringError) as refused:
        created(land.context, job(model, land.root / "in", land.root / "out"))

    assert isinstance(refused.value, PathOutsideRoots)
    assert SECRET not in str(refused.value)


WRITES = {
    "beside": "{beside}/out",
    "up": "{root}/../data-secret/out",
    "a prefix": "{root}-secret/out",
    "a folder link": "{root}/folder/out",
    "a file address": "file://{beside}/out",
    "a home": "~/out",
    "a job's name": "{root}/../{{job}}",
}


@pytest.mark.parametrize("name", WRITES)
def test_nothing_outside_is_written(land: Land, model: str, name: str) -> None:
    (land.root / "folder").symlink_to(land.beside)
    path = WRITES[name].format(root=land.root, beside=land.beside)
    before = {*land.root.parent.rglob("*")}

    with pytest.raises(PathOutsideRoots) as refused:
        created(land.context, job(model, land.source, path))

    assert refused.value.key == "output.path"
    home = land.context.settings.home
    made = {path for path in land.root.parent.rglob("*") if not path.is_relative_to(home)} - before
    assert made == set()


def test_a_root_is_no_output_itself_as_parts_would_wait_beside_it(
    land: Land, model: str, tracking_uri: str
) -> None:
    roots = (str(land.root), str(land.beside))
    settings = make_settings(land.context.settings.home, tracking_uri, data_roots=roots)
    land.secret.unlink()

    with opened(settings) as context, pytest.raises(PathOutsideRoots):
        created(context, job(model, land.source, land.beside))


def test_references_are_read_below_the_roots_only(land: Land, model: str) -> None:
    (land.root / "profile.json").symlink_to(land.beside / "profile.json")
    (land.beside / "profile.json").write_text('{"planted": 1}')

    for path in (land.beside / "profile.json", land.root / "profile.json"):
        drift = {"drift": {"reference": str(path)}}
        with pytest.raises(PathOutsideRoots, match=r"drift\.reference") as refused:
            created(land.context, job(model, land.source, land.root / "out", **drift))
        assert "planted" not in str(refused.value)


@pytest.mark.parametrize("date", ["../../etc", "2026-11-23/../..", "..", "", "2026-11-23\n", "%2e"])
def test_a_date_cannot_be_a_path(date: str) -> None:
    with pytest.raises(DateInvalid):
        on_date(date)
    with pytest.raises(DateInvalid):
        Occasion(date=date)


@pytest.mark.parametrize("name", ["../../etc", "..", ".", "a/b", "a\x00b", "a\nb", "~", ""])
def test_a_jobs_name_cannot_be_a_path(model: str, name: str) -> None:
    with pytest.raises(JobFileInvalid):
        job(model, "in", "out", name=name)


def test_a_link_made_after_the_plan_is_not_read(land: Land, model: str) -> None:
    run = created(land.context, job(model, land.source, land.root / "out"))
    planned = land.source.stat()
    land.secret.write_bytes(land.source.read_bytes())
    os.utime(land.secret, ns=(planned.st_atime_ns, planned.st_mtime_ns))  # size and time agree
    land.source.unlink()
    land.source.symlink_to(land.secret)

    ended = scored(land.context, run)

    assert ended.state == "failed"
    assert "outside the places" in str(ended.error)
    assert not (land.root / "out").exists()


def test_a_link_made_before_publishing_is_not_written_to(land: Land, model: str) -> None:
    folder = land.root / "scores"
    run = created(land.context, job(model, land.source, folder / "out"))
    score_chunk(land.context, run.id, 0)
    folder.rename(land.beside / "scores")
    folder.symlink_to(land.beside / "scores")

    ended = finished(land.context, run)

    assert ended.state == "failed"
    assert "output.path" in str(ended.error)
    assert not (land.beside / "scores" / "out").exists()


def test_a_run_that_was_planned_elsewhere_is_held_to_the_roots_of_its_worker(
    land: Land, model: str, tracking_uri: str
) -> None:
    free = make_settings(land.context.settings.home, tracking_uri)
    with opened(free) as planner:
        run = created(planner, job(model, land.secret, land.root / "out"))

    assert scored(land.context, run).state == "failed"


def test_what_lies_below_the_roots_is_scored(land: Land, model: str) -> None:
    (land.root / "here").symlink_to(land.root / "in")  # a link that stays inside

    wanted = job(model, land.root / "here", land.root / "out" / "date={date}")
    run = create(land.context, wanted, on_date("2026-11-23"), trigger="manual").run

    assert scored(land.context, run).state == "published"
    assert prepare(land.context, wanted, on_date("2026-11-23")).rows


@pytest.mark.parametrize(
    ("broker", "roots", "verdict"),
    [
        ("redis://broker:6379/0", (), "bad"),
        ("redis://broker:6379/0", ("/data",), "ok"),
        ("redis://127.0.0.1:6379/0", (), "note"),
        ("", (), "note"),
    ],
)
def test_doctor_wants_roots_where_the_broker_is_on_another_machine(
    settings: Settings, broker: str, roots: tuple[str, ...], verdict: str
) -> None:
    fleet = settings.model_copy(update={"broker_url": broker, "data_roots": roots})

    assert checks._roots(fleet)[0] == verdict
    assert fleet.roots_missing == (verdict == "bad")
