"""The faults of a job file, each as one sentence that a person can act on.

Invariant: one mistake gives one fault, and every fault names the key as the file would write it,
what was found there and what would be accepted. What a field accepts is the ``description`` it is
declared with, so that a message cannot drift away from its check.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, time
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

__all__ = [
    "SERVED_QUEUES",
    "cross_faults",
    "toml_fault",
    "toml_text",
    "validation_faults",
    "with_known_braces",
]

SERVED_QUEUES = ("control", "cpu", "gpu", "celery")
"""What our own workers serve unless told otherwise; they take no task of somebody else."""
_LONGEST_SHOWN = 120
_ANY_PART = "part-00000.parquet"

_HINTS = {
    "Invalid value": (
        'A value is "text" in quotes, a number, true, false, a date, a [list] or a { table }.'
    ),
    "Cannot overwrite a value": "The key is there twice; keep one.",
    "Illegal character '\\n'": "A quote is opened on this line and not closed.",
    "Unescaped '\\' in a string": "Write \\\\ or put the text in 'single quotes'.",
}

_WITHOUT = {
    ("int_type", str): ", without quotes",
    ("float_type", str): ", without quotes",
    ("int_type", float): ", without a decimal point",
}


def validation_faults(
    model: type[BaseModel], values: object, invalid: ValidationError
) -> list[str]:
    """One sentence per fault of ``values``, which ``model`` refused."""
    errors = invalid.errors(include_url=False)
    meant = {
        key
        for error in errors
        if error["type"] == "extra_forbidden"
        for key in _suggestions(model, _key(model, error))
    }
    faults = (
        _sentence(model, values, error)
        for error in errors
        if error["type"] != "missing" or _key(model, error) not in meant
    )
    return list(dict.fromkeys(faults))  # several faulty items of one list are one fault


def toml_fault(text: str, error: Exception) -> str:
    """Where ``text`` stops being TOML, and why."""
    pattern = r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)"
    parsed = re.fullmatch(pattern, str(error), re.DOTALL)
    if parsed is None:
        return f"this is not TOML: {error}."
    reason, line, column = parsed.groups()
    hint = _HINTS.get(reason, "")
    reason = re.sub(r"\('(.*?)',?\)", _table_name, reason)
    lines = text.splitlines() or [""]
    row = int(line) if line else len(lines)
    shown = _shortened(lines[min(row, len(lines)) - 1].strip())
    what = f"`{shown}`" if shown else "this"
    where = f"line {row}, column {column or len(lines[-1]) + 1}"
    return f"{where}: {what} is not TOML: {reason[0].lower()}{reason[1:]}. {hint}".rstrip()


def toml_text(value: object) -> str:
    """``value`` as a job file would write it, shortened where it is long."""
    return _shortened(_toml(value))


def cross_faults(values: object) -> list[str]:
    """Faults that only show when two tables are seen together."""
    return _shared_columns(values) + _shared_places(values) + _shared_queues(values)


def with_known_braces(path: str, placeholders: Sequence[str]) -> str:
    """``path``, or ``ValueError`` if it holds a brace other than these placeholders'."""
    others = [
        brace for brace in re.findall(r"\{[^{}]*\}|[{}]", path) if brace[1:-1] not in placeholders
    ]
    if others:
        named = "a brace without its partner" if len(others[0]) == 1 else others[0]
        accepted = _joined(f"{{{name}}}" for name in placeholders)
        raise ValueError(f"it holds {named}, and of braces only {accepted} are accepted here")
    return path


def _sentence(model: type[BaseModel], values: object, error: ErrorDetails) -> str:
    key = _key(model, error)
    if error["type"] == "extra_forbidden":
        return f"{'.'.join(key)} is an unknown key{_advice(model, key)}"
    field = _field(model, key)
    accepted = (field and field.description) or "a table"
    name = ".".join(key) or "the job"
    if error["type"] == "missing":
        return f"{name} is missing; it must be {accepted}."
    if error["type"] == "value_error":
        reason = str(error["ctx"]["error"])
    else:
        without = _WITHOUT.get((error["type"], type(error["input"])), "")
        reason = f"it must be {accepted}{without}"
    return f"{name} is {_found(values, key, field)}; {reason}."


def _found(values: object, key: Sequence[str], field: FieldInfo | None) -> str:
    above = _found_at(values, *key[:-1])
    if field is not None and isinstance(above, Mapping) and key[-1] not in above:
        return f"{toml_text(field.default)} (the default)"
    return toml_text(_found_at(values, *key))


def _key(model: type[BaseModel], error: ErrorDetails) -> tuple[str, ...]:
    """The key that the fault is about: of a faulty item in a list, the list's."""
    key: list[str] = []
    table: type[BaseModel] | None = model
    for part in error["loc"]:
        if table is None:
            break
        key.append(str(part))
        field = table.model_fields.get(str(part))
        table = _table(field) if field else None
    return tuple(key)


def _field(model: type[BaseModel], key: Sequence[str]) -> FieldInfo | None:
    table: type[BaseModel] | None = model
    field: FieldInfo | None = None
    for part in key:
        field = table.model_fields.get(part) if table else None
        table = _table(field) if field else None
    return field


