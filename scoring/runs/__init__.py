"""Runs: create, score chunks, finish, sweep; and the context that these share."""

from scoring.runs.chunk import score_chunk
from scoring.runs.context import Context, Doorbell
from scoring.runs.create import (
    PRIORITY_BACKFILL,
    PRIORITY_TONIGHT,
    create,
    create_or_record,
    wake,
)
from scoring.runs.finish import finish_run
from scoring.runs.places import Occasion, on_date
from scoring.runs.prepare import plan_document, prepare
from scoring.runs.sweep import sweep
from scoring.runs.times import iso_time

__all__ = [
    "PRIORITY_BACKFILL",
    "PRIORITY_TONIGHT",
    "Context",
    "Doorbell",
    "Occasion",
    "create",
    "create_or_record",
    "finish_run",
    "iso_time",
    "on_date",
    "plan_document",
    "prepare",
    "score_chunk",
    "sweep",
    "wake",
]
