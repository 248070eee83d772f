"""The drift page's charts, as inline SVG: small enough that 200 columns fit one page.

Pure: numbers in, markup out. A chart stretches to its place, so it holds no text but the title
that a screen reader says and a pointer shows. Colours are classes of the style sheet, and each
chart tells its two sides apart by form as well: the reference is an area, the run a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from markupsafe import Markup

from scoring.drift.page.svg import HEIGHT, STEP, TIERS, height, svg
from scoring.drift.wording import figure

__all__ = ["bullet", "histogram", "length_bar", "share_bar", "sparkline", "zones"]

APART = 5
"""Room before the bins that are no interval."""
BULLET_WIDTH = 200
"""Twice the severe threshold; beyond it a value is only said to be there."""
APART_RUNS = 6
"""Width from a run to the next."""
LINE_HEIGHT = 40
BEYOND = '<use href="#beyond"/>'


def histogram(bins: Sequence[Mapping[str, Any]], kind: str, title: str) -> Markup:
    """Shares by bin (bin,), the reference as bars and this run as a line around its own.

    Bins of numbers join up; categories, and what lies apart (missing values), do not.
    """
    top = max((max(b["reference"], b["current"]) for b in bins), default=0.0) or 1.0
    bars, line, x = "", "", 0
    for joined in _joined(bins, kind):
        x += APART if x else 0
        line += f"M{x} 100" + "".join(f"V{height(b['current'], top)}h10" for b in joined) + "V100"
        for one in joined:
            bars += f"M{x} 100V{height(one['reference'], top)}h9V100z"
            x += STEP
    drawn = f'<path class="ref" d="{bars}"/><path class="now" d="{line}"/>'
    return svg("histogram", x, HEIGHT, title, drawn)


def share_bar(reference: float, current: float, top: float) -> Markup:
    """One category's two shares, the reference as a broad bar and this run as a narrow one.

    Decoration, as all `shares`: the figures stand beside it as text.
    """
    before, now = (f"{part / (top or 1.0):.1%}" for part in (reference, current))
    return Markup(
        f'<svg class="shares" aria-hidden="true"><rect class="ref" width="{before}"/>'
        f'<rect class="now" width="{now}"/></svg>'
    )


def length_bar(length: float, longest: float) -> Markup:
    """A bar of this length beside a longest one."""
    end = f"{length / (longest or 1.0):.1%}"
    return Markup(f'<svg class="shares" aria-hidden="true"><rect class="now" width="{end}"/></svg>')


def zones(thresholds: Mapping[str, float]) -> Markup:
    """The tiers from 0 to twice severe, and what says beyond: drawn once, for every `bullet`."""
    starts = [0, *(_along(thresholds[tier], thresholds) for tier in TIERS)]
    ends = [*starts[1:], BULLET_WIDTH]
    paths = "".join(
        f'<path class="zone{i}" d="M{start} 0H{end}v12H{start}z"/>'
        for i, (start, end) in enumerate(zip(starts, ends, strict=True))
    )
    return Markup(
        f'<symbol id="zones" viewBox="0 0 200 12" preserveAspectRatio="none">{paths}</symbol>'
        '<path id="beyond" d="M188 1l7 5l-7 5M181 1l7 5l-7 5"/>'
    )


def bullet(value: float, thresholds: Mapping[str, float], title: str) -> Markup:
    """Where a value lies against the three thresholds."""
    x = _along(value, thresholds)
    bar = f'<path class="bar" d="M0 4h{x}v4H0z"/>' + (BEYOND if x == BULLET_WIDTH else "")
    ground = '<use href="#zones" width="200" height="12"/>'
    return svg("bullet", BULLET_WIDTH, 12, title, ground + bar)


def sparkline(values: Sequence[float | None], thresholds: Mapping[str, float]) -> Markup:
    """A column's values over the last runs (run,), oldest first, and where small begins."""
    known = [v for v in values if v is not None]
    if not known:
        return Markup("")
    top = max([*known, thresholds["severe"]])
    limit = round(LINE_HEIGHT - 38 * thresholds["small"] / top)
    points = [None if v is None else round(LINE_HEIGHT - 38 * v / top) for v in values]
    last = len(points) - 1 - next(i for i, y in enumerate(reversed(points)) if y is not None)
    width = APART_RUNS * max(len(points) - 1, 1)
    return svg(
        "spark",
        width,
        LINE_HEIGHT,
        f"{len(values)} runs, {figure(min(known))} to {figure(max(known))}",
        f'<path class="limit" d="M0 {limit}H{width}"/><path class="line" d="{_polyline(points)}"/>'
        f'<path class="dot" d="M{APART_RUNS * last} {points[last]}h0"/>',
    )


def _joined(bins: Sequence[Mapping[str, Any]], kind: str) -> Iterator[list[Mapping[str, Any]]]:
    for apart, group in groupby(bins, lambda b: kind == "category" or b["label"] == "(missing)"):
        some = list(group)
        yield from ([one] for one in some) if apart else [some]


def _polyline(points: Sequence[int | None]) -> str:
    """Joined where neighbours are known; a value between two gaps is a dot."""
    drawn, pen = "", None
    for place, y in enumerate(points):
        if y is not None and pen is None:
            lone = place + 1 == len(points) or points[place + 1] is None
            drawn += f"M{APART_RUNS * place} {y}" + ("h0" if lone else "")
        elif y is not None and pen is not None:
            drawn += f"l{APART_RUNS}{y - pen:+}" if y != pen else f"h{APART_RUNS}"
        pen = y
    return drawn


def _along(value: float, thresholds: Mapping[str, float]) -> int:
    return min(round(BULLET_WIDTH * value / (2 * thresholds["severe"])), BULLET_WIDTH)
