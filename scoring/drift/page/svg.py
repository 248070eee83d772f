"""What the drift page's charts are drawn with: bars of whole units in a box that stretches."""

from __future__ import annotations

from markupsafe import Markup, escape

__all__ = ["HEIGHT", "STEP", "TIERS", "height", "svg"]

HEIGHT = 100
ROOM = 96
"""Of the height, what the tallest bar takes."""
STEP = 10
"""Width of a bar."""
TIERS = ("small", "moderate", "severe")


def height(part: float, top: float) -> int:
    """Where a bar of this part of the top ends, counted from above."""
    return HEIGHT - min(round(ROOM * part / top), ROOM)


def svg(name: str, width: int, height: int, title: str, content: str) -> Markup:
    """A chart of that class, which says its title; `content` is markup."""
    return Markup(
        f'<svg class="{name}" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img">'
        f"<title>{escape(title)}</title>{content}</svg>"
    )
