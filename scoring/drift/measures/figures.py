"""Measures of drift: pure functions of two profiles' counts.

None is ever NaN or negative, whatever the counts, and none grows with the number of rows: each
says how far the column has moved. Whether chance alone moves it as far is a question of its own
(see `significance`), and which measure is asked another (see `lead`).
"""

from __future__ import annotations

from dataclasses import dataclass

from scoring.drift.measures.bins import (
    comparable,
    deciles,
    every_category,
    incomparable,
    single_valued,
    unknown_rows,
    with_infinities,
)
from scoring.drift.measures.distances import Floats, as_floats, chi2, js, ks, psi
from scoring.drift.measures.significance import js_by_chance, ks_p, least_p, psi_by_chance, rate_p
from scoring.drift.measures.wasserstein import wasserstein
from scoring.drift.profile.columns import CategoryProfile, NumberProfile

__all__ = [
    "Figures",
    "comparable",
    "deciles",
    "measure",
    "psi",
]


# Words come in texts, which repeat them: so many of them tell chance as much as one that stood
# alone (the design effect of Rao and Scott 1981; 1.0 to 2.2 for docstrings of 10 to 120 words).
WORDS_AS_ONE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured of one column; None where a figure does not apply to it."""

    psi: float
    """Population stability index on the coarse bins; 0 to about 18."""
    psi_chance: float
    """PSI to be expected of samples of these sizes where nothing has moved."""
    ks: float | None
    """Largest distance of the two distribution functions, 0 to 1: a lower bound, as it is read
    off at the bins' edges. Numbers only; missing values left out."""
    ks_error: float | None
    """By how much more the distance may be between the edges, at the most."""
    ks_p: float | None
    """Chance of a distance of `ks` or more without drift."""
    wasserstein: float | None
    """Mean distance that a row has moved, in standard deviations of the reference. Numbers only;
    missing values left out, outliers pulled in."""
    js: float
    """Jensen-Shannon distance in nats, 0 to 0.833: on the coarse bins of a number, on all
    categories."""
    js_chance: float
    """Distance to be expected of samples of these sizes where nothing has moved."""
    cramers_v: float
    """Cramer's V of the bins that `js` is measured on, the two sides weighing alike; 0 to 1."""
    chi2_p: float
    """Chance of such counts without drift, by the chi-square test. Too low for numbers where the
    bins were cut by as few rows as they count."""
    missing_change: float
    """Share of missing rows (null, NaN) less that of the reference; -1 to 1."""
    new_share: float | None
    """Share of rows in categories that the reference does not know, 0 to 1; None for a number,
    and where the reference had more categories than it could name."""
    categories: int | None
    """Categories that the reference counted by name; None for a number."""
    p: float
    """Chance of all that differs, without drift: the least of the tests that apply, Kolmogorov
    and Smirnov's for numbers, chi-square for categories, and one each for rows that are missing
    and that are of new categories, times their number."""


def measure(
    reference: NumberProfile | CategoryProfile, current: NumberProfile | CategoryProfile
) -> Figures:
    """All figures of one column; raises ValueError unless the two are `comparable`."""
    if isinstance(reference, NumberProfile) and isinstance(current, NumberProfile):
        return _of_numbers(reference, current)
    if isinstance(reference, CategoryProfile) and isinstance(current, CategoryProfile):
        return _of_categories(reference, current)
    raise incomparable(current)


def _of_numbers(reference: NumberProfile, current: NumberProfile) -> Figures:
    _, *coarse = deciles(reference, current)
    before, now = as_floats(*coarse)
    sides = with_infinities(reference), with_infinities(current)
    distance = ks(*sides, single_valued(reference, current))
    distance_p = ks_p(distance[0], int(sides[0].sum()), int(sides[1].sum())) if distance else None
    travelled = wasserstein(reference, current)
    cramers_v, bins_p = chi2(before, now)
    return Figures(
        psi=psi(before, now),
        psi_chance=psi_by_chance(before, now),
        ks=distance[0] if distance else None,
        ks_error=distance[1] if distance else None,
        ks_p=distance_p,
        wasserstein=travelled.value if travelled else None,
        js=js(before, now),
        js_chance=js_by_chance(before, now),
        cramers_v=cramers_v,
        chi2_p=bins_p,
        missing_change=_share(now[-1], now) - _share(before[-1], before),
        new_share=None,
        categories=None,
        p=least_p([*([] if distance_p is None else [distance_p]), *_missing_p(before, now)]),
    )


def _of_categories(reference: CategoryProfile, current: CategoryProfile) -> Figures:
    _, *coarse = deciles(reference, current)
    before, now = as_floats(*coarse)
    each = as_floats(*every_category(reference, current))
    once = sum(rows == 1 for rows in reference.counts.values())
    new = 0 if reference.other else unknown_rows(reference, current)
    tests = [*_missing_p(before, now), *_new_p(once, new, before, now)]
    if reference.frame.aspect == "tokens":
        each, tests = (each[0] / WORDS_AS_ONE, each[1] / WORDS_AS_ONE), []
    cramers_v, bins_p = chi2(*each)
    return Figures(
        psi=psi(before, now),
        psi_chance=psi_by_chance(before, now, once),
        ks=None,
        ks_error=None,
        ks_p=None,
        wasserstein=None,
        js=js(*each),
        js_chance=js_by_chance(*each),
        cramers_v=cramers_v,
        chi2_p=bins_p,
        missing_change=_share(now[-1], now) - _share(before[-1], before),
        new_share=None if reference.other else _share(new, now),
        categories=len(reference.counts),
        p=least_p([bins_p, *tests]),
    )


def _share(rows: float, bins: Floats) -> float:
    return float(rows / max(1.0, bins.sum()))


def _missing_p(before: Floats, now: Floats) -> list[float]:
    """The chance of the missing rows, which are in the last bin, if there are any."""
    if not (before[-1] or now[-1]):
        return []
    return [rate_p((before[-1], before.sum()), (now[-1], now.sum()))]


def _new_p(once: int, new: int, before: Floats, now: Floats) -> list[float]:
    """The chance of `new` rows in categories that the reference lacks, if there are any.

    As likely as these are those of the reference that nothing but one row of it has (Good 1953).
    """
    return [rate_p((once, before.sum()), (new, now.sum()))] if new else []
