"""How the drift report says things: numbers, names and figures as people read them.

The page and the command line both speak from here, so they never call one figure by two names.
A name out of the data is data: control characters are made visible, never sent to a terminal.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from scoring.drift.profile.frame import Unit, readable

__all__ = [
    "ABSENT",
    "ASPECTS",
    "FIGURES",
    "MEASURES",
    "REFERENCES",
    "Meaning",
    "agreement",
    "chance",
    "change",
    "count",
    "duration",
    "error",
    "figure",
    "moment",
    "share",
    "spread",
    "value",
    "visible",
]

ABSENT = "\N{EN DASH}"
CONTROL_PICTURES = 0x2400
DELETE = 0x7F
JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
"""Invisible, and part of how some scripts and emoji are written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """A figure's name and what it says, for someone who has not met it."""

    name: str
    text: str


MEASURES: Mapping[str, Meaning] = {
    "psi": Meaning(
        name="PSI",
        text="Population stability index: how differently the rows fall into the reference's "
        "tenths, missing and unseen values included, from 0 for the same to 18.",
    ),
    "ks": Meaning(
        name="KS",
        text="Kolmogorov-Smirnov distance: the widest gap between the two cumulative "
        "distributions, 0 to 1, exact to within the error that stands beside it.",
    ),
    "wasserstein": Meaning(
        name="Wasserstein",
        text="How far values have moved on average, in standard deviations of the reference.",
    ),
    "js": Meaning(
        name="Jensen-Shannon",
        text="Jensen-Shannon distance: how far apart the two distributions are, from 0 for the "
        "same to 0.833 (in nats) for nothing in common.",
    ),
    "chi2": Meaning(
        name="Cramér's V",
        text="The chi-square statistic freed of the number of rows: 0 where categories are as "
        "frequent as in the reference, 1 where none is.",
    ),
}
"""What a person calls the measures that can lead, and what each says."""

FIGURES: Mapping[str, Meaning] = {
    "missing": Meaning(
        name="Missing",
        text="Share of rows that are null or NaN; the change is in percentage points.",
    ),
    "new": Meaning(
        name="New and vanished",
        text="Categories that the reference does not know, and those of its own that no row of "
        "the run has, each with its share of rows.",
    ),
    "chance": Meaning(
        name="q",
        text="How likely a value this large is by chance alone, corrected for the number of "
        "columns (Benjamini-Hochberg). Shown where the rows are few enough for chance to matter.",
    ),
    "weight": Meaning(
        name="Weight",
        text="Importance from the job file, by which a column's value is multiplied before it "
        "decides. A column of weight 0 is shown and never decides.",
    ),
}
"""The other figures of a column."""

ASPECTS: Mapping[str, str] = {
    "length": "length",
    "words": "number of words",
    "script": "script",
    "tokens": "words, in 256 groups,",
    "class": "most likely class",
    "decision": "decision",
    "norm": "norm",
}
"""What a derived column counts of the one it is made of."""

REFERENCES: Mapping[str, str] = {
    "model": "the profile that is kept with the model",
    "previous": "the run before",
    "weekday": "the last runs of this weekday",
    "path": "the profile",
}
"""Where a reference came from."""


def figure(value: float | None) -> str:
    """A measure's value, to three decimals; three digits where it is large."""
    if value is None:
        return ABSENT
    if 0 < value < 0.0005:
        return "<0.001"
    return f"{value:.3f}" if value < 100 else f"{value:,.0f}"


def chance(probability: float | None) -> str:
    """A p-value or q-value."""
    if probability is None:
        return ABSENT
    return "<0.001" if probability < 0.001 else f"{probability:.3f}"


def share(part: float | None) -> str:
    """A share of rows, 0 to 1, in per cent; what is small is not shown as nothing."""
    if part is None:
        return ABSENT
    if 0 < part < 0.0005:
        return "<0.1%"
    if 0.9995 <= part < 1:
        return ">99.9%"
    return f"{part:.1%}"


def change(points: float | None) -> str:
    """A difference of two shares, in percentage points."""
    if points is None:
        return ABSENT
    if abs(points) < 0.0005:
        return "no change" if points == 0 else "<0.1 points"
    return f"{100 * points:+.1f} points".replace("-", "\N{MINUS SIGN}")


def count(rows: float | None) -> str:
    """A number of rows."""
    return ABSENT if rows is None else f"{rows:,.0f}"


def error(difference: float | None) -> str:
    """An error of a variant against native, in three digits."""
    return ABSENT if difference is None else f"{difference:.3g}"


def agreement(part: float | None) -> str:
    """A share of rows with the same decision, near enough to 1 for two decimals to matter."""
    return ABSENT if part is None else f"{part:.2%}"


def value(number: float | None, unit: Unit) -> str:
    """A value of a column, to four digits where it is below a thousand; or the date it is."""
    if number is None:
        return ABSENT
    if unit != "plain":
        return readable(number, unit)
    return f"{number:.4g}" if abs(number) < 1_000 else f"{number:,.6g}"


def spread(deviation: float | None, unit: Unit) -> str:
    """A standard deviation, which is a length of time where the column is one of dates."""
    if deviation is None:
        return ABSENT
    shown = value(deviation, "plain")
    return shown if unit == "plain" else f"{shown} {unit}"


def duration(seconds: float | None) -> str:
    """A length of time in its two largest units."""
    if seconds is None:
        return ABSENT
    if seconds < 10:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def moment(iso: str | None) -> str:
    """An ISO 8601 time to the minute: a slot in the schedule's own zone, UTC by name."""
    if iso is None:
        return ABSENT
    try:
        parsed = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    if len(iso) == len("2026-11-23"):
        return iso
    zone = " UTC" if parsed.tzinfo == UTC else ""
    return f"{parsed:%Y-%m-%d %H:%M}{zone}"


def visible(name: str) -> str:
    """A name from the data without control characters: each is replaced by its picture."""
    return "".join(map(_picture, name))


def _picture(character: str) -> str:
    code = ord(character)
    if code < ord(" "):
        return chr(CONTROL_PICTURES + code)
    if code == DELETE:
        return "\N{SYMBOL FOR DELETE}"
    if code < DELETE or character in JOINERS:
        return character
    unprintable = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "\N{REPLACEMENT CHARACTER}" if unprintable else character
