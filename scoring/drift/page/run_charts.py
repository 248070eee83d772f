"""The drift page's charts of a whole run: its trend, and how well its probabilities hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from scoring.drift.page.svg import HEIGHT, STEP, TIERS, height, svg
from scoring.drift.wording import figure, moment, share

__all__ = ["reliability", "run_trend", "trend_labels"]

LABEL_ROOM = 12
"""Height of a threshold's name beside the trend, in per cent of the trend's."""


def run_trend(trend: Sequence[Mapping[str, Any]], thresholds: Mapping[str, float]) -> Markup:
    """The run's figure over the last runs (run,), oldest first, with the three thresholds."""
    top = trend_top(trend, thresholds)
    lines = "".join(
        f'<path class="limit" d="M0 {height(thresholds[tier], top)}H{STEP * len(trend)}"/>'
        for tier in TIERS
    )
    bars = "".join(_trend_bar(i, run, top) for i, run in enumerate(trend))
    title = f"The figure of the last {len(trend)} runs, the oldest first"
    return svg("trend", STEP * len(trend), HEIGHT, title, lines + bars)


def reliability(bins: Sequence[Mapping[str, Any]]) -> Markup:
    """Calibration (bin,): the share that came true, with its interval, over the one given."""
    places = [
        tuple(round(100 * b[side]) for side in ("predicted", "observed", "low", "high"))
        for b in bins
    ]
    intervals = "".join(f"M{x} {100 - low}V{100 - high}" for x, _, low, high in places)
    points = "".join(f"M{x} {100 - y}h0" for x, y, _, _ in places)
    furthest = max(bins, key=lambda b: abs(b["observed"] - b["predicted"]))
    return svg(
        "reliability",
        100,
        100,
        f"Calibration in {len(bins)} bins. Furthest off: {share(furthest['predicted'])} given, "
        f"{share(furthest['observed'])} came true",
        f'<path class="frame" d="M0 0V100H100"/><path class="limit" d="M0 100L100 0"/>'
        f'<path class="interval" d="{intervals}"/><path class="dot" d="{points}"/>',
    )


def trend_top(trend: Sequence[Mapping[str, Any]], thresholds: Mapping[str, float]) -> float:
    """What the top of the trend stands for: the largest figure, up to three times severe."""
    largest = max((run["score"] for run in trend if run["score"] is not None), default=0.0)
    return float(min(max(largest, 1.25 * thresholds["severe"]), 3 * thresholds["severe"]))


def trend_labels(
    trend: Sequence[Mapping[str, Any]], thresholds: Mapping[str, float]
) -> list[tuple[str, int]]:
    """Thresholds to be named beside the trend, with their height in per cent; none on another."""
    top = trend_top(trend, thresholds)
    found: list[tuple[str, int]] = []
    for tier in ("severe", "small", "moderate"):
        place = HEIGHT - height(thresholds[tier], top)
        if all(abs(place - other) >= LABEL_ROOM for _, other in found):
            found.append((tier, place))
    return found


def _trend_bar(place: int, run: Mapping[str, Any], top: float) -> str:
    left, when = STEP * place + 1, moment(run["slot"] or run["created_at"])
    if run["score"] is None:
        gap = f'<path class="gap" d="M{left} 97h8"/>'
        return f"<g><title>{escape(when)}: not measured</title>{gap}</g>"
    y = min(height(run["score"], top), HEIGHT - 1)
    return (
        f"<g><title>{escape(when)}: {figure(run['score'])}, {escape(run['severity'])}</title>"
        f'<path class="tier-{escape(run["severity"])}" d="M{left} 100V{y}h8V100z"/></g>'
    )
