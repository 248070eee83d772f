"""What a run does about drift, in a process of its own: profile chunks, merge, compare, report.

The steps are those of the workers and of the finisher, without a ledger around them: each chunk
reads the reference profile and leaves its own as JSON; the finisher reads those back, and writes
profile.json, drift.json with the trend of thirty nights, and the page.

Invariant: whatever is asked of it, every row is counted; ``read`` alone only decodes the rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.drift_process import Meter
from scoring.data import source
from scoring.drift.page import page
from scoring.drift.profile.frame import Role, frames_for
from scoring.drift.profile.profile import Profile, Profiler, reference_from
from scoring.drift.report import DriftReport, compare
from scoring.drift.trend import RUNS, with_trend
from scoring.job import Drift
from scoring.plan import whole

SLAB_ROWS = 65_536
"""Rows that a worker profiles at once."""
IDENTITY: dict[str, Any] = {
    "job": "benchmark",
    "slot": None,
    "run_id": "benchmark-20261123T023000-000000",
    "model": "models:/benchmark/1",
    "model_version": "1",
    "variant": "native",
    "engine": "none",
    "device": "cpu",
    "output": "scores/benchmark",
    "created_at": "2026-11-23T02:30:00Z",
}


def batches(files: Iterable[Path]) -> Iterator[pa.RecordBatch]:
    """All rows of the files, as a worker reads them."""
    for file in files:
        names = pq.read_schema(file).names
        for one in source.scan(str(file), names):
            yield from source.read(one.file, whole(one.file), names, SLAB_ROWS)


def freeze(files: Sequence[Path]) -> Profile:
    """The profile of training rows."""
    return reference_from(lambda: map(_by_name, batches(files)), _kinds(files[0]))


def profile_chunk(file: Path, reference: str) -> str:
    """A file as one chunk: the JSON of its profile, counted as the reference's JSON says."""
    frozen = Profile.from_json(reference)
    profiler = Profiler(frames_for(frozen, _kinds(file), {}))
    for batch in batches([file]):
        profiler.add(_by_name(batch))
    return profiler.profile().to_json(frozen)


def finish(reference: str, chunks: Iterable[str], folder: Path, meter: Meter) -> DriftReport:
    """What the finisher makes of the chunks' profiles; its three files are left in ``folder``."""
    with meter.step("merge"):
        frozen = Profile.from_json(reference)
        current = Profile.from_chunks(chunks, frozen).settled()
        (folder / "profile.json").write_text(current.to_json(), encoding="utf-8")
    with meter.step("compare"):
        measured = compare(frozen, current, Drift())
    with meter.step("trend"):
        text = json.dumps(_document(measured), indent=1, allow_nan=False)
        earlier = [json.loads(text) for _ in range(RUNS - 1)]
        document = with_trend(json.loads(text), earlier)
        (folder / "drift.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    with meter.step("page"):
        (folder / "drift.html").write_text(page.render(document), encoding="utf-8")
    return measured


def read(files: Sequence[Path]) -> int:
    """Decode all rows and do nothing with them."""
    return sum(batch.num_rows for batch in batches(files))


def _document(measured: DriftReport) -> dict[str, Any]:
    """A report as the finisher completes it, of a run without anything special."""
    rows = {"rows_in": measured.rows, "rows_scored": measured.rows, "rows_quarantined": 0}
    return {
        "version": 2,
        **IDENTITY,
        **rows,
        **measured.to_dict(),
        "compared_with": {"kind": "model", "rows": measured.rows, "runs": [], "path": None},
        "persistence": {"wanted": 1, "in_a_row": 1},
        "actions": ["log"],
        "outcome": "publish",
        "decision": None,
        "quarantine": [],
        "gate": None,
        "timing": {"seconds": 1.0, "rows_per_second": 1.0, "chunks": 1, "steps": {"read": 1.0}},
        "performance": None,
    }


def _kinds(file: Path) -> list[tuple[str, Role, pa.DataType]]:
    return [(field.name, "feature", field.type) for field in pq.read_schema(file)]


def _by_name(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    return dict(zip(batch.schema.names, batch.columns, strict=True))


def nightly(reference: str, files: Sequence[Path], folder: Path, meter: Meter) -> DriftReport:
    """A run's part: its rows against a reference that was frozen before."""
    with meter.step("profile"):
        chunks = [profile_chunk(file, reference) for file in files]
    return finish(reference, chunks, folder, meter)


def main() -> None:
    parser = argparse.ArgumentParser(description="Read, or profile and report, Parquet files.")
    parser.add_argument("--read", action="store_true", help="only decode the rows")
    parser.add_argument("--frozen", type=Path, help="JSON of the reference profile")
    parser.add_argument("--reference", type=Path, nargs="+", help="instead, the files it is of")
    parser.add_argument("--current", type=Path, nargs="+", required=True, help="files of the run")
    options = parser.parse_args()
    meter, found = Meter(), {}
    if options.read:
        found["rows"] = read(options.current)
    else:
        if options.frozen:
            reference = options.frozen.read_text(encoding="utf-8")
        else:
            with meter.step("reference"):
                reference = freeze(options.reference).to_json()
        with TemporaryDirectory(prefix="nightscore-drift-") as folder:
            measured = nightly(reference, options.current, Path(folder), meter)
        found["columns"] = sum(column.value is not None for column in measured.columns)
        found["rows"] = measured.rows
    print(json.dumps({**meter.spent(), **found}))


if __name__ == "__main__":
    main()
