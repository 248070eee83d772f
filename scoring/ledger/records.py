"""Rows of the ledger as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from scoring.plan import Span

RunState = Literal["running", "finishing", "published", "held", "failed", "cancelled"]
ENDED: frozenset[str] = frozenset({"published", "held", "failed", "cancelled"})
"""States in which nothing more happens by itself."""
Decision = Literal["released", "rejected"]
Resolution = Literal["registry", "last"]
DeliveryState = Literal["waiting", "delivered", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run, as the ledger knows it. Times are seconds since the epoch."""

    id: str
    job: str
    slot: str | None
    trigger: str
    replay_of: str | None
    """The run whose quarantined rows this one scores again."""
    idempotency_key: str | None
    state: RunState
    job_json: str
    fingerprint: str
    model: str
    model_name: str | None
    model_version: str | None
    model_source: str | None
    model_digest: str | None
    flavor: str | None
    resolution: Resolution | None
    """Who said which version it is: the registry, or, when it was down, the last known pin."""
    variant: str | None
    batch_rows: int | None
    search: str | None
    precision: str | None
    engine: str | None
    device: str | None
    output: str
    staging: str | None
    artifacts: str
    queue: str
    priority: int
    max_attempts: int
    chunks: int
    chunks_done: int
    rows_in: int
    rows_scored: int
    rows_quarantined: int
    finish_attempt: int
    finish_worker: str | None
    finish_lease_until: float | None
    deadline_at: float | None
    released: int
    decision: Decision | None
    """What a person decided when the run was held, who, and why."""
    decided_by: str | None
    decision_reason: str | None
    drift_severity: str | None
    report: str | None
    error: str | None
    created_at: float
    finished_at: float | None

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """What `create` writes: a run before its first chunk."""

    id: str
    job: str
    slot: str | None
    trigger: str
    idempotency_key: str | None
    job_json: str
    fingerprint: str
    model: str
    model_name: str | None
    model_version: str | None
    model_source: str | None
    model_digest: str | None
    flavor: str | None
    variant: str | None
    device: str | None
    output: str
    staging: str | None
    artifacts: str
    queue: str
    priority: int
    max_attempts: int
    deadline_seconds: float | None
    """Time from creation after which an unfinished run fails; ``None``: never."""
    resolution: Resolution | None = None
    """Who said which version it is; ``None``: nobody did."""
    replay_of: str | None = None
    """The run whose quarantined rows this one scores again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRecord:
    """One line of a run's input manifest."""

    number: int
    path: str
    size: int
    stamp: str
    rows: int
    row_groups: int
    partitions: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A worker's hold on one chunk; ``attempt`` is the fencing token."""

    run_id: str
    number: int
    attempt: int
    worker: str
    rows: int
    spans: tuple[Span, ...]
    deaths: int = 0
    """Earlier attempts that ended without a word: their worker died, or was killed."""

    def __str__(self) -> str:
        return f"{self.run_id}/{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What one attempt made of a chunk."""

    part: str
    """File name of the part in the run's staging folder."""
    part_digest: str
    """SHA-256 of the part's bytes."""
    rows_scored: int
    rows_quarantined: int
    engine: str
    device: str
    timings: dict[str, float]
    """Seconds by step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRecord:
    """One chunk, as the ledger knows it."""

    run_id: str
    number: int
    spans: str
    rows: int
    state: str
    attempt: int
    deaths: int
    worker: str | None
    lease_until: float | None
    sent_at: float | None
    claimed_at: float | None
    committed_at: float | None
    part: str | None
    part_digest: str | None
    rows_scored: int | None
    rows_quarantined: int | None
    timings: str | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """One line of a run's history."""

    at: float
    """Seconds since the epoch."""
    event: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """Something that somebody outside is to be told, once the run that it is about has ended."""

    id: str
    """The same for the same run, action and channel, however often the run is finished."""
    action: str
    channel: str
    target: str
    """Name of the webhook or of the task."""
    task_queue: str | None
    payload: str
    """JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryClaim:
    """A deliverer's hold on one delivery; ``attempt`` is the fencing token."""

    id: str
    run_id: str
    action: str
    channel: str
    target: str
    task_queue: str | None
    payload: str
    attempt: int
    at: float
    """When it was claimed, by the database's clock, in seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecord:
    """One delivery, as the ledger knows it. Times are seconds since the epoch."""

    id: str
    run_id: str
    action: str
    channel: str
    target: str
    task_queue: str | None
    payload: str
    state: DeliveryState
    attempts: int
    next_at: float
    last_error: str | None
    created_at: float
    delivered_at: float | None
