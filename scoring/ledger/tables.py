"""The ledger's tables: the only source of truth about runs.

Times are seconds since the epoch, by the database's own clock, so that a worker whose clock is
wrong cannot shorten or stretch a lease. ``alembic/`` builds exactly these tables, and a test says
so; ``REVISION`` is the migration they stand for.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

REVISION = "0004"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(160), primary_key=True),
    Column("job", String(100), nullable=False),
    Column("slot", String(40)),  # due time or logical date; unique only in `slots`
    Column("trigger", String(20), nullable=False),  # schedule | manual | replay
    Column("replay_of", String(160)),  # the run whose quarantined rows this one scores again
    Column("idempotency_key", String(200)),
    Column("state", String(20), nullable=False),
    Column("job_json", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("model", String(500), nullable=False),  # as the job names it
    Column("model_name", String(300)),
    Column("model_version", String(40)),
    Column("model_source", Text),
    Column("model_digest", String(64)),
    Column("flavor", String(40)),
    Column("resolution", String(20)),  # registry | last: as it did not answer, the last known pin
    Column("variant", String(20)),  # null until the first worker has chosen one
    Column("batch_rows", Integer),  # rows of one call of the model, pinned with the variant
    Column("search", String(64)),  # what the variant was chosen from, see `searches`
    Column("precision", Text),  # JSON: the choice with its numbers
    Column("engine", String(80)),
    Column("device", String(80)),
    Column("output", Text, nullable=False),
    Column("staging", Text),
    Column("artifacts", Text, nullable=False),
    Column("queue", String(100), nullable=False),
    Column("priority", Integer, nullable=False),  # 0 goes first, 9 last
    Column("max_attempts", Integer, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("chunks_done", Integer, nullable=False),
    Column("rows_in", BigInteger, nullable=False),
    Column("rows_scored", BigInteger, nullable=False),
    Column("rows_quarantined", BigInteger, nullable=False),
    Column("finish_attempt", Integer, nullable=False),
    Column("finish_worker", String(200)),
    Column("finish_lease_until", Double),
    Column("deadline_at", Double),
    Column("released", Integer, nullable=False),  # 1: a person let a held run be published
    Column("decision", String(20)),  # released | rejected, by a person, when it was held
    Column("decided_by", Text),
    Column("decision_reason", Text),
    Column("drift_severity", String(20)),
    Column("report", Text),
    Column("error", Text),
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    Index("uq_runs_idempotency_key", "idempotency_key", unique=True),
    Index("ix_runs_state", "state"),
    Index("ix_runs_job_created_at", "job", "created_at"),
    Index("ix_runs_replay_of", "replay_of"),
)

inputs = Table(
    "inputs",
    metadata,
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("path", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("stamp", String(100), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("row_groups", Integer, nullable=False),
    Column("partitions", Text, nullable=False),  # JSON: [[name, value], ...]
)

chunks = Table(
    "chunks",
    metadata,
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("spans", Text, nullable=False),  # JSON, see plan.spans_to_json
    Column("rows", BigInteger, nullable=False),
    Column("state", String(20), nullable=False),  # waiting | leased | done | failed
    Column("attempt", Integer, nullable=False),  # the fencing token
    Column("deaths", Integer, nullable=False),  # attempts that ended without a word
    Column("worker", String(200)),
    Column("lease_until", Double),
    Column("sent_at", Double),
    Column("claimed_at", Double),
    Column("committed_at", Double),
    Column("part", Text),
    Column("part_digest", String(64)),
    Column("rows_scored", BigInteger),
    Column("rows_quarantined", BigInteger),
    Column("timings", Text),  # JSON: seconds by step
    Column("error", Text),
    Index("ix_chunks_state_lease_until", "state", "lease_until"),
)

events = Table(
    "events",
    metadata,
    Column(
        "id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    Column("position", BigInteger, nullable=False),  # in the chain, from 1, without gaps
    Column("run_id", String(160)),
    Column("at", Double, nullable=False),
    Column("event", String(60), nullable=False),
    Column("detail", Text, nullable=False),  # JSON
    Column("hash", String(64), nullable=False),  # over the one before and this, see `chain`
    Index("ix_events_run_id", "run_id"),
    Index("uq_events_position", "position", unique=True),
)

event_chain = Table(  # one row: where the chain of events ends
    "event_chain",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("length", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)

callers = Table(  # token buckets: who may submit how much more
    "callers",
    metadata,
    Column("caller", String(200), primary_key=True),
    Column("tokens", Double, nullable=False),  # submissions left, as of `filled_at`
    Column("filled_at", Double, nullable=False),
)

slots = Table(
    "slots",
    metadata,
    Column("job", String(100), primary_key=True),
    Column("slot", String(40), primary_key=True),  # due time, ISO 8601 with offset
    Column("run_id", String(160), nullable=False),
    Column("taken_at", Double, nullable=False),
)

schedules = Table(
    "schedules",
    metadata,
    Column("job", String(100), primary_key=True),
    Column("considered_until", Double, nullable=False),  # every slot up to here was decided on
)

searches = Table(
    "searches",
    metadata,
    Column("key", String(64), primary_key=True),  # see runs.search.Subject.key
    Column("model_digest", String(64), nullable=False),
    Column("device", String(200), nullable=False),
    Column("attempt", Integer, nullable=False),  # the fencing token
    Column("failures", Integer, nullable=False),  # searches that ended without a result
    Column("worker", String(200)),
    Column("lease_until", Double),
    Column("result", Text),  # JSON, see scoring.models.SearchResult; null until it is found
    Column("found_at", Double),
    Index("ix_searches_model_digest", "model_digest"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(36), primary_key=True),  # a UUID made of the run, the action, the channel
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("action", String(20), nullable=False),  # retrain | review
    Column("channel", String(20), nullable=False),  # webhook | task
    Column("target", Text, nullable=False),  # name of the webhook or of the task, never an address
    Column("task_queue", Text),
    Column("payload", Text, nullable=False),  # JSON, see runs.deliveries.payload
    Column("state", String(20), nullable=False),  # waiting | delivered | failed
    Column("attempts", Integer, nullable=False),  # the last one's number is its fencing token
    Column("next_at", Double, nullable=False),  # due from then on: a pause, or a deliverer's lease
    Column("last_error", Text),
    Column("created_at", Double, nullable=False),
    Column("delivered_at", Double),
    Index("ix_deliveries_state_next_at", "state", "next_at"),
    Index("ix_deliveries_run_id", "run_id"),
)


class database_now(FunctionElement[float]):  # noqa: N801 - reads as the SQL function it is
    """The database's clock: seconds since the epoch, moving within a transaction."""

    type = Double()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _now_sqlite(element: database_now, compiler: Any, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_now, "postgresql")
def _now_postgresql(element: database_now, compiler: Any, **kw: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"
