"""Performance: how good a model's answers are where the truth is known.

Every metric but two is a mean over rows or made of some, so it is resampled as such; the area
under the ROC curve is a mean of contributions to first order. The calibration error has no
interval: chance only ever raises it, so its resamples all lie too high.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scoring.drift.performance.answers import Answers, Floats, Kind
from scoring.drift.performance.calibration import (
    CalibrationBin,
    calibration,
    calibration_error,
    wilson,
)
from scoring.drift.performance.ranks import Area, area, macro_area
from scoring.drift.performance.resamples import Means, Resamples

__all__ = ["Metric", "MetricName", "Performance", "measured"]

MetricName = Literal[
    "auc", "accuracy", "brier", "log_loss", "calibration_error", "rmse", "mae", "r2", "bias"
]
FEWEST_OF_A_CLASS = 10
"""An area under the ROC curve has no interval where a class has fewer rows."""
DECISION = 0.5
"""A probability above it says yes."""
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure with its 95% bootstrap interval."""

    name: MetricName
    value: float
    low: float | None = None
    high: float | None = None
    """None: there are too few rows, or no sound interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """How good one output was on labelled rows."""

    output: str
    kind: Kind
    rows: int
    """Rows that the metrics are of."""
    metrics: tuple[Metric, ...]
    """The leading one first."""
    calibration: tuple[CalibrationBin, ...] | None = None
    """Of two classes with probabilities."""

    def metric(self, name: str) -> Metric | None:
        """The metric of that name, if it was measured."""
        return next((one for one in self.metrics if one.name == name), None)

    def to_json(self) -> str:
        """A JSON document that `from_json` reads back equal."""
        return json.dumps({"version": _VERSION, **asdict(self)}, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Performance:
        """Read `to_json`'s document. Raises ValueError or KeyError for anything else."""
        found: Mapping[str, Any] = json.loads(text)
        if found["version"] != _VERSION:
            raise ValueError(
                f"this performance has version {found['version']!r}, this release reads {_VERSION}"
            )
        bins = found["calibration"]
        return cls(
            output=found["output"],
            kind=found["kind"],
            rows=found["rows"],
            metrics=tuple(Metric(**one) for one in found["metrics"]),
            calibration=None if bins is None else tuple(CalibrationBin(**one) for one in bins),
        )


def measured(answers: Answers, output: str, seed: int) -> Performance:
    """Every metric that the answers allow, with intervals that `seed` decides.

    Two classes: AUC; with probabilities also accuracy at 0.5, Brier score (1950), logarithmic
    loss, calibration error. More classes: accuracy, and with scores AUC (mean of one against the
    rest), with probabilities Brier score (summed over classes) and logarithmic loss. Numbers:
    RMSE, MAE, R2, bias (mean of answer less truth). Raises ValueError without a row.
    """
    if not answers.rows:
        raise ValueError("there is no row to measure performance on")
    resamples = Resamples(answers.rows, seed)
    bins = None
    if answers.kind == "binary" and answers.probabilities:
        bins = calibration(answers.scores, answers.truth == 1)
    metrics = [*_measured(answers, resamples)]
    if bins:
        metrics.append(Metric(name="calibration_error", value=calibration_error(bins)))
    return Performance(
        output=output,
        kind=answers.kind,
        rows=answers.rows,
        metrics=tuple(one for one in metrics if np.isfinite(one.value)),
        calibration=bins,
    )


def _measured(answers: Answers, resamples: Resamples) -> Iterator[Metric]:
    if answers.hits is not None:
        yield _share("accuracy", resamples.means(answers.hits), resamples, answers.rows)
    elif answers.kind == "regression":
        yield from _of_numbers(answers.scores, answers.truth, resamples)
    elif answers.kind == "binary":
        yield from _of_two_classes(answers, resamples)
    else:
        yield from _of_classes(answers, resamples)


def _of_two_classes(answers: Answers, resamples: Resamples) -> Iterator[Metric]:
    scores, positive = answers.scores, answers.truth == 1
    yield from _area(area(scores, positive), positive, resamples)
    if not answers.probabilities:
        return
    hits = (scores > DECISION) == positive
    yield _share("accuracy", resamples.means(hits), resamples, answers.rows)
    yield _metric("brier", resamples.means((scores - answers.truth) ** 2), resamples)
    given = _never_certain(scores, scores.dtype)
    losses = -np.log(np.where(positive, given, 1 - given), dtype=np.float64)
    yield _metric("log_loss", resamples.means(losses), resamples)


def _of_classes(answers: Answers, resamples: Resamples) -> Iterator[Metric]:
    scores, truth = answers.scores, answers.truth.astype(np.int64)
    hits = scores.argmax(axis=1) == truth
    yield _share("accuracy", resamples.means(hits), resamples, answers.rows)
    yield from _area(macro_area(scores, truth), truth, resamples)
    if not answers.probabilities:
        return
    given = scores[np.arange(len(truth)), truth].astype(np.float64)
    squares = np.einsum("rc,rc->r", scores, scores, dtype=np.float64)
    yield _metric("brier", resamples.means(squares - 2 * given + 1), resamples)
    losses = -np.log(_never_certain(given, scores.dtype))
    yield _metric("log_loss", resamples.means(losses), resamples)


def _of_numbers(
    scores: Floats, truth: NDArray[np.float64], resamples: Resamples
) -> Iterator[Metric]:
    errors = scores - truth
    squared = resamples.means(errors**2)
    yield _metric("rmse", np.sqrt(squared), resamples)
    yield _metric("mae", resamples.means(np.abs(errors)), resamples)
    if truth.min() < truth.max():
        centred = truth - truth.mean()
        spread = resamples.means(centred**2) - resamples.means(centred) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):  # a resample may be all one value
            yield _metric("r2", 1 - squared / spread, resamples)
    yield _metric("bias", resamples.means(errors), resamples)


def _area(found: Area | None, classes: NDArray[Any], resamples: Resamples) -> Iterator[Metric]:
    if found is None:
        return
    figures = np.clip(found.value + resamples.means(found.contributions), 0, 1)
    figures[0] = found.value
    fewest = int(np.unique(classes, return_counts=True)[1].min())
    if fewest < FEWEST_OF_A_CLASS:
        figures[1:] = np.nan
    yield _share("auc", figures, resamples, fewest)


def _metric(name: MetricName, figures: Means, resamples: Resamples) -> Metric:
    low, high = resamples.interval(figures) or (None, None)
    return Metric(name=name, value=float(figures[0]), low=low, high=high)


def _share(name: MetricName, figures: Means, resamples: Resamples, rows: int) -> Metric:
    """A share of `rows`, or a mean of what lies between 0 and 1 over at least so many.

    Where all are alike, resamples are too, though other rows need not be; the interval is then
    that of a share, which no such mean varies more than.
    """
    found = _metric(name, figures, resamples)
    if found.low is None or found.low != found.high:
        return found
    low, high = wilson(round(found.value * rows), rows)
    return replace(found, low=min(low, found.value), high=max(high, found.value))


def _never_certain(given: Floats, precision: np.dtype[Any]) -> Floats:
    """Probabilities that are never quite 0 or 1: a float cannot tell these from the next one."""
    least = np.finfo(precision).eps
    return np.clip(given, least, 1 - least)
