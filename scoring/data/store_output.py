"""Publishing in an object store, which has no folder to exchange.

Readers take what they find for complete only with ``_SUCCESS``. So that goes first and comes last:
once all new parts are known to be staged, ``_SUCCESS``, the manifest and the earlier parts are
deleted, the new parts copied within the store, what lies there compared with what should, and
then the manifest written and ``_SUCCESS``. A listing that has it shows one run, whole, whose
objects have the ETags that it says.

One publisher at a time has the claim on the place. The ledger is asked before each step whether
the run is still this finisher's; every step can be repeated, so the next finisher does them again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scoring import urls
from scoring.data.claim import CLAIM_SECONDS, Claim, Publisher
from scoring.data.publish import MANIFEST, PART, STAGING, SUCCESS, is_ours, part_file
from scoring.data.staged import StoreStaging
from scoring.data.store_reader import StoreFile
from scoring.data.stores import Entry, Stores
from scoring.errors import (
    OutputIncomplete,
    OutputOccupied,
    PartMissing,
    StoreRefused,
    StoreUnreachable,
)

if TYPE_CHECKING:
    import pyarrow.dataset

COPY_BYTES = 5 * 2**30
"""Largest object that stores copy in one request."""
COPIES = 8
"""Parts copied at once."""
LOOKS = 3
"""Times that a manifest is looked for while somebody publishes."""
INTENT = "publishing.json"
"""What is being added to an output, staged before anything of it is removed."""


class _NotMine(Exception):
    """The run is another finisher's."""


def hidden_place(place: str, roots: Sequence[str] = ()) -> str:
    """Where things of ours lie that belong to a place, in its bucket: beside it, hidden.

    Inside it if it is a bucket, or one of the ``roots`` that jobs may write below.
    """
    beside = urls.above(place)
    outside = len(urls.parts(place)) == 2 or (
        bool(roots) and not any(urls.is_below(beside, one) for one in roots)
    )
    return urls.join(place if outside else beside, STAGING)


