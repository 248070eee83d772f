"""The search: build every variant of a model, compare each with native, time what agrees.

It runs as a program of its own (`scoring.models.__main__`), so that an exporter which crashes,
hangs or eats memory costs a process and not a worker.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scoring.errors import DeviceUnavailable
from scoring.job import Precision
from scoring.models import gate
from scoring.models.build import AS_REGISTERED, Made, Missing, Registered, Source, variants
from scoring.models.cache import folder_digest
from scoring.models.engines import Engine, EngineOptions, load, load_built, score
from scoring.models.missing import Probes, differs, probe
from scoring.models.search_result import Candidate, SearchResult
from scoring.models.signature import ModelFiles, read_model
from scoring.models.timing import timed

CALIBRATION_EVERY = 5
"""Every fifth row of the sample calibrates; the others are the gate's."""
BATCHES = (1, 7, 64, 1000)
"""Batch sizes in which the same rows must score alike."""
BATCH_ROWS, BATCHES_OF = 512, 8
"""Rows that are scored again in each of them: so many, or so many of the engine's batches if these
are fewer, because an engine that begins with small batches is slow."""
LABEL = "_label"
"""Column of the sample that holds the known truth, if it is known."""
OUTLIER = 100.0
"""How many times the largest number of a column an outlier has there."""
SEED = 1
ONNX_OR_TORCH = frozenset({"onnx", "pytorch"})
"""Flavors whose native engine runs wherever its variants do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to search, where."""

    model: str
    model_folder: str
    model_digest: str
    columns: tuple[str, ...]
    device: str
    """``auto``, ``cpu`` or ``cuda``."""
    device_name: str
    runtimes: str
    threads: int
    tensorrt: bool
    cache: str
    """Where TensorRT keeps its engines."""
    rows: str
    """Arrow file of sample rows: the features, and perhaps `LABEL`."""
    sample: str
    """Where the rows come from."""
    folder: str
    """Where variants are built."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Request:
        values = json.loads(text)
        return cls(**{**values, "columns": tuple(values["columns"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The rows of a search."""

    gate: pa.RecordBatch
    calibration: pa.RecordBatch
    labels: pa.Array | None
    """Of the gate's rows."""


def search(request: Request) -> SearchResult:
    """Build, compare and time every variant."""
    began = time.perf_counter()
    files = read_model(Path(request.model_folder), request.model)
    options = EngineOptions(
        device=request.device,  # type: ignore[arg-type]
        threads=request.threads,
        columns=request.columns,
        tensorrt=request.tensorrt,
        cache=Path(request.cache),
    )
    native, why_not = _native(files, options)
    sample = read_sample(Path(request.rows))
    expected = score(native, sample.gate)
    probes = probe(native, sample.gate)
    source = Source(
        files=files,
        features=tuple(native.features),
        outputs=pa.schema([(name, values.type) for name, values in expected.items()]),
        calibration=sample.calibration,
        options=options,
    )
    found: list[Candidate] = []
    engines: dict[str, Engine] = {"native": native}
    for made in variants(source, Path(request.folder), lambda: _admitted(found)):
        candidate, engine = _judged(made, native, files, options, sample, expected, probes)
        found.append(candidate)
        if engine is not None:
            engines[candidate.recipe + candidate.variant] = engine
    best, others = _preferred(found)
    kept = {one.recipe + one.variant: one for one in best}
    timings = timed(
        {name: one for name, one in engines.items() if name in {"native", *kept}}, sample.gate
    )
    _remove(Path(request.folder), others)
    registered = Candidate(
        variant="native",
        recipe=AS_REGISTERED,
        why_not=why_not,
        timings=() if why_not else timings["native"],
    )
    return SearchResult(
        model=request.model,
        model_digest=request.model_digest,
        device=request.device_name,
        runtimes=request.runtimes,
        rows=sample.gate.num_rows,
        sample=request.sample,
        seconds=round(time.perf_counter() - began, 2),
        candidates=(registered, *(_timed(one, timings) for one in best)),
        others=tuple(others),
    )


def read_sample(path: Path) -> Sample:
    """Rows of an Arrow file, those for calibration held apart from the gate's."""
    with pa.ipc.open_file(path) as file:
        rows = file.read_all().combine_chunks()
    apart = np.arange(len(rows)) % CALIBRATION_EVERY == 0
    calibration, held = rows.filter(pa.array(apart)), rows.filter(pa.array(~apart))
    labels = held[LABEL].combine_chunks() if LABEL in rows.schema.names else None
    features = [name for name in rows.schema.names if name != LABEL]
    return Sample(
        gate=_batch(held.select(features)),
        calibration=_batch(calibration.select(features)),
        labels=labels,
    )


def _native(files: ModelFiles, options: EngineOptions) -> tuple[Engine, str]:
    """The model as registered, and why it may only be compared with, if it cannot be used.

    A model that only runs on the CPU can still have variants that run on the GPU that was asked
    for.
    """
    try:
        return load(files, options), ""
    except DeviceUnavailable as error:
        if files.flavor in ONNX_OR_TORCH:
            raise
        return load(files, replace(options, device="cpu")), f"it runs on {error.found}"


