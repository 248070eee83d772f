"""A model's outputs beside the truth: which output answers the label, and how it can be judged.

An output that answers with a score or with probabilities is judged by them; one that answers with
a decision, by how often it is right. Invariant: a row whose answer is missing or not a number is
left out, never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

__all__ = ["Answers", "Collected", "Fit", "Floats", "Kind", "Truth", "fit"]

Kind = Literal["binary", "classes", "regression"]
MOST_ROWS = 10_000_000
"""Rows that are judged at most; a metric of so many is known to four digits."""
MOST_VALUES = 50_000_000
"""Values of these rows at most, where an output has several for each."""

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What all labels have in common."""

    words: bool
    """They are words, not numbers, and nothing below is said of them."""
    whole: bool = False
    """Every one is a whole number."""
    low: float = 0.0
    high: float = 0.0

    @classmethod
    def of(cls, labels: pa.Array | pa.ChunkedArray) -> Truth:
        """Of labels [row], float64 or string, none of them missing."""
        if not types.is_float64(labels.type):
            return cls(words=True)
        if not len(labels):
            return cls(words=False)
        numbers = labels.to_numpy() if isinstance(labels, pa.ChunkedArray) else np.asarray(labels)
        low, high = float(numbers.min()), float(numbers.max())
        return cls(words=False, whole=bool((numbers == np.rint(numbers)).all()), low=low, high=high)

    @property
    def two_sided(self) -> bool:
        """They say yes or no: 1 or 0."""
        return self.whole and self.low in (0.0, 1.0) and self.high in (0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The output that answers the label, and what kind of question it is."""

    output: str
    kind: Kind


def fit(
    outputs: pa.Schema, truth: Truth, label: str, like: tuple[str, str] | None = None
) -> Fit | None:
    """The output to judge: the one of the label's name, else one with a score, else any.

    ``like`` names the output and the kind that it was judged as before, which are taken again
    where they fit. None where no output can be judged by such labels.
    """
    found = [
        Fit(output=field.name, kind=kind) for field in outputs for kind in _kinds(field.type, truth)
    ]
    return min(
        found,
        key=lambda one: (
            (one.output, one.kind) != like,
            one.output != label,
            _decides(outputs.field(one.output).type),
        ),
        default=None,
    )


def _kinds(output: pa.DataType, truth: Truth) -> tuple[Kind, ...]:
    """What an output of that type may answer, the likeliest first."""
    if truth.words:
        return ("classes",) if _is_words(output) else ()
    if types.is_floating(output):
        return ("binary", "regression") if truth.two_sided else ("regression",)
    if types.is_fixed_size_list(output) and types.is_floating(output.value_type):
        width = output.list_size
        if width == 2 and truth.two_sided:
            return ("binary",)
        return ("classes",) if truth.whole and truth.low >= 0 and truth.high < width else ()
    if types.is_boolean(output):
        return ("classes",) if truth.two_sided else ()
    if types.is_integer(output):
        return ("classes",) if truth.whole else ("regression",)
    return ()


def _decides(output: pa.DataType) -> bool:
    """Whether it gives a decision without saying how sure it is."""
    return _is_words(output) or types.is_integer(output) or types.is_boolean(output)


def _is_words(output: pa.DataType) -> bool:
    return output in (pa.string(), pa.large_string())


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Answers beside the truth: scores, or only whether each decision was right."""

    kind: Kind
    truth: NDArray[np.float64]
    """[row] 0 or 1, the number of a class, or a value; empty where there are hits."""
    scores: Floats
    """[row] or [row, class], in the output's own precision; empty where there are hits."""
    hits: NDArray[np.bool_] | None = None
    """[row] Whether the decision was right."""

    @property
    def rows(self) -> int:
        return len(self.truth if self.hits is None else self.hits)

    @property
    def probabilities(self) -> bool:
        """Whether the scores are probabilities: 0 to 1, and over all classes together 1."""
        if self.kind == "regression" or not len(self.scores):
            return False
        if self.scores.min() < 0 or self.scores.max() > 1:
            return False
        return self.scores.ndim == 1 or bool(np.allclose(self.scores.sum(axis=1), 1, atol=1e-3))


class Collected:
    """Collects the answers of one output, batch by batch; of very many rows, a random share."""

    def __init__(self, kind: Kind, output: pa.DataType, rows: int, seed: int) -> None:
        """``rows`` are all that may come."""
        width = output.list_size if types.is_fixed_size_list(output) else 1
        most = min(MOST_ROWS, MOST_VALUES // (1 if kind == "binary" else max(width, 1)))
        self._kind = kind
        self._share = 1.0 if rows <= most else most / rows
        self._random = np.random.default_rng(seed)
        self._truth: list[NDArray[np.float64]] = [np.empty(0)]
        self._scores: list[Floats] = []
        self._hits: list[NDArray[np.bool_]] = []
        self.offered = 0
        """Rows that came, of which those without a usable answer are left out."""

    @property
    def sampled(self) -> bool:
        """Whether only a share of the rows was kept."""
        return self._share < 1

    def add(self, outputs: pa.Array, labels: pa.Array) -> None:
        """A batch of the output [row] and the labels [row] of the same rows, none missing."""
        self.offered += len(outputs)
        usable = outputs.is_valid()
        if self.sampled:
            usable = pc.and_(usable, pa.array(self._random.random(len(outputs)) < self._share))
        if not pc.all(usable).as_py():
            outputs, labels = outputs.filter(usable), labels.filter(usable)
        if self._kind == "classes" and _decides(outputs.type):
            self._hits.append(_equal(outputs, labels))
            return
        scores, truth = _scores(outputs, self._kind), np.asarray(labels)
        finite = np.isfinite(scores if scores.ndim == 1 else scores.sum(axis=1))
        self._scores.append(scores if finite.all() else scores[finite])
        self._truth.append(truth if finite.all() else truth[finite])

    def answers(self) -> Answers:
        """Everything that was collected."""
        for batches in (self._truth, self._scores, self._hits):
            if batches:
                batches[:] = [np.concatenate(batches)]
        return Answers(
            kind=self._kind,
            truth=self._truth[0],
            scores=self._scores[0] if self._scores else np.empty(0),
            hits=self._hits[0] if self._hits else None,
        )


def _equal(outputs: pa.Array, labels: pa.Array) -> NDArray[np.bool_]:
    kind = pa.large_string() if _is_words(outputs.type) else pa.float64()
    if types.is_boolean(outputs.type):
        outputs = outputs.cast(pa.int8())
    same = pc.equal(outputs.cast(kind, safe=False), labels.cast(kind))
    found: NDArray[np.bool_] = same.to_numpy(zero_copy_only=False)
    return found


def _scores(outputs: pa.Array, kind: Kind) -> Floats:
    """[row] or [row, class]; of two classes, the scores of the second."""
    if not types.is_fixed_size_list(outputs.type):
        return _numbers(outputs)
    matrix = _numbers(outputs.flatten()).reshape(len(outputs), outputs.type.list_size)
    return np.ascontiguousarray(matrix[:, 1]) if kind == "binary" else matrix


def _numbers(values: pa.Array) -> Floats:
    """Floats of at least 32 bits; null is NaN."""
    if types.is_integer(values.type):
        values = values.cast(pa.float64(), safe=False)
    elif types.is_float16(values.type):
        values = values.cast(pa.float32())
    found: Floats = values.to_numpy(zero_copy_only=False)
    return found
