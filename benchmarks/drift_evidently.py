"""Evidently's DataDriftPreset on two Parquet files: a program for an environment of its own.

Runs where `benchmarks.drift` has installed Evidently, which wants a pandas that we do not; so it
imports nothing of ours but the meter.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset
from pandas.api.types import is_numeric_dtype

from benchmarks.drift_process import Meter


def report(reference: Path, current: Path, page: Path, meter: Meter) -> int:
    """Read both files, measure, write the page; return how many columns were measured."""
    with meter.step("read"):
        frames = [pandas.read_parquet(file) for file in (reference, current)]
    with meter.step("measure"):
        before, now = (_dataset(frame) for frame in frames)
        measured = Report([DataDriftPreset()]).run(now, before)
    with meter.step("page"):
        measured.save_html(str(page))
    return sum("ValueDrift" in str(metric) for metric in measured.dict()["metrics"])


def _dataset(frame: pandas.DataFrame) -> Any:
    """The frame with its columns named, so that Evidently does not take text for free text."""
    numeric = [name for name in frame if is_numeric_dtype(frame[name])]
    definition = DataDefinition(
        numerical_columns=numeric,
        categorical_columns=[name for name in frame if name not in numeric],
    )
    return Dataset.from_pandas(frame, data_definition=definition)


def main() -> None:
    parser = argparse.ArgumentParser(description="Report drift between two files with Evidently.")
    parser.add_argument("reference", type=Path)
    parser.add_argument("current", type=Path)
    options = parser.parse_args()
    meter = Meter()
    with TemporaryDirectory(prefix="nightscore-drift-") as folder:
        columns = report(options.reference, options.current, Path(folder) / "page.html", meter)
    print(json.dumps({**meter.spent(), "columns": columns}))


if __name__ == "__main__":
    main()
