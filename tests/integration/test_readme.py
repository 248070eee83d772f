"""The README is what a newcomer types, so the tests type it too, block by block, in order."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from scoring import Settings, latest_runs
from scoring.job import Job
from tests.integration.processes import PATIENCE

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+) (\S+)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MOST_LINES = 250
DEADLINE_SECONDS = 800.0
"""Seconds after which what somebody typed counts as stuck: the demo takes two minutes here."""


@dataclass(frozen=True)
class Block:
    """One fenced block: ```language name [how]."""

    language: str
    name: str
    how: str
    text: str


BLOCKS = [Block(*found) for found in BLOCK.findall(README)]


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < MOST_LINES


def test_every_fenced_block_is_named_so_that_it_is_run() -> None:
    assert README.count("\n```") == 2 * len(BLOCKS)


def test_the_order_is_demo_own_model_schedule_python_flower() -> None:
    headings = re.findall(r"^## (.*)$", README, re.MULTILINE)
    wanted = ["See it run", "Your own model", "Every night", "Ad hoc", "Watch it in Flower"]
    found = [heading for name in wanted for heading in headings if heading.startswith(name)]
    assert found == sorted(found, key=headings.index)
    assert len(found) == len(wanted)


def test_every_setting_is_documented_and_those_of_the_readme_are_among_them() -> None:
    read = {f"SCORING_{name.upper()}" for name in Settings.model_fields}
    read -= {"SCORING_TRACKING_URI", "SCORING_CACHE_URL", "SCORING_S3_ENDPOINT"}
    read |= {"MLFLOW_TRACKING_URI"}
    assert settings_in((ROOT / "docs" / "settings.md").read_text(encoding="utf-8")) == read
    assert settings_in(README) < read


def settings_in(page: str) -> set[str]:
    """The variables of a page's table."""
    return set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_a_newcomer_who_types_the_readme_gets_what_it_says(tmp_path: Path) -> None:
    tour = Tour(tmp_path)
    try:
        for block in BLOCKS:
            if block.name in ("demo", "fleet"):
                continue  # the demo has a test of its own, and so have the fleet's commands
            tour.follow(block)
        tour.wait_for(lambda: tour.ended() >= 4)
        runs = {run["slot"]: run for run in tour.runs() if run["trigger"] != "schedule"}
        assert set(runs) == {"2026-11-23", "2026-11-24", "2026-11-25", "2026-11-26"}
        assert {run["state"] for run in runs.values()} == {"published"}
        assert runs["2026-11-23"]["drift_severity"] is None
        assert runs["2026-11-24"]["drift_severity"] == "none"
        assert sorted(os.listdir(tour.folder / "scores" / "date=2026-11-25")) == [
            "_SUCCESS",
            "_manifest.json",
            "part-00000.parquet",
        ]
    finally:  # also of a test that fails
        tour.stop()


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_the_demo_runs_over_an_earlier_one_and_leaves_nothing_running(tmp_path: Path) -> None:
    old = ROOT / ".scoring" / "demo" / "scores" / "date=2013-07-01" / "part-00001.parquet"
    old.parent.mkdir(parents=True, exist_ok=True)
    old.write_bytes(b"of an earlier demo")
    printed = typed([*python(), "-m", "examples.flights.demo"], tmp_path)
    assert len(re.findall(r"2013-07-0[1-7] 02:30 +published", printed)) == 7
    assert re.search(r"2013-07-01 02:30 +published +1 +severe", printed)
    assert not old.exists()
    home = str(ROOT / ".scoring" / "demo")
    shown = next(line for line in printed.splitlines() if "scoring evaluate" in line)
    evaluated = typed(["bash", "-c", shown.replace(".venv/bin/", "", 1)], tmp_path)
    assert "AUC" in evaluated
    left = [p.pid for p in psutil.process_iter() if home in " ".join(command_of(p))]
    assert left == []


def typed(command: list[str], home: Path) -> str:
    """What a command says that is typed in the root of the repository, and ends well."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=True,
    ).stdout


class Tour:
    """A folder in which the README's blocks are followed, in one environment."""

    def __init__(self, parent: Path) -> None:
        (parent / "nightscore").mkdir()
        self.folder = parent / "tour"
        self._start = parent / "nightscore"
        self._environment = environment(parent)
        self._background: list[subprocess.Popen[bytes]] = []

    def follow(self, block: Block) -> None:
        if block.language != "bash":
            self._write(block)
            if block.name in ("message.py",):
                self._bash(f"python {block.name}")
        elif block.how == "background":
            self._keep_running(block.text)
        elif block.name == "setup":
            text = block.text.replace("source .venv/bin/activate", "true")
            self._bash(f"{text}\nenv -0 > {self._start}/environment", self._start)
            raw = (self._start / "environment").read_text().split("\0")
            self._environment = dict(line.split("=", 1) for line in raw if line)
        else:
            self._bash(block.text)

    def runs(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self._bash("scoring runs --json"))
        return found

    def ended(self) -> int:
        """Runs that have; 0 while another goes on."""
        runs = latest_runs(settings=Settings(home=self.folder / ".scoring"))
        runs = [run for run in runs if run.record.trigger != "schedule"]  # it may be due just now
        return len(runs) if all(run.record.finished_at for run in runs) else 0

    def wait_for(self, condition: object) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.2)

    def stop(self) -> None:
        for process in self._background:
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0
            _, alive = psutil.wait_procs(children, timeout=PATIENCE)
            assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]

    def _write(self, block: Block) -> None:
        path = self.folder / block.name
        with path.open("a" if block.how == "append" else "w", encoding="utf-8") as file:
            file.write(block.text)
        if block.language == "toml":
            Job.load(path)

    def _bash(self, text: str, where: Path | None = None) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=where or self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _keep_running(self, text: str) -> None:
        log = self.folder / "background.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                text.split(),
                cwd=self.folder,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._background.append(process)
        self.wait_for(lambda: "ready" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        addresses = json.loads((self.folder / ".scoring" / "stack.json").read_text())
        self._environment["BROKER"] = addresses["broker"]


def python() -> list[str]:
    import sys

    return [sys.executable]


def environment(home: Path) -> dict[str, str]:
    """Nothing but a path and a home, as on a new machine."""
    import sys

    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8"}


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []
