"""What the registry said last: which version each model address meant, and its reference profile.

It lies beside the model cache, one file for each address, and is written whenever the registry has
answered, so that a job that allows it can go on while the registry does not. What one registry
said is not remembered of another, and an older answer never replaces a newer one.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scoring import telemetry
from scoring.models.version import Version

log = telemetry.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """One answer of the registry."""

    version: Version
    digest: str
    """Of the version's files."""
    named_at: float
    """When the registry was asked, in seconds since the epoch."""


class Memory:
    """Answers of one registry, in a folder of this machine."""

    def __init__(self, folder: Path, registry: str) -> None:
        self._folder = folder
        self._registry = registry

    def remember(self, version: Version, digest: str, named_at: float) -> None:
        """Keep what the registry said of the version's address, and of its exact version."""
        for model in {version.model, version.uri}:
            known = self.recall(model)
            if known is None or known.named_at <= named_at:
                about = {**asdict(version), "model": model}
                said = {"version": about, "digest": digest, "named_at": named_at}
                self._write(self._place("named", model), said)

    def recall(self, model: str) -> Remembered | None:
        """What the registry said last of a model's address."""
        found = self._read(self._place("named", model))
        if found is None:
            return None
        try:
            return Remembered(
                version=Version(**found["version"]),
                digest=str(found["digest"]),
                named_at=float(found["named_at"]),
            )
        except (TypeError, ValueError, LookupError):  # another release's
            return None

    def remember_profile(self, version: Version, profile: str) -> None:
        """Keep the reference profile that was logged to a version."""
        self._write(self._profile_of(version), {"profile": profile})

    def recall_profile(self, version: Version) -> str | None:
        """The reference profile of a version, if it was ever fetched here."""
        found = self._read(self._profile_of(version))
        return None if found is None else str(found.get("profile", ""))

    def _profile_of(self, version: Version) -> Path:
        return self._place("profiles", f"{version.uri}\0{version.profile_uri}")

    def _place(self, kind: str, about: str) -> Path:
        key = hashlib.sha256(f"{self._registry}\0{about}".encode()).hexdigest()
        return self._folder / kind / f"{key}.json"

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("memory_unreadable", path=str(path), error=str(error))
            return None
        return found if isinstance(found, dict) else None

    def _write(self, path: Path, said: dict[str, Any]) -> None:
        """Replace a file whole. A run does not fail because it could not be written."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, fresh = tempfile.mkstemp(prefix="fresh-", dir=path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(said, file)
                os.replace(fresh, path)
            except BaseException:
                os.unlink(fresh)
                raise
        except OSError as error:
            log.warning("registry_not_remembered", path=str(path), error=str(error))
