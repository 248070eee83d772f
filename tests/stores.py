"""A real object store for the tests: moto's S3 server, on a port of its own.

Its conditional writes look first and write then, and other threads may come in between; those of
a store are atomic. So here one write is done at a time.
"""

from __future__ import annotations

import functools
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from scoring.data.stores import Patience, Stores

KEY_ID, SECRET = "AKIAPLANTEDKEYID", "planted/secret+key"
"""What the stores of the tests are told, and nobody else may ever be."""
IMPATIENT = Patience(connect=5.0, request=30.0, retries=1, retrying=60.0)
"""For stores that answer, and are not going to change their mind."""

_numbers = itertools.count(1)
_writing = threading.RLock()


def _one_at_a_time(write: Callable[[S3Response], Any]) -> Callable[[S3Response], Any]:
    @functools.wraps(write)
    def written(response: S3Response) -> Any:
        with _writing:
            return write(response)

    return written


for _write in ("put_object", "copy_object", "delete_object"):
    setattr(S3Response, _write, _one_at_a_time(getattr(S3Response, _write)))


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket of a test's own, as somebody else's client sees it."""

    server: str
    name: str
    client: Any = field(repr=False)

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def options(self, endpoint: str = "") -> dict[str, dict[str, SecretStr]]:
        """As the settings hold them, for this bucket alone."""
        return {self.url: options(endpoint or self.server)}

    def stores(self, endpoint: str = "", patience: Patience | None = None) -> Stores:
        made = Stores.of(self.options(endpoint))
        return made if patience is None else Stores(options=made.options, patience=patience)

    def put(self, key: str, body: bytes = b"") -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=body)

    def put_table(self, key: str, table: pa.Table, **how: Any) -> str:
        """Write Parquet; its URL."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, **how)
        self.put(key, sink.getvalue().to_pybytes())
        return f"{self.url}/{key}"

    def get(self, key: str, **conditions: str) -> bytes:
        found: bytes = self.client.get_object(Bucket=self.name, Key=key, **conditions)[
            "Body"
        ].read()
        return found

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)

    def keys(self, prefix: str = "") -> list[str]:
        return sorted(self.listing(prefix))

    def listing(self, prefix: str = "") -> dict[str, str]:
        """ETags by key, as one listing has them."""
        found = self.client.list_objects_v2(Bucket=self.name, Prefix=prefix)
        return {one["Key"]: one["ETag"] for one in found.get("Contents", [])}

    def table(self, key: str) -> pa.Table:
        return pq.read_table(pa.BufferReader(self.get(key)))

    def manifest(self, prefix: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get(f"{prefix}/_manifest.json"))
        return found


def options(endpoint: str) -> dict[str, SecretStr]:
    """How a server is reached, with what must never be seen."""
    plain = {
        "endpoint": endpoint,
        "access_key_id": KEY_ID,
        "secret_access_key": SECRET,
        "region": "us-east-1",
    }
    return {name: SecretStr(value) for name, value in plain.items()}


@contextmanager
def store_server() -> Iterator[str]:
    """The address of a server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def new_bucket(server: str) -> Bucket:
    """An empty bucket that no other test uses."""
    client = boto3.client(
        "s3",
        endpoint_url=server,
        aws_access_key_id="reader",
        aws_secret_access_key="reader",
        region_name="us-east-1",
    )
    name = f"bucket-{next(_numbers)}"
    client.create_bucket(Bucket=name)
    return Bucket(server, name, client)
