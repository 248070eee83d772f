"""What of a column is counted: the column itself, places of a short vector, derived elements.

A text, a list or a long vector cannot be binned, but its length, its words or its norm can; a
probability vector is best watched as the class it decides for. Such derived elements are named
`text[length]`, are found in the pass that counts the column, and depend on their own row alone,
so they merge as columns do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from scoring.drift.profile.kinds import is_list, is_text, kind_of
from scoring.drift.profile.text import TextAspect, readable_text, text_elements
from scoring.drift.profile.vectors import as_vectors, classes, decisions, norms

__all__ = [
    "LONGEST_VECTOR",
    "TEXT_ASPECTS",
    "Aspect",
    "Element",
    "Role",
    "elements",
    "elements_of",
    "place_of",
    "values_of",
]

Role = Literal["feature", "output"]
Aspect = Literal["", "length", "words", "script", "tokens", "class", "decision", "norm"]
"""What of a column is counted: "" the column or a place of a vector, else what is derived.

`length` code points of a text or items of a list; `words` parts of a text between white space;
`script` UTF-8 bytes a code point, 1 for English and 3 for Chinese; `tokens` words by hash;
`class` the largest of a vector of outputs; `decision` the side of 0.5 that an output lies on;
`norm` the length of a vector in space (L2).
"""

LONGEST_VECTOR = 16
"""Places of a vector up to which each is counted for itself."""
MOST_CLASSES = 1_000
TEXT_ASPECTS: tuple[TextAspect, ...] = ("length", "words", "script", "tokens")
_PLACE = re.compile(r"(.+)\[(\d+)\]", re.DOTALL)
_NAMES = pa.dictionary(pa.int32(), pa.string())
_DTYPES: dict[Aspect, Any] = {
    "length": pa.int64(),
    "words": pa.int64(),
    "script": pa.float64(),
    "norm": pa.float64(),
    "tokens": _NAMES,
    "class": _NAMES,
    "decision": _NAMES,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """Something that is counted of a column."""

    name: str
    """The column's name, that with the place of a vector, or that with the aspect."""
    aspect: Aspect
    dtype: Any
    """Arrow type of its values."""


def elements(name: str, role: Role, dtype: Any) -> list[Element]:
    """All that can be counted of a column of this Arrow type; none where nothing can."""
    found = []
    if _is_short_vector(dtype) and kind_of(dtype.value_type) is not None:
        found = [
            Element(name=f"{name}[{i}]", aspect="", dtype=dtype.value_type)
            for i in range(dtype.list_size)
        ]
    elif kind_of(dtype) is not None:
        found = [Element(name=name, aspect="", dtype=dtype)]
    return found + [
        Element(name=f"{name}[{aspect}]", aspect=aspect, dtype=_DTYPES[aspect])
        for aspect in _aspects(role, dtype)
    ]


def elements_of(name: str, array: pa.Array, places: int = 0) -> Iterator[tuple[str, pa.Array]]:
    """The column itself or, for a short vector, one column ``name[i]`` per place.

    A list is read as a vector of `places`, if that is not 0; rows of another length are missing.
    """
    if places and is_list(array.type):
        array = as_vectors(array, places)
    if _is_short_vector(array.type):
        for i in range(array.type.list_size):
            yield f"{name}[{i}]", pc.list_element(array, i)
    else:
        yield name, array


def values_of(
    name: str, array: pa.Array, aspects: Collection[Aspect], places: int = 0
) -> Iterator[tuple[str, Aspect, pa.Array]]:
    """Each element of an Arrow array with its name: itself or its places, then the wanted aspects.

    Raises ValueError for an aspect that the array's type does not have.
    """
    if is_text(array.type):
        array = readable_text(array)
    for element, values in elements_of(name, array, places):
        yield element, "", values
    for aspect, values in _derived(array, aspects).items():
        yield f"{name}[{aspect}]", aspect, values


def place_of(name: str) -> tuple[str, int] | None:
    """The vector and the place in it that such a name may mean."""
    found = _PLACE.fullmatch(name)
    return (found[1], int(found[2])) if found else None


def _derived(array: pa.Array, aspects: Collection[Aspect]) -> dict[Aspect, pa.Array]:
    wanted = [aspect for aspect in TEXT_ASPECTS if aspect in aspects]
    if is_text(array.type) and len(wanted) == len(aspects):
        found = text_elements(array, wanted) if wanted else {}
        return {aspect: found[aspect] for aspect in wanted}
    return {aspect: _derivation(aspect, array.type)(array) for aspect in aspects}


def _derivation(aspect: Aspect, dtype: Any) -> Callable[[pa.Array], pa.Array]:
    vector = pa.types.is_fixed_size_list(dtype)
    if aspect == "length" and (vector or is_list(dtype)):
        return pc.list_value_length  # type: ignore[no-any-return]
    if aspect == "norm" and (vector or is_list(dtype)):
        return norms
    if aspect == "class" and vector:
        return classes
    if aspect == "decision" and pa.types.is_floating(dtype):
        return decisions
    raise ValueError(f"a column of {dtype} has no {aspect}")


def _aspects(role: Role, dtype: Any) -> list[Aspect]:
    types = pa.types
    if is_text(dtype):
        return list(TEXT_ASPECTS)
    if is_list(dtype):
        return ["length"]
    if role == "output" and types.is_floating(dtype):
        return ["decision"]
    found: list[Aspect] = []
    if types.is_fixed_size_list(dtype):
        item, places = dtype.value_type, dtype.list_size
        if places > LONGEST_VECTOR and (types.is_floating(item) or types.is_integer(item)):
            found.append("norm")
        if role == "output" and types.is_floating(item) and 2 <= places <= MOST_CLASSES:
            found.append("class")
    return found


def _is_short_vector(dtype: Any) -> bool:
    return bool(pa.types.is_fixed_size_list(dtype) and dtype.list_size <= LONGEST_VECTOR)
