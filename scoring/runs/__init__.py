"""Runs: create, score chunks, finish, sweep; and the context that these share."""

from scoring.runs.caller import sender, this_caller, this_user
from scoring.runs.chunk import score_chunk
from scoring.runs.clean import clean
from scoring.runs.context import Context, Doorbell
from scoring.runs.create import (
    PRIORITY_BACKFILL,
    PRIORITY_TONIGHT,
    create,
    create_or_record,
    wake,
)
from scoring.runs.finish import finish_run
from scoring.runs.handing_back import hand_back_of
from scoring.runs.host import Host
from scoring.runs.identity import worker_of
from scoring.runs.places import Occasion, on_date
from scoring.runs.prepare import plan_document, prepare
from scoring.runs.replay import check_replayable
from scoring.runs.sweep import sweep
from scoring.runs.times import iso_time

__all__ = [
    "PRIORITY_BACKFILL",
    "PRIORITY_TONIGHT",
    "Context",
    "Doorbell",
    "Host",
    "Occasion",
    "check_replayable",
    "clean",
    "create",
    "create_or_record",
    "finish_run",
    "hand_back_of",
    "iso_time",
    "on_date",
    "plan_document",
    "prepare",
    "score_chunk",
    "sender",
    "sweep",
    "this_caller",
    "this_user",
    "wake",
    "worker_of",
]
