"""What must be true of a run when it has ended, found out without the product's own readers."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scoring.ledger import Ledger, RunRecord
from tests.chaos.material import Material, Table
from tests.chaos.tally import Tally

TOLERANCE = 1e-5
"""Between a score and the model called directly, by other batches and threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What lay in the output folder at some moment; equal ones hold the same bytes."""

    run_id: str | None
    digest: str


NOWHERE = Standing(run_id=None, digest=hashlib.sha256().hexdigest())
"""No output yet."""


def standing(output: Path) -> Standing:
    """What lies there now."""
    total = hashlib.sha256()
    for path in sorted(output.iterdir()) if output.is_dir() else ():
        total.update(path.name.encode() + b"\0" + path.read_bytes())
    manifest = output / "_manifest.json"
    run = json.loads(manifest.read_text("utf-8"))["run_id"] if manifest.is_file() else None
    return Standing(run_id=run, digest=total.hexdigest())


def check_run(
    tally: Tally,
    ledger: Ledger,
    run_id: str,
    table: Table,
    material: Material,
    before: Standing,
) -> None:
    """Count what became of a run whose chaos is over; ``before`` is what lay there earlier."""
    run = ledger.runs.get(run_id)
    tally.runs += 1
    tally.outcomes[run.state if run.state == "published" else _reason(run)] += 1
    now = standing(Path(run.output))
    if run.state == "published":
        _check_published(tally, run, now, table, material)
    elif run.state not in ("failed", "cancelled"):
        tally.broken.append(f"{run_id} has not ended: {run.state}")
    elif not run.error:
        tally.broken.append(f"{run_id} is {run.state} without a message")
    elif now != before:
        tally.broken.append(
            f"{run_id} is {run.state} ({run.error}), but the output changed from {before.run_id} "
            f"to {now.run_id}"
        )
    _check_attempts(tally, ledger, run)


def _reason(run: RunRecord) -> str:
    """How a run ended, without names of users and machines."""
    if run.state == "cancelled":
        return run.state
    return f"{run.state}: {(run.error or 'no message')[:90]}"


def _check_published(
    tally: Tally, run: RunRecord, now: Standing, table: Table, material: Material
) -> None:
    if now.run_id != run.id:
        tally.broken.append(f"{run.id} is published, but {now.run_id} lies in its output")
        return
    output = Path(run.output)
    manifest: dict[str, Any] = json.loads((output / "_manifest.json").read_text("utf-8"))
    parts = [pq.read_table(output / part["file"]) for part in manifest["parts"]]
    found = pa.concat_tables(parts)
    _count_rows(tally, run, table, found)
    _check_scores(tally, run, table, found, material.scores[table.number, run.model])
    if (run.rows_in, run.rows_scored, run.rows_quarantined) != (table.rows, table.rows, 0):
        tally.broken.append(
            f"{run.id}: the ledger counts {run.rows_scored} + {run.rows_quarantined} of "
            f"{run.rows_in} rows, the table has {table.rows}"
        )


def _count_rows(tally: Tally, run: RunRecord, table: Table, found: pa.Table) -> None:
    wanted = np.arange(table.first, table.first + table.rows)
    rows = found["row"].to_numpy()
    tally.rows_in += table.rows
    if np.array_equal(rows, wanted):
        return
    times = Counter(rows.tolist())
    lost = int((~np.isin(wanted, rows)).sum())
    doubled = sum(count - 1 for count in times.values())
    tally.rows_lost += lost
    tally.rows_doubled += doubled
    tally.broken.append(f"{run.id}: {lost} rows lost, {doubled} doubled, or out of order")


def _check_scores(
    tally: Tally, run: RunRecord, table: Table, found: pa.Table, scores: np.ndarray
) -> None:
    rows = found["row"].to_numpy() - table.first
    if rows.size and (rows.min() < 0 or rows.max() >= table.rows):
        return  # counted above
    tolerance = TOLERANCE if run.variant == "native" else 0.01
    worst = float(np.abs(found["score"].to_numpy() - scores[rows]).max(initial=0.0))
    if worst > tolerance:
        tally.broken.append(f"{run.id}: a score is off by {worst}, variant {run.variant}")


def _check_attempts(tally: Tally, ledger: Ledger, run: RunRecord) -> None:
    most = max((chunk.attempt for chunk in ledger.chunks.of(run.id)), default=0)
    if most > run.max_attempts:
        tally.broken.append(f"{run.id}: a chunk had {most} attempts of {run.max_attempts}")
    if run.finish_attempt > run.max_attempts + 1:  # the one that only says that it is over
        tally.broken.append(f"{run.id}: {run.finish_attempt} finishers of {run.max_attempts}")
