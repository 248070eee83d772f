"""``python -m scoring.models.apart READ WRITE``: one model, called by the worker that started it.

It loads what the first message names and then scores what each further one holds, until the
worker closes the pipe. Whatever the model raises is told; whatever else it does to this process
the worker sees.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import sys
import threading

import pyarrow as pa

from scoring.errors import ScoringError
from scoring.garbage import search_seldom
from scoring.models.apart.wire import Wire, Words
from scoring.models.engines import Engine, score
from scoring.models.faults import ModelRaised, said
from scoring.models.loadable import Loadable


def main(reading: str, writing: str) -> None:
    search_seldom()
    faulthandler.enable()  # the worker's log says where in the model it crashed
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it may crash many times, and be large
    for descriptor in (int(reading), int(writing)):
        os.set_inheritable(descriptor, False)  # what the model starts must not keep them open
    wire = Wire(int(reading), int(writing))
    words, _ = wire.receive()
    try:
        engine = Loadable.from_json(words["load"]).load()
        wire.send(_described(engine))
    except BaseException as error:
        wire.send(_fault(error))
        return
    engine.watch(_Beat(wire))
    while True:
        try:
            words, rows = wire.receive()
        except EOFError:
            return
        wire.send(*_answer(engine, words, rows))


def _described(engine: Engine) -> Words:
    return {
        "did": "load",
        "name": engine.name,
        "device": engine.device,
        "slab_rows": engine.slab_rows,
        "batch_rows": engine.batch_rows,
        "nullable": [one.name for one in engine.features if engine.accepts_null(one)],
    }


def _answer(
    engine: Engine, words: Words, rows: pa.RecordBatch | None
) -> tuple[Words, pa.RecordBatch | None]:
    try:
        if "batch_rows" in words:
            engine.resize(words["batch_rows"])
        found = engine.empty() if rows is None else score(engine, rows)
        outputs = pa.RecordBatch.from_arrays(list(found.values()), names=list(found))
    except BaseException as error:  # an exit or an interrupt too: nobody but the model asks for it
        return {**_fault(error), "batch_rows": engine.batch_rows}, None
    return {"did": "score", "batch_rows": engine.batch_rows}, outputs


def _fault(error: BaseException) -> Words:
    if isinstance(error, ScoringError):
        return {"did": "fail", "error": type(error).__name__, "args": error.args}
    if isinstance(error, MemoryError):
        return {"did": "run out of memory", "said": said(error)}
    raised = ModelRaised.of(error)
    return {"did": "raise", "kind": raised.kind, "said": raised.said}


class _Beat:
    """Says that a batch is done; batches may be done in several threads at once."""

    def __init__(self, wire: Wire) -> None:
        self._wire, self._one = wire, threading.Lock()

    def __call__(self) -> None:
        with self._one:
            self._wire.send({"did": "batch"})


if __name__ == "__main__":
    main(*sys.argv[1:])
