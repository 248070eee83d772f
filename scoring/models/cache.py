"""Model files on this machine: fetched once, verified against the pinned digest, never changed.

Layout: ``<cache>/<digest>/`` holds the files of one model; ``<cache>/known/`` remembers which
digest a registry version had when it was last fetched; a lock per version makes workers that
fetch it at once wait for the first, though not for ever. A folder appears by one rename, so whoever
sees it sees all. What the registry said last is kept beside them, see `memory`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from scoring import telemetry
from scoring.errors import ModelDigestMismatch
from scoring.models.memory import Memory
from scoring.models.registry import Registry
from scoring.models.version import Version

log = telemetry.logger(__name__)

NOT_PART_OF_THE_MODEL = frozenset({"registered_model_meta"})
"""What MLflow adds on download; it names the registration, so it differs for equal files."""
ARRIVING = "arriving-"
"""What the folder of a download that is under way begins with."""
DIGEST = re.compile(r"[0-9a-f]{64}")
LOCK_SECONDS = 600.0
"""How long one waits for another that fetches the same version; it may be frozen, so then both
fetch, which does no harm."""


class ModelCache:
    """Folders of model files by digest."""

    def __init__(
        self, folder: Path, registry: Registry, *, lock_seconds: float = LOCK_SECONDS
    ) -> None:
        self._folder = folder
        self._registry = registry
        self._lock_seconds = lock_seconds
        self.memory = Memory(folder, registry.shown)

    def fetch(self, version: Version) -> tuple[str, Path]:
        """The digest and the folder of a version as the registry serves it now.

        Files that are here already are kept if the version's ``MLmodel`` is still the same: that
        one small file is what changes when, say, a signature is added in place.
        """
        with self._locked(version):
            known = self._known(version)
            digest = known.read_text(encoding="ascii") if known.is_file() else ""
            if digest and self._is_current(version, self._folder / digest):
                return digest, self._folder / digest
            digest, folder = self._download(version)
            known.parent.mkdir(exist_ok=True)
            known.write_text(digest, encoding="ascii")
            return digest, folder

    def get(self, version: Version, digest: str) -> Path:
        """The folder of a pinned version, downloaded if this machine does not have it.

        Raises:
            ModelDigestMismatch: the registry serves other bytes than those that were pinned.
        """
        folder = self._folder / digest
        if folder.is_dir():
            return folder
        with self._locked(version):
            if folder.is_dir():
                return folder
            found, folder = self._download(version)
        if found != digest:
            raise ModelDigestMismatch(version.uri, digest, found)
        return folder

    def unchanged(self, digest: str) -> Path | None:
        """The folder of these files, if it is here and every byte is as it was."""
        folder = self._folder / digest
        if not folder.is_dir() or folder_digest(folder) != digest:
            return None
        return folder

    def _is_current(self, version: Version, folder: Path) -> bool:
        if not (folder / "MLmodel").is_file():
            return False
        with self._arriving() as arriving:
            served = self._registry.download(version, arriving, only="MLmodel")
            return served.read_bytes() == (folder / "MLmodel").read_bytes()

    def _download(self, version: Version) -> tuple[str, Path]:
        with self._arriving() as arriving:
            served = self._registry.download(version, arriving)
            digest = folder_digest(served)
            folder = self._folder / digest
            try:
                os.replace(served, folder)
            except OSError:
                if not folder.is_dir():  # else another has fetched the same bytes meanwhile
                    raise
        return digest, folder

    @contextmanager
    def _arriving(self) -> Iterator[Path]:
        arriving = Path(tempfile.mkdtemp(prefix=ARRIVING, dir=self._folder))
        try:
            yield arriving
        finally:
            shutil.rmtree(arriving, ignore_errors=True)

    def _known(self, version: Version) -> Path:
        identity = f"{version.uri}\0{version.source}".encode()
        return self._folder / "known" / hashlib.sha256(identity).hexdigest()

    @contextmanager
    def _locked(self, version: Version) -> Iterator[None]:
        """The right to fetch a version, or so long a wait for it that whoever has it is frozen."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._folder / f"{self._known(version).name}.lock")
        try:
            lock.acquire(timeout=self._lock_seconds)
        except Timeout:
            log.warning("model_lock_held", model=version.uri, seconds=self._lock_seconds)
            yield
            return
        try:
            yield
        finally:
            lock.release()


def folder_digest(folder: Path) -> str:
    """SHA-256 over the sorted relative paths of a folder's files and their SHA-256."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name in NOT_PART_OF_THE_MODEL:
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{name}\0{digest}\n".encode())
    return total.hexdigest()
