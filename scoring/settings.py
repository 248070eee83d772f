"""The environment, read once, as one frozen value.

Invariant: nothing below the composition roots (commands, tasks, api) reads an environment
variable; a ``Settings`` comes in from above. Paths are absolute, so that every process that is
handed the same settings means the same place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from scoring.errors import SettingsInvalid

BROKERS = ("redis", "rediss")
SCHEMES = {
    "database_url": ("sqlite", "postgresql", "postgresql+psycopg"),
    "broker_url": BROKERS,
    "cache_url": BROKERS,
}
"""What the addresses of services begin with."""
SECRETS = {*SCHEMES, "webhooks", "webhook_secret"}
"""Settings whose values are not shown, as they may hold a password."""
URL = re.compile(r"https?://[^/\s]+")


def cores() -> int:
    """Cores that this process may use, which in a container can be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Settings(BaseSettings):
    """What the installation looks like. Every field is ``SCORING_<NAME>`` in the environment."""

    model_config = SettingsConfigDict(env_prefix="SCORING_", frozen=True, extra="ignore")

    home: Path = Path(".scoring")
    """Embedded state: ledger, registry, model cache, logs."""
    database_url: str = Field(default="", repr=False)
    """SQLAlchemy URL of the ledger; empty: SQLite in the home."""
    broker_url: str = Field(default="", repr=False)
    """Redis or Valkey; empty: the embedded one of ``scoring up`` or ``scoring run``."""
    cache_url: str = Field(default="", repr=False)
    """Redis or Valkey for shared caches; empty: the broker's."""
    jobs: Path = Path("jobs")
    """Folder of job files; a job is found there by its name."""
    data_roots: Annotated[tuple[Path, ...], NoDecode] = ()
    """Places that jobs may read and write; empty: anywhere on this machine."""
    artifacts: Path = Path()
    """Reports, quarantine and plans of every run; default: ``artifacts`` in the home."""
    tracking_uri: str = Field(default="", validation_alias="MLFLOW_TRACKING_URI", repr=False)
    """MLflow tracking and registry; empty: SQLite in the home."""
    webhooks: Annotated[dict[str, SecretStr], NoDecode] = Field(default_factory=dict, repr=False)
    """Addresses that drift may be told to, by name: ``mlops=https://...``, blanks between."""
    webhook_secret: SecretStr = SecretStr("")
    """Key that signs what is posted to webhooks; empty: it is not signed."""
    log: Literal["console", "json"] = "console"
    """How log lines are written."""
    lease_seconds: float = Field(default=60.0, gt=0)
    """How long a worker may be silent before its chunk is given to another."""
    sweep_seconds: float = Field(default=30.0, gt=0)
    """How often beat looks for what was lost."""
    search_seconds: float = Field(default=900.0, gt=0)
    """How long a search for the variants of a model may take."""
    workers: int = Field(default_factory=cores, ge=1)
    """Worker children on this machine; each scores with ``cores / workers`` threads."""

    @field_validator("database_url", "broker_url", "cache_url")
    @classmethod
    def _known_scheme(cls, value: str, info: ValidationInfo) -> str:
        accepted = SCHEMES[str(info.field_name)]
        if value and value.partition("://")[0] not in accepted:
            raise ValueError(f"give an address that begins with {' or '.join(accepted)}://")
        return value

    @field_validator("data_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part for part in value.split(os.pathsep) if part)
        return value

    @field_validator("webhooks", mode="before")
    @classmethod
    def _split_webhooks(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        named = dict(part.partition("=")[::2] for part in value.split())
        if not all(name and URL.match(address) for name, address in named.items()):
            raise ValueError("give names and addresses, such as mlops=https://host/path")
        return named

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: dict[str, object]) -> dict[str, object]:
        home = Path(str(values.get("home") or ".scoring")).absolute()
        filled = dict(values, home=home)
        filled["jobs"] = Path(str(values.get("jobs") or "jobs")).absolute()
        filled["artifacts"] = Path(str(values.get("artifacts") or home / "artifacts")).absolute()
        filled["database_url"] = values.get("database_url") or f"sqlite:///{home}/ledger.db"
        uri = values.get("MLFLOW_TRACKING_URI") or values.get("tracking_uri")
        filled.pop("tracking_uri", None)
        filled["MLFLOW_TRACKING_URI"] = uri or f"sqlite:///{home}/mlflow.db"
        return filled

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except (ValidationError, SettingsError) as invalid:
            raise SettingsInvalid(_faults(invalid)) from None

    @property
    def model_cache(self) -> Path:
        """Where model files are kept, once per machine."""
        return self.home / "models"

    @property
    def engine_cache(self) -> Path:
        """Where TensorRT's engines are kept, once per machine."""
        return self.home / "engines"

    @property
    def logs(self) -> Path:
        """Where the embedded services write their logs."""
        return self.home / "logs"


def _faults(invalid: ValidationError | SettingsError) -> list[str]:
    """One line for each variable that cannot be used."""
    if isinstance(invalid, SettingsError):
        return [str(invalid)]
    return [
        f"{_variable(fault['loc'])} {_shown(fault)}: {fault['msg'].removeprefix('Value error, ')}"
        for fault in invalid.errors()
    ]


def _shown(fault: Mapping[str, Any]) -> str:
    """The value found, unless it may hold a password."""
    secret = fault["loc"] and fault["loc"][0] in SECRETS
    return "cannot be used" if secret else f"is {fault['input']!r}"


def _variable(place: tuple[int | str, ...]) -> str:
    name = str(place[0]) if place else "a setting"
    return name if name.startswith("MLFLOW") else f"SCORING_{name.upper()}"
