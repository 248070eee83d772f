"""The search: build every variant of a model, compare each with native, time what agrees.

It runs as a program of its own (`scoring.models.__main__`), so that an exporter which crashes,
hangs or eats memory costs a process and not a worker.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa

from scoring.errors import DeviceUnavailable, ScoringError
from scoring.job import Precision
from scoring.models import gate
from scoring.models.batch_error import batch_error
from scoring.models.build import (
    AS_REGISTERED,
    Made,
    Missing,
    Registered,
    Source,
    variants,
)
from scoring.models.built import Built, first_line
from scoring.models.cache import folder_digest
from scoring.models.engines import Engine, EngineOptions, load, load_built, score
from scoring.models.missing import differs, probe
from scoring.models.quality import label_change
from scoring.models.scorable import scorable
from scoring.models.search_request import Request, read_sample
from scoring.models.search_result import Candidate, SearchResult, Timing
from scoring.models.signature import ModelFiles, read_model
from scoring.models.text import TEXT_FLAVORS
from scoring.models.timing import timed
from scoring.models.trust import Trust

NATIVE = "native"
ONNX_OR_TORCH = frozenset({"onnx", "pytorch"})
"""Flavors whose native engine runs wherever its variants do."""
USUAL = Precision()
"""The limits that a recipe is preferred by; a job's own are applied when it chooses."""


def search(request: Request) -> SearchResult:
    """Build, compare and time every variant."""
    began = time.perf_counter()
    work = Search(request)
    found = work.judged()
    best, others = preferred(found)
    timings = work.timed(best)
    for one in others:
        if one.folder:
            shutil.rmtree(Path(request.folder) / one.folder, ignore_errors=True)
    native = Candidate(
        variant=NATIVE,
        recipe=AS_REGISTERED,
        why_not=work.why_not_native,
        timings=() if work.why_not_native else timings[NATIVE],
    )
    return SearchResult(
        model=request.model,
        model_digest=request.model_digest,
        device=request.device_name,
        runtimes=request.runtimes,
        rows=work.sample.gate.num_rows,
        sample=request.sample,
        seconds=round(time.perf_counter() - began, 2),
        candidates=(native, *(replace(one, timings=timings[one.variant]) for one in best)),
        others=tuple(others),
    )


class Search:
    """One model and its rows, with native's scores of them."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._files = read_model(Path(request.model_folder), request.model)
        Trust(registry=request.registry, trusted=request.trusted).check(self._files)
        self._options = EngineOptions(
            device=request.device,
            threads=request.threads,
            columns=request.columns,
            tensorrt=request.tensorrt,
            cache=Path(request.cache),
        )
        self._native, self.why_not_native = _native(self._files, self._options)
        self.sample = read_sample(Path(request.rows))
        try:
            self._expected = score(self._native, self.sample.gate)
        except (ScoringError, MemoryError):
            raise
        except Exception:  # of some row: it is quarantined in a run, and left out here
            self.sample = read_sample(Path(request.rows), partial(scorable, self._native))
            self._expected = score(self._native, self.sample.gate)
        self._probes = probe(self._native, self.sample.gate)
        self._engines: dict[Candidate, Engine] = {}

    def judged(self) -> list[Candidate]:
        """Every recipe's variant, compared with native or with the reason why not."""
        found: list[Candidate] = []
        source = Source(
            files=self._files,
            features=tuple(self._native.features),
            outputs=pa.schema([(name, values.type) for name, values in self._expected.items()]),
            calibration=self.sample.calibration,
            options=self._options,
        )
        for made in variants(source, Path(self._request.folder), lambda: _admitted(found)):
            found.append(self._judged(made))
        return found

    def timed(self, best: Sequence[Candidate]) -> dict[str, tuple[Timing, ...]]:
        """Rows per second by batch size of native and of these, by variant."""
        engines = {one.variant: self._engines[one] for one in best if one in self._engines}
        found = timed({NATIVE: self._native, **engines}, self.sample.gate)
        registered = {one.variant for one in best if one.recipe == AS_REGISTERED}
        return {
            one.variant: found[NATIVE] if one.variant in registered else found.get(one.variant, ())
            for one in best
        } | {NATIVE: found[NATIVE]}

    def _judged(self, made: Made) -> Candidate:
        if isinstance(made, Missing):
            return Candidate(variant=made.variant, recipe=made.recipe, why_not=made.why_not)
        if isinstance(made, Registered):
            same = self._compare(self._expected)
            return Candidate(variant=made.variant, recipe=AS_REGISTERED, comparison=same)
        built = replace(made, refused=self._probes.refused, bounded=self._probes.bounded)
        candidate = _described(built)
        try:
            return self._compared(candidate, built)
        except Exception as error:  # a graph that a tool wrote and the runtime refuses, perhaps
            return replace(candidate, why_not=f"it does not run: {first_line(error)}")

    def _compare(self, scores: Mapping[str, pa.Array]) -> gate.Comparison:
        embedding = self._files.flavor in TEXT_FLAVORS
        return gate.compare(self._expected, scores, embedding=embedding)

    def _compared(self, candidate: Candidate, built: Built) -> Candidate:
        engine = load_built(self._files, built, self._options)
        if column := _refused_null(self._native, engine):
            return replace(candidate, why_not=f"it cannot be given a null in {column}")
        if why_not := differs(engine, self._probes):
            return replace(candidate, why_not=why_not)
        scores = score(engine, self.sample.gate)
        labels = self.sample.labels
        comparison = replace(
            self._compare(scores),
            batch_error=batch_error(engine, self.sample.gate),
            labels=None if labels is None else label_change(self._expected, scores, labels),
        )
        compared = replace(candidate, comparison=comparison)
        self._engines[compared] = engine
        return compared


def preferred(found: Sequence[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """The recipe of each variant that the gate likes best, and the others."""
    best: dict[str, Candidate] = {}
    for one in sorted(found, key=_rank):  # stable: of equals the first recipe stays first
        best.setdefault(one.variant, one)
    order = list(dict.fromkeys(one.variant for one in found))
    return [best[variant] for variant in order], [one for one in found if one not in best.values()]


def _rank(candidate: Candidate) -> tuple[bool, int, float]:
    """Less is better: built, admitted under the usual limits, near to native."""
    if candidate.comparison is None:
        return True, 0, 0.0
    refused = len(gate.refusals(candidate.comparison, USUAL))
    return False, refused, candidate.comparison.mean_error or 0.0


def _admitted(found: Sequence[Candidate]) -> frozenset[str]:
    """Variants of which one recipe already passes under the usual limits."""
    return frozenset(
        one.variant
        for one in found
        if one.comparison is not None and not gate.refusals(one.comparison, USUAL)
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


def _described(built: Built) -> Candidate:
    return Candidate(
        variant=built.variant,
        recipe=built.recipe,
        engine=built.engine,
        size_bytes=sum(path.stat().st_size for path in built.folder.rglob("*") if path.is_file()),
        folder=built.folder.name,
        digest=folder_digest(built.folder),
        refused=built.refused,
        bounded=built.bounded,
    )


def _refused_null(native: Engine, engine: Engine) -> str:
    """The first column in which native can be given a null and the variant cannot; or nothing."""
    for feature in native.features:
        if feature.required or not native.accepts_null(feature):
            continue
        if not engine.accepts_null(feature):
            return str(feature.name)
    return ""
