"""Staged parts that are left over: in every place where a run ever staged some.

The place is listed before the ledger is asked, so whatever is found was there when the ledger
answers: a run is in the ledger before anything of it is staged.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scoring.data import sink, staging
from scoring.ledger import Owner
from scoring.runs.context import Context
from scoring.runs.frame import FRAME
from scoring.runs.leftover import UNFINISHED, Leftover, Policy, age, over_for_good
from scoring.urls import is_url

RUN_ID = re.compile(r".+-\d{8}T\d{6}-[0-9a-f]{6}")


def places(context: Context) -> list[Path]:
    """Where parts were ever staged, and can be seen from here."""
    found = {staging.place_of(one) for one in context.ledger.leftovers.stagings()}
    return [Path(place) for place in sorted(found) if not is_url(place)]


def leftover_parts(context: Context, policy: Policy, place: Path, now: float) -> Iterator[Leftover]:
    """What may go of one place. Raises: OSError: it cannot be read."""
    folders = staging.folders(place)
    owners = context.ledger.leftovers.owners([folder.name for folder in folders])
    for folder in folders:
        owner = owners.get(folder.name)
        if owner is not None:
            yield from _of_known(context, policy, folder, owner)
        elif folder.name.startswith(staging.ASIDE):
            yield _unknown(folder, UNFINISHED)
        elif RUN_ID.fullmatch(folder.name):
            idle = staging.idle_seconds(folder, now)
            if idle >= policy.unknown_seconds:
                yield _unknown(folder, f"no run of this ledger's, untouched for {age(idle)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What may go of the files of a run that the ledger knows."""

    why: str
    forget: str = ""
    """Who has the parts of its chunks forgotten first; empty: they stay known."""
    final: bool = False
    """Whether it will never need any again."""
    keep: frozenset[str] = frozenset()
    """Names of those that it needs."""


def verdict(context: Context, policy: Policy, owner: Owner) -> Verdict | None:
    """Whether something of a run may go; ``None``: it needs all of it."""
    ended = owner.ended_ago or 0.0
    if over := over_for_good(owner):
        return Verdict(why=over, final=True)
    if owner.state not in ("failed", "cancelled"):
        return None
    if policy.failed or ended >= policy.older_seconds:
        verb = "failed" if owner.state == "failed" else "was cancelled"
        why = f"the run {verb} {age(ended)} ago; a retry scores all of it anew"
        return Verdict(why=why, forget=policy.who or "a person")
    return Verdict(
        why=f"of attempts of a {owner.state} run that no chunk goes by",
        keep=files_of(context.ledger.leftovers.parts(owner.run_id)),
    )


def _of_known(context: Context, policy: Policy, folder: Path, owner: Owner) -> Iterator[Leftover]:
    found = verdict(context, policy, owner)
    if found is None or (found.keep and not staging.others(folder, found.keep)):
        return
    remove = partial(_remove_known, context, folder, owner.run_id, found.forget, found.final)
    yield Leftover(
        kind="parts",
        where=str(folder),
        bytes=staging.freed_bytes(*staging.others(folder, found.keep)),
        why=found.why,
        run=owner.run_id,
        remove=remove,
    )


def _unknown(folder: Path, why: str) -> Leftover:
    return Leftover(
        kind="parts",
        where=str(folder),
        bytes=staging.freed_bytes(folder),
        why=why,
        remove=partial(_remove_unknown, folder),
    )


def _remove_known(context: Context, folder: Path, run_id: str, forget: str, final: bool) -> bool:
    """Remove what the run does not need by now; ``forget`` names who has its parts forgotten."""
    leftovers = context.ledger.leftovers
    if forget and not leftovers.forget_parts(run_id, forget):
        return False  # it was retried meanwhile
    with leftovers.needed_parts(run_id) as parts:
        if parts is None:
            return False
        aside = staging.set_aside(folder, () if final else files_of(parts))
    if aside is None:
        return False
    staging.remove(aside)
    staging.remove_if_empty(folder.parent)
    return True


def _remove_unknown(folder: Path) -> bool:
    removed = staging.take_away(folder)
    staging.remove_if_empty(folder.parent)
    return removed


def files_of(parts: Collection[str]) -> frozenset[str]:
    """What belongs to parts; with the frame, which earlier releases staged with them."""
    names = (sink.profile_name, sink.quarantine_name)
    return frozenset([FRAME, *parts, *(name(part) for part in parts for name in names)])