def _judged(
    made: Made,
    native: Engine,
    files: ModelFiles,
    options: EngineOptions,
    sample: Sample,
    expected: Mapping[str, pa.Array],
    probes: Probes,
) -> tuple[Candidate, Engine | None]:
    """A variant compared with native; no engine when it fell out."""
    if isinstance(made, Missing):
        return Candidate(variant=made.variant, recipe=made.recipe, why_not=made.why_not), None
    if isinstance(made, Registered):
        same = gate.compare(expected, expected)
        return Candidate(variant=made.variant, recipe=AS_REGISTERED, comparison=same), None
    candidate = Candidate(
        variant=made.variant,
        recipe=made.recipe,
        engine=made.engine,
        size_bytes=sum(path.stat().st_size for path in made.folder.rglob("*") if path.is_file()),
        folder=made.folder.name,
        digest=folder_digest(made.folder),
        refused=probes.refused,
    )
    try:
        engine = load_built(files, replace(made, refused=probes.refused), options)
        if blocked := _refuses_null(native, engine):
            return replace(candidate, why_not=f"it cannot be given a null in {blocked}"), None
        if different := differs(engine, probes):
            return replace(candidate, why_not=different), None
        comparison = _compared(engine, sample, expected)
    except Exception as error:  # a graph that a tool wrote and the runtime refuses, for instance
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return replace(candidate, why_not=f"it does not run: {first[:300]}"), None
    return replace(candidate, comparison=comparison), engine


def _refuses_null(native: Engine, engine: Engine) -> str:
    """The first column in which native can be given a null and the variant cannot."""
    optional = (feature for feature in native.features if not feature.required)
    return next(
        (
            str(feature.name)
            for feature in optional
            if native.accepts_null(feature) and not engine.accepts_null(feature)
        ),
        "",
    )


def _compared(engine: Engine, sample: Sample, expected: Mapping[str, pa.Array]) -> gate.Comparison:
    found = score(engine, sample.gate)
    comparison = gate.compare(expected, found)
    labels = None if sample.labels is None else gate.label_change(expected, found, sample.labels)
    return replace(comparison, labels=labels, batch_error=batch_error(engine, sample.gate))


def batch_error(engine: Engine, rows: pa.RecordBatch) -> float:
    """The largest change of a row's outputs over batch sizes, a shuffled order, and an outlier.

    The outlier takes the place of one row: a range that is taken from the batch stretches to it.
    """
    usual = engine.batch_rows
    few = rows.slice(0, min(BATCH_ROWS, BATCHES_OF * usual))
    baseline = score(engine, few)
    order = np.random.default_rng(SEED).permutation(few.num_rows)
    back = pa.array(np.argsort(order))
    shuffled = few.take(pa.array(order))
    beside = pa.concat_batches([few.slice(0, few.num_rows - 1), _outlier(few)])
    moved = [0.0]
    for size in BATCHES:
        engine.resize(size)
        again = score(engine, shuffled)
        moved += [
            gate.moved(baseline, score(engine, few)),
            gate.moved(baseline, {name: again[name].take(back) for name in again}),
        ]
    found = score(engine, beside)
    moved.append(gate.moved(_without_last(baseline), _without_last(found)))
    engine.resize(usual)
    return max(moved)


def _outlier(rows: pa.RecordBatch) -> pa.RecordBatch:
    """A row whose numbers are far beyond the others'."""
    last = rows.slice(rows.num_rows - 1, 1)
    columns = [
        pc.multiply(pc.max(pc.abs(whole)), OUTLIER).cast(whole.type)
        if pa.types.is_floating(whole.type)
        else one
        for whole, one in zip(rows.columns, last.columns, strict=True)
    ]
    arrays = [
        pa.array([value.as_py()], value.type) if isinstance(value, pa.Scalar) else value
        for value in columns
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=rows.schema)


def _without_last(outputs: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    return {name: values.slice(0, len(values) - 1) for name, values in outputs.items()}


def _admitted(found: Sequence[Candidate]) -> frozenset[str]:
    """Variants of which one recipe already passes under the usual limits."""
    return frozenset(
        one.variant
        for one in found
        if one.comparison is not None and not gate.refusals(one.comparison, Precision())
    )


def _preferred(found: Sequence[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """The recipe of each variant that the gate likes best, and the others."""
    best: dict[str, Candidate] = {}
    others: list[Candidate] = []
    for one in found:
        rival = best.get(one.variant)
        if rival is None:
            best[one.variant] = one
        elif _rank(one) < _rank(rival):
            others.append(rival)
            best[one.variant] = one
        else:
            others.append(one)
    return list(best.values()), others


def _rank(candidate: Candidate) -> tuple[bool, int, float]:
    """Less is better: built, admitted under the usual limits, near to native."""
    if candidate.comparison is None:
        return True, 0, 0.0
    refused = len(gate.refusals(candidate.comparison, Precision()))
    return False, refused, candidate.comparison.mean_error or 0.0


def _timed(candidate: Candidate, timings: Mapping[str, Any]) -> Candidate:
    if candidate.recipe == AS_REGISTERED:
        return replace(candidate, timings=timings["native"])
    return replace(candidate, timings=timings.get(candidate.recipe + candidate.variant, ()))


def _remove(folder: Path, others: Sequence[Candidate]) -> None:
    """Variants that no run will use."""
    for one in others:
        if one.folder:
            shutil.rmtree(folder / one.folder, ignore_errors=True)


def _batch(table: pa.Table) -> pa.RecordBatch:
    whole = table.combine_chunks()
    return pa.RecordBatch.from_arrays(
        [
            column.chunk(0) if column.num_chunks else pa.array([], column.type)
            for column in whole.columns
        ],
        names=whole.schema.names,
    )
