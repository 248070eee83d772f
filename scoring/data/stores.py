"""Object stores: look, read, put, copy, delete, by URL, with the options that settings give.

Every request has a time limit and is tried again with growing, jittered pauses for a limited time,
so nothing waits for ever. What the library says of a failure may hold keys and whole answers of
the store; only the status and the store's word for it are passed on. A missing object is a
`FileNotFoundError`, as with files.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoring import urls
from scoring.data.store_reader import StoreFile
from scoring.errors import StoreRefused, StoreUnreachable

if TYPE_CHECKING:
    from obstore.store import ObjectStore
    from pydantic import SecretStr

PART_BYTES, UPLOADS = 8 * 2**20, 4
"""Size of the pieces of a large upload, and how many of them are sent at once."""
S3_KEYS = ("access_key_id", "secret_access_key")
STATUS = re.compile(r"status code: (\d{3} [A-Za-z ]+)")
NO_BUCKET = "there is no such bucket"
WORD = re.compile(r"<Code>(\w{1,60})</Code>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One object."""

    url: str
    size: int
    """Bytes."""
    stamp: str
    """Its ETag, which another version of the object does not have."""
    written_at: float = field(default=0.0, compare=False)
    """Seconds since 1970, by the store's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a store may take, in seconds."""

    connect: float = 5.0
    request: float = 60.0
    """One request, answer included."""
    retries: int = 6
    retrying: float = 90.0
    """No further try begins after so long."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the library is told about one root; hashable, and silent about its values."""

    values: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """The object stores of an installation; a value, so that it can be handed to any process."""

    options: tuple[tuple[str, Options], ...] = ()
    """By root; the narrowest one that holds a URL counts."""
    endpoint: str = field(default="", repr=False)
    """Of s3:// where the options do not say; empty: the region's own."""
    patience: Patience = Patience()

    @classmethod
    def of(cls, options: Mapping[str, Mapping[str, SecretStr]], endpoint: str = "") -> Stores:
        """From the settings."""
        plain = (
            (root, tuple((name, value.get_secret_value()) for name, value in sorted(of.items())))
            for root, of in sorted(options.items())
        )
        return cls(options=tuple((root, Options(of)) for root, of in plain), endpoint=endpoint)

    def head(self, url: str) -> Entry:
        """What is there.

        Raises:
            FileNotFoundError: nothing.
            StoreRefused, StoreUnreachable: it cannot be said.
        """
        import obstore

        with self._at(url) as (store, key):
            return _entry(url, obstore.head(store, key))

    def exists(self, url: str) -> bool:
        """Whether there is an object of exactly this name."""
        try:
            self.head(url)
        except FileNotFoundError:
            return False
        return True

    def find(self, prefix: str) -> list[Entry]:
        """Every object below a place, by URL. What stands for an empty folder is left out."""
        import obstore

        with self._at(prefix) as (store, key):
            root = "://".join(urls.parts(prefix)[:2])
            batches = obstore.list(store, key or None)
            found = [(str(one["path"]), one) for batch in batches for one in batch]
            return sorted(
                (_entry(urls.join(root, path), one) for path, one in found if path != key),
                key=lambda entry: entry.url,
            )

    def names(self, prefix: str) -> list[str]:
        """Names directly below a place, of objects and of what holds further ones, sorted."""
        import obstore

        with self._at(prefix) as (store, key):
            listed = obstore.list_with_delimiter(store, key or None)
            objects = [str(one["path"]) for one in listed["objects"]]
            found = [*objects, *map(str, listed["common_prefixes"])]
            return sorted({urls.name_of(path) for path in found if path != key})

    def reader(self, url: str, *, size: int | None = None, stamp: str | None = None) -> StoreFile:
        """A file for pyarrow; without size and stamp the object is looked up first.

        What is read is all of one version: an object replaced meanwhile is an `OSError`.
        """
        if size is None or stamp is None:
            entry = self.head(url)
            size, stamp = entry.size, entry.stamp
        return StoreFile(size, partial(self._fetch, url, stamp))

    def read_bytes(self, url: str) -> bytes:
        """A whole, small object. Raises: FileNotFoundError, StoreRefused, StoreUnreachable."""
        return self.read_version(url)[0]

    def read_version(self, url: str) -> tuple[bytes, str]:
        """A whole, small object and its ETag.

        Raises: FileNotFoundError, StoreRefused, StoreUnreachable.
        """
        import obstore

        with self._at(url) as (store, key):
            found = obstore.get(store, key)
            return bytes(found.bytes()), str(found.meta["e_tag"])

    def put(self, url: str, content: bytes | Path, *, only_if_absent: bool = False) -> bool:
        """Write an object, which is there whole or not at all.

        False if it should only be written where nothing is, and something else is there. What we
        wrote ourselves, if the store's answer was lost, counts as written.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError

        with self._at(url) as (store, key):
            try:
                obstore.put(
                    store,
                    key,
                    content,
                    mode="create" if only_if_absent else "overwrite",
                    chunk_size=PART_BYTES,
                    max_concurrency=UPLOADS,
                )
            except AlreadyExistsError:
                if not only_if_absent:
                    raise
                return isinstance(content, bytes) and self._holds(url, content)
        return True

    def replace(self, url: str, content: bytes, stamp: str) -> bool:
        """Write a small object in the place of the version with this ETag.

        False if another version, or nothing, is there. What we wrote ourselves, if the store's
        answer was lost, counts as written.
        """
        import obstore
        from obstore.exceptions import PreconditionError

        with self._at(url) as (store, key):
            try:
                obstore.put(store, key, content, mode={"e_tag": stamp})
            except (PreconditionError, FileNotFoundError):
                return self._holds(url, content)
        return True

    def copy(self, source: str, target: str) -> None:
        """Copy within the store; the bytes do not come here.

        Raises: FileNotFoundError: there is no source.
        """
        import obstore

        wanted = urls.parts(target)
        if urls.parts(source)[:2] != wanted[:2]:
            raise ValueError(f"{source} and {target} are not in one bucket")
        with self._at(source) as (store, key):
            obstore.copy(store, key, "/".join(wanted[2:]))

    def delete(self, found: Sequence[str]) -> None:
        """Delete objects of one bucket; one that is gone already does not matter."""
        import obstore

        if not found:
            return
        with self._at(found[0]) as (store, _):
            keys = ["/".join(urls.parts(url)[2:]) for url in found]
            try:
                obstore.delete(store, keys)
            except FileNotFoundError:  # some stores stop there
                for key in keys:
                    with suppress(FileNotFoundError):
                        obstore.delete(store, key)

    def _holds(self, url: str, content: bytes) -> bool:
        try:
            return self.read_bytes(url) == content
        except FileNotFoundError:
            return False

    def _fetch(self, url: str, stamp: str, start: int, stop: int) -> memoryview:
        import obstore

        with self._at(url) as (store, key):
            found = obstore.get(store, key, options={"range": (start, stop), "if_match": stamp})
            return memoryview(found.bytes())

    @contextmanager
    def _at(self, url: str) -> Iterator[tuple[ObjectStore, str]]:
        """The store and key of a URL; whatever the library raises is said in our words."""
        scheme, bucket, *names = urls.parts(url)
        root = urls.longest_root(url, (root for root, _ in self.options))
        options = dict(self.options).get(root or "", Options())
        with _in_our_words(url):
            store = _store(scheme, bucket, options, self.endpoint, self.patience)
            yield store, "/".join(names)


@contextmanager
def _in_our_words(url: str) -> Iterator[None]:
    from obstore import exceptions

    refused = (
        exceptions.PermissionDeniedError,
        exceptions.UnauthenticatedError,
        exceptions.UnknownConfigurationKeyError,
        exceptions.InvalidPathError,
        exceptions.NotSupportedError,
    )
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise StoreRefused(url, NO_BUCKET) from None
        raise FileNotFoundError(errno.ENOENT, "no such object", url) from None
    except exceptions.PreconditionError:
        raise OSError(errno.ESTALE, "it was replaced while it was read", url) from None
    except refused as error:
        raise StoreRefused(url, _reason(error)) from None
    except exceptions.BaseError as error:
        reason = _reason(error)
        lasting = reason.startswith("4") and not reason.startswith(("408", "429"))
        if lasting or reason == NO_BUCKET:
            raise StoreRefused(url, reason) from None
        raise StoreUnreachable(url, reason) from None


def _reason(error: Exception) -> str:
    """What a failure is, from the few parts of its text that cannot hold a secret."""
    text = str(error)
    status, word = STATUS.search(text), WORD.search(text)
    if word and word[1] == "NoSuchBucket":
        return NO_BUCKET
    if status:
        return f"{status[1].strip()}{f' ({word[1]})' if word else ''}"
    kinds = {
        "kind: Timeout": "it did not answer in time",
        "kind: Connect": "no connection",
        "UnknownConfigurationKey": "an option of SCORING_STORAGE_OPTIONS is not known",
        "InvalidPath": "there is an object whose name has an empty segment",
        "redirect": "it is in another region",
    }
    return next((said for sign, said in kinds.items() if sign in text), type(error).__name__)


@lru_cache(maxsize=64)
def _store(
    scheme: str, bucket: str, options: Options, endpoint: str, patience: Patience
) -> ObjectStore:
    """The library's client, made once in a process, as it keeps connections open."""
    from obstore.store import AzureStore, GCSStore, S3Store

    config: dict[str, Any] = dict(options.values)
    endpoint = config.get("endpoint") or (endpoint if scheme == "s3" else "")
    how: dict[str, Any] = {
        "client_options": {
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=patience.connect),
            "timeout": timedelta(seconds=patience.request),
        },
        "retry_config": {
            "max_retries": patience.retries,
            "retry_timeout": timedelta(seconds=patience.retrying),
            "backoff": {
                "init_backoff": timedelta(seconds=0.2),
                "max_backoff": timedelta(seconds=10),
                "base": 2,
            },
        },
    }
    if scheme == "gs":
        return GCSStore(bucket, config=config, **how)  # type: ignore[arg-type]  # as given
    if scheme == "az":
        return AzureStore(bucket, config=config, **how)  # type: ignore[arg-type]
    if endpoint:  # in both names, or the environment's would win over the options'
        config |= {"endpoint": endpoint, "aws_endpoint_url_s3": endpoint}
    if all(name in config for name in S3_KEYS):
        how["credential_provider"] = _keys(config)
    return S3Store(bucket, config=config, **how)  # type: ignore[arg-type]


def _keys(config: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """The options' own keys, so that no token of the environment's is mixed with them."""
    keys = {name: config.pop(name) for name in S3_KEYS}
    keys |= {"token": config.pop("session_token", None), "expires_at": None}
    return lambda: keys


def _entry(url: str, found: Mapping[str, Any]) -> Entry:
    return Entry(
        url=url,
        size=int(found["size"]),
        stamp=str(found["e_tag"]),
        written_at=found["last_modified"].timestamp(),
    )