def _table(field: FieldInfo) -> type[BaseModel] | None:
    kinds: Iterable[Any] = (field.annotation, *get_args(field.annotation))
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)


def _suggestions(model: type[BaseModel], key: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Known keys that an unknown one may stand for, the misplaced before the misspelt."""
    table, word = key[:-1], key[-1].lower()
    known = list(_known(model))
    if (*table, word) in known:
        return [(*table, word)]
    misplaced = [other for other in known if other[-1] == word]
    if misplaced:
        return misplaced
    beside = [other[-1] for other in known if other[:-1] == table]
    close = get_close_matches(word, beside, n=1, cutoff=0.7)
    if close:
        return [(*table, close[0])]
    close = get_close_matches(word, [other[-1] for other in known], n=1, cutoff=0.85)
    return [other for other in known if close and other[-1] == close[0]]


def _advice(model: type[BaseModel], key: tuple[str, ...]) -> str:
    table = key[:-1]
    meant = _suggestions(model, key)
    if not meant:
        takes = _joined(other[-1] for other in _known(model) if other[:-1] == table)
        return f"; accepted here are {takes}."
    if meant[0][:-1] == table:
        return f", did you mean `{meant[0][-1]}`?"
    names = _joined([f"`{'.'.join(other)}`" for other in meant], "or")
    field = _field(model, meant[0])
    on_top = len(meant[0]) == 1 and field is not None and _table(field) is None
    place = ", above the first [table]" if on_top else ""
    return f", did you mean {names}{place}?"


def _known(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterable[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (*above, name)
        table = _table(field)
        if table:
            yield from _known(table, (*above, name))


def _table_name(keys: re.Match[str]) -> str:
    """``[a.b]`` for the ``('a', 'b')`` that the TOML reader says."""
    return "[" + keys[1].replace("', '", ".") + "]"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {_toml(item)}' for key, item in value.items())} }}"
    if isinstance(value, date | time):
        return value.isoformat()
    return repr(value)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"


def _shared_columns(values: object) -> list[str]:
    key, passthrough = _found_at(values, "key"), _found_at(values, "output", "passthrough")
    if not (isinstance(key, list | tuple) and isinstance(passthrough, list | tuple)):
        return []
    shared = [toml_text(name) for name in key if isinstance(name, str) and name in passthrough]
    if not shared:
        return []
    return [
        f"output.passthrough is {toml_text(passthrough)}; it must not repeat {_joined(shared)}, "
        "because the columns of key are passed through already."
    ]


def _shared_places(values: object) -> list[str]:
    source, target = _found_at(values, "input", "path"), _found_at(values, "output", "path")
    if not (isinstance(source, str) and isinstance(target, str)):
        return []
    (source_root, read), (target_root, written) = _place(source), _place(target)
    if not (source.strip() and target.strip()) or source_root != target_root:
        return []
    if read == written:
        how = "is the same place as"
    elif written == read[: len(written)]:
        how = "holds"
    elif _reads(read, [*written, _ANY_PART]):
        how = "lies inside"
    else:
        return []
    return [
        f"output.path is {toml_text(target)}; it {how} input.path, which is {toml_text(source)}. "
        "It must be a folder apart from the input, or a run would replace or read its own files."
    ]


def _shared_queues(values: object) -> list[str]:
    """Tasks of somebody else on no queue, or on one whose workers would throw them away."""
    ours = {*SERVED_QUEUES, _found_at(values, "execution", "queue")}
    faults: list[str] = []
    for action in ("retrain", "review"):
        task = _found_at(values, "drift", action, "task")
        queue = _found_at(values, "drift", action, "task_queue")
        name = f"drift.{action}.task_queue"
        if not (task and isinstance(task, str)):
            continue
        if queue in (None, ""):
            faults.append(
                f"{name} is missing; with a task it must be the queue of the workers that know "
                f'{toml_text(task)}, such as "training".'
            )
        elif isinstance(queue, str) and queue in ours:
            faults.append(
                f"{name} is {toml_text(queue)}; our own workers serve that queue and would drop "
                f"{toml_text(task)}, so it must be a queue of the workers that know the task, "
                'such as "training".'
            )
    return faults


def _place(path: str) -> tuple[str, list[str]]:
    """Where a path begins (scheme, root or working folder), and its normalised segments."""
    scheme, mark, rest = path.removeprefix("file://").rpartition("://")
    root = scheme + mark or ("/" if rest.startswith("/") else "")
    return root, [part for part in posixpath.normpath(rest).split("/") if part not in ("", ".")]


def _reads(pattern: Sequence[str], path: Sequence[str]) -> bool:
    """Whether a file, folder or glob, segment by segment, takes in the file at ``path``."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_reads(pattern[1:], path[skipped:]) for skipped in range(len(path)))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _reads(pattern[1:], path[1:])


def _found_at(values: object, *keys: str) -> object:
    """What a table, or tables in one another, hold under ``keys``; ``None`` if nothing."""
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else getattr(values, key, None)
    return values


def _joined(words: Iterable[str], last: str = "and") -> str:
    """``a, b and c``."""
    *first, final = words
    return f"{', '.join(first)} {last} {final}" if first else final
