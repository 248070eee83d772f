"""The gate: whether a variant's outputs agree with native's well enough to be used.

Pure: arrays in, numbers and reasons out. What is measured does not depend on a job, so that it
can be remembered; a job's limits are applied to it afterwards, by `refusals`.

Errors are absolute, in units of the output: for probabilities and embeddings that is what a limit
like 0.005 means. Regressions, logits and other vectors have units of their own, so their errors are
divided by the standard deviation of native's output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from scoring.models.outputs import Floats, floats, share_equal
from scoring.models.quality import LabelChange

Kind = Literal["label", "probability", "regression", "classes", "vector", "embedding"]

RELATIVE = ("regression", "vector")
"""Kinds with units of their own: errors are divided by native's standard deviation."""
FINITE_LEAST = 0.99
"""Share of rows for which native must return finite numbers, for the others to be compared."""
ROUNDING = 1e-6
LARGEST = 1e9
"""Stands for a change from a number to none: beyond every limit, and still a number in JSON."""
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
class Comparison:
    """A variant against native on the gate's sample; over several outputs, the worst of each."""

    rows: int
    finite: bool
    """Whether outputs have native's shape, and are finite where native's are."""
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
    array = array[_finite_rows(array)]
    if array.ndim == 1:
        inside = bool(np.all((array >= 0) & (array <= 1)))
        return "probability" if inside else "regression"
    if np.all((array >= 0) & (array <= 1)) and np.allclose(array.sum(axis=1), 1.0, atol=1e-3):
        return "classes"
    lengths = np.linalg.norm(array, axis=1)
    normalised = bool(np.all(np.abs(lengths - 1) < UNIT_NORM_TOLERANCE)) and np.any(array < 0)
    return "embedding" if embedding or normalised else "vector"


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
        return ("other outputs than native's are NaN or infinite, or more than 1 % of native's",)
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
    if not found.batch_error <= limits.max_batch_error:  # NaN is no number to pass with
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


def _compare(native: pa.Array, variant: pa.Array, kind: Kind) -> Comparison:
    mine, other = floats(native), floats(variant)
    rows = len(native)
    if mine is None or other is None:
        same = share_equal(native, variant)
        return Comparison(
            rows=rows,
            finite=True,
            mean_error=0.0,
            max_error=0.0,
            relative=False,
            agreement=same,
            determination=None,
        )
    if mine.shape != other.shape:
        return _unfit(rows)
    finite = _finite_rows(mine)
    if not np.array_equal(finite, _finite_rows(other)) or finite.mean() < FINITE_LEAST:
        return _unfit(rows)
    mine, other = mine[finite], other[finite]
    relative = kind in RELATIVE
    error = np.abs(other - mine) / (_scale(mine) if relative else 1.0)
    return Comparison(
        rows=rows,
        finite=True,
        mean_error=float(error.mean()),
        max_error=float(error.max()),
        relative=relative,
        agreement=_agreement(mine, other, kind),
        determination=_determination(mine, other) if kind in ("probability", *RELATIVE) else None,
    )


def _finite_rows(values: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isfinite(values.reshape(len(values), -1)).all(axis=1))


def _moved(baseline: pa.Array, again: pa.Array) -> float:
    mine, other = floats(baseline), floats(again)
    if mine is None or other is None:
        return float(not baseline.equals(again))
    finite = _finite_rows(mine)
    if not np.array_equal(finite, _finite_rows(other)):
        return LARGEST
    mine, other = mine[finite], other[finite]
    scale = _scale(mine) if kind_of(baseline) in RELATIVE and len(mine) else 1.0
    return float(np.max(np.abs(other - mine) / scale, initial=0.0))


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


def _agreement(mine: Floats, other: Floats, kind: Kind) -> float | None:
    if kind == "regression":
        return None
    if kind == "probability":
        return float(np.mean((mine > 0.5) == (other > 0.5)))
    if kind in ("classes", "vector"):
        return float(np.mean(mine.argmax(axis=1) == other.argmax(axis=1)))
    lengths: Floats = np.linalg.norm(mine, axis=1) * np.linalg.norm(other, axis=1)
    cosine = np.einsum("rw,rw->r", mine, other) / np.maximum(lengths, np.finfo(float).tiny)
    return float(np.mean(cosine))


def _scale(mine: Floats) -> Floats:
    """The unit of a regression's errors [column]: native's standard deviation.

    Where native is constant, but for rounding, the unit is its size.
    """
    size = np.abs(mine).max(axis=0)
    spread: Floats = np.where(_constant(mine), size, mine.std(axis=0))
    return np.where(spread > 0, spread, 1.0)


def _constant(mine: Floats) -> npt.NDArray[np.bool_]:
    """Whether a column varies by no more than float32 rounds."""
    return np.asarray(mine.std(axis=0) <= ROUNDING * np.abs(mine).max(axis=0))


def _determination(mine: Floats, other: Floats) -> float | None:
    """1 - residual sum of squares / total sum of squares, native being the truth; worst column."""
    varied = np.atleast_1d(~_constant(mine))
    if not varied.any():
        return None
    mine, other = mine.reshape(len(mine), -1)[:, varied], other.reshape(len(other), -1)[:, varied]
    total = np.sum((mine - mine.mean(axis=0)) ** 2, axis=0)
    return float(np.min(1.0 - np.sum((other - mine) ** 2, axis=0) / total))


def _most(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def _least(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return min(known) if known else None
