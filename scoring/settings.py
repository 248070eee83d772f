"""The environment, read once, as one frozen value.

Invariant: nothing below the composition roots (commands, tasks, api) reads an environment
variable; a ``Settings`` comes in from above. Paths are absolute, so that every process that is
handed the same settings means the same place.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from scoring import urls
from scoring.errors import JobError, SettingsInvalid

BROKERS = ("redis", "rediss")
SCHEMES = {
    "database_url": ("sqlite", "postgresql", "postgresql+psycopg"),
    "broker_url": BROKERS,
    "cache_url": BROKERS,
}
"""What the addresses of services begin with."""
SECRETS = {
    *SCHEMES,
    *("webhooks", "webhook_secret", "storage_options", "s3_endpoint", "trusted_registries"),
    *("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MLFLOW_TRACKING_URI"),
}
"""Settings whose values are not shown, as they may hold a password."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
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
    data_roots: Annotated[tuple[str, ...], NoDecode] = ()
    """Places that jobs may read and write, folders and URLs of stores; empty: anywhere."""
    storage_options: Annotated[dict[str, dict[str, SecretStr]], NoDecode] = Field(
        default_factory=dict, repr=False
    )
    """How stores are reached, by root: JSON, ``{"s3://bucket": {"endpoint": "https://..."}}``."""
    s3_endpoint: str = Field(
        default="",
        validation_alias=AliasChoices("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        repr=False,
    )
    """Of the stores that `storage_options` names none for; empty: the region's own."""
    artifacts: Path = Path()
    """Reports, quarantine and plans of every run; default: ``artifacts`` in the home."""
    tracking_uri: str = Field(default="", validation_alias="MLFLOW_TRACKING_URI", repr=False)
    """MLflow tracking and registry; empty: SQLite in the home."""
    webhooks: Annotated[dict[str, SecretStr], NoDecode] = Field(default_factory=dict, repr=False)
    """Addresses that drift may be told to, by name: ``mlops=https://...``, blanks between."""
    webhook_secret: SecretStr = SecretStr("")
    """Key that signs what is posted to webhooks; empty: it is not signed."""
    trusted_registries: Annotated[tuple[str, ...], NoDecode] = Field(default=(), repr=False)
    """Registries whose pickled models may run here, blanks between; empty: only this one."""
    submissions_per_minute: int = Field(default=600, ge=0)
    """Runs that one caller may submit in a minute, schedules aside; 0: as many as they like."""
    child_memory_mb: int = Field(default=0, ge=0)
    """A worker child that grows beyond it is replaced after its chunk; 0: a share of the memory."""
    log: Literal["console", "json"] = "console"
    """How log lines are written."""
    lease_seconds: float = Field(default=60.0, gt=0)
    """How long a worker may be silent before its chunk is given to another."""
    sweep_seconds: float = Field(default=30.0, gt=0)
    """How often beat looks for what was lost."""
    search_seconds: float = Field(default=900.0, gt=0)
    """How long a search for the variants of a model may take."""
    stop_seconds: float = Field(default=60.0, ge=0)
    """How long a worker that is told to stop may go on with its chunks before others get them."""
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
        roots = urls.split_roots(value) if isinstance(value, str) else value
        return tuple(map(_root, roots)) if isinstance(roots, list | tuple) else roots

    @field_validator("storage_options", mode="before")
    @classmethod
    def _parse_options(cls, value: object) -> object:
        found = json.loads(value or "{}") if isinstance(value, str) else value
        for root in found if isinstance(found, dict) else ():
            if not urls.is_url(str(root)):
                raise ValueError(f"{root} is not the URL of a store, such as s3://bucket")
        return found

    @field_validator("trusted_registries", mode="before")
    @classmethod
    def _split_registries(cls, value: object) -> object:
        return tuple(value.split()) if isinstance(value, str) else value

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
    def roots_missing(self) -> bool:
        """Whether this is one machine of several, and its jobs may read and write anywhere."""
        host = urlsplit(self.broker_url).hostname
        return bool(host) and host not in LOOPBACK and not self.data_roots

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


def _root(place: object) -> str:
    """A root as one text, the same in every process."""
    text = os.fspath(place) if isinstance(place, os.PathLike) else str(place)
    if not urls.is_url(text):
        return str(Path(text.removeprefix("file://")).expanduser().absolute())
    try:
        return urls.join("://".join(urls.parts(text)[:2]), *urls.parts(text)[2:])
    except JobError as error:
        raise ValueError(str(error)) from error


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
