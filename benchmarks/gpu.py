"""Rows per second on a GPU: Nightscore, plain PyTorch in float16, and bare ONNX Runtime.

Two networks of three layers over 32 columns of real flights, one narrow and one wide, each scored

* from Parquet to Parquet by Nightscore's own chunk (validation, profiles, part synced to disk), and
  by the loop that one writes in PyTorch, which does none of that;
* from rows in memory by Nightscore's engine, by PyTorch, and by ONNX Runtime with IO binding.

All take turns; medians. Errors are against PyTorch in float32 on the CPU. Needs no server of any
kind, and stops before its time is up. `--device cpu` runs the same program where there is no GPU,
on less; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.gpu_lanes import Lane, Rows, lanes
from benchmarks.gpu_network import Device, Network, Vector
from scoring import devices
from scoring.settings import cores

RESULTS = Path(__file__).with_name("results") / "gpu.md"
CALIBRATION_ROWS = 4_096
ON_GPU = (2_000_000, [512, 4_096], [1_024, 8_192, 65_536])
ON_CPU = (50_000, [64], [256, 4_096])
"""Rows, widths of the networks, batch sizes."""
NEEDS = ("numpy", "pyarrow", "torch", "onnxruntime-gpu", "onnxruntime", "tensorrt", "nightscore")


def measure(found: Sequence[Lane], expected: Vector, rounds: int, deadline: float) -> None:
    """Let the lanes take turns until the rounds or the time are used up."""
    for number in range(rounds + 1):
        for lane in found:
            if time.monotonic() > deadline:
                return
            lane.turn(expected if number == 0 else None)


def report(found: Sequence[Lane], rows: int, device: Device, rounds: int) -> str:
    """The table, and what it was measured on."""
    head = ("network", "way", "precision", "batch", "rows/s", "largest error", "mean error")
    return "\n".join(
        [
            "# Rows per second on a GPU" if device == "cuda" else "# A trial run on a CPU",
            "",
            f"`python -m benchmarks.gpu`: {devices.device_name(device)}, {cores()} cores of "
            f"{devices.processor()}; {_versions()}. {rows:,} rows, medians of {rounds}, in turn.",
            "",
            "*files*: Parquet to Parquet. *memory*: rows in memory. Nightscore checks and profiles "
            "every row of the files it reads; the others do not. Errors are of the probability, "
            "against float32 on the CPU.",
            "",
            f"| {' | '.join(head)} |",
            f"|{' --- |' * 3}{' ---: |' * 4}",
            *(lane.row(rows) for lane in found),
        ]
    )


def _versions() -> str:
    found = []
    for name in NEEDS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def measured(options: argparse.Namespace, rows: Rows, scratch: Path) -> Iterator[Lane]:
    """All networks and batch sizes, one after the other: together they would not fit a GPU."""
    deadline = time.monotonic() + options.seconds
    groups = len(options.hidden) * len(options.batches)
    for hidden in options.hidden:
        network = Network(hidden, options.device, scratch / f"32-{hidden}")
        variants = network.variants(rows.matrix[:CALIBRATION_ROWS])
        expected = network.expected(rows.matrix)
        for batch in options.batches:
            now = time.monotonic()
            found = lanes(network, variants, rows, batch, scratch)
            measure(found, expected, options.rounds, now + max(0.0, deadline - now) / groups)
            groups -= 1
            for lane in found:
                lane.forget()
                yield lane


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--rows", type=int, help="default: 2,000,000, on a CPU 50,000")
    parser.add_argument("--hidden", type=int, nargs="+", help="widths; default: 512 4096")
    parser.add_argument("--batches", type=int, nargs="+", help="default: 1024 8192 65536")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=400.0, help="stop measuring after these")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}, of a GPU only")
    given = parser.parse_args()
    rows, hidden, batches = ON_GPU if given.device == "cuda" else ON_CPU
    given.rows = given.rows or rows
    given.hidden = given.hidden or hidden
    given.batches = given.batches or batches
    return given


def main() -> None:
    options = arguments()
    if options.device == "cuda" and not devices.gpus():
        print(
            f"There is {devices.missing_gpu()}. Nothing was measured; `--device cpu` tries the "
            "program itself.",
            file=sys.stderr,
        )
        raise SystemExit(2)
    rows = Rows.of(options.rows)
    with tempfile.TemporaryDirectory(prefix="nightscore-gpu-") as scratch:
        found = list(measured(options, rows, Path(scratch)))
    text = report(found, options.rows, options.device, options.rounds)
    print(text)
    if options.write and options.device == "cuda":
        RESULTS.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
