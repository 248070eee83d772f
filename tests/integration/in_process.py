"""A run's steps in the test's own process, where a test can change something between any two."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scoring import Job, Settings
from scoring.ledger import RunRecord
from scoring.runs import Occasion, create, finish_run, score_chunk
from scoring.runs.context import Context
from tests.silent_bell import SilentBell

ROWS = 300


@contextmanager
def opened(settings: Settings) -> Iterator[Context]:
    """What a worker with these settings has; it is told of nothing."""
    context = Context.open(settings, SilentBell())
    context.ledger.database.ready()
    try:
        yield context
    finally:
        context.ledger.database.engine.dispose()


def rows(path: Path, count: int = ROWS) -> Path:
    """Write a table of ``id``, ``a`` and ``b``; return its path."""
    numbers = np.random.default_rng(7).normal(size=(count, 2)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"id": np.arange(count), "a": numbers[:, 0], "b": numbers[:, 1]}
    pq.write_table(pa.table(columns), path)
    return path


def job(model: str, source: Path | str, output: Path | str, **more: Any) -> Job:
    """A job of these places, which searches for no variant."""
    places = {"input": {"path": str(source)}, "output": {"path": str(output)}}
    usual = {"name": "safe", "key": ["id"], "precision": {"variant": "native"}, **places}
    return Job(**{**usual, "model": model, **more})


def created(context: Context, wanted: Job, **how: Any) -> RunRecord:
    """A run that was planned and not begun."""
    return create(context, wanted, Occasion(), trigger="manual", **how).run


def scored(context: Context, run: RunRecord) -> RunRecord:
    """The run once its chunks were tried, and it was finished if it was to be."""
    for number in range(run.chunks):
        score_chunk(context, run.id, number)
    return finished(context, run)


def finished(context: Context, run: RunRecord) -> RunRecord:
    """The run once it was finished, if it was to be."""
    finish_run(context, run.id)
    return context.ledger.runs.get(run.id)
