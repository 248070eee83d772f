"""`python -m benchmarks.drift`: a tiny form of it judges its figures, and reports as a run does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.drift_process import Meter
from benchmarks.drift_report import freeze, nightly
from benchmarks.drift_rows import COLUMNS, drift_rows
from tests.integration.processes import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in which the network is there already: a small one, since training takes a while."""
    bench = tmp_path / "home" / "bench"
    bench.mkdir(parents=True)
    onnx.save(small_network(columns=32), bench / "network.onnx")
    return tmp_path / "home"


def small_network(columns: int) -> onnx.ModelProto:
    weights = np.random.default_rng(2013).standard_normal((columns, 1)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "weights"], ["sum"]),
            helper.make_node("Sigmoid", ["sum"], ["chance"]),
            helper.make_node("Squeeze", ["chance", "second"], ["score"]),
        ],
        "small",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["row", columns])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["row"])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([1], np.int64), "second"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_the_benchmark_measures_what_drift_costs_and_judges_each_figure(home: Path) -> None:
    few = ("--rows", "20000", "--runs", "1", "--forms", "network-16")

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.drift", "--parts", "cost", "size", *few],
        env={**os.environ, "SCORING_HOME": str(home)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr
    targets = [line for line in done.stdout.splitlines() if ", target at " in line]
    assert [line.partition(":")[0] for line in targets] == [
        "profile and measures, network-16, 16 columns",
        "profile to page, beyond reading",
        "its memory",
    ]
    for line in targets:
        assert re.search(r": -?[\d,.]+ .*: (met, [\d,.]+ to spare|MISSED by [\d,.]+)$", line), line
    steps = next(line for line in done.stdout.splitlines() if "columns measured" in line)
    assert all(step in steps for step in ("profile", "merge", "compare", "trend", "page"))


def test_what_it_reports_is_a_drift_document_with_every_column_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCORING_HOME", str(tmp_path / "home"))
    before, now = drift_rows("reference", 20_000), drift_rows("current", 20_000)

    nightly(freeze(before).to_json(), now, tmp_path, Meter())

    document = json.loads((tmp_path / "drift.json").read_text("utf-8"))
    schema = ROOT / "scoring" / "drift" / "drift.schema.json"
    jsonschema.validate(document, json.loads(schema.read_text("utf-8")))
    measured = {column["name"] for column in document["columns"] if column["value"] is not None}
    assert measured >= set(COLUMNS)
    assert len(document["trend"]) == 30
    assert "</html>" in (tmp_path / "drift.html").read_text("utf-8")
