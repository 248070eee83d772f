"""How good outputs are where the truth is known: AUC, accuracy or RMSE, whichever fits them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from scoring.models.outputs import Floats, floats, share_equal

Metric = Literal["auc", "accuracy", "rmse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelChange:
    """A variant's quality on labelled rows beside native's."""

    metric: Metric
    native: float
    variant: float

    @property
    def loss(self) -> float:
        """How much worse the variant is: a difference, for RMSE a share of native's."""
        if self.metric != "rmse":
            return self.native - self.variant
        return (self.variant - self.native) / self.native if self.native else self.variant


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


def _quality(values: pa.Array, labels: pa.Array) -> tuple[Metric, float] | None:
    scores = floats(values)
    if scores is None:
        alike = values.type if pa.types.is_string(values.type) else pa.float64()
        try:
            return "accuracy", share_equal(values.cast(alike), labels.cast(alike))
        except pa.ArrowInvalid:  # words against numbers
            return None
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
