"""The ledger: tables of runs, chunks, searches, slots, deliveries; the only source of truth."""

from __future__ import annotations

from dataclasses import dataclass

from scoring.ledger.audit import Audit, LoggedEvent, Verdict
from scoring.ledger.callers import Callers
from scoring.ledger.chain import Fault
from scoring.ledger.chunks import Chunks
from scoring.ledger.database import Database
from scoring.ledger.decisions import Decisions
from scoring.ledger.deliveries import Deliveries
from scoring.ledger.leftovers import KnownSearch, Leftovers, Owner, UsedModel
from scoring.ledger.records import (
    ENDED,
    ChunkRecord,
    Claim,
    Committed,
    DeliveryClaim,
    DeliveryRecord,
    EventRecord,
    InputRecord,
    NewDelivery,
    NewRun,
    Resolution,
    RunRecord,
)
from scoring.ledger.replays import Added, Replays
from scoring.ledger.runs import Created, Finishing, Runs
from scoring.ledger.searches import SearchClaim, Searches
from scoring.ledger.slots import Slots
from scoring.ledger.sweep import Lease, Lost, Sweep

__all__ = [
    "ENDED",
    "Added",
    "ChunkRecord",
    "Claim",
    "Committed",
    "Created",
    "Database",
    "DeliveryClaim",
    "DeliveryRecord",
    "EventRecord",
    "Fault",
    "Finishing",
    "InputRecord",
    "KnownSearch",
    "Lease",
    "Ledger",
    "LoggedEvent",
    "Lost",
    "NewDelivery",
    "NewRun",
    "Owner",
    "Resolution",
    "RunRecord",
    "SearchClaim",
    "UsedModel",
    "Verdict",
]


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledger's parts over one database."""

    database: Database
    runs: Runs
    chunks: Chunks
    searches: Searches
    replays: Replays
    leftovers: Leftovers
    slots: Slots
    decisions: Decisions
    deliveries: Deliveries
    sweep: Sweep
    callers: Callers
    audit: Audit

    @classmethod
    def open(cls, url: str, lease_seconds: float) -> Ledger:
        """A ledger over ``url``; connects at the first use, not here."""
        database = Database(url)
        return cls(
            database=database,
            runs=Runs(database, lease_seconds),
            chunks=Chunks(database, lease_seconds),
            searches=Searches(database, lease_seconds),
            replays=Replays(database),
            leftovers=Leftovers(database),
            slots=Slots(database),
            decisions=Decisions(database),
            deliveries=Deliveries(database),
            sweep=Sweep(database),
            callers=Callers(database),
            audit=Audit(database),
        )
