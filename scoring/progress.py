"""A progress bar over runs: rows, rows/s, chunks and time left, read from the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from scoring.ledger import ENDED, RunRecord

POLL_SECONDS = 0.2


class _Rows(ProgressColumn):
    """``1,200,000/2,000,000 rows  410,000 rows/s``."""

    def render(self, task: Task) -> Text:
        speed = f"{task.speed:,.0f} rows/s" if task.speed else "- rows/s"
        done = f"{int(task.completed):,}/{int(task.total or 0):,} rows"
        return Text(f"{done}  {speed}", no_wrap=True)


def follow(
    read: Callable[[], Sequence[RunRecord]],
    *,
    show: bool,
    timeout: float | None = None,
    each: Callable[[], None] = lambda: None,
    label: str = "",
) -> Sequence[RunRecord]:
    """Poll ``read`` until it returns runs that have all ended; return them.

    ``each`` is called at every poll, and may raise to give up.

    Raises:
        TimeoutError: they have not ended after ``timeout`` seconds; they go on regardless.
    """
    began = time.monotonic()
    bar = Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        _Rows(),
        TextColumn("{task.fields[chunks]} chunks"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not show,
    )
    with bar:
        line = bar.add_task(label, total=None, chunks="0/0")
        while True:
            each()
            runs = read()
            _update(bar, line, runs, label)
            if runs and all(run.state in ENDED for run in runs):
                return runs
            if timeout is not None and time.monotonic() - began > timeout:
                raise TimeoutError(
                    f"not ended after {timeout:.0f} s: "
                    + ", ".join(run.id for run in runs if run.state not in ENDED)
                    + ". They go on; `scoring status RUN` shows how far they are."
                )
            time.sleep(POLL_SECONDS)


def _update(bar: Progress, line: object, runs: Sequence[RunRecord], label: str) -> None:
    chunks = f"{sum(run.chunks_done for run in runs)}/{sum(run.chunks for run in runs)}"
    bar.update(
        line,  # type: ignore[arg-type]  # rich's TaskID is an int of another name
        total=sum(run.rows_in for run in runs) or None,
        completed=sum(run.rows_scored + run.rows_quarantined for run in runs),
        chunks=chunks,
        description=label or (runs[0].job if runs else ""),
    )
