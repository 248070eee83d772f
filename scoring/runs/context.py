"""What the steps of a run are given: settings, ledger, registry, doorbell, loaded engines.

This is the composition root of the engine: nothing below it reads settings, and nothing above it
opens a ledger.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from scoring.data.claim import Publisher
from scoring.data.output import Output, output_at
from scoring.data.staged import Staging, staging_at
from scoring.data.stores import Stores
from scoring.errors import RunNotFound
from scoring.job import Job
from scoring.ledger import Finishing, Ledger, RunRecord
from scoring.models import Engine, ModelCache, Registry, Trust, Version
from scoring.runs.host import Host
from scoring.settings import Settings, cores

ENGINES_KEPT = 2
"""Loaded models a worker child keeps: the night's job and the one before."""


class Doorbell(Protocol):
    """Sends wake-up messages. Losing one costs time, never rows: the sweep sends it again."""

    def chunks(self, run: RunRecord, numbers: Sequence[int], delay: float = 0.0) -> None:
        """Wake workers for these chunks, after ``delay`` seconds.

        Raises:
            BrokerUnreachable: the broker did not take all of them.
        """

    def finish(self, run: RunRecord) -> None:
        """Wake a finisher.

        Raises:
            BrokerUnreachable: the broker did not answer.
        """

    def call(self, task: str, *, event: Mapping[str, Any], queue: str, message_id: str) -> None:
        """Call somebody else's Celery task by its name.

        Raises:
            BrokerUnreachable: the broker did not take it.
        """

    def waiting(self, queue: str) -> int:
        """Messages that no worker has taken yet.

        Raises:
            BrokerUnreachable: the broker did not answer.
        """


class Engines:
    """Models loaded in this process, the least recently used one dropped first."""

    def __init__(self) -> None:
        self._loaded: OrderedDict[tuple[object, ...], tuple[Engine, int]] = OrderedDict()

    def get(self, run: RunRecord, job: Job, load: Callable[[], Engine]) -> Engine:
        """The engine for a run's pin, loaded now if it is not here."""
        key = (
            run.model_digest,
            run.variant,
            run.precision,  # names the variant's files and their digest
            job.execution.device,
            job.execution.tensorrt,
            job.input.columns,
        )
        if key not in self._loaded:
            loaded = load()
            self._loaded[key] = (loaded, loaded.batch_rows)
        self._loaded.move_to_end(key)
        engine, usual_rows = self._loaded[key]
        if len(self._loaded) > ENGINES_KEPT:
            self._loaded.popitem(last=False)
        engine.resize(run.batch_rows or usual_rows)
        return engine


@dataclass(frozen=True, slots=True)
class Context:
    """One process's hold on the installation."""

    settings: Settings
    ledger: Ledger
    registry: Registry
    cache: ModelCache
    doorbell: Doorbell
    engines: Engines = field(default_factory=Engines)
    host: Host = field(default_factory=Host)

    @classmethod
    def open(cls, settings: Settings, doorbell: Doorbell, host: Host | None = None) -> Context:
        """Connect nothing yet; every part connects at its first use."""
        registry = Registry(settings.tracking_uri)
        return cls(
            settings=settings,
            ledger=Ledger.open(settings.database_url, settings.lease_seconds),
            registry=registry,
            cache=ModelCache(settings.model_cache, registry),
            doorbell=doorbell,
            host=host or Host(),
        )

    @property
    def stores(self) -> Stores:
        """The object stores that jobs may read and write."""
        return Stores.of(self.settings.storage_options, self.settings.s3_endpoint)

    def output(self, run: RunRecord) -> Output:
        """Where a run is published."""
        return output_at(run.output, self.stores, self.settings.data_roots)

    def staging(self, run: RunRecord) -> Staging:
        """Where its parts wait for that."""
        return staging_at(str(run.staging), self.stores)

    def publisher(self, hold: Finishing, unchanged: Callable[[], bool] = lambda: True) -> Publisher:
        """A finisher as the output knows it, see `Publisher`."""
        return Publisher(
            run_id=hold.run_id,
            attempt=hold.attempt,
            still_mine=lambda: self.ledger.runs.renew_finish(hold),
            unchanged=unchanged,
            is_over=self._is_over,
        )

    def _is_over(self, run_id: str) -> bool:
        """False for a run of another installation, of which nobody here can tell."""
        try:
            return self.ledger.runs.get(run_id).state != "finishing"
        except RunNotFound:
            return False

    @property
    def trust(self) -> Trust:
        """Whose models may run code here."""
        return Trust.of(self.settings.tracking_uri, self.settings.trusted_registries)

    @property
    def threads(self) -> int:
        """Threads inside one call of a model, so that worker children share the cores."""
        return max(1, cores() // self.settings.workers)


def pinned_version(run: RunRecord) -> Version:
    """The registry version that a run is pinned to."""
    return Version(
        model=run.model,
        name=str(run.model_name),
        version=str(run.model_version),
        source=str(run.model_source),
        profile_uri=None,
    )
