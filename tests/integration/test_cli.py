"""The `scoring` command as it is typed: output, `--json`, messages and exit codes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring import Settings, get_run
from tests.integration.models import linear, register
from tests.integration.processes import until
from tests.integration.terminal import Terminal
from tests.ports import free_port

pytestmark = pytest.mark.slow
ROWS = 300
PROMISED = {
    *("id", "job", "slot", "state", "model", "model_version", "variant", "device"),
    *("rows_in", "rows_scored", "rows_quarantined", "chunks", "chunks_done", "output"),
    *("report", "drift_severity", "created_at", "finished_at", "error"),
}


@pytest.fixture
def folder(tmp_path: Path, model: str) -> Path:
    """Rows and a job file, outside the repository."""
    numbers = np.random.default_rng(3).normal(size=(ROWS, 2)).astype(np.float32)
    rows = pa.table({"id": np.arange(ROWS), "a": numbers[:, 0], "b": numbers[:, 1]})
    (tmp_path / "rows" / "date=2026-11-23").mkdir(parents=True)
    pq.write_table(rows, tmp_path / "rows" / "date=2026-11-23" / "rows.parquet")
    write_job(tmp_path / "mine.toml", model)
    return tmp_path


@pytest.fixture
def scoring(folder: Path, tracking_uri: str) -> Terminal:
    return Terminal(
        folder,
        {
            "PATH": os.environ["PATH"],
            "HOME": str(folder.with_name(f"{folder.name}-home")),
            "MLFLOW_TRACKING_URI": tracking_uri,
            "SCORING_SWEEP_SECONDS": "1",
        },
    )


@pytest.fixture
def on_the_stack(scoring: Terminal, stack: Settings) -> Terminal:
    """The same folder, with the session's services."""
    return Terminal(
        scoring.folder,
        {
            **scoring.environment,
            "SCORING_HOME": str(stack.home),
            "SCORING_BROKER_URL": stack.broker_url,
        },
    )


def write_job(path: Path, model: str, more: str = "") -> None:
    path.write_text(
        f'name = "mine"\nmodel = "{model}"\nkey = ["id"]\n'
        '[input]\npath = "rows/date={date}"\n[output]\npath = "scores/date={date}"\n' + more,
        encoding="utf-8",
    )


def test_run_without_a_broker_brings_its_own_and_leaves_nothing_running(
    scoring: Terminal,
) -> None:
    typed = scoring("run", "mine.toml", "--date", "2026-11-23", "--json")

    assert typed.code == 0, typed.err
    assert set(typed.json) >= PROMISED
    assert typed.json["state"] == "published"
    assert typed.json["slot"] == "2026-11-23"
    assert typed.json["rows_in"] == typed.json["rows_scored"] == ROWS
    assert sorted(os.listdir(typed.json["output"])) == [
        "_SUCCESS",
        "_manifest.json",
        "part-00000.parquet",
    ]
    assert sorted(os.listdir(scoring.folder)) == [".scoring", "mine.toml", "rows", "scores"]
    home = str(scoring.folder / ".scoring")
    assert not [p.pid for p in psutil.process_iter() if home in str(_environment(p))]

    report = scoring("report", typed.json["id"], "--json")
    assert report.code == 0
    assert {column["name"] for column in report.json["columns"]} == {"a", "b", "score"}
    plain = scoring("runs")
    assert re.search(r"mine-\S+ +2026-11-23 +published", plain.out)


def test_submit_status_runs_and_report_speak_json(on_the_stack: Terminal) -> None:
    submitted = on_the_stack("submit", "mine.toml", "--date", "2026-11-23", "--json")
    assert submitted.code == 0, submitted.err
    run = submitted.json["id"]
    assert on_the_stack("run", "mine.toml", "--date", "2026-11-23").code == 0

    assert set(on_the_stack("status", run, "--json").json) >= PROMISED
    assert on_the_stack("status", "latest", "--json").json["state"] == "published"
    listed = on_the_stack("runs", "--job", "mine", "--json").json
    assert run in [one["id"] for one in listed]
    assert all(set(one) >= PROMISED for one in listed)


def test_the_report_of_a_run_without_rows_is_a_table_too(
    on_the_stack: Terminal, folder: Path
) -> None:
    path = folder / "rows" / "date=2026-11-23" / "rows.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    run = on_the_stack("run", "mine.toml", "--date", "2026-11-23", "--json")
    assert run.json["state"] == "published", run.err
    assert run.json["drift_severity"] is None

    typed = on_the_stack("report", run.json["id"])

    assert typed.code == 0, typed.err
    assert re.search(
        r"^score +output +\N{EN DASH} +\N{EN DASH} +not measured", typed.out, re.MULTILINE
    )


