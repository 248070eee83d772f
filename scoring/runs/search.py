"""Find the variants of a model on this device: remembered, or searched for once per fleet.

Whoever claims the search in the ledger runs it in a process of its own; others wait for its
result. Variants lie in the folder that all machines share, below the key of the search.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pyarrow as pa

from scoring import devices, telemetry
from scoring.errors import LeaseLost
from scoring.ledger import SearchClaim
from scoring.models import ModelFiles
from scoring.models.build import AS_REGISTERED
from scoring.models.search_request import Device, Request
from scoring.models.search_result import Candidate, SearchResult
from scoring.runs import sample
from scoring.runs.context import Context
from scoring.runs.identity import this_worker
from scoring.runs.lease import Lease
from scoring.runs.search_process import REQUEST, RESULT, run_search

log = telemetry.logger(__name__)

VARIANTS_FOLDER = "_variants"
"""Among the artifacts; no job's name begins with an underscore."""
BUILDING, KEY_LENGTH = ".building-", 32
"""What a folder that is being built is called, before so much of its search's key."""
RUNTIMES = ("onnxruntime-gpu", "onnxruntime", "torch", "nightscore")
EXPORTERS = (
    *("onnx", "onnxmltools", "onnxscript", "skl2onnx"),
    *("scikit-learn", "lightgbm", "xgboost", "xgboost-cpu"),
    *("sentence-transformers", "tokenizers", "transformers"),
)
"""What makes graphs: one that is installed, or mended, must not find its old failure remembered."""
LOOK_SECONDS = 0.25
"""How often a worker looks whether a search has ended."""
FAILURES = 3
"""So many searches that ended without a result are remembered as a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is searched for: one model version on one kind of device."""

    files: ModelFiles
    model_digest: str
    columns: tuple[str, ...]
    device: Device
    device_name: str
    threads: int
    tensorrt: bool

    @property
    def key(self) -> str:
        """Under which a result is remembered: whatever could change it is in it."""
        identity = [
            self.model_digest,
            self.columns,
            self.device,
            self.device_name,
            self.threads,
            self.tensorrt,
            runtimes(),
            _installed(EXPORTERS),
        ]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A result and what is to be made of it."""

    key: str
    result: SearchResult
    failure: str = ""
    """Why a search that another may yet end well found nothing; empty: this is the result."""


class _SearchLost(Exception):
    """Another worker has taken the search over."""


def runtimes() -> str:
    """Names and versions of what runs models here."""
    return _installed(RUNTIMES)


def _installed(names: Sequence[str]) -> str:
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def subject(
    context: Context,
    files: ModelFiles,
    digest: str,
    *,
    columns: tuple[str, ...],
    device: Device,
    tensorrt: bool = False,
) -> Subject:
    """The subject of a search on this machine."""
    return Subject(
        files=files,
        model_digest=digest,
        columns=columns,
        device=device,
        device_name=devices.device_name(device),
        threads=context.threads,
        tensorrt=tensorrt,
    )


def remembered(context: Context, about: Subject) -> Found | None:
    """What an earlier search found."""
    return _found(about, context.ledger.searches.result(about.key))


def find(
    context: Context,
    about: Subject,
    rows: Callable[[], tuple[pa.Table, str]],
    check: Callable[[], None],
    *,
    settled: Callable[[], bool] = lambda: False,
    fit: Callable[[Found], bool] = lambda found: True,
) -> Found | None:
    """What an earlier search found, or this one, or that of another worker now under way.

    ``rows`` gives the sample and says where it comes from; ``check`` raises when the caller should
    stop; once ``settled`` there is nothing to find (``None``). What is remembered but not ``fit``
    is searched for anew, by one worker, and stands until there is a new result.
    """
    sampled = None
    while not settled():
        text = context.ledger.searches.result(about.key)
        found = _found(about, text)
        if found is not None and fit(found):
            return found
        table, origin = sampled = sampled or rows()
        if table.num_rows < sample.FEWEST_ROWS:
            return _too_few(about, table.num_rows, origin)
        claim = context.ledger.searches.claim(
            about.key, about.model_digest, about.device_name, this_worker(), instead_of=text
        )
        if claim is not None:
            with suppress(_SearchLost):
                return _searched(context, about, claim, table, origin, check)
        check()
        time.sleep(LOOK_SECONDS)
    return None


def variant_folder(context: Context, key: str, folder: str) -> Path:
    """Where the files of a variant are; ``folder`` as its candidate names it."""
    return context.settings.artifacts / VARIANTS_FOLDER / key[:KEY_LENGTH] / folder


def _found(about: Subject, text: str | None) -> Found | None:
    if text is None:
        return None
    return Found(key=about.key, result=SearchResult.from_json(text))


def _too_few(about: Subject, rows: int, origin: str) -> Found:
    why = f"{rows} rows are too few to judge it by; {sample.FEWEST_ROWS} are needed"
    return Found(key=about.key, result=_nothing(about, rows, origin, why))


def _searched(
    context: Context,
    about: Subject,
    claim: SearchClaim,
    table: pa.Table,
    origin: str,
    check: Callable[[], None],
) -> Found:
    searches = context.ledger.searches
    try:
        with Lease(partial(searches.renew, claim), context.settings.lease_seconds) as lease:

            def go_on() -> None:
                check()
                try:
                    lease.check()
                except LeaseLost as error:
                    raise _SearchLost from error

            result, failure = _run(context, about, claim, table, origin, go_on)
    except BaseException:
        searches.give_up(claim, failed=False)
        raise
    log.info("search_ended", key=about.key, seconds=result.seconds, failure=failure)
    known = searches.result(about.key) is not None
    if failure and (known or claim.failures + 1 < FAILURES):
        searches.give_up(claim, failed=True)
        return Found(key=about.key, result=result, failure=failure)
    try:
        searches.record(claim, result.to_json())
    except LeaseLost as error:
        raise _SearchLost from error
    return Found(key=about.key, result=result)


def _run(
    context: Context,
    about: Subject,
    claim: SearchClaim,
    table: pa.Table,
    origin: str,
    go_on: Callable[[], None],
) -> tuple[SearchResult, str]:
    """Search in a process of its own; what was found, and what went wrong, if anything did."""
    shared = context.settings.artifacts / VARIANTS_FOLDER
    shared.mkdir(parents=True, exist_ok=True)
    building = f"{BUILDING}{about.key[:KEY_LENGTH]}-"
    for left in shared.glob(f"{building}*"):  # by a searcher that died
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=building, dir=shared) as scratch:
        request = Request(
            model=about.files.model,
            model_folder=str(about.files.folder),
            model_digest=about.model_digest,
            columns=about.columns,
            device=about.device,
            device_name=about.device_name,
            runtimes=runtimes(),
            threads=about.threads,
            tensorrt=about.tensorrt,
            cache=str(context.settings.engine_cache),
            rows=f"{scratch}/rows.arrow",
            sample=origin,
            folder=f"{scratch}/variants",
            registry=context.trust.registry,
            trusted=context.trust.trusted,
        )
        sample.write(table, Path(request.rows))
        Path(request.folder).mkdir()
        Path(scratch, REQUEST).write_text(request.to_json(), encoding="utf-8")
        why = run_search(Path(scratch), about.threads, context.settings.search_seconds, go_on)
        result = Path(scratch, RESULT)
        if why:
            return _nothing(about, table.num_rows, origin, why), why
        found = SearchResult.from_json(result.read_text(encoding="utf-8"))
        place = shared / about.key[:KEY_LENGTH] / str(claim.attempt)
        place.parent.mkdir(exist_ok=True)
        os.replace(request.folder, place)
    return _placed(found, str(claim.attempt)), ""


def _placed(found: SearchResult, attempt: str) -> SearchResult:
    """The result with its folders below the attempt's: a later search leaves them alone."""
    return replace(
        found,
        candidates=tuple(
            replace(one, folder=f"{attempt}/{one.folder}") if one.folder else one
            for one in found.candidates
        ),
    )


def _nothing(about: Subject, rows: int, origin: str, why: str) -> SearchResult:
    """Native alone, and why there is nothing else."""
    variants = ("fp32", "int8") if about.device == "cpu" else ("fp32", "fp16", "int8")
    missing = tuple(Candidate(variant=variant, recipe="", why_not=why) for variant in variants)
    return SearchResult(
        model=about.files.model,
        model_digest=about.model_digest,
        device=about.device_name,
        runtimes=runtimes(),
        rows=rows,
        sample=origin,
        seconds=0.0,
        candidates=(Candidate(variant="native", recipe=AS_REGISTERED), *missing),
    )
