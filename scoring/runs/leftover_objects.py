"""Staged parts that are left over in object stores, as `leftover_parts` finds them in folders.

Nothing is set aside there, nor need it be: an attempt never writes a name that an earlier one has
written, so what was listed and is not needed while the run is locked is needed by nobody later.
Claims on outputs stay, as they say that what lies there may be half replaced.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial

from scoring import urls
from scoring.data import staging
from scoring.data.stores import Entry
from scoring.ledger import Owner
from scoring.runs.context import Context
from scoring.runs.leftover import Leftover, Policy, age
from scoring.runs.leftover_parts import RUN_ID, Verdict, files_of, verdict


def prefixes(context: Context) -> list[str]:
    """Prefixes of stores below which parts were ever staged."""
    found = {staging.place_of(one) for one in context.ledger.leftovers.stagings()}
    return sorted(place for place in found if urls.is_url(place))


def leftover_objects(
    context: Context, policy: Policy, place: str, now: float
) -> Iterator[Leftover]:
    """What may go of one prefix. Raises: StoreRefused, StoreUnreachable."""
    found: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in context.stores.find(place):
        name, below, _ = entry.url[len(place) + 1 :].partition("/")
        if below:
            found[name].append(entry)
    owners = context.ledger.leftovers.owners(list(found))
    for name, entries in found.items():
        where = urls.join(place, name)
        if name in owners:
            yield from _of_known(context, policy, where, entries, owners[name])
        elif RUN_ID.fullmatch(name):
            idle = max(0.0, now - max(entry.written_at for entry in entries))
            if idle >= policy.unknown_seconds:
                why = f"no run of this ledger's, untouched for {age(idle)}"
                yield _leftover(where, entries, why, partial(_delete, context, entries))


def _of_known(
    context: Context, policy: Policy, where: str, entries: Sequence[Entry], owner: Owner
) -> Iterator[Leftover]:
    found = verdict(context, policy, owner)
    going = [one for one in entries if found and urls.name_of(one.url) not in found.keep]
    if found is not None and going:
        remove = partial(_remove_known, context, entries, owner.run_id, found)
        yield _leftover(where, going, found.why, remove, owner.run_id)


def _leftover(
    where: str,
    entries: Sequence[Entry],
    why: str,
    remove: partial[bool],
    run: str | None = None,
) -> Leftover:
    size = sum(entry.size for entry in entries)
    return Leftover(kind="parts", where=where, bytes=size, why=why, run=run, remove=remove)


def _remove_known(context: Context, entries: Sequence[Entry], run_id: str, found: Verdict) -> bool:
    """Remove what the run does not need by now."""
    leftovers = context.ledger.leftovers
    if found.forget and not leftovers.forget_parts(run_id, found.forget):
        return False  # it was retried meanwhile
    with leftovers.needed_parts(run_id) as parts:
        if parts is None:
            return False
        keep = frozenset() if found.final else files_of(parts)
    return _delete(context, [one for one in entries if urls.name_of(one.url) not in keep])


def _delete(context: Context, entries: Sequence[Entry]) -> bool:
    context.stores.delete([entry.url for entry in entries])
    return bool(entries)
