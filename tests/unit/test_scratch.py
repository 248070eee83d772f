"""Scratch folders: one for each process, and none left by those that were killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scoring.runs.scratch import scratch_folder


def test_a_killed_process_leaves_nothing_for_long(tmp_path: Path) -> None:
    leave = (
        "import os, sys; from pathlib import Path; from scoring.runs.scratch import scratch_folder;"
        "folder = scratch_folder(Path(sys.argv[1])); folder.mkdir(parents=True);"
        "(folder / 'part').write_text('half'); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", leave, str(tmp_path)], check=False)
    assert killed.returncode == -9
    assert len(list((tmp_path / "scratch").rglob("part"))) == 1

    mine = scratch_folder(tmp_path)

    assert list((tmp_path / "scratch").iterdir()) == []
    mine.mkdir()
    assert scratch_folder(tmp_path) == mine
    assert mine.is_dir()


def test_what_a_process_of_another_host_has_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "scratch" / "elsewhere%2F4026531836%2F17%2F123"
    theirs.mkdir(parents=True)

    scratch_folder(tmp_path)

    assert theirs.is_dir()
