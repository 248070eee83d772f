"""The stores' client against a real server: what each word means, and how faults are told."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError

from scoring.data.stores import PART_BYTES, Patience, Stores
from scoring.errors import ScoringError, StoreRefused, StoreUnreachable
from scoring.settings import Settings
from tests.chaos.proxy import Proxy
from tests.stores import IMPATIENT, KEY_ID, SECRET, Bucket
from tests.unit.test_source import TABLE

NAMES = [
    "plain.parquet",
    "with space/and+plus&more=x",
    "ünï/数据",
    "100%/[x]/q?*#",
    "city=a%2Fb",
    "~tilde'quote\"",
    "date=2024-05-01/part",
]


@pytest.fixture
def stores(bucket: Bucket) -> Stores:
    return bucket.stores()


@pytest.mark.parametrize("name", NAMES)
def test_any_name_means_the_object_of_exactly_that_name(
    stores: Stores, bucket: Bucket, name: str
) -> None:
    url = f"{bucket.url}/in/{name}"

    stores.put(url, b"content")
    stores.copy(url, f"{url}.copy")

    assert bucket.keys() == [f"in/{name}", f"in/{name}.copy"]
    assert stores.read_bytes(url) == b"content"
    assert stores.exists(url)
    assert [entry.url for entry in stores.find(f"{bucket.url}/in")] == [url, f"{url}.copy"]
    stores.delete([url, f"{url}.copy"])
    assert bucket.keys() == []


def test_what_is_found_has_the_size_and_etag_that_others_see(
    stores: Stores, bucket: Bucket
) -> None:
    bucket.put("a/b", b"12345")

    (found,) = stores.find(bucket.url)

    assert (found.url, found.size) == (f"{bucket.url}/a/b", 5)
    assert found.stamp == bucket.listing()["a/b"]
    assert stores.head(found.url) == found


def test_a_prefix_ends_at_a_segment(stores: Stores, bucket: Bucket) -> None:
    for key in ("in/1", "in/deep/2", "input/3", "in.parquet", "in"):
        bucket.put(key, b"x")

    below = [entry.url.removeprefix(f"{bucket.url}/") for entry in stores.find(f"{bucket.url}/in")]

    assert below == ["in/1", "in/deep/2"]
    assert stores.names(f"{bucket.url}/in") == ["1", "deep"]
    assert stores.names(bucket.url) == ["in", "in.parquet", "input"]


def test_what_stands_for_an_empty_folder_is_nothing(stores: Stores, bucket: Bucket) -> None:
    bucket.put("in/", b"")

    assert stores.find(f"{bucket.url}/in") == []
    assert stores.names(f"{bucket.url}/in") == []


# Writing


def test_only_one_of_several_puts_where_nothing_is(stores: Stores, bucket: Bucket) -> None:
    url = f"{bucket.url}/claim"

    assert stores.put(url, b"mine", only_if_absent=True)
    assert not stores.put(url, b"theirs", only_if_absent=True)

    assert bucket.get("claim") == b"mine"
    assert stores.put(url, b"mine", only_if_absent=True), "as if the first answer had been lost"


def test_only_one_of_several_replaces_a_version(stores: Stores, bucket: Bucket) -> None:
    url = f"{bucket.url}/claim"
    stores.put(url, b"dead")
    _, stamp = stores.read_version(url)

    assert stores.replace(url, b"one", stamp)
    assert not stores.replace(url, b"two", stamp)
    bucket.delete("claim")
    assert not stores.replace(url, b"three", stamp)

    assert bucket.keys() == []


def test_a_large_file_is_sent_in_pieces_and_is_there_whole(
    stores: Stores, bucket: Bucket, tmp_path: Path
) -> None:
    path = tmp_path / "part"
    path.write_bytes(bytes(range(256)) * (2 * PART_BYTES // 256) + b"end")

    stores.put(f"{bucket.url}/part", path)

    assert bucket.get("part") == path.read_bytes()


def test_an_upload_that_is_cut_off_leaves_no_half_object(
    bucket: Bucket, tmp_path: Path, proxied: Proxy
) -> None:
    path = tmp_path / "part"
    path.write_bytes(b"x" * (3 * PART_BYTES))
    bucket.put("part", b"earlier")
    proxied.mode = "drip"
    quick = Patience(connect=0.2, request=0.5, retries=0, retrying=0.5)
    stores = bucket.stores(f"http://127.0.0.1:{proxied.port}", quick)

    with pytest.raises(StoreUnreachable):
        stores.put(f"{bucket.url}/part", path)

    assert bucket.get("part") == b"earlier"


def test_what_is_gone_already_may_be_deleted(stores: Stores, bucket: Bucket) -> None:
    bucket.put("there")

    stores.delete([])
    stores.delete([f"{bucket.url}/gone", f"{bucket.url}/there"])

    assert bucket.keys() == []


# Reading


def test_a_reader_is_a_file_for_parquet(stores: Stores, bucket: Bucket) -> None:
    url = bucket.put_table("t.parquet", TABLE, row_group_size=3)

    with pq.ParquetFile(stores.reader(url), buffer_size=16, pre_buffer=False) as file:
        assert file.read() == TABLE
    assert stores.reader(url).read() == bucket.get("t.parquet")


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_an_object_that_changes_while_it_is_read_is_never_mixed(
    stores: Stores, bucket: Bucket, change: str
) -> None:
    bucket.put("big", b"a" * 3_000_000)
    reader = stores.reader(f"{bucket.url}/big")
    assert reader.read(10) == b"a" * 10

    if change == "replaced":
        bucket.put("big", b"b" * 3_000_000)
    else:
        bucket.delete("big")

    with pytest.raises(OSError, match=r"replaced while it was read|no such object"):
        reader.read()


# Faults


@pytest.fixture
def proxied(bucket: Bucket) -> Iterator[Proxy]:
    """A proxy before the server."""
    host, _, port = bucket.server.removeprefix("http://").partition(":")
    proxy = Proxy((host, int(port)))
    yield proxy
    proxy.close()


CALLS: dict[str, Callable[[Stores, str], object]] = {
    "head": lambda stores, url: stores.head(url),
    "find": lambda stores, url: stores.find(url),
    "names": lambda stores, url: stores.names(url),
    "read": lambda stores, url: stores.read_bytes(url),
    "put": lambda stores, url: stores.put(url, b"x"),
    "copy": lambda stores, url: stores.copy(url, f"{url}2"),
    "delete": lambda stores, url: stores.delete([url]),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("mode", ["silent", "refuse"])
def test_a_store_that_does_not_answer_is_given_up_and_told(
    bucket: Bucket, proxied: Proxy, mode: str, call: str
) -> None:
    bucket.put("in/1", b"x")
    proxied.mode = mode  # type: ignore[assignment]
    quick = Patience(connect=0.2, request=0.2, retries=1, retrying=0.5)
    stores = bucket.stores(f"http://127.0.0.1:{proxied.port}", quick)

    with pytest.raises(StoreUnreachable, match="the attempt is made again"):
        CALLS[call](stores, f"{bucket.url}/in/1")


def test_a_store_that_is_away_for_a_moment_is_asked_again(bucket: Bucket, proxied: Proxy) -> None:
    bucket.put("in/1", b"x")
    stores = bucket.stores(f"http://127.0.0.1:{proxied.port}")
    stores.head(f"{bucket.url}/in/1")

    proxied.cut()

    assert stores.read_bytes(f"{bucket.url}/in/1") == b"x"


def test_a_missing_object_is_missing_as_a_file_is(stores: Stores, bucket: Bucket) -> None:
    for call in ("head", "read", "copy"):
        with pytest.raises(FileNotFoundError):
            CALLS[call](stores, f"{bucket.url}/none")
    assert not stores.exists(f"{bucket.url}/none")
    assert stores.find(f"{bucket.url}/none") == []


@pytest.mark.parametrize("call", ["find", "names", "read", "put", "copy"])
def test_a_missing_bucket_is_not_a_missing_object(bucket: Bucket, call: str) -> None:
    options = {"s3://": next(iter(bucket.options().values()))}

    with pytest.raises(StoreRefused, match="there is no such bucket"):
        CALLS[call](Stores.of(options), "s3://no-such-bucket/in/1")


def test_without_options_the_environment_says_how_a_store_is_reached(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.server)
    settings = Settings()
    stores = Stores.of(settings.storage_options, settings.s3_endpoint)

    stores.put(f"{bucket.url}/x", b"1")

    assert bucket.keys() == ["x"]
    assert bucket.server not in repr(settings)


def test_an_option_that_nobody_knows_is_refused_without_its_value(bucket: Bucket) -> None:
    options = bucket.options()
    options[bucket.url]["acces_key_id"] = options[bucket.url]["access_key_id"]

    with pytest.raises(StoreRefused, match="SCORING_STORAGE_OPTIONS is not known") as caught:
        Stores.of(options).head(f"{bucket.url}/x")
    assert KEY_ID not in str(caught.value)


def test_secrets_are_shown_to_nobody(
    bucket: Bucket, proxied: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxied.mode = "refuse"
    stores = bucket.stores(f"http://127.0.0.1:{proxied.port}", IMPATIENT)
    said = [repr(stores), str(stores), repr(bucket.options())]

    with caplog.at_level(logging.DEBUG):
        for call in CALLS.values():
            with pytest.raises(ScoringError) as caught:
                call(stores, f"{bucket.url}/in")
            said += [str(caught.value), repr(caught.value), json.dumps(caught.value.args)]

    told = "\n".join([*said, caplog.text])
    assert KEY_ID not in told
    assert SECRET not in told


def test_others_cannot_read_what_was_never_written(bucket: Bucket) -> None:
    """That the test's own view of the bucket would see a half object."""
    with pytest.raises(ClientError):
        bucket.get("nothing")
