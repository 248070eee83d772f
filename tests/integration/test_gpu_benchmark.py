"""`python -m benchmarks.gpu`: all of it runs without a GPU, except on one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.processes import ROOT

pytestmark = pytest.mark.slow

WAYS = {
    ("Nightscore, files", "fp32"),
    ("Nightscore, memory", "fp32"),
    ("ONNX Runtime, memory", "fp32"),
    ("Nightscore, files", "int8"),
    ("Nightscore, memory", "int8"),
    ("ONNX Runtime, memory", "int8"),
    ("PyTorch, files", "fp16"),
    ("PyTorch, memory", "fp16"),
}
LARGEST_ERROR = {"fp32": 1e-5, "fp16": 0.01, "int8": 0.1}


def benchmark(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *arguments],
        env={**os.environ, "SCORING_HOME": str(home), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_without_a_gpu_it_says_so_and_measures_nothing(tmp_path: Path) -> None:
    done = benchmark(tmp_path, CUDA_VISIBLE_DEVICES="")

    assert done.returncode == 2
    assert "There is no GPU" in done.stderr
    assert "--device cpu" in done.stderr
    assert done.stdout == ""


def test_the_trial_on_a_cpu_measures_every_way_and_their_scores_agree(tmp_path: Path) -> None:
    few = ("--rows", "5000", "--hidden", "32", "--batches", "999", "--rounds", "1")

    done = benchmark(tmp_path, "--device", "cpu", *few)

    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("| 32-32-32-1 |")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert {(way, precision) for _, way, precision, *_ in cells} == WAYS
    for _, way, precision, batch, rate, largest, mean in cells:
        assert batch == "999"
        assert int(rate.replace(",", "")) > 0, way
        assert float(mean) <= float(largest) < LARGEST_ERROR[precision], way
