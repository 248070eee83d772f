"""The report ranks what moved, says what was not measured, and is a harmless page."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from scoring.drift.frame import frames_for
from scoring.drift.profile import Profile, Profiler, reference_from
from scoring.drift.report import compare, render_html

TIERS = {"small": 0.1, "moderate": 0.15, "severe": 0.25}
COLUMNS = [
    ("still", "feature", pa.float64()),
    ("moved", "feature", pa.float64()),
    ("flag", "feature", pa.bool_()),
    ("score", "output", pa.float32()),
]
IDENTITY = {"job": "flights-delay", "run": "r1", "model_version": 7, "rows_in": 20_010}


def rows(seed: int, shift: float) -> dict[str, pa.Array]:
    rng = np.random.default_rng(seed)
    return {
        "still": pa.array(rng.normal(size=20_000)),
        "moved": pa.array(rng.normal(shift, size=20_000), mask=rng.random(20_000) < 0.25),
        "flag": pa.array(rng.random(20_000) < 0.3),
        "score": pa.array(rng.random(20_000), pa.float32()),
    }


def profile(reference: Profile | None, batch: dict[str, pa.Array], columns=COLUMNS) -> Profile:
    profiler = Profiler(frames_for(reference, columns, {}))
    profiler.add(batch)
    return profiler.profile()


@pytest.fixture(scope="module")
def reference() -> Profile:
    return reference_from(lambda: [rows(0, 0.0)], COLUMNS)


class Tags(HTMLParser):
    """The tags of a page and what it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loads: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href")]


def test_columns_are_ranked_by_psi_and_the_worst_decides(reference):
    report = compare(reference, profile(reference, rows(1, 2.0)), **TIERS)

    assert (report.severity, report.worst) == ("severe", "moved")
    assert report.columns[0].name == "moved"
    assert report.psi == report.columns[0].psi == max(c.psi for c in report.columns)
    assert report.verdict.startswith("Severe drift: 1 of 4 columns moved, most of all moved (PSI ")
    assert {c.severity for c in report.columns[1:]} == {"none"}


def test_outputs_come_first_where_psi_is_the_same(reference):
    report = compare(reference, profile(reference, rows(0, 0.0)), **TIERS)

    assert [c.psi for c in report.columns] == [0.0] * 4
    assert [c.name for c in report.columns] == ["score", "flag", "moved", "still"]
    assert report.severity == "none"
    assert report.verdict.startswith("No drift: all 4 columns lie below PSI 0.1")


def test_a_column_shows_both_sides_and_shares_that_add_up(reference):
    current = profile(reference, rows(1, 2.0))
    moved = compare(reference, current, **TIERS).columns[0]

    assert moved.current.mean == pytest.approx(2.0, abs=0.05)
    assert moved.reference.mean == pytest.approx(0.0, abs=0.05)
    assert moved.current.null_share == pytest.approx(0.25, abs=0.02)
    assert moved.current.rows == moved.reference.rows == 20_000
    assert sum(bin.reference for bin in moved.bins) == pytest.approx(1.0)
    assert sum(bin.current for bin in moved.bins) == pytest.approx(1.0)


def test_without_a_reference_the_report_says_so_and_how_to_make_one():
    report = compare(None, profile(None, rows(1, 2.0)), **TIERS)

    assert (report.reference, report.severity, report.psi, report.worst) == (
        None,
        "none",
        None,
        None,
    )
    assert "scoring models profile MODEL --from-run RUN" in report.verdict
    assert "--from train.parquet" in report.verdict
    assert report.columns[0].current.mean is not None
    assert "has no reference profile" in render_html(report, IDENTITY)


def test_a_run_s_own_profile_serves_as_the_next_reference():
    first = profile(None, rows(0, 0.0))
    same, moved = (profile(first, rows(seed, s)) for seed, s in ((1, 0.0), (1, 2.0)))

    assert compare(first, same, **TIERS).severity == "none"
    assert compare(first, moved, **TIERS).worst == "moved"


def test_a_column_that_cannot_be_compared_says_why_and_does_not_alarm(reference):
    columns = [("still", "feature", pa.string()), ("fresh", "feature", pa.int64())]
    batch = {"still": pa.array(["a"]), "fresh": pa.array([1])}

    report = compare(reference, profile(reference, batch, columns), **TIERS)

    notes = {c.name: c.note for c in report.columns}
    assert notes == {
        "still": "the reference has this column in other bins or as another type",
        "fresh": "the reference does not have this column",
    }
    assert (report.severity, report.psi) == ("none", None)


def test_a_run_without_rows_is_reported(reference):
    report = compare(reference, profile(reference, {}), **TIERS)

    assert (report.severity, report.rows) == ("none", 0)
    assert "not measured" in report.verdict
    render_html(report, IDENTITY)


def test_the_document_is_strict_json_with_the_run_s_identity(reference):
    batch = rows(1, 2.0) | {"still": pa.array([1e300, -1e300, math.inf, math.nan])}
    report = compare(reference, profile(reference, batch), **TIERS)

    document = json.loads(json.dumps(report.to_dict(IDENTITY), allow_nan=False))

    assert document["run"] == "r1"
    assert document["severity"] == "severe"
    assert document["thresholds"] == TIERS
    still = next(c for c in document["columns"] if c["name"] == "still")
    assert still["current"]["sd"] is None  # beyond float64
    assert still["bins"][0].keys() == {"label", "reference", "current"}


def test_names_and_values_cannot_become_markup():
    evil = "<script>alert(1)</script>"
    columns = [(evil, "output", pa.string()), ("'\"><img src=x>", "feature", pa.list_(pa.int8()))]
    batch = {
        evil: pa.array(["</title><img src=x onerror=alert(2)>", "b"]),
        "'\"><img src=x>": pa.array([[1], [2]], pa.list_(pa.int8())),
    }
    reference = reference_from(lambda: [batch], columns)

    page = render_html(
        compare(reference, profile(reference, batch, columns), **TIERS), {"job": evil}
    )

    assert not Tags(page).tags & {"script", "img"}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_page_stands_alone_and_draws_each_column(reference):
    report = compare(reference, profile(reference, rows(1, 2.0)), **TIERS)

    page = render_html(report, IDENTITY | {"slot": None})

    assert Tags(page).loads == []
    assert "http" not in page
    assert page.count("<svg") == 4
    assert report.verdict in page
    assert "20,010" in page
    assert "slot" not in {line.strip() for line in page.splitlines()}
    assert "<dt>slot</dt>" not in page


def test_columns_that_were_not_profiled_are_named(reference):
    columns = [("tags", "feature", pa.list_(pa.string()))]
    batch = {"tags": pa.array([["a"]])}

    report = compare(reference, profile(reference, batch, columns), **TIERS)

    assert report.skipped == ("tags",)
    assert "tags" in render_html(report, IDENTITY)
