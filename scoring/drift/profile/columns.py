"""The profile of one column, of whatever kind, and columns of several profiles added up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scoring.drift.profile.category_profile import NAMED, CategoryProfile, CategoryTotal
from scoring.drift.profile.number_profile import NumberProfile, NumberTotal

__all__ = ["NAMED", "CategoryProfile", "Column", "NumberProfile", "merged_columns"]

Column = NumberProfile | CategoryProfile


def merged_columns(parts: Iterable[Column]) -> tuple[Column, ...]:
    """Profiles of columns added up by role and name, and in that order."""
    totals: dict[tuple[str, str], Any] = {}
    for part in parts:
        place = (part.frame.role, part.frame.name)
        if place not in totals:
            total = NumberTotal if isinstance(part, NumberProfile) else CategoryTotal
            totals[place] = total(part.frame)
        totals[place].add(part)
    return tuple(totals[place].profile() for place in sorted(totals))
