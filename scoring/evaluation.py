"""How good a published run turned out to be, once the truth of its rows is known.

Labels are matched with the scores by the job's key, a stretch of parts at a time, and what the
model said is measured against them and against the reference's performance. Nothing of the run's
output is changed; its report says more, its severity may rise, its history tells of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from scoring import telemetry
from scoring.data import source
from scoring.data.keys import UNKNOWN
from scoring.data.labels import LabelFiles, Labels, find_labels
from scoring.drift.performance.answers import Collected, Fit, Truth, fit
from scoring.drift.performance.evaluated import Evaluated, performance_document, with_performance
from scoring.drift.performance.performance import Performance, measured
from scoring.drift.policy import decide
from scoring.errors import InputError, KeyMissing, LabelsUnusable, RunNotInState
from scoring.job import Job
from scoring.ledger import RunRecord
from scoring.runs import deliveries
from scoring.runs.context import Context, pinned_version
from scoring.runs.places import check_within, whole_place
from scoring.runs.prepare import kept_columns
from scoring.runs.report import (
    read_report,
    severities_before,
    severity_of,
    show_in_registry,
    write,
    write_report,
)

log = telemetry.logger(__name__)

EVALUATION_FILE = "evaluation.json"
BATCH_ROWS = 65_536


def evaluate(
    context: Context, run: RunRecord, labels: str | Path, label: str | None = None
) -> dict[str, Any]:
    """Measure a run on ``labels`` (Parquet: a file, a folder or a glob), and record it.

    They have the columns of the job's key and ``label``, or only one beside the key. Rows without
    a label are not evaluated. Returns what ``evaluation.json`` and the report hold.

    Raises:
        KeyMissing: the job names no key.
        RunNotInState: the run is not published, or a later run replaced its output.
        LabelsUnusable: they cannot be read, matched or compared with any output.
        PathOutsideRoots, StoreUnsupported, UrlInvalid: they are where jobs may not read.
        ModelError: the registry cannot be asked for the reference's performance.
    """
    job = Job.from_json(run.job_json)
    if not job.key:
        raise KeyMissing(job.name)
    scored = _scored(context, run)
    files = _find(context, str(labels), scored[0].schema, job.key, label)
    reference = _reference(context, run)
    judged, collected = _collected(context, run, job, scored, files, reference)
    answers = collected.answers()
    if not answers.rows:
        raise LabelsUnusable(files.path, f"no row with a label has a usable {judged.output}")
    current = measured(answers, judged.output, _seed(run))
    if not current.metrics:
        raise LabelsUnusable(files.path, f"all of {files.column} is the same, so nothing is ranked")
    evaluated = Evaluated(
        labels=files.path,
        label=files.column,
        rows=collected.offered,
        unmatched=sum(one.file.rows for one in scored) - collected.offered,
        evaluated_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    document = performance_document(evaluated, current, reference)
    _record(context, run, job, document)
    return document


def _scored(context: Context, run: RunRecord) -> list[source.Scanned]:
    """The run's parts, in order."""
    if run.replay_of is not None:
        of = run.replay_of
        raise RunNotInState(run.id, f"a replay, whose rows are in {of}", f"no replay, like {of}")
    if run.state != "published":
        raise RunNotInState(run.id, run.state, "published")
    _check_in_place(context, run)
    try:
        return source.scan(run.output, [], context.stores)
    except InputError:
        _check_in_place(context, run)
        raise


def _check_in_place(context: Context, run: RunRecord) -> None:
    found = context.output(run).manifest()
    current = None if found is None else found["run_id"]
    if current != run.id:
        raise RunNotInState(run.id, f"replaced by {current or 'nothing'}", "still in place")


def _find(
    context: Context, labels: str, scored: pa.Schema, key: Sequence[str], column: str | None
) -> LabelFiles:
    path = whole_place(labels, "labels")
    roots = context.settings.data_roots
    check_within(path, "labels", roots)
    wanted = pa.schema([scored.field(name) for name in key])
    files = find_labels(path, wanted, column, context.stores)
    for one in files.scanned:  # what a search finds may be a link that leads elsewhere
        check_within(one.file.path, "labels", roots)
    return files


def _reference(context: Context, run: RunRecord) -> Performance | None:
    version = pinned_version(run)
    text = context.registry.reference_performance(version)
    try:
        return None if text is None else Performance.from_json(text)
    except (ValueError, KeyError, TypeError) as error:
        log.warning("reference_performance_unreadable", model=version.uri, error=str(error))
        return None


