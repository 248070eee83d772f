"""Rows per second of Nightscore against a well-made hand-written loop over the same files.

Both score the same Parquet with the same ONNX model on the same cores, in turn, so that a noisy
machine slows both; the figure to quote is the ratio of their medians.

*Engine*: from the first claim to the last commit in the ledger, by the embedded stack's two worker
children: validation, profile of every column against a reference, leases, parts synced to disk.
*Loop*: ``benchmarks.loop``: a reader thread, two predicting threads on one session, a writer
thread, the best batch size, and nothing else. Services and models are warm in both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.models import COLUMNS, Which, input_rows, onnx_file, register
from scoring import Job, Settings, get_run, reference, submit
from scoring.api import open_context
from scoring.ledger import Ledger
from scoring.settings import cores
from scoring.stack import Stack

LOOP_BATCH: dict[Which, int] = {"trees": 8_192, "network": 256}
"""Best batch sizes of the loop, see ``benchmarks.loop``."""
RESET_PEAK = "5"
"""Written to ``clear_refs``: forget a process's peak memory (Linux)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run of either."""

    rows: int
    seconds: float
    peak_mb: float
    """Largest resident memory, MiB: of the loop's process, of the worker's children together."""

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


class Engine:
    """The embedded stack, with a job and a reference profile for each model."""

    def __init__(self, stack: Stack, settings: Settings, folder: Path) -> None:
        self._stack, self._settings, self._folder = stack, settings, folder
        self._models: dict[Which, str] = {}

    def prepare(self, which: Which, rows: Path) -> None:
        """Register the model and profile one file of rows as its reference."""
        self._models[which] = register(self._settings.tracking_uri, which)
        first = sorted(rows.glob("*.parquet"))[0]
        reference.from_training(open_context(self._settings), self._models[which], str(first))

    def score(self, which: Which, rows: Path) -> Measured:
        """One run, published; time is from its first claim to its last commit."""
        job = Job(
            name=f"bench-{which}",
            model=self._models[which],
            key=["row_id"],
            input={"path": str(rows)},
            output={"path": str(self._folder / which)},
            precision={"variant": "native"},  # the loop's own; benchmarks.variants has the others
        )
        children = self._children()
        for child in children:
            Path(f"/proc/{child.pid}/clear_refs").write_text(RESET_PEAK)
        run = get_run(
            submit(job, settings=self._settings).wait(timeout=600).id, settings=self._settings
        )
        peak = sum(_peak_mb(child.pid) for child in children)
        ledger = Ledger.open(self._settings.database_url, self._settings.lease_seconds)
        chunks = ledger.chunks.of(run.id)
        began = min(float(chunk.claimed_at or 0.0) for chunk in chunks)
        ended = max(float(chunk.committed_at or 0.0) for chunk in chunks)
        return Measured(rows=run.record.rows_scored, seconds=ended - began, peak_mb=peak)

    def steps(self) -> dict[str, float]:
        """Seconds by step of the newest run, over all its chunks."""
        ledger = Ledger.open(self._settings.database_url, self._settings.lease_seconds)
        total: dict[str, float] = {}
        for chunk in ledger.chunks.of(ledger.runs.latest(limit=1)[0].id):
            for step, seconds in json.loads(chunk.timings or "{}").items():
                total[step] = total.get(step, 0.0) + seconds
        return total

    def _children(self) -> list[psutil.Process]:
        worker = self._stack.services["worker"].process
        if worker is None:
            raise SystemExit("the embedded worker is not running")
        return psutil.Process(worker.pid).children()


def loop(which: Which, rows: Path, folder: Path) -> Measured:
    """The hand-written loop, in a process of its own."""
    out = folder / f"loop-{which}.parquet"
    command = [
        *(sys.executable, "-m", "benchmarks.loop", "--rows-path", str(rows)),
        *("--model", str(onnx_file(which)), "--batch", str(LOOP_BATCH[which]), "--out", str(out)),
    ]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads(printed)
    return Measured(rows=found["rows"], seconds=found["seconds"], peak_mb=found["peak_rss_mb"])


def compare(engine: Engine, which: Which, rows: Path, runs: int, folder: Path) -> float:
    """Both in turn, ``runs`` times; print their medians and the ratio, and return it."""
    engine.score(which, rows)
    loop(which, rows, folder)
    ours, theirs = [], []
    for _ in range(runs):
        ours.append(engine.score(which, rows))
        theirs.append(loop(which, rows, folder))
    width = len(COLUMNS[which])
    table = Table(title=f"{which}: {width} columns, {ours[0].rows:,} rows, {runs} runs of each")
    for name in ("", "rows/s, median", "min", "max", "peak MiB"):
        table.add_column(name, justify="right" if name else "left")
    for name, measured in (("engine", ours), ("loop", theirs)):
        rates = [one.rate for one in measured]
        table.add_row(
            name,
            *(f"{value:,.0f}" for value in (statistics.median(rates), min(rates), max(rates))),
            f"{max(one.peak_mb for one in measured):,.0f}",
        )
    Console().print(table)
    steps = ", ".join(f"{step} {seconds:.2f}" for step, seconds in engine.steps().items())
    print(f"engine, seconds by step over both children, last run: {steps}")
    ratio = statistics.median(one.rate for one in ours) / statistics.median(
        one.rate for one in theirs
    )
    print(f"{which} ratio {ratio:.2f}\n")
    return ratio


def memory(engine: Engine, which: Which, sizes: list[int]) -> None:
    """Peak memory of the engine by input size."""
    for size in sizes:
        measured = engine.score(which, input_rows(which, size))
        peak = f"{measured.peak_mb:,.0f} MiB"
        print(f"{which} {size:,} rows: {measured.rate:,.0f} rows/s, peak of both children {peak}")


def _peak_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"process {pid} reports no peak memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=["trees", "network"], default=None)
    parser.add_argument(
        "--memory", nargs="*", type=int, help="instead, peak memory at these numbers of rows"
    )
    options = parser.parse_args()
    which: list[Which] = options.models or ["trees", "network"]
    home = Settings().home / "bench" / "home"
    with tempfile.TemporaryDirectory(prefix="nightscore-bench-") as scratch:
        folder = Path(scratch)
        settings = Settings(home=home, artifacts=folder / "artifacts")
        with Stack(settings) as stack:
            broker = stack.ensure().broker
            engine = Engine(stack, settings.model_copy(update={"broker_url": broker}), folder)
            for model in which:
                engine.prepare(model, input_rows(model, options.rows))
                if options.memory is not None:
                    memory(engine, model, options.memory or [2_000_000, 8_000_000])
                else:
                    compare(engine, model, input_rows(model, options.rows), options.runs, folder)
    print(f"on {cores()} cores")


if __name__ == "__main__":
    main()
