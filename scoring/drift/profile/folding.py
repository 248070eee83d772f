"""The counters of one column, of its places, and of what is derived from it."""

from __future__ import annotations

from collections.abc import Container

import pyarrow as pa

from scoring.drift.profile.counters import CategoryCounter, NumberCounter
from scoring.drift.profile.elements import Aspect, values_of
from scoring.drift.profile.frame import ColumnFrame, kind_of
from scoring.drift.profile.kinds import is_text

__all__ = ["ColumnCounters"]


class ColumnCounters:
    """Counts whatever is framed of one column."""

    def __init__(self) -> None:
        self._counters: dict[str, NumberCounter | CategoryCounter] = {}
        self._aspects: list[Aspect] = []
        self._places = 0

    def enlist(self, counter: NumberCounter | CategoryCounter, place: int | None = None) -> None:
        """Count with this, too: the column, a `place` of it, or what is derived from it."""
        frame = counter.frame
        self._counters[frame.name] = counter
        if frame.aspect:
            self._aspects.append(frame.aspect)
        if place is not None:
            self._places = max(self._places, place + 1)

    def add(self, name: str, array: pa.Array, real: Container[str]) -> bool:
        """Fold one Arrow array in; False: nothing of it is framed.

        A column in `real` is counted for itself, not as a place of this one that has its name.

        Raises:
            ValueError: the array is of another kind than framed.
        """
        if pa.types.is_null(array.type):
            return self._add_nulls(name, len(array), real)
        counted = False
        array = self._readied(name, array)
        for element, aspect, values in values_of(name, array, self._aspects, self._places):
            counter = self._counters.get(element)
            if counter is None or counter.frame.aspect != aspect:
                continue
            if element == name or element not in real:
                _check_kind(counter.frame, values)
                counter.add(values)
                counted = True
        return counted

    def _add_nulls(self, name: str, rows: int, real: Container[str]) -> bool:
        """Nothing but nulls may have lost its type; there are no words in it."""
        for element, counter in self._counters.items():
            if counter.frame.aspect != "tokens" and (element == name or element not in real):
                numeric = counter.frame.kind == "number"
                counter.add(pa.nulls(rows, pa.float64() if numeric else pa.string()))
        return bool(self._counters)

    def _readied(self, name: str, array: pa.Array) -> pa.Array:
        """In a dictionary, if it is a text that is counted by name and by what is derived."""
        counter = self._counters.get(name)
        named = counter is not None and not counter.frame.free_text
        plain = is_text(array.type) and not pa.types.is_dictionary(array.type)
        return array.dictionary_encode() if plain and named and self._aspects else array


def _check_kind(frame: ColumnFrame, values: pa.Array) -> None:
    if frame.kind != kind_of(values.type):
        raise ValueError(f"column {frame.name!r} is framed as {frame.kind}, found {values.type}")
