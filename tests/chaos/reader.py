"""A reader that polls the output path all the while, in a process of its own.

It is fair: it opens the folder once and reads everything through that, so that a folder which is
replaced under it stays the one it has opened; where files of such a folder are gone because it
was replaced, it begins again. It is also strict: the folder that lies at the path when it looks
must be complete and of one run, every time.

    python -m tests.chaos.reader OUTPUT REPORT

It ends at SIGTERM and then has written what it saw to REPORT, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tests.chaos.material import FIRST_ROWS

PAUSE_SECONDS = 0.01


class Replaced(Exception):
    """The folder is not at the path any more: begin again."""


class Mixture(Exception):
    """What no reader may ever see."""


def look(output: Path) -> str | None:
    """Read the output once; the id of the run that it holds, or None while there is none.

    Raises:
        Replaced: another folder took its place meanwhile.
        Mixture: it is not one complete run.
    """
    try:
        folder = os.open(output, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        with _at_the_path(output, folder):
            return _read(folder)
    finally:
        os.close(folder)


@contextmanager
def _at_the_path(output: Path, folder: int) -> Iterator[None]:
    """A fault counts only if the folder was at the path all the while."""
    try:
        yield
    except Exception as error:
        if not _is_at(output, folder):
            raise Replaced from error
        if isinstance(error, Mixture):
            raise
        raise Mixture(f"{type(error).__name__}: {error}") from error


def _is_at(output: Path, folder: int) -> bool:
    try:
        return os.path.samestat(os.stat(output), os.fstat(folder))
    except FileNotFoundError:
        return False


def _read(folder: int) -> str:
    names = set(os.listdir(folder))
    with _opened(folder, "_manifest.json") as file:
        manifest: dict[str, Any] = json.load(file)
    parts = [part["file"] for part in manifest["parts"]]
    wanted = {*parts, "_manifest.json", "_SUCCESS"}
    if names != wanted:
        raise Mixture(f"lies there: {sorted(names ^ wanted)} too many or too few")
    with _all_opened(folder, parts) as files:
        rows = _rows_of(files, manifest)
    first = rows[0] // FIRST_ROWS * FIRST_ROWS
    if not np.array_equal(rows, np.arange(first, first + manifest["rows_in"])):
        raise Mixture(f"{len(rows)} rows from {rows[0]} to {rows[-1]}: not one table in order")
    return str(manifest["run_id"])


def _rows_of(files: list[Any], manifest: dict[str, Any]) -> np.ndarray:
    """The numbers of the rows, part after part."""
    rows = []
    for file, part in zip(files, manifest["parts"], strict=True):
        parquet = pq.ParquetFile(file)
        said = parquet.metadata.metadata or {}
        run = said.get(b"run", said.get(b"nightscore.run", b"?")).decode()
        if run != manifest["run_id"]:
            raise Mixture(f"{part['file']} is of {run}, the manifest of {manifest['run_id']}")
        rows.append(parquet.read(columns=["row"])["row"].to_numpy())
        if len(rows[-1]) != part["rows"]:
            raise Mixture(f"{part['file']} has {len(rows[-1])} rows, not {part['rows']}")
    return np.concatenate(rows)


@contextmanager
def _opened(folder: int, name: str) -> Iterator[Any]:
    with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=folder), "rb") as file:
        yield file


@contextmanager
def _all_opened(folder: int, names: list[str]) -> Iterator[list[Any]]:
    files: list[Any] = []
    try:
        for name in names:
            files.append(os.fdopen(os.open(name, os.O_RDONLY, dir_fd=folder), "rb"))
        yield files
    finally:
        for file in files:
            file.close()


def watch(output: Path, report: Path) -> None:
    """Look again and again; write down what was seen at the end."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    seen: Counter[str] = Counter()
    mixtures: list[str] = []
    runs: list[str] = []
    published = False
    while not stopped:
        try:
            run = look(output)
        except Replaced:
            seen["replaced"] += 1
        except Mixture as mixture:
            mixtures.append(str(mixture))
        else:
            if run is None and published:
                mixtures.append("the output was gone for a moment")
            published = published or run is not None
            if run is not None and runs[-1:] != [run]:
                runs.append(run)
        seen["looks"] += 1
        _write(report, {**seen, "mixtures": mixtures[:20], "mixed": len(mixtures), "runs": runs})
        time.sleep(PAUSE_SECONDS)


def _write(report: Path, found: dict[str, Any]) -> None:
    fresh = report.with_suffix(".fresh")
    fresh.write_text(json.dumps(found), encoding="utf-8")
    os.replace(fresh, report)


if __name__ == "__main__":
    watch(Path(sys.argv[1]), Path(sys.argv[2]))
