"""How a column of an Arrow type is counted: in bins, by name, or not at all."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa

__all__ = ["Kind", "Unit", "is_list", "is_text", "kind_of", "unit_of"]

Kind = Literal["number", "category"]
Unit = Literal["plain", "days", "seconds"]


def kind_of(dtype: Any) -> Kind | None:
    """How a column of this Arrow type is counted; None where it cannot be (structs, binary).

    Times of day and durations are numbers of seconds. Integers, texts and booleans in a dictionary
    are codes, so categories; any other number in one is a number.
    """
    types = pa.types
    if types.is_dictionary(dtype):
        inner = dtype.value_type
        return "category" if types.is_integer(inner) else kind_of(inner)
    if is_text(dtype) or types.is_boolean(dtype):
        return "category"
    ordered = types.is_integer(dtype) or types.is_floating(dtype) or types.is_decimal(dtype)
    timed = types.is_time(dtype) or types.is_duration(dtype)
    if ordered or timed or types.is_date(dtype) or types.is_timestamp(dtype):
        return "number"
    return None


def unit_of(dtype: Any) -> Unit:
    """What a number of this Arrow type means: itself, or the days or seconds of a date."""
    if pa.types.is_dictionary(dtype):
        return unit_of(dtype.value_type)
    if pa.types.is_date(dtype):
        return "days"
    return "seconds" if pa.types.is_timestamp(dtype) else "plain"


def is_text(dtype: Any) -> bool:
    """Whether it is a text, in a dictionary or not."""
    types = pa.types
    if types.is_dictionary(dtype):
        return is_text(dtype.value_type)
    return bool(
        types.is_string(dtype) or types.is_large_string(dtype) or types.is_string_view(dtype)
    )


def is_list(dtype: Any) -> bool:
    """Whether it is a list whose rows may differ in length."""
    types = pa.types
    return bool(
        types.is_list(dtype)
        or types.is_large_list(dtype)
        or types.is_list_view(dtype)
        or types.is_large_list_view(dtype)
    )
