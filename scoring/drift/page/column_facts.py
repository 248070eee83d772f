"""What the page says of one column, as rows of text: pure functions of its part of drift.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scoring.drift.wording import (
    FIGURES,
    MEASURES,
    chance,
    change,
    count,
    figure,
    share,
    spread,
    value,
    visible,
)

__all__ = [
    "drawn",
    "ends",
    "largest_change",
    "measured",
    "sides",
    "source",
    "standing",
    "top",
    "within_chance",
]

Column = Mapping[str, Any]
Bins = Sequence[Mapping[str, Any]]

CATEGORIES_DRAWN = 8
TIERS = ("small", "moderate", "severe")


def drawn(column: Column) -> list[Mapping[str, Any]]:
    """The bins of a number, and of a category those that are largest or have changed most."""
    bins: Bins = column["bins"]
    if column["kind"] == "number":
        return list(bins)
    largest = sorted(
        range(len(bins)), key=lambda i: _larger(bins[i]) + _change(bins[i]), reverse=True
    )
    return [bins[i] for i in sorted(largest[:CATEGORIES_DRAWN])]


def top(bins: Bins) -> float:
    """The largest share of either side."""
    return max((_larger(b) for b in bins), default=0.0)


def ends(bins: Bins) -> list[str]:
    """Labels to stand below a histogram: of its first, middle and last bin, and of what follows."""
    labels = [b["label"] for b in bins if b["label"] != "(missing)"]
    shown = [labels[0], labels[len(labels) // 2], labels[-1]] if len(labels) > 2 else labels
    return shown + ["missing"] * (len(bins) - len(labels))


def largest_change(bins: Bins) -> str:
    """The bin whose share changed most, in words."""
    moved = max(bins, key=_change, default=None)
    if moved is None or not _change(moved):
        return "No share has changed."
    return (
        f"Largest change: {visible(moved['label'])}, "
        f"{share(moved['reference'])} to {share(moved['current'])} of rows"
    )


def within_chance(column: Column) -> bool:
    """Whether a test found chance enough to explain the column; its value is then 0."""
    return column["q"] is not None and not column["value"]


def source(column: Column) -> str:
    """What the leading value is of, in few words."""
    return "within chance" if within_chance(column) else MEASURES[column["measure"]].name


def standing(column: Column, thresholds: Mapping[str, float]) -> str:
    """Where the leading value lies among the thresholds, and what chance has to do with it."""
    q = column["q"]
    if within_chance(column):
        return f"within what chance does, q {chance(q)}"
    reached = sum(column["value"] >= thresholds[tier] for tier in TIERS)
    if reached == len(TIERS):
        where = f"severe, {thresholds['severe']:g} and above"
    elif reached:
        tier, following = TIERS[reached - 1], TIERS[reached]
        where = f"{tier}, {thresholds[tier]:g} to {thresholds[following]:g}"
    else:
        where = f"below small, {thresholds['small']:g}"
    return where if q is None else f"{where}; beyond chance, q {chance(q)}"


def measured(column: Column) -> Iterator[tuple[str, str]]:
    """Name and value of every figure that applies to the column, the leading one first."""
    found = column["figures"]
    if column["q"] is not None:
        yield f"{MEASURES[column['measure']].name} beyond chance", figure(column["value"])
    for name in sorted(MEASURES, key=lambda one: one != column["measure"]):
        number = found["cramers_v" if name == "chi2" else name]
        if number is not None:
            error = found["ks_error"] if name == "ks" else None
            within = f" ±{figure(error)}" if error else ""
            yield MEASURES[name].name, figure(number) + within
    if column["q"] is not None:
        yield from _by_chance(column)
    yield "Missing, change", change(found["missing_change"])
    if found["new_share"] is not None:
        yield "Rows of new categories", share(found["new_share"])
    if column["weight"] != 1:
        yield FIGURES["weight"].name, f"{column['weight']:g}"


def _by_chance(column: Column) -> Iterator[tuple[str, str]]:
    """What chance does: told where there are few rows only, as with many it explains nothing."""
    found = column["figures"]
    for name in ("psi", "js"):
        yield f"{MEASURES[name].name} by chance", figure(found[f"{name}_chance"])
    for name, probability in (
        ("KS, p", found["ks_p"]),
        ("chi-square, p", found["chi2_p"]),
        ("all tests, p", found["p"]),
        (FIGURES["chance"].name, column["q"]),
    ):
        if probability is not None:
            yield name, chance(probability)


def sides(column: Column) -> Iterator[tuple[str, str, str]]:
    """Name, the reference's and this run's value of every summary that the column has."""
    unit = column["unit"]
    shown = (
        ("Rows", "rows", count),
        ("Missing", "null_share", share),
        ("Null", "nulls", count),
        ("NaN", "nans", count),
        ("Mean", "mean", lambda number: value(number, unit)),
        ("SD", "sd", lambda number: spread(number, unit)),
        ("Least", "minimum", lambda number: value(number, unit)),
        ("Most", "maximum", lambda number: value(number, unit)),
        ("Categories", "distinct", count),
    )
    before, now = column["reference"], column["current"]
    for name, key, text in shown:
        if any(side[key] is not None for side in (before, now)) and (
            key != "nans" or before[key] or now[key]
        ):
            yield name, text(before[key]), text(now[key])


def _larger(one: Mapping[str, Any]) -> float:
    return float(max(one["reference"], one["current"]))


def _change(one: Mapping[str, Any]) -> float:
    return float(abs(one["current"] - one["reference"]))
