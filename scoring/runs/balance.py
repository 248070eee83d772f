"""The books of a run: what must add up, and be under its budget, before anything is published.

What counts is what lies in the staged files themselves, not what the ledger was told of them.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq

from scoring.data import publish, sink
from scoring.data.staged import Staging
from scoring.errors import ErrorBudgetExceeded, PartsDiffer, RowBalanceBroken
from scoring.job import Job
from scoring.ledger import ChunkRecord, RunRecord

FOOTER_READERS = 8
"""Footers of parts read at once."""


def check_balance(run: RunRecord, chunks: Sequence[ChunkRecord], staging: Staging) -> None:
    """Rows in the parts' own footers, not only in the ledger, must add up."""
    with ThreadPoolExecutor(FOOTER_READERS) as readers:
        footers = list(readers.map(lambda chunk: _footer(staging, chunk), chunks))
    columns = {str(footer.schema.to_arrow_schema().remove_metadata()) for footer in footers}
    if len(columns) > 1:
        one, other, *_ = sorted(text.replace("\n", ", ") for text in columns)
        raise PartsDiffer(run.id, one, other)
    written = [footer.num_rows for footer in footers]
    recorded = [chunk.rows_scored for chunk in chunks]
    quarantined = sum(chunk.rows_quarantined or 0 for chunk in chunks)
    per_chunk = all(
        chunk.rows == rows + (chunk.rows_quarantined or 0)
        for chunk, rows in zip(chunks, written, strict=True)
    )
    if not per_chunk or written != recorded or run.rows_in != sum(written) + quarantined:
        raise RowBalanceBroken(run.id, run.rows_in, sum(written), quarantined)


def _footer(staging: Staging, chunk: ChunkRecord) -> pq.FileMetaData:
    return pq.read_metadata(staging.reader(str(chunk.part)))


def collect_quarantine(
    chunks: Sequence[ChunkRecord], staging: Staging, folder: Path
) -> Counter[str]:
    """Copy quarantined rows to their own place; return how often each reason occurs."""
    reasons: Counter[str] = Counter()
    shutil.rmtree(folder, ignore_errors=True)
    for chunk in chunks:
        if not chunk.rows_quarantined:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        collected = folder / publish.part_file(chunk.number)
        staging.fetch(sink.quarantine_name(str(chunk.part)), collected)
        for reason in pq.read_table(collected, columns=["_reason"])["_reason"].value_counts():
            reasons[reason["values"].as_py()] += reason["counts"].as_py()
    return reasons


def check_budget(run: RunRecord, job: Job, reasons: Counter[str], folder: Path) -> None:
    if run.rows_quarantined > job.execution.budget_rows(run.rows_in):
        raise ErrorBudgetExceeded(
            run.rows_quarantined,
            run.rows_in,
            job.execution.error_budget,
            str(folder),
            reasons.most_common(1)[0][0],
        )
