"""What is left over in this machine's model cache: partial downloads, and models long unused."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from scoring.data import staging
from scoring.ledger import UsedModel
from scoring.models.cache import ARRIVING, DIGEST
from scoring.runs.context import Context
from scoring.runs.leftover import CERTAIN_SECONDS, Kind, Leftover, Policy, age


def leftover_models(context: Context, policy: Policy, now: float) -> Iterator[Leftover]:
    """What may go of the cache. Raises: OSError: it cannot be read."""
    folders = staging.folders(context.settings.model_cache)
    unused = _unused(context.ledger.leftovers.models())
    for folder in folders:
        idle = staging.idle_seconds(folder, now)
        if folder.name.startswith((ARRIVING, staging.ASIDE)) and idle >= CERTAIN_SECONDS:
            why = f"a download that did not get to its end, untouched for {age(idle)}"
            yield _leftover("download", folder, why)
        elif policy.models_seconds is not None and DIGEST.fullmatch(folder.name):
            seconds = unused.get(folder.name, idle)
            if seconds >= policy.models_seconds:
                yield _leftover("model", folder, f"no run has used it for {age(seconds)}")


def _unused(models: list[UsedModel]) -> Mapping[str, float]:
    """Seconds since each was last needed, by digest; minus infinity while it is.

    The last one of every registered model is needed now: it is what its jobs go by when the
    registry is down.
    """
    newest: dict[str, UsedModel] = {}
    for model in models:
        newest[model.name] = min(newest.get(model.name, model), model, key=lambda one: one.used_ago)
    found: dict[str, float] = {}
    for model in models:
        needed = model.needed or newest[model.name] is model
        seconds = -math.inf if needed else model.used_ago
        found[model.digest] = min(found.get(model.digest, seconds), seconds)
    return found


def _leftover(kind: Kind, folder: Path, why: str) -> Leftover:
    return Leftover(
        kind=kind,
        where=str(folder),
        bytes=staging.freed_bytes(folder),
        why=why,
        remove=partial(staging.take_away, folder),
    )
