"""The manifest: what a published folder says of itself, for readers that have nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version as installed
from typing import Any

import pyarrow.parquet as pq

from scoring.data import publish
from scoring.data.staged import Staging
from scoring.ledger import ChunkRecord, InputRecord, RunRecord
from scoring.runs.times import iso_time


def manifest(
    run: RunRecord,
    staging: Staging,
    chunks: Sequence[ChunkRecord],
    inputs: Sequence[InputRecord],
    drift_severity: str | None,
) -> dict[str, Any]:
    """What ``_manifest.json`` holds; ``drift_severity`` is None where drift was not measured."""
    schema = pq.read_schema(staging.reader(str(chunks[0].part)))
    return {
        "run_id": run.id,
        "job": run.job,
        "slot": run.slot,
        "fingerprint": run.fingerprint,
        "model": run.model,
        "model_name": run.model_name,
        "model_version": run.model_version,
        "model_digest": run.model_digest,
        "resolution": run.resolution,
        "flavor": run.flavor,
        "variant": run.variant,
        "precision": json.loads(run.precision) if run.precision else None,
        "engine": run.engine,
        "device": run.device,
        "nightscore": installed("nightscore"),
        "created_at": iso_time(run.created_at),
        "published_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows_in": run.rows_in,
        "rows_scored": run.rows_scored,
        "rows_quarantined": run.rows_quarantined,
        "drift_severity": drift_severity,
        "artifacts": run.artifacts,
        "columns": [{"name": field.name, "type": str(field.type)} for field in schema],
        "parts": [
            {
                "file": publish.part_file(index),
                "rows": chunk.rows_scored,
                "sha256": chunk.part_digest,
            }
            for index, chunk in enumerate(chunks)
        ],
        "inputs": [
            {"path": line.path, "size": line.size, "stamp": line.stamp, "rows": line.rows}
            for line in inputs
        ],
    }
