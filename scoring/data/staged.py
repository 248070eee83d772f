"""Where the parts of a run wait for being published: a hidden folder, or a prefix in a store.

An attempt writes into a folder of this machine. That is the staging folder itself, or, if the
output is in a store, a scratch folder whose files are uploaded when all of them are complete: what
is staged is always whole, and no more of the disk is used than one chunk's part needs.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scoring import urls
from scoring.data import publish
from scoring.data.store_reader import StoreFile
from scoring.data.stores import Stores
from scoring.errors import PartMissing


class Staging(Protocol):
    """One run's."""

    def attempt(self, scratch: Path) -> AbstractContextManager[Path]:
        """A folder for what an attempt writes; staged when the block ends well.

        ``scratch`` is a folder of this process for files that lie here only meanwhile.

        Raises:
            StoreRefused, StoreUnreachable: it could not be staged.
        """

    def reader(self, name: str) -> Path | StoreFile:
        """What pyarrow reads a staged file from. Raises: PartMissing."""

    def fetch(self, name: str, target: Path) -> None:
        """Copy a staged file to a path of this machine. Raises: PartMissing."""

    def text(self, name: str) -> str:
        """A small staged file. Raises: PartMissing."""

    def drop(self, names: Sequence[str]) -> None:
        """Remove staged files; one that is not there does not matter."""

    def discard(self) -> None:
        """Remove all of it."""


def staging_at(place: str, stores: Stores) -> Staging:
    """The staging area at a path or URL."""
    return StoreStaging(place, stores) if urls.is_url(place) else FolderStaging(Path(place))


@dataclass(frozen=True, slots=True)
class FolderStaging:
    """On a filesystem."""

    folder: Path

    @contextmanager
    def attempt(self, scratch: Path) -> Iterator[Path]:
        yield self.folder

    def reader(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            raise PartMissing(name, str(self.folder))
        return path

    def fetch(self, name: str, target: Path) -> None:
        shutil.copyfile(self.reader(name), target)

    def text(self, name: str) -> str:
        return self.reader(name).read_text(encoding="utf-8")

    def drop(self, names: Sequence[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def discard(self) -> None:
        publish.discard(self.folder)


@dataclass(frozen=True, slots=True)
class StoreStaging:
    """In an object store."""

    prefix: str
    stores: Stores

    @contextmanager
    def attempt(self, scratch: Path) -> Iterator[Path]:
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            yield Path(folder)
            for path in sorted(Path(folder).iterdir()):
                self.stores.put(self._url(path.name), path)

    def reader(self, name: str) -> StoreFile:
        try:
            return self.stores.reader(self._url(name))
        except FileNotFoundError as error:
            raise PartMissing(name, self.prefix) from error

    def fetch(self, name: str, target: Path) -> None:
        with self.reader(name) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, 2**20)

    def text(self, name: str) -> str:
        try:
            return self.stores.read_bytes(self._url(name)).decode()
        except FileNotFoundError as error:
            raise PartMissing(name, self.prefix) from error

    def drop(self, names: Sequence[str]) -> None:
        self.stores.delete([self._url(name) for name in names])

    def discard(self) -> None:
        self.stores.delete([entry.url for entry in self.stores.find(self.prefix)])

    def _url(self, name: str) -> str:
        return urls.join(self.prefix, name)
