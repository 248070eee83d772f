"""A model that does what its rows say, and models that go wrong before they have seen a row.

`Actor` takes an amount and an act. It scores ``2 * amount``, unless a row of the batch names an
act: then it does that. So one registered model serves for everything that can go wrong in a call.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, Schema

ACTS = ModelSignature(inputs=Schema([ColSpec("double", "amount"), ColSpec("string", "act")]))
LEAKED: list[Any] = []


class Unspeakable(Exception):
    """An error that cannot even be shown."""

    def __str__(self) -> str:
        raise TypeError("no")


def raises(make: Callable[[], BaseException]) -> Callable[[pd.DataFrame], Any]:
    def act(frame: pd.DataFrame) -> Any:
        raise make()

    return act


def recurse(frame: pd.DataFrame) -> Any:
    return recurse(frame)


def hang(frame: pd.DataFrame) -> Any:
    while True:
        time.sleep(0.1)


def hang_with_the_lock(frame: pd.DataFrame) -> Any:
    return re.match(r"(a+)+$", "a" * 64 + "b")


def kill(frame: pd.DataFrame) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)
    hang(frame)


def crash(frame: pd.DataFrame) -> Any:
    ctypes.string_at(0)


def close_everything(frame: pd.DataFrame) -> Any:
    os.closerange(3, 256)
    hang(frame)


def leave_somebody(frame: pd.DataFrame) -> Any:
    """End, while a process that was forked before still holds everything open."""
    if os.fork() == 0:
        time.sleep(600)
    os._exit(4)


def print_much(frame: pd.DataFrame) -> Any:
    print("x" * 200_000, flush=True)
    return twice(frame)


def work_in_place(frame: pd.DataFrame) -> Any:
    frame["amount"] *= 2
    frame["act"] = "spoilt"
    return frame["amount"]


def move_away(frame: pd.DataFrame) -> Any:
    os.chdir("/")
    os.environ["SCORING_HOME"] = os.environ["HOME"] = os.environ["PYTHONPATH"] = "/nowhere"
    return twice(frame)


def start_threads(frame: pd.DataFrame) -> Any:
    for _ in range(8):
        threading.Thread(target=time.sleep, args=(0.2,)).start()
    return twice(frame)


def twice(frame: pd.DataFrame) -> Any:
    return frame["amount"].to_numpy() * 2


DOES: dict[str, Callable[[pd.DataFrame], Any]] = {
    # raise
    "value": raises(lambda: ValueError("amount must be even")),
    "silent": raises(lambda: ValueError()),
    "long": raises(lambda: ValueError("x" * 10_000_000)),
    "control": raises(lambda: ValueError("bell \x07, null \x00, colour \x1b[31m and \ud800")),
    "unspeakable": raises(lambda: Unspeakable()),
    "stop": raises(lambda: StopIteration("the end")),
    "recursion": recurse,
    "memory": raises(lambda: MemoryError("it asked for a petabyte")),
    "exit": lambda frame: sys.exit(3),
    "interrupt": raises(lambda: KeyboardInterrupt()),
    "generator": raises(lambda: GeneratorExit()),
    "key": lambda frame: frame["missing"],
    # stop the process
    "leave": lambda frame: os._exit(3),
    "crash": crash,
    "kill": kill,
    "hang": hang,
    "hang with the lock": hang_with_the_lock,
    "close": close_everything,
    "leave somebody": leave_somebody,
    # return something else
    "fewer": lambda frame: twice(frame)[1:],
    "more": lambda frame: np.repeat(twice(frame), 2),
    "zero": lambda frame: [],
    "text": lambda frame: "a score",
    "object": lambda frame: [object() for _ in range(len(frame))],
    "none": lambda frame: None,
    "empty": lambda frame: {},
    "cube": lambda frame: np.zeros((len(frame), 2, 2)),
    "mixed": lambda frame: [1.0, "one"][: len(frame)] + [2.0] * (len(frame) - 2),
    "ragged": lambda frame: {"a": twice(frame), "b": twice(frame)[:1]},
    "words": lambda frame: ["high"] * len(frame),
    "columns": lambda frame: pd.DataFrame({"score": twice(frame), "extra": 1}),
    "named like the key": lambda frame: pd.DataFrame({"id": 1, "score": twice(frame)}),
    # behave badly, and score
    "nan": lambda frame: twice(frame) * np.where(frame["act"] == "nan", np.nan, 1.0),
    "infinite": lambda frame: twice(frame) * np.where(frame["act"] == "infinite", np.inf, 1.0),
    "print": print_much,
    "work in place": work_in_place,
    "move away": move_away,
    "threads": start_threads,
}


class Actor(PythonModel):
    """Does what the first row that names an act says."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        for act in model_input["act"]:
            if act:
                return DOES[act](model_input)
        return twice(model_input)


class AtLoad(PythonModel):
    """Does something when it is loaded; it scores ``2 * amount``."""

    def __init__(self, act: str) -> None:
        self.act = act

    def load_context(self, context: Any) -> None:
        if self.act:
            DOES[self.act](pd.DataFrame({"amount": [1.0]}))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return twice(model_input)


class Leaky(PythonModel):
    """Keeps 800 MiB of every call, and says in a folder which process called it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        LEAKED.append(np.ones(800 << 20, np.uint8))
        with open(os.path.join(self.folder, str(os.getpid())), "a", encoding="ascii") as calls:
            calls.write(f"{len(model_input)}\n")
        return twice(model_input)


# Workers cannot import the tests: the classes above travel inside the model's file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
