"""Places in object stores as text: ``s3://bucket/prefix``.

Invariant: a URL that `parts` lets through means one place, whoever reads it. A key is taken
letter by letter, as stores do, and no segment of it may be empty, ``.`` or ``..``, nor become that
when somebody decodes it; so a place that begins with a root's segments lies below the root. (A
``%2F`` is harmless so, and Hive partitions are written with it.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from scoring.errors import StoreUnsupported, UrlInvalid

SCHEMES = ("s3", "gs", "az")
"""Stores that we read and write; tests run against the first."""
NOT_A_NAME = ("", ".", "..")
BETWEEN_ROOTS = re.compile(r":(?!//)")


def is_url(place: str) -> bool:
    """Whether a place is in a store, and not a path of this machine."""
    return "://" in place and not place.startswith("file://")


def parts(url: str, key: str = "path") -> tuple[str, ...]:
    """Scheme, bucket, and the segments of the key.

    ``key`` is what a person calls the place, for the message.

    Raises:
        StoreUnsupported: there is no such kind of store.
        UrlInvalid: it is not the name of one place.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        raise StoreUnsupported(key, _without_login(url))
    bucket, *names = rest.removesuffix("/").split("/")
    if not bucket or "@" in bucket or any(_decoded(bucket) == name for name in NOT_A_NAME):
        raise UrlInvalid(key, _without_login(url), "it names no bucket")
    for name in names:
        if any(part in NOT_A_NAME for part in _decoded(name).split("/")):
            raise UrlInvalid(key, url, f"{name!r} cannot be a part of its path")
        if not name.isprintable():
            raise UrlInvalid(key, url, f"{name!r} holds characters that cannot be seen")
    return (scheme, bucket, *names)


def join(url: str, *names: str) -> str:
    """A place below another."""
    return "/".join((url.rstrip("/"), *names))


def name_of(url: str) -> str:
    """The last segment."""
    return url.rstrip("/").rpartition("/")[2]


def above(url: str) -> str:
    """The place that holds another."""
    return url.rstrip("/").rpartition("/")[0]


def is_below(place: str, root: str, key: str = "path") -> bool:
    """Whether a place is a root or lies in it; links of this machine are followed.

    Raises: StoreUnsupported, UrlInvalid.
    """
    if is_url(place) != is_url(root):
        return False
    if is_url(place):
        wanted = parts(root, key)
        return parts(place, key)[: len(wanted)] == wanted
    return Path(place).resolve().is_relative_to(Path(root).resolve())


def split_roots(text: str) -> tuple[str, ...]:
    """Roots with ``:`` between them; the one of ``://`` does not count."""
    return tuple(part for part in BETWEEN_ROOTS.split(text) if part)


def longest_root(place: str, roots: Iterable[str]) -> str | None:
    """The narrowest of the roots that hold a place of a store; ``s3://`` holds all of its kind."""
    wanted = parts(place)
    fitting = [root for root in roots if wanted[: len(_prefix(root))] == _prefix(root)]
    return max(fitting, key=lambda root: len(_prefix(root)), default=None)


def _prefix(root: str) -> tuple[str, ...]:
    scheme, _, rest = root.partition("://")
    return parts(root) if rest else (scheme,)


def _decoded(name: str) -> str:
    """What is left when somebody decodes a name for as long as it changes."""
    while (once := unquote(name)) != name:
        name = once
    return name


def _without_login(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
