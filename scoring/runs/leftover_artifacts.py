"""What is left over among the artifacts: frames that no chunk is counted by any more, and variants
that nobody scores with. Reports, quarantines and plans are never touched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from scoring.data import staging
from scoring.ledger import KnownSearch
from scoring.models.search_result import SearchResult
from scoring.runs.context import Context
from scoring.runs.frame import FRAME, discard_frame
from scoring.runs.leftover import CERTAIN_SECONDS, UNFINISHED, Leftover, Policy, age, over_for_good
from scoring.runs.leftover_parts import RUN_ID
from scoring.runs.search import BUILDING, KEY_LENGTH, VARIANTS_FOLDER

SUPERSEDED_SECONDS = 3_600.0
"""How long ago a search must have found better before what it replaces may go: a run that chose
just before may not have pinned its choice yet."""


def leftover_frames(context: Context, policy: Policy, now: float) -> Iterator[Leftover]:
    """Frames of runs that are over for good, and of runs that there never were."""
    folders = [path.parent for path in context.settings.artifacts.glob(f"*/*/{FRAME}")]
    owners = context.ledger.leftovers.owners([folder.name for folder in folders])
    for folder in sorted(folders):
        owner = owners.get(folder.name)
        if owner is None:
            idle = staging.idle_seconds(folder / FRAME, now)
            old = RUN_ID.fullmatch(folder.name) and idle >= policy.unknown_seconds
            why = f"no run of this ledger's, untouched for {age(idle)}" if old else ""
        else:
            why = over_for_good(owner)
        if why:
            yield Leftover(
                kind="frame",
                where=str(folder / FRAME),
                bytes=staging.freed_bytes(folder / FRAME),
                why=why,
                run=owner.run_id if owner else None,
                remove=partial(_remove_frame, folder),
            )


def leftover_variants(context: Context, now: float) -> Iterator[Leftover]:
    """What searches that died were building, and what later ones found better."""
    shared = context.settings.artifacts / VARIANTS_FOLDER
    attempts = [
        (folder, attempt)
        for folder in staging.folders(shared)
        for attempt in ([None] if folder.name.startswith(".") else staging.folders(folder))
    ]
    searches = {one.key[:KEY_LENGTH]: one for one in context.ledger.leftovers.searches()}
    needed = _needed(context, list(searches.values()))
    for folder, attempt in attempts:
        if attempt is None:
            key = folder.name.removeprefix(BUILDING)[:KEY_LENGTH]
            why = _why_building(folder, searches.get(key), now)
        elif (folder.name, attempt.name) in needed:
            continue
        else:
            why = _why_superseded(attempt, searches.get(folder.name), now)
        if why:
            yield _folder(attempt or folder, why)


def _why_building(folder: Path, search: KnownSearch | None, now: float) -> str:
    if folder.name.startswith(staging.ASIDE):
        return UNFINISHED
    if not folder.name.startswith(BUILDING) or (search is not None and search.live):
        return ""
    if search is None and staging.idle_seconds(folder, now) < CERTAIN_SECONDS:
        return ""
    return "by a search for variants that died"


def _why_superseded(attempt: Path, search: KnownSearch | None, now: float) -> str:
    if attempt.name.startswith(staging.ASIDE):
        return UNFINISHED
    if search is not None and search.live:
        return ""
    settled = search is not None and (search.found_ago or 0.0) >= SUPERSEDED_SECONDS
    if not settled and staging.idle_seconds(attempt, now) < CERTAIN_SECONDS:
        return ""
    return "no search found it best, and no run is pinned to it"


def _needed(context: Context, searches: Sequence[KnownSearch]) -> set[tuple[str, str]]:
    """(search, attempt) of the variants that are, or may yet be, scored with."""
    named = [
        (search.key, one.folder)
        for search in searches
        if search.result is not None
        for one in SearchResult.from_json(search.result).candidates
    ]
    named += [(key, json.loads(pin)["folder"]) for key, pin in context.ledger.leftovers.pins()]
    return {(key[:KEY_LENGTH], PurePosixPath(folder).parts[0]) for key, folder in named if folder}


def _folder(folder: Path, why: str) -> Leftover:
    return Leftover(
        kind="variant",
        where=str(folder),
        bytes=staging.freed_bytes(folder),
        why=why,
        remove=partial(staging.take_away, folder),
    )


def _remove_frame(folder: Path) -> bool:
    if not (folder / FRAME).exists():
        return False
    discard_frame(folder)
    return True
