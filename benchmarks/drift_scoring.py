"""What the profile and the measures add to the scoring of a run, on one core.

A run's chunks are planned and scored in this process as a worker does it, from Parquet to parts on
disk, in turn with their profile and without it. With it, the reference profile is read for every
chunk, features and outputs are counted, each chunk's profile is written; at the end the finisher's
work follows: merge, measure, page. Without it none of that happens, and nothing else differs.

Invariant: both forms score the same rows with the same session, one after the other, and each goes
first in every other pair, so that what slows the machine for a while slows both.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import models
from benchmarks.drift_process import Meter
from benchmarks.drift_report import finish
from scoring.data import sink, source
from scoring.drift.profile.frame import Role
from scoring.drift.profile.profile import Profile, Profiler, reference_from
from scoring.models import (
    Engine,
    EngineOptions,
    Field,
    ModelFiles,
    Signature,
    load,
    load_built,
    score,
)
from scoring.models.built import Built, write_outputs
from scoring.pipeline import (
    ChunkWork,
    attempt,
    by_name,
    expected_columns,
    feature_kinds,
    score_chunk,
)
from scoring.plan import Chunk, cut, whole

Form = Literal["network-16", "network-32", "trees"]

BATCH_ROWS: dict[Form, int] = {"network-16": 256, "network-32": 256, "trees": 16_384}
"""What the search of `benchmarks.variants` finds fastest on one thread."""
CALIBRATION_ROWS = 4_096
KEY = "row_id"
OUTPUTS = pa.schema([("score", pa.float32())])


class Blind(Profiler):
    """A profiler that does not look."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__(())

    def add(self, *_: Any, **__: Any) -> None:
        pass

    def profile(self) -> Profile:
        return Profile()


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """A model that is loaded, and the rows that it scores."""

    form: Form
    rows: int

    def make(self) -> None:
        """Make what is kept for later processes: the rows and the model."""
        _ = self.scanned, self.engine

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns that the model reads."""
        if self.form == "trees":
            return models.TREE_COLUMNS
        return models.NETWORK_COLUMNS[: int(self.form.partition("-")[2])]

    @cached_property
    def scanned(self) -> list[source.Scanned]:
        which: models.Which = "trees" if self.form == "trees" else "network"
        return source.scan(str(models.input_rows(which, self.rows)), [KEY, *self.columns])

    @cached_property
    def chunks(self) -> Sequence[Chunk]:
        """As a run of these rows would be planned."""
        return cut([one.file for one in self.scanned])

    @cached_property
    def engine(self) -> Engine:
        """What a worker of one thread loads: the trees as registered, the network in int8."""
        graph = _graph(self.form)
        options = EngineOptions(device="cpu", threads=1, batch_rows=BATCH_ROWS[self.form])
        files = ModelFiles(
            folder=graph.parent,
            model=f"models:/{self.form}/1",
            flavors={"onnx": {"data": graph.name}},
            signature=Signature(
                inputs=tuple(_column(name) for name in self.columns), outputs=(_column("score"),)
            ),
        )
        if self.form == "trees":
            return load(files, options)
        return load_built(files, self._int8(graph), options)

    @cached_property
    def reference(self) -> str:
        """JSON of the profile of one file of rows and of their scores."""
        expected = expected_columns(self.engine)
        kinds: list[tuple[str, Role, Any]] = [*feature_kinds(expected)]
        kinds.append(("score", "output", pa.float32()))

        def predicted() -> Iterator[dict[str, pa.Array]]:
            file = self.scanned[0].file
            for batch in source.read(file, whole(file), self.columns, self.engine.slab_rows):
                yield {**by_name(batch), **score(self.engine, batch)}

        return reference_from(predicted, kinds).to_json()

    def run(self, staging: Path, *, profiled: bool) -> dict[str, Any]:
        """Score every chunk; what it took, the finisher's steps apart."""
        blind: AbstractContextManager[Any] = (
            nullcontext() if profiled else patch.object(attempt, "Profiler", Blind)
        )
        meter = Meter()
        with blind, meter.step("score"):
            parts = [self._score(chunk, staging, profiled=profiled) for chunk in self.chunks]
        if profiled:
            profiles = ((staging / sink.profile_name(part)).read_text("utf-8") for part in parts)
            finish(self.reference, profiles, staging, meter)
        return meter.spent()

    def _score(self, chunk: Chunk, staging: Path, *, profiled: bool) -> str:
        work = ChunkWork(
            number=chunk.number,
            attempt=1,
            spans=chunk.spans,
            files={span.file: self.scanned[span.file].file for span in chunk.spans},
            schema=self.scanned[0].schema,
            kept=[KEY],
            staging=staging,
            overflow=staging / "quarantine",
            reference=Profile.from_json(self.reference) if profiled else None,
            origins={},
            metadata={"model": self.form},
            run_rows=self.rows,
            error_budget=0.0,
            budget_rows=0,
        )
        return score_chunk(work, self.engine, lambda: None).part

    def _int8(self, graph: Path) -> Built:
        """The network's int8 variant, made by the recipe that the search tries first."""
        from scoring.models.quantize import recipes

        recipe = next(one for one in recipes("cpu") if one.variant == "int8")
        sample = pq.read_table(self.scanned[0].file.path, columns=list(self.columns))
        rows = sample.slice(0, CALIBRATION_ROWS)
        matrix = np.stack([column.to_numpy() for column in rows.columns], axis=1)

        def build(folder: Path) -> None:
            folder.mkdir()
            recipe.make(graph, lambda: iter([{"features": matrix}]), folder / "model.onnx")
            write_outputs(folder, OUTPUTS)

        folder = models.built(f"{self.form}-int8", build)
        return Built(variant="int8", recipe=recipe.name, engine="onnx", folder=folder)


def _graph(form: Form) -> Path:
    if form == "network-16":
        return models.built("network-16.onnx", _build_narrow)
    return models.onnx_file("trees" if form == "trees" else "network")


def _build_narrow(file: Path) -> None:
    """The same network on a table of 16 columns: it is given each of them twice."""
    import onnx
    from onnx import helper

    model = onnx.load(models.network_onnx())
    for node in model.graph.node:
        node.input[:] = ["twice" if name == "features" else name for name in node.input]
    twice = helper.make_node("Concat", ["features", "features"], ["twice"], axis=1)
    model.graph.node.insert(0, twice)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 16
    onnx.save(model, file)


def _column(name: str) -> Field:
    return Field(name=name, type=pa.float32(), shape=None, required=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Score a run with its profile and without.")
    parser.add_argument("form", choices=get_args(Form))
    parser.add_argument("--rows", type=int, default=models.ROWS)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    scoring = Scoring(form=options.form, rows=options.rows)
    pairs = []
    with TemporaryDirectory(prefix="nightscore-drift-") as scratch:
        for number in range(options.runs + 1):  # the first pair warms both
            order = (True, False) if number % 2 else (False, True)
            spent = {profiled: scoring.run(Path(scratch), profiled=profiled) for profiled in order}
            pairs.append((spent[True], spent[False]))
    counts = {"columns": len(scoring.columns), "chunks": len(scoring.chunks)}
    print(json.dumps({**counts, "pairs": pairs[1:]}))


if __name__ == "__main__":
    main()