def _collected(
    context: Context,
    run: RunRecord,
    job: Job,
    scored: Sequence[source.Scanned],
    files: LabelFiles,
    reference: Performance | None,
) -> tuple[Fit, Collected]:
    """The output that the labels are the truth of, and what it says of the rows that have one."""
    known = Labels(files)
    given = {*kept_columns(job), *(name for name, _ in scored[0].file.partitions)}
    outputs = pa.schema([field for field in scored[0].schema if field.name not in given])
    like = (reference.output, reference.kind) if reference else None
    judged = fit(outputs, Truth.of(known.values), files.column, like)
    if judged is None:
        kind = "words" if pa.types.is_large_string(known.values.type) else "numbers"
        shown = ", ".join(f"{field.name} ({field.type})" for field in outputs)
        why = f"no output of the run ({shown}) can be judged by the {kind} in {files.column}"
        raise LabelsUnusable(files.path, why)
    return judged, _collect(context, run, scored, files, known, judged)


def _collect(
    context: Context,
    run: RunRecord,
    scored: Sequence[source.Scanned],
    files: LabelFiles,
    known: Labels,
    judged: Fit,
) -> Collected:
    """What the run said of the rows whose truth is known."""
    rows = sum(one.file.rows for one in scored)
    kind = scored[0].schema.field(judged.output).type
    collected = Collected(judged.kind, kind, rows, _seed(run))
    try:
        for some in _stretches(scored, known.look_up_rows):
            found = known.of(_columns(some, files.key.names))
            for batch in _batches(some, [judged.output]):
                here, found = found[: batch.num_rows], found[batch.num_rows :]
                matched = np.flatnonzero(here != UNKNOWN)
                truth = known.values.take(pa.array(here[matched]))
                collected.add(batch.column(0).take(pa.array(matched)), truth)
    except InputError:
        _check_in_place(context, run)
        raise
    _check_in_place(context, run)
    if not collected.offered:
        names = ", ".join(files.key.names)
        raise LabelsUnusable(
            files.path, f"none of {len(known.values):,} labels has the {names} of a scored row"
        )
    return collected


def _stretches(scored: Sequence[source.Scanned], rows: int) -> Iterator[list[source.Scanned]]:
    """Parts in order, so many at a time that they have about so many rows."""
    some: list[source.Scanned] = []
    for one in scored:
        some.append(one)
        if sum(part.file.rows for part in some) >= rows:
            yield some
            some = []
    if some:
        yield some


def _columns(scored: Sequence[source.Scanned], names: Sequence[str]) -> list[pa.ChunkedArray]:
    schema = pa.schema([scored[0].schema.field(name) for name in names])
    return list(pa.Table.from_batches(_batches(scored, names), schema).columns)


def _batches(scored: Sequence[source.Scanned], names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    for one in scored:
        yield from one.rows(names, BATCH_ROWS)


def _seed(run: RunRecord) -> int:
    """The same for the same run, so that an evaluation repeated says the same."""
    return int.from_bytes(hashlib.sha256(run.id.encode()).digest()[:8])


def _record(context: Context, run: RunRecord, job: Job, document: dict[str, Any]) -> None:
    """Write the evaluation and the report with it; raise the severity, and ask for what follows."""
    artifacts = Path(run.artifacts)
    artifacts.mkdir(parents=True, exist_ok=True)
    write(artifacts / EVALUATION_FILE, json.dumps(document, indent=1, allow_nan=False) + "\n")
    before = severities_before(context, run)
    follows = decide(document["severity"], job.drift, before, released=True).actions
    asked = [action for action in follows if action not in ("hold", "fail")]  # it is published
    drift = _in_report(artifacts, document, asked)
    owed = deliveries.compose(run, job.drift, drift, asked) if drift else []
    lead = document["metrics"][0]
    figures = {name: lead[name] for name in ("value", "low", "high", "reference", "drop")}
    told = {name: document[name] for name in ("rows", "unmatched", "labels", "label", "output")}
    detail = {
        "severity": document["severity"],
        "metric": document["lead"],
        **figures,
        **told,
        "actions": asked,
    }
    severity = severity_of(drift) if drift else run.drift_severity
    context.ledger.runs.record_evaluation(run.id, severity, detail, owed)
    log.info("run_evaluated", run=run.id, **detail)
    if drift:
        show_in_registry(context, run, drift)


def _in_report(
    artifacts: Path, document: dict[str, Any], asked: Sequence[str]
) -> dict[str, Any] | None:
    """The drift document of a run with the evaluation in it, written again; None: it has none."""
    report = read_report(artifacts)
    if report is None:
        return None
    drift = with_performance(report, document, asked)
    write_report(artifacts, drift)
    return drift