def staging_prefix(template: str, output: str, run_id: str, roots: Sequence[str] = ()) -> str:
    """Where a run's parts wait: outside any prefix that a reader scans, as `staging_folder`."""
    names = template.removesuffix("/").split("/")
    varying = (index for index, part in enumerate(names) if "{" in part or "=" in part)
    first = next(varying, len(names))
    kept = max(3, first)  # scheme, nothing, bucket
    return urls.join(hidden_place("/".join(output.split("/")[:kept]), roots), run_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOutput:
    """The output at a URL."""

    url: str
    stores: Stores
    roots: tuple[str, ...] = ()
    """Places that may be written below; none: anywhere."""
    wait_seconds: float = CLAIM_SECONDS

    @property
    def claim(self) -> Claim:
        """The right to change what is there. Its name is no run's."""
        name = f"claim@{urls.name_of(self.url)}"
        return Claim(
            url=urls.join(hidden_place(self.url, self.roots), name),
            output=self.url,
            stores=self.stores,
            wait_seconds=self.wait_seconds,
        )

    def alone(self) -> AbstractContextManager[None]:
        """The ledger is asked before each step of a publisher: it need not be kept away."""
        return nullcontext()

    def check(self) -> None:
        self.check_ours(half_replaced=self.claim.exists())

    def check_ours(self, *, half_replaced: bool) -> None:
        """`check`; parts without a manifest are ours if a publisher left them so."""
        names = self.stores.names(self.url)
        ours = MANIFEST in names or half_replaced
        foreign = [name for name in names if not (is_ours(name) if ours else name.startswith("."))]
        if foreign:
            raise OutputOccupied(self.url, f"{len(foreign)} objects ({foreign[0]}, ...)")

    def manifest(self) -> dict[str, Any] | None:
        found = self.complete()
        return None if found is None else found[1]

    def reader(self, name: str) -> StoreFile:
        return self.stores.reader(urls.join(self.url, name))

    def dataset(self, names: Sequence[str]) -> pyarrow.dataset.Dataset:
        import pyarrow.dataset

        from scoring.data.store_files import store_files

        here = self.listing()
        entries = [here[name] for name in names if name in here]
        if len(entries) < len(names):
            raise FileNotFoundError(f"{self.url} is being replaced")
        return pyarrow.dataset.dataset(
            [entry.url for entry in entries],
            format="parquet",
            filesystem=store_files(entries, self.stores),
        )

    def publish(
        self,
        staging: StoreStaging,
        parts: Sequence[str],
        manifest: Mapping[str, Any],
        by: Publisher,
        earlier_parts: int = 0,
    ) -> bool:
        intent = {"parts": list(parts), "manifest": manifest, "earlier_parts": earlier_parts}
        try:
            with self._claimed(by) as work:
                if not by.unchanged():
                    raise _NotMine
                work.step()
                if earlier_parts:  # what the next finisher could not find out again
                    self.stores.put(urls.join(staging.prefix, INTENT), json.dumps(intent).encode())
                work.replace(staging, intent)
        except _NotMine:
            return False
        return True

    def resume(self, staging: StoreStaging, by: Publisher) -> None:
        if not self.claim.is_of(by.run_id):
            return
        try:
            text = self.stores.read_bytes(urls.join(staging.prefix, INTENT))
        except FileNotFoundError:
            return  # it died before it changed anything
        try:
            with self._claimed(by) as work:
                work.replace(staging, json.loads(text))
        except _NotMine:
            return

    @contextmanager
    def _claimed(self, by: Publisher) -> Iterator[_Work]:
        """Have the place to oneself; the claim stays if the place may be half changed."""
        if not by.still_mine():
            raise _NotMine
        left = self.claim.take(by)
        work = _Work(self, by, changed=left and self.complete() is None)
        try:
            yield work
        except _NotMine:
            if not work.changed and by.still_mine():  # else it is for the run's next finisher
                self.claim.release()
            raise
        except (StoreRefused, StoreUnreachable, OutputOccupied, PartMissing) as error:
            if not work.changed:
                self.claim.release()
                raise
            raise OutputIncomplete(self.url, by.run_id, _reason(error)) from error
        work.step()
        with suppress(StoreRefused, StoreUnreachable):  # it is free when the run has ended
            self.claim.release()

    def listing(self) -> dict[str, Entry]:
        """What lies directly there and is not hidden, by name."""
        found = ((entry.url[len(self.url) + 1 :], entry) for entry in self.stores.find(self.url))
        return {name: entry for name, entry in found if not name.startswith(".")}

    def complete(self) -> tuple[dict[str, Entry], dict[str, Any]] | None:
        """The complete run that is there: its objects and its manifest."""
        for _ in range(LOOKS):
            here = self.listing()
            if not {SUCCESS, MANIFEST} <= here.keys():
                return None
            entry = here[MANIFEST]
            try:
                with self.stores.reader(entry.url, size=entry.size, stamp=entry.stamp) as file:
                    return here, json.loads(file.read())
            except OSError:  # replaced since it was listed
                continue
        return None


class _Work:
    """One publisher's turn."""

    def __init__(self, output: StoreOutput, by: Publisher, *, changed: bool) -> None:
        self._output = output
        self._stores = output.stores
        self._by = by
        self.changed = changed
        """Whether the earlier output may no longer be there."""

    def step(self) -> None:
        """Ask before each change."""
        if not self._by.still_mine():
            raise _NotMine

    def replace(self, staging: StoreStaging, intent: Mapping[str, Any]) -> None:
        """Do all of it, whatever an earlier publisher of the run has done of it."""
        manifest, kept = intent["manifest"], int(intent["earlier_parts"])
        if self._is_done(manifest):
            return
        staged = self._staged(staging, intent["parts"])
        self._output.check_ours(half_replaced=self.changed)
        earlier = {name for name in self._output.listing() if PART.fullmatch(name)}
        keep = {part_file(index) for index in range(kept)}
        if not keep <= earlier:
            raise PartMissing(min(keep - earlier), self._output.url)
        self.step()
        self.changed = True
        for names in ([SUCCESS], [MANIFEST], sorted(earlier - keep)):
            self.step()
            self._stores.delete([self._at(name) for name in names])
        new = {part_file(index): entry for index, entry in enumerate(staged, kept)}
        with ThreadPoolExecutor(COPIES) as copying:
            list(copying.map(self._copy, new.values(), new.keys()))
        self._check_exactly(new, keep)
        self.step()
        text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
        self._stores.put(self._at(MANIFEST), text.encode())
        self.step()
        self._stores.put(self._at(SUCCESS), b"")

    def _is_done(self, manifest: Mapping[str, Any]) -> bool:
        """Whether an earlier finisher came to the end, and only could not say so any more."""
        found = self._output.complete()
        return found is not None and _what(found[1]) == _what(manifest)

    def _staged(self, staging: StoreStaging, parts: Sequence[str]) -> list[Entry]:
        here = {urls.name_of(entry.url): entry for entry in self._stores.find(staging.prefix)}
        for part in parts:
            if part not in here:
                raise PartMissing(part, staging.prefix)
            if here[part].size > COPY_BYTES:
                raise StoreRefused(here[part].url, "a part of more than 5 GiB cannot be copied")
        return [here[part] for part in parts]

    def _copy(self, staged: Entry, name: str) -> None:
        self.step()
        try:
            self._stores.copy(staged.url, self._at(name))
        except FileNotFoundError:
            staging, _, part = staged.url.rpartition("/")
            raise PartMissing(part, staging) from None

    def _check_exactly(self, new: Mapping[str, Entry], kept: set[str]) -> None:
        """Raise unless the parts that should be there are, whole, and nothing else."""
        here = self._output.listing()
        for name, staged in new.items():
            if name not in here or here[name].size != staged.size:
                raise PartMissing(name, self._output.url)
        if kept - here.keys():
            raise PartMissing(min(kept - here.keys()), self._output.url)
        foreign = sorted(here.keys() - new.keys() - kept)
        if foreign:
            found = f"{len(foreign)} objects ({foreign[0]}, ...)"
            raise OutputOccupied(self._output.url, found)

    def _at(self, name: str) -> str:
        return urls.join(self._output.url, name)


def _what(manifest: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a manifest says is there, whenever it was written."""
    replays = [one["run_id"] for one in manifest.get("replays", [])]
    return manifest["run_id"], list(manifest["parts"]), replays


def _reason(error: Exception) -> str:
    """To stand inside a sentence."""
    match error:
        case StoreRefused() | StoreUnreachable():
            return f"{error.reason} ({error.url})"
        case OutputOccupied():
            return f"it holds {error.found}, which Nightscore did not write"
        case PartMissing():
            return f"{error.name} is gone from {error.staging}"
    return str(error)
