"""What the tests of bad input share: models that say what they were given, and runs of them.

A run is created, scored and finished in the test's own process. Its output folder already holds
an earlier run, so that whatever happens can be told: that one stands, or the new one replaced it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec

from scoring import Job
from scoring.errors import ScoringError
from scoring.ledger import RunRecord
from scoring.runs import Context, Occasion, create, finish_run, prepare, score_chunk
from tests.conftest import make_settings
from tests.integration import models
from tests.silent_bell import SilentBell

SAFE = re.compile(r"[Nn]othing (was|is)|earlier output stands")
PAIR = "pair"
"""Takes a list ``x`` of two floats, and gives ``said_x``, the first and twice the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What became of a run, and what a person is told."""

    state: str
    """The run's, or ``refused`` if there was none."""
    error: str
    rows_in: int
    output: Path
    refused: list[dict[str, Any]]
    """Rows in quarantine."""
    stands: bool
    """Whether the output folder is as the earlier run left it."""

    @property
    def scores(self) -> pa.Table:
        return pq.read_table(self.output)

    @property
    def said(self) -> list[Any]:
        """What the model said of the rows that it was given, in order."""
        column = self.scores["said_x"]
        if pa.types.is_timestamp(column.type):  # of nanoseconds, Python would have none of its own
            column = column.cast(pa.timestamp("us"))
        found: list[Any] = column.to_pylist()
        return found

    def reasons(self) -> dict[int, str]:
        """Why each row is in quarantine, by its number in its file."""
        return {row["_row"]: row["_reason"] for row in self.refused}

    def assert_refused(self, *told: str, state: str = "refused") -> None:
        """Nothing is published, and the message says so in one line, with all of ``told``."""
        assert (self.state, self.stands) == (state, True), self
        for text in told:
            assert text in self.error
        assert SAFE.search(self.error)
        assert "\n" not in self.error
        assert ".." not in self.error.replace("/..", "")
        assert not re.search(r"\b(OSError|Arrow\w+|Traceback)\b", self.error)

    def assert_published(self, said: list[Any], reasons: dict[int, str] | None = None) -> None:
        """Exactly these rows are scored, and exactly those are in quarantine, each with its own."""
        assert (self.state, self.error) == ("published", "")
        assert repr(self.said) == repr(said)  # tells nan, 0.0 and -0.0 apart
        assert self.reasons() == (reasons or {})
        assert self.rows_in == len(said) + len(self.refused)


class Bench:
    """One installation for many cases, each in a folder of its own."""

    def __init__(self, home: Path, tracking_uri: str) -> None:
        settings = make_settings(home / "home", tracking_uri)
        settings.home.mkdir(parents=True)
        self.context = Context.open(settings, SilentBell())
        self.context.ledger.database.ready()
        self._uri = tracking_uri
        self._models: dict[str, str] = {}
        self._earlier = home / "earlier"
        write(self._earlier / "in" / "a.parquet", {"id": [0], "x": [0.5]})
        self.score(self._earlier, "double")

    def close(self) -> None:
        self.context.ledger.database.engine.dispose()

    def model(self, kind: str) -> str:
        """A model that says what it is given: a required ``x`` of that MLflow type, or `PAIR`."""
        if kind not in self._models:
            self._models[kind] = self._pair() if kind == PAIR else self._echo(kind)
        return self._models[kind]

    def job(self, folder: Path, kind: str, **more: Any) -> Job:
        """From ``in`` to ``out`` of a folder; any share of rows may be refused."""
        source, target = more.pop("source", "in"), more.pop("output", "out")
        return Job(
            name="bad-input",
            model=self.model(kind),
            key=more.pop("key", ("id",)),
            input={"path": str(folder / source)},
            output={"path": str(folder / target), "passthrough": more.pop("passthrough", ())},
            execution={"device": "cpu", "error_budget": 0.99, **more},
        )

    def run(
        self,
        folder: Path,
        kind: str = "double",
        *,
        meanwhile: Callable[[], object] | None = None,
        **more: Any,
    ) -> Ended:
        """Plan, do something ``meanwhile``, then score and finish."""
        output = folder / more.get("output", "out")
        if not output.exists():
            shutil.copytree(self._earlier / "out", output)
        before = contents(output)
        run, error = None, ""
        try:
            run = self._score(self.job(folder, kind, **more), meanwhile)
        except ScoringError as refusal:
            error = str(refusal)
        return Ended(
            state=run.state if run else "refused",
            error=str(run.error or "") if run else error,
            rows_in=run.rows_in if run else 0,
            output=output,
            refused=quarantine(run) if run else [],
            stands=contents(output) == before,
        )

    def prepare(self, folder: Path, kind: str = "double", **more: Any) -> None:
        """Only plan."""
        prepare(self.context, self.job(folder, kind, **more), Occasion())

    @contextmanager
    def roots(self, *roots: Path) -> Iterator[None]:
        """Jobs may read and write below these only."""
        anywhere = self.context
        only = {"data_roots": tuple(map(str, roots))}
        self.context = replace(anywhere, settings=anywhere.settings.model_copy(update=only))
        try:
            yield
        finally:
            self.context = anywhere

    def score(self, folder: Path, kind: str) -> RunRecord:
        """A run that replaces nothing."""
        return self._score(self.job(folder, kind), None)

    def _score(self, job: Job, meanwhile: Callable[[], object] | None) -> RunRecord:
        run = create(self.context, job, Occasion(), trigger="manual").run
        if meanwhile is not None:
            meanwhile()
        words = [score_chunk(self.context, run.id, number) for number in range(run.chunks)]
        words.append(finish_run(self.context, run.id))
        assert "attempt failed" not in words, "it was worth another attempt: it is not"
        return self.context.ledger.runs.get(run.id)

    def _echo(self, kind: str) -> str:
        signature = ModelSignature(
            inputs=Schema([ColSpec(kind, "x")]),
            outputs=Schema([ColSpec(kind, "said_x", required=False)]),
        )
        return models.register(
            self._uri, mlflow.pyfunc.log_model, models.Echo(), signature=signature
        )

    def _pair(self) -> str:
        weights = np.array([[1.0], [2.0]], np.float32)
        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 2), "x")]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 1), "said_x")]),
        )
        graph = models.linear(weights, output="said_x")
        return models.register(self._uri, mlflow.onnx.log_model, graph, signature=signature)


def write(path: Path, columns: dict[str, Any] | pa.Table, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **how)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*") if path.is_file()}


def quarantine(run: RunRecord) -> list[dict[str, Any]]:
    files = sorted(Path(run.artifacts, "quarantine").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def garbled(*texts: bytes) -> pa.Array:
    """A column of text whose bytes nobody checked."""
    ends = np.cumsum([0, *map(len, texts)]).astype(np.int32)
    buffers = [None, pa.py_buffer(ends.tobytes()), pa.py_buffer(b"".join(texts))]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)
