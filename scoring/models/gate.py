"""The gate: whether a variant's outputs agree with native's well enough to be used.

Pure: arrays in, numbers and reasons out. What is measured does not depend on a job, so that it
can be remembered; a job's limits are applied to it afterwards, by `refusals`.

Errors are absolute, in units of the output: for probabilities, class scores and embeddings that is
what a limit like 0.005 means. A regression has a unit of its own, so its errors are divided by the
standard deviation of native's output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Kind = Literal["label", "probability", "regression", "classes", "embedding"]
Floats = npt.NDArray[np.float64]

UNIT_NORM_TOLERANCE = 1e-3
"""How far from 1 the length of a row may be in what counts as normalised embeddings."""


class Limits(Protocol):
    """A job's ``[precision]`` limits."""

    @property
    def max_batch_error(self) -> float: ...
    @property
    def max_mean_error(self) -> float: ...
    @property
    def min_agreement(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelChange:
    """A variant's quality on labelled rows beside native's."""

    metric: Literal["auc", "accuracy", "rmse"]
    native: float
    variant: float

    @property
    def loss(self) -> float:
        """How much worse the variant is: a difference, for RMSE a share of native's."""
        if self.metric != "rmse":
            return self.native - self.variant
        return (self.variant - self.native) / self.native if self.native else self.variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A variant against native on the gate's sample; over several outputs, the worst of each."""

    rows: int
    finite: bool
    """Whether no output is NaN or infinite, native's included."""
    mean_error: float | None
    """None where outputs do not fit together at all."""
    max_error: float | None
    relative: bool
    """Whether errors are in standard deviations of native's output (regression)."""
    agreement: float | None
    """Share of rows, 0 to 1, with the same label, argmax, or side of 0.5; of embeddings the mean
    cosine similarity; None for a regression."""
    determination: float | None
    """Coefficient of determination (R2) of single floats; None where native is constant."""
    batch_error: float = 0.0
    """Largest change of a row's output in other batches, in the same unit."""
    labels: LabelChange | None = None


def kind_of(values: pa.Array, embedding: bool = False) -> Kind:
    """What sort of output these are; ``embedding`` says that the model makes embeddings."""
    array = floats(values)
    if array is None:
        return "label"
    if array.ndim == 1:
        inside = bool(np.all((array >= 0) & (array <= 1)))
        return "probability" if inside else "regression"
    lengths = np.linalg.norm(array, axis=1)
    normalised = bool(np.all(np.abs(lengths - 1) < UNIT_NORM_TOLERANCE)) and array.min() < 0
    return "embedding" if embedding or normalised else "classes"


def compare(
    native: Mapping[str, pa.Array], variant: Mapping[str, pa.Array], *, embedding: bool = False
) -> Comparison:
    """Measure a variant's outputs against native's on the same rows, of which there is one."""
    each = [
        _compare(native[name], variant[name], kind_of(native[name], embedding)) for name in native
    ]
    return Comparison(
        rows=len(next(iter(native.values()))),
        finite=all(one.finite for one in each),
        mean_error=_most([one.mean_error for one in each]),
        max_error=_most([one.max_error for one in each]),
        relative=any(one.relative for one in each),
        agreement=_least([one.agreement for one in each]),
        determination=_least([one.determination for one in each]),
    )


def moved(baseline: Mapping[str, pa.Array], again: Mapping[str, pa.Array]) -> float:
    """The largest change between two scorings of the same rows, in `compare`'s unit.

    A label that changed counts as 1.
    """
    return max(_moved(baseline[name], again[name]) for name in baseline)


def refusals(found: Comparison, limits: Limits) -> tuple[str, ...]:
    """Why the variant may not be used under these limits, each reason with its numbers."""
    if not found.finite or found.mean_error is None:
        return ("NaN or infinite values among its outputs or native's",)
    unit = " standard deviations" if found.relative else ""
    reasons = []
    if found.mean_error > limits.max_mean_error:
        reasons.append(
            f"mean error {found.mean_error:.3g}{unit}, above max_mean_error "
            f"{limits.max_mean_error:g}"
        )
    for name, value in (("agreement", found.agreement), ("R2", found.determination)):
        if value is not None and value < limits.min_agreement:
            reasons.append(f"{name} {value:.4f}, below min_agreement {limits.min_agreement:g}")
    if found.batch_error > limits.max_batch_error:
        reasons.append(
            f"a row's score moves by {found.batch_error:.3g}{unit} with its batch, above "
            f"max_batch_error {limits.max_batch_error:g}"
        )
    if found.labels is not None and found.labels.loss > limits.max_mean_error:
        reasons.append(
            f"{found.labels.metric} {found.labels.variant:.4f} on labelled rows, native has "
            f"{found.labels.native:.4f}"
        )
    return tuple(reasons)


def label_change(
    native: Mapping[str, pa.Array], variant: Mapping[str, pa.Array], labels: pa.Array
) -> LabelChange | None:
    """Quality on labelled rows: AUC, accuracy or RMSE, whatever the first fitting output allows.

    ``None`` where labels and outputs do not fit together.
    """
    for name in native:
        mine, other = _quality(native[name], labels), _quality(variant[name], labels)
        if mine is not None and other is not None and np.isfinite([mine[1], other[1]]).all():
            return LabelChange(metric=mine[0], native=mine[1], variant=other[1])
    return None


def auc(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve: the Mann-Whitney U statistic over its maximum, ties by mid-rank.

    Hanley and McNeil, "The meaning and use of the area under a ROC curve", Radiology 143, 1982.
    ``scores`` [row] and ``positive`` [row]; NaN when one class is missing.
    """
    from scipy.stats import rankdata  # half a second that only labelled samples pay

    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def floats(values: pa.Array) -> Floats | None:
    """Floats as [row] or [row, width]; None for anything else. Null is NaN."""
    if pa.types.is_fixed_size_list(values.type):
        inner = floats(values.flatten())
        return None if inner is None else inner.reshape(len(values), values.type.list_size)
    if not pa.types.is_floating(values.type):
        return None
    found: Floats = values.to_numpy(zero_copy_only=False).astype(np.float64)
    return found


def _compare(native: pa.Array, variant: pa.Array, kind: Kind) -> Comparison:
    mine, other = floats(native), floats(variant)
    rows = len(native)
    if mine is None or other is None:
        same = _same(native, variant)
        return Comparison(
            rows=rows,
            finite=True,
            mean_error=0.0,
            max_error=0.0,
            relative=False,
            agreement=same,
            determination=None,
        )
    if mine.shape != other.shape or not (np.isfinite(mine).all() and np.isfinite(other).all()):
        return _unfit(rows)
    scale = _scale(mine) if kind == "regression" else 1.0
    error = np.abs(other - mine) / scale
    return Comparison(
        rows=rows,
        finite=True,
        mean_error=float(error.mean()),
        max_error=float(error.max()),
        relative=kind == "regression",
        agreement=_agreement(mine, other, kind),
        determination=_determination(mine, other) if mine.ndim == 1 else None,
    )


def _moved(baseline: pa.Array, again: pa.Array) -> float:
    mine, other = floats(baseline), floats(again)
    if mine is None or other is None:
        return float(not baseline.equals(again))
    scale = _scale(mine) if kind_of(baseline) == "regression" else 1.0
    change: float = np.max(np.abs(other - mine), initial=0.0)
    return change / scale


def _unfit(rows: int) -> Comparison:
    return Comparison(
        rows=rows,
        finite=False,
        mean_error=None,
        max_error=None,
        relative=False,
        agreement=None,
        determination=None,
    )


def _same(native: pa.Array, variant: pa.Array) -> float:
    """The share of rows with equal values, null being equal to null."""
    pairs = zip(native.to_pylist(), variant.to_pylist(), strict=True)
    same: int = sum(mine == other for mine, other in pairs)
    return same / max(len(native), 1)


def _agreement(mine: Floats, other: Floats, kind: Kind) -> float | None:
    if kind == "regression":
        return None
    if kind == "probability":
        return float(np.mean((mine > 0.5) == (other > 0.5)))
    if kind == "classes":
        return float(np.mean(mine.argmax(axis=1) == other.argmax(axis=1)))
    lengths: Floats = np.linalg.norm(mine, axis=1) * np.linalg.norm(other, axis=1)
    cosine = np.einsum("rw,rw->r", mine, other) / np.maximum(lengths, np.finfo(float).tiny)
    return float(np.mean(cosine))


def _scale(mine: Floats) -> float:
    """The unit of a regression's errors: native's standard deviation, or its size if constant."""
    return float(mine.std()) or float(np.abs(mine).max()) or 1.0


def _determination(mine: Floats, other: Floats) -> float | None:
    """1 - residual sum of squares / total sum of squares, native being the truth."""
    total = float(np.sum((mine - mine.mean()) ** 2))
    return None if total == 0 else 1.0 - float(np.sum((other - mine) ** 2)) / total


def _most(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def _least(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return min(known) if known else None


def _quality(
    values: pa.Array, labels: pa.Array
) -> tuple[Literal["auc", "accuracy", "rmse"], float] | None:
    scores = floats(values)
    if scores is None:
        return "accuracy", _same(values.cast(pa.string()), labels.cast(pa.string()))
    truth = _truth(labels)
    if truth is None or len(truth) != len(scores):
        return None
    two_sided = set(np.unique(truth)) == {0.0, 1.0}
    if scores.ndim == 2:
        if scores.shape[1] == 2 and two_sided:
            return "auc", auc(scores[:, 1], truth == 1)
        whole = bool(np.all(truth == np.floor(truth))) and truth.max() < scores.shape[1]
        return ("accuracy", float(np.mean(scores.argmax(axis=1) == truth))) if whole else None
    if two_sided:
        return "auc", auc(scores, truth == 1)
    return "rmse", float(np.sqrt(np.mean((scores - truth) ** 2)))


def _truth(labels: pa.Array) -> Floats | None:
    """Labels as floats; None if they are not numbers, or some are missing."""
    kind = labels.type
    if pa.types.is_boolean(kind):
        labels = labels.cast(pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return None
    return None if labels.null_count else np.asarray(labels.cast(pa.float64()))
