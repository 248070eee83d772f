"""What a user calls from Python: submit a job, wait for the run, read its scores and report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date as calendar_date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoring import address
from scoring.errors import RunFailed, RunNotFound, RunNotInState
from scoring.job import Job
from scoring.job_files import find_job
from scoring.ledger import DeliveryRecord, Ledger, RunRecord
from scoring.progress import follow
from scoring.runs import Context, create, iso_time, on_date, this_caller, wake
from scoring.runs.places import DRIFT_FILE
from scoring.runs.reject import reject
from scoring.runs.replay import replay
from scoring.runs.report import show_decision
from scoring.settings import Settings
from scoring.telemetry import on_one_line
from scoring.wake import Bell

if TYPE_CHECKING:
    import pyarrow.dataset

SUCCESSFUL = frozenset({"published", "held"})


def submit(
    job: str | Path | Job,
    *,
    date: calendar_date | str | None = None,
    idempotency_key: str | None = None,
    settings: Settings | None = None,
) -> Run:
    """Start a run and return at once.

    Args:
        job: a `Job`, the path of a job file, or the name of one in the jobs folder.
        date: logical date, or its ``YYYY-MM-DD``, for paths that hold ``{date}``.
        idempotency_key: two calls with the same key return the same run.

    Raises:
        JobError, InputError, ModelError, OutputError: nothing was started, and why.
        BrokerNotConfigured, LedgerUnreachable: nothing was started.
        SubmissionRefused: this user has submitted too many in the last minute; nothing was started.
        BrokerUnreachable: the run named in it is recorded; the sweep will start it.
    """
    context = open_context(settings or Settings())
    found = job if isinstance(job, Job) else find_job(str(job), context.settings.jobs)
    address.broker_url(context.settings)
    created = create(
        context,
        found,
        on_date(date),
        trigger="manual",
        idempotency_key=idempotency_key,
        who=this_caller(),
    )
    return Run(created.run.id, context)


def get_run(run_id: str, *, settings: Settings | None = None) -> Run:
    """A run by its id. Raises: RunNotFound, LedgerUnreachable."""
    context = open_context(settings or Settings())
    return Run(context.ledger.runs.get(run_id).id, context)


def latest_runs(
    *,
    job: str | None = None,
    limit: int = 20,
    replays: bool = True,
    settings: Settings | None = None,
) -> list[Run]:
    """Runs, newest first; ``replays`` among them unless it is False."""
    context = open_context(settings or Settings())
    found = context.ledger.runs.latest(job=job, limit=limit, replays=replays)
    return [Run(run.id, context) for run in found]


def open_context(settings: Settings) -> Context:
    """Ledger, registry and doorbell; the broker is looked for when the bell first rings.

    Raises:
        LedgerUnreachable, LedgerOutdated.
    """
    context = Context.open(settings, Bell(lambda: address.broker_url(settings)))
    context.ledger.database.ready()
    return context


@dataclass(frozen=True, slots=True)
class Run:
    """One run; every property asks the ledger anew."""

    id: str
    _context: Context = field(repr=False)  # it holds addresses with passwords

    @property
    def status(self) -> str:
        """``running``, ``finishing``, ``published``, ``held``, ``failed`` or ``cancelled``."""
        return self.record.state

    @property
    def record(self) -> RunRecord:
        """Everything the ledger knows."""
        return self._ledger.runs.get(self.id)

    @property
    def error(self) -> str | None:
        """Why the run failed, if it did."""
        return self.record.error

    def wait(self, *, progress: bool = False, timeout: float | None = None) -> Run:
        """Block until the run has ended, with a progress bar if asked; return the run.

        Raises:
            RunFailed: it failed or was cancelled.
            TimeoutError: it has not ended after ``timeout`` seconds; it goes on regardless.
        """
        (run,) = follow(lambda: [self.record], show=progress, timeout=timeout)
        if run.state not in SUCCESSFUL:
            raise RunFailed(run.id, run.state, run.error or "no reason was recorded")
        return self

    def scores(self) -> pyarrow.dataset.Dataset:
        """The published scores, rows in input order; ``.to_table().to_pandas()`` makes a frame.

        Rows that were replayed come last. A replay has the scores of the run that it is of.

        Raises:
            RunNotInState: the run is not published, or a later run replaced its output.
        """
        run = self.record
        if run.replay_of is not None:
            return Run(run.replay_of, self._context).scores()
        if run.state != "published":
            raise RunNotInState(run.id, run.state, "published")
        output = self._context.output(run)
        found = output.manifest()
        if found is None or found["run_id"] != run.id:
            current = "nothing" if found is None else found["run_id"]
            raise RunNotInState(run.id, f"replaced by {current}", "still in place")
        try:
            return output.dataset([part["file"] for part in found["parts"]])
        except FileNotFoundError as error:
            raise RunNotInState(run.id, "being replaced", "still in place") from error

    def report(self) -> dict[str, Any]:
        """The drift report. Raises: RunNotInState: the run has none yet."""
        run = self.record
        path = Path(run.artifacts) / DRIFT_FILE
        if not path.is_file():
            raise RunNotInState(run.id, run.state, "finished, and so has a drift report")
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def evaluate(self, labels: str | Path, label: str | None = None) -> dict[str, Any]:
        """How good the published scores are, now that the truth of some rows is known.

        ``labels`` is Parquet (a file, a folder or a glob) with the columns of the job's key and
        ``label``, or only one beside the key. The figures, with 95% intervals and those of the
        model's reference, go into the run's report too, and a drop raises its severity.

        Raises:
            KeyMissing, LabelsUnusable, PathOutsideRoots: the labels cannot be matched.
            RunNotInState: the run is not published, or a later run replaced its output.
            ModelError: the reference's performance cannot be read.
        """
        from scoring.evaluation import evaluate

        return evaluate(self._context, self.record, labels, label)

    def replay(self, version: str | None = None, who: str = "") -> Run:
        """Score the run's quarantined rows again, and add them to it once they are scored.

        The version is the one that the job's model names now, unless one is given. Returns the
        replay, a run of its own, at once; ``wait`` for it. Rows that it cannot score stay in
        quarantine, and can be replayed again.

        Raises:
            NothingToReplay: no row is in quarantine.
            RunNotInState: the run is not published, or a later run replaced its output.
            QuarantineUnusable, ReplayOvertaken, JobError, ModelError: nothing was started, and why.
            BrokerNotConfigured: nothing was started.
            BrokerUnreachable: the replay named in it is recorded; the sweep will start it.
        """
        address.broker_url(self._context.settings)
        started = replay(self._context, self.id, version, on_one_line(who or this_caller()))
        return Run(started.id, self._context)

    def retry(self, who: str = "") -> Run:
        """Go on with a failed or cancelled run; finished chunks are kept.

        ``who`` asked for it, this user unless it is said, is kept with the run's history.

        Raises: RunNotInState, BrokerNotConfigured, BrokerUnreachable.
        """
        address.broker_url(self._context.settings)
        numbers = self._ledger.runs.retry(self.id, on_one_line(who or this_caller()))
        record = self.record
        if numbers:
            wake(self._context, record, numbers)
        else:
            self._context.doorbell.finish(record)
        return self

    def cancel(self, who: str = "") -> Run:
        """Stop the run; nothing of it is published.

        ``who`` did it, this user unless it is said, is kept with the run's history.
        Its workers notice within seconds, between two batches; a call of the model that takes
        longer has to return first.

        Raises: RunNotInState: it has ended, or is being published just now.
        """
        if not self._ledger.runs.cancel(self.id, on_one_line(who or this_caller())):
            raise RunNotInState(self.id, _too_late(self.status), "running or held")
        show_decision(self._context, self.id)
        return self

    def release(self, who: str, reason: str = "") -> Run:
        """Publish a held run, unless a later one was published in its place meanwhile.

        ``who`` decided it and, if given, why are kept with the run.

        Raises: RunNotInState, BrokerNotConfigured, BrokerUnreachable.
        """
        self._refuse_if_outdated()
        address.broker_url(self._context.settings)
        self._ledger.decisions.release(self.id, on_one_line(who), on_one_line(reason))
        self._context.doorbell.finish(self.record)
        return self

    def reject(self, who: str, reason: str = "") -> Run:
        """Give a held run up for good: its parts are removed, its report is kept.

        Nothing of it is published, the earlier output stands. ``who`` decided it and, if given,
        why are kept with the run.

        Raises: RunNotInState.
        """
        reject(self._context, self.id, on_one_line(who), on_one_line(reason))
        return self

    def history(self) -> list[dict[str, Any]]:
        """What happened to the run, oldest first: ``at`` (ISO 8601), ``event``, ``detail``."""
        return [
            {"at": iso_time(one.at), "event": one.event, "detail": one.detail}
            for one in self._ledger.runs.history(self.id)
        ]

    def deliveries(self) -> list[dict[str, Any]]:
        """Who is told of the run's drift, and what became of it.

        Each has ``id``, ``action``, ``channel`` (webhook or task), ``target`` (its name),
        ``state`` (waiting, delivered or failed), ``attempts``, ``next_at`` while it is waiting,
        ``delivered_at``, ``error`` (of the last attempt) and ``payload``.
        """
        return [_delivery_document(one) for one in self._ledger.deliveries.of(self.id)]

    def _refuse_if_outdated(self) -> None:
        mine = self.record
        found = self._context.output(mine).manifest()
        if found is None:
            return
        current = str(found["run_id"])
        try:
            later = self._ledger.runs.get(current).created_at > mine.created_at
        except RunNotFound:
            return  # another installation's: replacing it is what publishing does
        if later:
            state = f"older than {current}, which is published in its place"
            raise RunNotInState(self.id, state, "the newest for its output")

    def is_worked_on(self) -> bool:
        """Whether a worker has ever taken a chunk of it."""
        return any(chunk.attempt > 0 for chunk in self._ledger.chunks.of(self.id))

    def to_dict(self) -> dict[str, Any]:
        """The run as ``--json`` shows it."""
        return run_documents([self])[0]

    @property
    def _ledger(self) -> Ledger:
        return self._context.ledger


def _too_late(state: str) -> str:
    """The state of a run that cannot be cancelled, in words."""
    if state != "finishing":
        return state
    return "finishing: all of it is scored, and it is being published, or held, just now"


def run_documents(found: Sequence[Run]) -> list[dict[str, Any]]:
    """Runs as ``--json`` shows them; all of one ledger."""
    if not found:
        return []
    replays = found[0]._context.ledger.replays.by_run([run.id for run in found])
    return [_run_document(run.record, replays.get(run.id, [])) for run in found]


def _run_document(run: RunRecord, replays: Sequence[str]) -> dict[str, Any]:
    """A run's JSON: the fields that commands promise."""
    return {
        "id": run.id,
        "job": run.job,
        "slot": run.slot,
        "trigger": run.trigger,
        "replay_of": run.replay_of,
        "replays": list(replays),
        "state": run.state,
        "model": run.model,
        "model_version": run.model_version,
        "model_digest": run.model_digest,
        "resolution": run.resolution,
        "variant": run.variant,
        "batch_rows": run.batch_rows,
        "precision": json.loads(run.precision) if run.precision else None,
        "engine": run.engine,
        "device": run.device,
        "rows_in": run.rows_in,
        "rows_scored": run.rows_scored,
        "rows_quarantined": run.rows_quarantined,
        "chunks": run.chunks,
        "chunks_done": run.chunks_done,
        "output": run.output,
        "artifacts": run.artifacts,
        "report": run.report,
        "drift_severity": run.drift_severity,
        "decision": run.decision,
        "decided_by": run.decided_by,
        "decision_reason": run.decision_reason,
        "created_at": iso_time(run.created_at),
        "finished_at": iso_time(run.finished_at),
        "error": run.error,
    }


def _delivery_document(delivery: DeliveryRecord) -> dict[str, Any]:
    waiting = delivery.state == "waiting"
    return {
        "id": delivery.id,
        "action": delivery.action,
        "channel": delivery.channel,
        "target": delivery.target,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "next_at": iso_time(delivery.next_at) if waiting else None,
        "delivered_at": iso_time(delivery.delivered_at),
        "error": delivery.last_error,
        "payload": json.loads(delivery.payload),
    }