def test_plan_says_what_would_run_and_starts_nothing(scoring: Terminal) -> None:
    typed = scoring("plan", "mine.toml", "--date", "2026-11-23", "--json")

    assert typed.code == 0, typed.err
    assert typed.json["rows_in"] == ROWS
    assert [chunk["rows"] for chunk in typed.json["chunks"]] == [ROWS]
    assert scoring("runs", "--json").json == []
    assert not (scoring.folder / "scores").exists()


def test_drift_that_the_job_holds_on_is_exit_code_3_and_release_publishes(
    on_the_stack: Terminal, stack: Settings, tracking_uri: str, folder: Path
) -> None:
    frame = pd.DataFrame(np.zeros((4, 2), np.float32), columns=["a", "b"])
    held_model = register(
        tracking_uri,
        mlflow.onnx.log_model,
        linear(np.array([[1.0], [2.0]], np.float32)),
        signature=mlflow.models.infer_signature(frame, np.zeros(4, np.float32)),
    )
    write_job(folder / "mine.toml", held_model, '[drift]\non_severe = ["hold"]\n')
    shifted = np.random.default_rng(4).normal(loc=3, size=(ROWS, 2)).astype(np.float32)
    pq.write_table(pa.table({"a": shifted[:, 0], "b": shifted[:, 1]}), folder / "training.parquet")
    profiled = on_the_stack("models", "profile", held_model, "--from", "training.parquet", "--json")
    assert profiled.code == 0, profiled.err
    assert profiled.json["rows"] == ROWS

    held = on_the_stack("run", "mine.toml", "--date", "2026-11-23", "--json")
    assert (held.code, held.json["state"]) == (3, "held"), held.err
    assert held.json["drift_severity"] == "severe"
    assert not (folder / "scores").exists()

    released = on_the_stack("release", held.json["id"], "--json")
    assert released.code == 0, released.err
    run = get_run(held.json["id"], settings=stack)
    until(lambda: run.status == "published")
    assert on_the_stack("status", run.id, "--json").json["state"] == "published"
    assert (folder / "scores" / "date=2026-11-23" / "_SUCCESS").exists()


def test_a_failed_run_is_exit_code_1_with_its_reason(on_the_stack: Terminal, folder: Path) -> None:
    path = folder / "rows" / "date=2026-11-23" / "rows.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows.set_column(1, "a", pa.nulls(ROWS, pa.float32())), path)

    typed = on_the_stack("run", "mine.toml", "--date", "2026-11-23")

    assert typed.code == 1
    assert "null in column a" in typed.err
    assert "Nothing is published" in typed.err
    assert not (folder / "scores").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run", "nojob"], 2, "no job 'nojob'"),
        (["run", "mine.toml"], 2, "give a logical date with --date"),
        (["run", "mine.toml", "--date", "23.11.2026"], 2, "Give it as YYYY-MM-DD"),
        (["run", "mine.toml", "--date", "2026-11-24"], 1, "no Parquet files at"),
        (["plan", "broken.toml"], 2, "did you mean"),
        (["status", "nope"], 2, "no run 'nope'"),
        (["submit", "mine.toml", "--date", "2026-11-23"], 1, "Run `scoring up`"),
        (["models", "profile", "nothere"], 1, "is not in the registry"),
    ],
)
def test_a_mistake_is_one_message_and_an_exit_code(
    scoring: Terminal, arguments: list[str], code: int, says: str
) -> None:
    (scoring.folder / "broken.toml").write_text('name = "b"\nmodle = "models:/m@production"\n')

    typed = scoring(*arguments)

    assert typed.code == code, typed.err
    assert says in typed.err
    assert "Traceback" not in typed.err
    assert typed.out == ""


def test_an_unreachable_broker_is_said_at_once_and_the_run_is_safe(scoring: Terminal) -> None:
    nobody = f"redis://:hidden@127.0.0.1:{free_port()}/0"

    typed = scoring("submit", "mine.toml", "--date", "2026-11-23", SCORING_BROKER_URL=nobody)

    assert typed.code == 1
    assert "do not submit it again" in typed.err
    assert "hidden" not in typed.err


def test_doctor_checks_every_part(scoring: Terminal) -> None:
    typed = scoring("doctor", "--json")

    assert typed.code == 0, typed.err
    found = {check["name"]: check["verdict"] for check in typed.json}
    assert found["ledger"] == found["registry"] == found["home"] == "ok"
    assert found["broker"] == "note"
    broken = scoring("doctor", SCORING_BROKER_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert broken.code == 1
    assert "did not answer" in broken.out


def test_db_upgrade_makes_the_tables(scoring: Terminal) -> None:
    typed = scoring("db", "upgrade")

    assert typed.code == 0, typed.err
    assert "is at revision" in typed.err


def test_every_command_is_documented(scoring: Terminal) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    changes = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")
    listed = re.findall(r"^│ (\w+) ", scoring("--help").out, re.MULTILINE)

    assert len(listed) >= 13
    for command in listed:
        assert command in readme or command in changes, command


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}
