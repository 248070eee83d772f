"""Which measure leads for a column, and how severe its drift is.

Large samples are judged by effect size alone, as with enough rows any difference is significant:
PSI; Jensen-Shannon where there are too many categories for PSI's bins. Small samples differ by
chance, so there a test must speak first, Kolmogorov and Smirnov's for numbers and chi-square for
categories, with the false discovery rate controlled over the run's columns; then the same effect
size says how far, less what chance alone adds to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scoring.drift.measures.figures import WORDS_AS_ONE, Figures
from scoring.drift.measures.significance import false_discovery
from scoring.drift.profile.frame import Kind
from scoring.job import Measure, Severity

__all__ = ["Judged", "Measurement", "Test", "Tiers", "judge"]

Test = Literal["ks", "chi2"]

SMALL_ROWS = 1_000
"""Rows of the lesser side up to which chance is asked about."""
ROWS_PER_CATEGORY = 50
"""The same for each category, where Jensen-Shannon leads: its distance without drift is then
0.07 at the most."""
MANY_CATEGORIES = 20
"""Categories up to which PSI has a bin for each."""
FALSE_DISCOVERIES = 0.05
"""Share of false alarms that is put up with among the columns that small samples call drifted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiers:
    """The values at which drift becomes small, moderate and severe; ascending."""

    small: float
    moderate: float
    severe: float

    def severity(self, value: float) -> Severity:
        """The tier a value falls in; a threshold belongs to the tier that it opens."""
        if value >= self.severe:
            return "severe"
        if value >= self.moderate:
            return "moderate"
        return "small" if value >= self.small else "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One column of a run, measured."""

    figures: Figures
    kind: Kind
    aspect: str
    """What of a column was counted, "" for its values: see `ColumnFrame`."""
    reference_rows: int
    current_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """How severe a column's drift is, and what says so."""

    measure: Measure
    """The measure that `value` is of."""
    value: float
    """How far the column has moved, less what chance accounts for; its tier is `severity`."""
    test: Test | None
    """The test by which chance was ruled out or not, with those of missing and new rows beside
    it (`Figures.p`); None where size makes chance no question."""
    q: float | None
    """The test's q-value over the run's columns (Benjamini and Hochberg 1995): below 0.05, the
    column has moved. None with `test`."""
    severity: Severity


def judge(
    columns: Sequence[Measurement], measure: Literal["auto"] | Measure, tiers: Tiers
) -> list[Judged]:
    """Judge the columns of one run, in their order.

    A measure that is named leads whatever the size, its plain value held against the tiers; where
    it does not apply (distances of numbers on categories) PSI stands in. "auto" chooses.
    """
    if measure != "auto":
        return [_named(column.figures, measure, tiers) for column in columns]
    small = [_is_small(column) for column in columns]
    asked = [c.figures.p for c, is_small in zip(columns, small, strict=True) if is_small]
    found = iter(false_discovery(asked))
    return [
        _led(column, next(found) if is_small else None, tiers)
        for column, is_small in zip(columns, small, strict=True)
    ]


def _named(figures: Figures, measure: Measure, tiers: Tiers) -> Judged:
    values: dict[Measure, float | None] = {
        "psi": figures.psi,
        "ks": figures.ks,
        "wasserstein": figures.wasserstein,
        "js": figures.js,
        "chi2": figures.cramers_v,
    }
    value = values[measure]
    if value is None:
        measure, value = "psi", figures.psi
    return Judged(measure=measure, value=value, test=None, q=None, severity=tiers.severity(value))


def _led(column: Measurement, q: float | None, tiers: Tiers) -> Judged:
    measure: Measure = "js" if _has_many_categories(column) else "psi"
    value = column.figures.js if measure == "js" else column.figures.psi
    if q is not None:
        value = _beyond_chance(column.figures, measure) if q < FALSE_DISCOVERIES else 0.0
    return Judged(
        measure=measure,
        value=value,
        test=None if q is None else "ks" if column.kind == "number" else "chi2",
        q=q,
        severity=tiers.severity(value),
    )


def _has_many_categories(column: Measurement) -> bool:
    return column.aspect == "tokens" or (column.figures.categories or 0) > MANY_CATEGORIES


def _is_small(column: Measurement) -> bool:
    enough = SMALL_ROWS
    if _has_many_categories(column):
        each = ROWS_PER_CATEGORY * (WORDS_AS_ONE if column.aspect == "tokens" else 1)
        enough = max(enough, each * (column.figures.categories or 0))
    return min(column.reference_rows, column.current_rows) <= enough


def _beyond_chance(figures: Figures, measure: Measure) -> float:
    if measure == "js":
        return math.sqrt(max(0.0, figures.js**2 - figures.js_chance**2))
    return max(0.0, figures.psi - figures.psi_chance)
