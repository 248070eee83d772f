"""The rows of a chunk that could not be scored, each with its reason, file and row number."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from scoring.data import publish, sink
from scoring.errors import ErrorBudgetExceeded
from scoring.pipeline.work import ChunkWork, Rows, Slab

REASON, FILE, ROW = "_reason", "_input_file", "_row"
"""Columns before those of the input: why a row was refused, and where it was read."""


class Quarantine:
    """Collects refused rows, up to the run's error budget.

    A replay reads what a quarantine holds; rows that it refuses keep the file and the row number
    that they came from at first.
    """

    def __init__(self, work: ChunkWork) -> None:
        self._work = work
        self._refused: list[pa.RecordBatch] = []
        self._reasons: Counter[str] = Counter()

    @property
    def rows(self) -> int:
        return self._reasons.total()

    @property
    def room(self) -> int:
        """Rows that may still be refused."""
        return self._work.budget_rows - self.rows

    def add(self, slab: Slab, rows: Rows, reason: str) -> None:
        """Refuse some rows of a slab.

        Raises:
            ErrorBudgetExceeded: they are too many; those found so far are kept for a person.
        """
        refused = slab.rows.take(pa.array(rows, pa.int64()))
        count = len(rows)
        file = pa.repeat(slab.file, count)
        row = pa.array(rows + slab.first_row, pa.int64())
        if self._work.replayed:
            file, row = refused.column(FILE), refused.column(ROW)
            refused = refused.drop_columns([FILE, ROW])
        self._refused.append(
            pa.RecordBatch.from_arrays(
                [pa.repeat(reason, count), file, row, *refused.columns],
                names=[REASON, FILE, ROW, *refused.schema.names],
            )
        )
        self._reasons[reason] += count
        if self.room < 0:
            raise self._exceeded()

    def write(self, part: str) -> None:
        """Write the refused rows beside the part, if there are any."""
        if self._refused:
            sink.write_quarantine(self._work.staging / sink.quarantine_name(part), self._refused)

    def _exceeded(self) -> ErrorBudgetExceeded:
        work = self._work
        work.overflow.mkdir(parents=True, exist_ok=True)
        sink.write_quarantine(work.overflow / publish.part_file(work.number), self._refused)
        return ErrorBudgetExceeded(
            self.rows,
            work.run_rows,
            work.error_budget,
            str(work.overflow),
            self._reasons.most_common(1)[0][0],
        )
