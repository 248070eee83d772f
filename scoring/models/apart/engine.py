"""An engine whose model is in a process of its own, started again whenever it has stopped.

Invariant: it scores as the engine in the process does. It is given the same rows in the same
slabs, and cuts them into the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from scoring import errors, telemetry
from scoring.errors import ModelDies
from scoring.models.apart.process import Process
from scoring.models.apart.wire import Words
from scoring.models.faults import ModelRaised, ModelStopped
from scoring.models.inputs import features
from scoring.models.loadable import Loadable
from scoring.models.signature import Field, read_model

log = telemetry.logger(__name__)

MOST_STOPS = 64
"""So often a model may stop in one attempt. Each costs a start of Python and a loading."""
HANG_WEIGHT = 4
"""As many of these does a silence count, which also costs the time that a call may take."""
LOADS = 2
"""Tries to load it: a process may also be killed from outside."""


class ApartEngine:
    """One model, called across a pipe; use it as a context manager.

    ``seconds`` is how long a batch may take, ``load_seconds`` how long loading may.

    Raises:
        ModelDies: it stops when it is loaded, or without any row, or too often.
        ModelError: it cannot be loaded.
    """

    def __init__(
        self, what: Loadable, seconds: float, load_seconds: float, check: Callable[[], None]
    ) -> None:
        self._what, self._check = what, check
        self._seconds, self._load_seconds = seconds, load_seconds
        signature = read_model(what.folder, what.model).signature
        self.features: Sequence[Field] = features(signature, what.options.columns, what.model)
        self._process: Process | None = None
        self._stops = 0
        self._batch_rows = what.options.batch_rows
        self._described = self._load()[1]

    def __enter__(self) -> ApartEngine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    @property
    def name(self) -> str:
        return str(self._described["name"])

    @property
    def device(self) -> str:
        return str(self._described["device"])

    @property
    def slab_rows(self) -> int:
        return int(self._described["slab_rows"])

    @property
    def batch_rows(self) -> int:
        return self._batch_rows

    def resize(self, batch_rows: int) -> None:
        self._batch_rows = batch_rows

    def watch(self, done: Callable[[], None]) -> None:
        """Nothing: the process is watched from here."""

    def accepts_null(self, feature: Field) -> bool:
        return feature.name in self._described["nullable"]

    def prepare(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows themselves: they are prepared where the model is."""
        return rows

    def predict(self, prepared: pa.RecordBatch) -> dict[str, pa.Array]:
        """Raises: ModelStopped: these rows, or one of them, killed the model or made it hang."""
        return self._ask(prepared)

    def empty(self) -> dict[str, pa.Array]:
        try:
            return self._ask(None)
        except ModelStopped as stopped:
            raise ModelDies(self._what.model, f"{stopped.how} without a row") from stopped

    def _ask(self, rows: pa.RecordBatch | None) -> dict[str, pa.Array]:
        process = self._process or self._load()[0]
        words = {"batch_rows": self._batch_rows}
        answer, found = self._told(process, words, rows, self._seconds)
        self._batch_rows = answer["batch_rows"]
        _raise_fault(answer)
        assert found is not None
        return dict(zip(found.schema.names, found.columns, strict=True))

    def _load(self) -> tuple[Process, Words]:
        """Start a process and load the model into it; the process, and what it says of itself."""
        for left in reversed(range(LOADS)):
            process = self._process = Process(self._check)
            words = {"load": self._what.to_json()}
            try:
                answer, _ = self._told(process, words, None, self._load_seconds)
            except ModelStopped as stopped:
                if left and not stopped.silent:
                    continue
                why = f"{stopped.how} while it was loaded"
                raise ModelDies(self._what.model, why) from stopped
            if answer["did"] != "load":
                self.__exit__()
                _raise_fault(answer)
            self._batch_rows = self._batch_rows or answer["batch_rows"]
            return process, answer
        raise AssertionError("it is loaded, or an error is raised")

    def _told(
        self, process: Process, words: Words, rows: pa.RecordBatch | None, seconds: float
    ) -> tuple[Words, pa.RecordBatch | None]:
        """What a process answers; it is forgotten, and counted, if it does not."""
        try:
            return process.ask(words, rows, seconds)
        except ModelStopped as stopped:
            self._process = None
            self._stops += HANG_WEIGHT if stopped.silent else 1
            log.warning("model_stopped", how=stopped.how, stops=self._stops)
            if self._stops > MOST_STOPS:
                why = f"{stopped.how}, on more rows than can be looked for one by one"
                raise ModelDies(self._what.model, why) from stopped
            raise
        except BaseException:
            self._process = None
            raise


def _raise_fault(answer: Words) -> None:
    """What the model raised over there."""
    if answer["did"] == "fail":
        raise getattr(errors, answer["error"])(*answer["args"])
    if answer["did"] == "run out of memory":
        raise MemoryError(answer["said"])
    if answer["did"] == "raise":
        raise ModelRaised(answer["kind"], answer["said"])
