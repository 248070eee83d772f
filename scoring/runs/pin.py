"""The pin of a new run: the version and digest that the registry names, or named last.

When the registry does not answer and the job says `on_registry_outage = "last"`, the run uses the
version that was remembered for the model's address when the registry last answered here, provided
its files are in the cache and still have the digest that they had then.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from scoring import telemetry
from scoring.errors import RegistryUnreachable
from scoring.job import Job
from scoring.ledger import Resolution
from scoring.models import Version
from scoring.runs.context import Context
from scoring.runs.times import iso_time

log = telemetry.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """What every chunk of a run will use."""

    version: Version
    digest: str
    folder: Path
    """Where its files lie on this machine."""
    resolution: Resolution


def pin(context: Context, job: Job) -> Pin:
    """Ask the registry which version a job's model is now, and fetch it.

    Raises:
        RegistryUnreachable: it does not answer, and the job does not allow to go on without, or
            there is nothing to go on with.
        ModelError: there is no such model, or it cannot be had.
    """
    asked_at, version = time.time(), None
    try:
        version = context.registry.resolve(job.model)
        digest, folder = context.cache.fetch(version)
    except RegistryUnreachable as error:
        if job.on_registry_outage != "last":
            raise
        return _last(context, job, version, error)
    context.cache.memory.remember(version, digest, asked_at)
    return Pin(version=version, digest=digest, folder=folder, resolution="registry")


def reference_profile(
    context: Context, job: Job, version: Version, resolution: Resolution
) -> str | None:
    """The reference profile of a pinned version, as JSON text; as remembered during an outage.

    Raises:
        RegistryUnreachable: it does not answer, and the job does not allow to go on without.
    """
    memory = context.cache.memory
    if version.profile_uri is None:
        return None
    if resolution == "registry":
        try:
            text = context.registry.reference_profile(version)
        except RegistryUnreachable:
            if job.on_registry_outage != "last":
                raise
        else:
            if text is not None:
                memory.remember_profile(version, text)
            return text
    text = memory.recall_profile(version)
    if text is None:
        log.warning("reference_not_remembered", model=version.uri)
    return text


def _last(context: Context, job: Job, named: Version | None, error: RegistryUnreachable) -> Pin:
    """The last version that is known here; ``named`` is what the registry could still name."""
    memory = context.cache.memory
    known = memory.recall(named.uri) if named else None
    known = known or memory.recall(job.model)
    if known is None:
        why = f"{error.reason}; no version of {job.model} was ever pinned on this machine"
        raise RegistryUnreachable(error.uri, why) from error
    folder = context.cache.unchanged(known.digest)
    if folder is None:
        why = (
            f"{error.reason}; the files of {known.version.uri}, which it named last, are no longer "
            "in this machine's model cache, or not as they were"
        )
        raise RegistryUnreachable(error.uri, why) from error
    log.warning(
        "last_version_used",
        job=job.name,
        model=known.version.uri,
        named_at=iso_time(known.named_at),
        error=error.reason,
    )
    return Pin(version=known.version, digest=known.digest, folder=folder, resolution="last")
