"""Places in stores as text, and that no job leaves the roots by one."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring import Job, urls
from scoring.errors import JobError, PathOutsideRoots, StoreUnsupported, UrlInvalid
from scoring.runs.places import Occasion, Places, check_within, on_date, places
from scoring.settings import Settings

NAME = st.text(st.characters(exclude_characters="/", exclude_categories=["C", "Z"]), min_size=1)


def placed(
    read: str, written: str, roots: tuple[str, ...] = (), occasion: Occasion | None = None
) -> Places:
    job = Job(
        name="flights", model="models:/m@production", input={"path": read}, output={"path": written}
    )
    when = occasion or on_date("2024-05-01")
    return places(job, "flights-r1", when, artifacts=Path("/artifacts"), roots=roots)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("s3://b", ("s3", "b")),
        ("s3://b/", ("s3", "b")),
        ("s3://b/a/c.parquet", ("s3", "b", "a", "c.parquet")),
        ("gs://b/date=2024-05-01/", ("gs", "b", "date=2024-05-01")),
        ("az://b/city=a%2Fb", ("az", "b", "city=a%2Fb")),
        ("s3://b/a..b/...", ("s3", "b", "a..b", "...")),
        ("s3://b/ü 数?#*[x]", ("s3", "b", "ü 数?#*[x]")),
    ],
)
def test_a_url_is_scheme_bucket_and_segments(url: str, found: tuple[str, ...]) -> None:
    assert urls.parts(url) == found


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///a",
        "s3://../a",
        "s3://user:secret@b/a",
        "s3://b/../c",
        "s3://b/a/..",
        "s3://b/./c",
        "s3://b//c",
        "s3://b/a//",
        "s3://b/%2e%2e/c",
        "s3://b/%252e%252e/c",
        "s3://b/..%2fc",
        "s3://b/a%2F..%2F..%2Fc",
        "s3://b/%2F",
        "s3://b/a\nb",
        "s3://b/a\0b",
    ],
)
def test_a_url_that_could_mean_two_places_is_refused(url: str) -> None:
    with pytest.raises(UrlInvalid) as caught:
        urls.parts(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://user:secret@host/x", "hdfs://user:secret@host/x", "S3://b/x", "ftp://h"]
)
def test_another_kind_of_store_is_refused_without_its_login(url: str) -> None:
    with pytest.raises(StoreUnsupported) as caught:
        urls.parts(url)
    assert "secret" not in str(caught.value)


@settings(max_examples=50)
@given(st.lists(NAME, max_size=4))
def test_what_parts_lets_through_is_written_in_one_way(names: list[str]) -> None:
    url = urls.join("s3://bucket", *names)
    try:
        found = urls.parts(url)
    except UrlInvalid:
        return
    assert found == ("s3", "bucket", *names)
    assert urls.is_below(url, "s3://bucket")


@given(st.lists(st.sampled_from(["a", "b", "..", ".", "", "root", "%2e%2e", "a%2f.."]), max_size=5))
def test_nothing_below_a_root_is_outside_it_however_it_is_read(names: list[str]) -> None:
    url = "/".join(["s3://bucket/root", *names])
    try:
        below = urls.is_below(url, "s3://bucket/root")
    except UrlInvalid:
        return
    assert below
    assert ".." not in names


@pytest.mark.parametrize(
    "path",
    [
        "s3://b/other/x",
        "s3://b/rooted/x",
        "s3://b",
        "s3://c/root/x",
        "gs://b/root/x",
        "/b/root/x",
        "root/x",
    ],
)
def test_a_place_outside_the_roots_is_refused(path: str) -> None:
    roots = ("s3://b/root", "/srv/data")

    check_within("s3://b/root/x", "input.path", roots)
    with pytest.raises(PathOutsideRoots, match="outside the places that jobs may read and write"):
        check_within(path, "input.path", roots)


@pytest.mark.parametrize("key", ["input", "output"])
@pytest.mark.parametrize(
    "path", ["s3://b/out/{date}", "s3://b/root/../{date}", "s3://b/root/%2e%2e/{date}"]
)
def test_a_job_cannot_leave_the_roots_in_a_store(key: str, path: str) -> None:
    inside = "s3://b/root/x/{date}"
    read, written = (path, inside) if key == "input" else (inside, path)

    with pytest.raises((PathOutsideRoots, UrlInvalid), match=f"{key}.path is s3://b"):
        placed(read, written, roots=("s3://b/root",))


def test_what_a_template_makes_is_checked_and_not_the_template() -> None:
    """The value of a placeholder is a segment or a part of one, and is looked at as such."""
    sneaky = Occasion(date=None, slot="..")

    with pytest.raises(UrlInvalid, match="cannot be a part of its path"):
        placed("s3://b/root/{slot}/x", "s3://b/root/y", ("s3://b/root",), sneaky)
    with pytest.raises(UrlInvalid):
        placed(
            "s3://b/root/x",
            "s3://b/root/{slot}/y",
            ("s3://b/root",),
            Occasion(slot=quote("../..", safe="")),
        )


def test_the_places_of_a_run_in_a_store() -> None:
    found = placed("s3://b/in/date={date}/*.parquet", "s3://b/scores/{job}/date={date}/")

    assert found.input == "s3://b/in/date=2024-05-01/*.parquet"
    assert found.output == "s3://b/scores/flights/date=2024-05-01"
    assert found.staging == "s3://b/.nightscore/flights-r1"


def test_roots_may_be_folders_and_urls(tmp_path: Path) -> None:
    found = Settings(data_roots=f"{tmp_path}:s3://b/root/:gs://c")  # type: ignore[arg-type]

    assert found.data_roots == (str(tmp_path), "s3://b/root", "gs://c")


def test_a_root_that_is_no_place_is_refused() -> None:
    with pytest.raises(Exception, match="SCORING_DATA_ROOTS"):
        Settings(data_roots="s3://b/../c")  # type: ignore[arg-type]


def test_the_narrowest_root_that_holds_a_place_counts() -> None:
    roots = ("s3://", "s3://b", "s3://b/deep", "gs://b")

    assert urls.longest_root("s3://b/deep/x", roots) == "s3://b/deep"
    assert urls.longest_root("s3://b/deeper", roots) == "s3://b"
    assert urls.longest_root("s3://c", roots) == "s3://"
    assert urls.longest_root("az://b", roots) is None


def test_errors_of_places_are_faults_of_the_job() -> None:
    assert issubclass(UrlInvalid, JobError)
    assert issubclass(StoreUnsupported, JobError)
