"""A version of a registered model: what a name meant when the registry was asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version in the registry."""

    model: str
    """As the job names it."""
    name: str
    version: str
    source: str
    profile_uri: str | None
    """Where the reference profile of this version lies, if it has one."""

    @property
    def uri(self) -> str:
        """The exact version, whatever its alias does next."""
        return f"models:/{self.name}/{self.version}"
