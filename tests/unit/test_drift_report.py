"""The report ranks what moved and says what was not measured."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pytest

from scoring.drift import report as drift_report
from scoring.drift.profile.frame import frames_for
from scoring.drift.profile.profile import Profile, Profiler, reference_from
from scoring.drift.report import ColumnDrift, DriftReport
from scoring.job import Drift

COLUMNS = [
    ("still", "feature", pa.float64()),
    ("moved", "feature", pa.float64()),
    ("flag", "feature", pa.bool_()),
    ("score", "output", pa.float32()),
]


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
    return profiler.profile().settled()


@pytest.fixture(scope="module")
def reference() -> Profile:
    return reference_from(lambda: [rows(0, 0.0)], COLUMNS)


def compare(before: Profile | None, current: Profile, **drift) -> DriftReport:
    return drift_report.compare(before, current, Drift(**drift))


def named(report: DriftReport, name: str) -> ColumnDrift:
    return next(column for column in report.columns if column.name == name)


def test_outputs_come_first_and_what_moved_most_leads_the_features(reference):
    report = compare(reference, profile(reference, rows(1, 2.0)))

    assert [(c.role, c.name) for c in report.columns] == [
        ("output", "score"),
        ("output", "score[decision]"),
        ("feature", "moved"),
        ("feature", "still"),
        ("feature", "flag"),
    ]
    assert (report.severity, report.worst) == ("severe", "moved")
    assert report.psi == report.score == named(report, "moved").psi
    assert {c.severity for c in report.columns if c.name != "moved"} == {"none"}


def test_the_verdict_says_how_far_what_moved_most_and_whether_the_scores_moved(reference):
    moved = compare(reference, profile(reference, rows(1, 2.0)))
    both = {**rows(1, 2.0), "score": pa.array(np.full(20_000, 0.9), pa.float32())}

    assert moved.verdict.startswith("Severe drift: 1 of 5 columns moved, most of all moved (PSI ")
    assert moved.verdict.endswith("; the scores did not.")
    assert "the scores moved too, score" in compare(
        reference, profile(reference, both), weights={"score": 0.1}
    ).verdict.replace("score[decision]", "score")


def test_the_same_rows_have_not_moved(reference):
    report = compare(reference, profile(reference, rows(0, 0.0)))

    assert {c.psi for c in report.columns} == {0.0}
    assert (report.severity, report.score) == ("none", 0.0)
    assert report.verdict.startswith("No drift: none of 5 columns moved as far as the first")


def test_a_column_without_weight_is_shown_and_does_not_decide(reference):
    report = compare(reference, profile(reference, rows(1, 2.0)), weights={"moved": 0})

    assert (named(report, "moved").severity, named(report, "moved").weight) == ("severe", 0.0)
    assert report.severity == "none"
    assert report.verdict.startswith("No drift: none of 4 columns")


def test_a_weight_makes_a_column_as_severe_as_its_scaled_value(reference):
    report = compare(reference, profile(reference, rows(1, 2.0)), weights={"moved": 0.01})
    plain = compare(reference, profile(reference, rows(1, 2.0)), weights={"still": 1e6})

    assert named(report, "moved").severity == report.severity == "none"
    assert (plain.severity, plain.worst) == ("severe", "still")
    assert named(plain, "still").severity == "severe"
    assert "still (PSI " in plain.verdict
    assert ", weight 1e+06)" in plain.verdict


def test_columns_that_have_no_weight_at_all_are_said_not_to_count(reference):
    names = ("still", "moved", "flag", "score")
    report = compare(reference, profile(reference, rows(1, 2.0)), weights=dict.fromkeys(names, 0.0))

    assert (report.severity, report.score) == ("none", None)
    assert report.verdict.endswith("does not count: every column has the weight 0.")


def test_the_weighted_mean_of_the_columns_can_be_the_run_s_figure(reference):
    worst = compare(reference, profile(reference, rows(1, 2.0)))
    mean = compare(reference, profile(reference, rows(1, 2.0)), summary="mean")

    assert mean.score == pytest.approx(sum(c.value for c in worst.columns) / 5)
    assert mean.worst == "moved"


def test_a_measure_that_the_job_names_leads_where_it_applies(reference):
    report = compare(reference, profile(reference, rows(1, 2.0)), measure="ks")

    assert named(report, "moved").measure == "ks"
    assert named(report, "moved").value == named(report, "moved").figures.ks
    assert named(report, "flag").measure == "psi"  # a category has no order


def test_new_and_vanished_categories_are_named_with_their_shares():
    columns = [("origin", "feature", pa.string())]
    reference = reference_from(lambda: [{"origin": pa.array(["JFK", "LGA"] * 50)}], columns)

    tonight = {"origin": pa.array(["JFK"] * 60 + ["EWR"] * 40)}
    origin = compare(reference, profile(reference, tonight, columns)).columns[0]

    assert [(one.name, one.share) for one in origin.new] == [("EWR", 0.4)]
    assert [(one.name, one.share) for one in origin.vanished] == [("LGA", 0.5)]


def test_a_column_shows_both_sides_and_shares_that_add_up(reference):
    current = profile(reference, rows(1, 2.0))
    moved = named(compare(reference, current), "moved")

    assert moved.current.mean == pytest.approx(2.0, abs=0.05)
    assert moved.reference.mean == pytest.approx(0.0, abs=0.05)
    assert moved.current.null_share == pytest.approx(0.25, abs=0.02)
    assert moved.current.rows == moved.reference.rows == 20_000
    assert sum(bin.reference for bin in moved.bins) == pytest.approx(1.0)
    assert sum(bin.current for bin in moved.bins) == pytest.approx(1.0)


def test_without_a_reference_the_report_says_so_and_how_to_make_one():
    report = compare(None, profile(None, rows(1, 2.0)))

    assert (report.reference, report.severity, report.psi, report.worst) == (
        None,
        "none",
        None,
        None,
    )
    assert "scoring models profile MODEL --from train.parquet" in report.verdict
    assert "--from-run RUN" in report.verdict
    assert report.columns[0].current.mean is not None


@pytest.mark.parametrize("kind", ["previous", "weekday"])
def test_without_an_earlier_run_the_report_says_that_there_was_none(kind):
    report = compare(None, profile(None, rows(1, 2.0)), reference=kind)

    assert "was published before" in report.verdict


def test_a_run_s_own_profile_serves_as_the_next_reference():
    first = profile(None, rows(0, 0.0))
    same, moved = (profile(first, rows(seed, s)) for seed, s in ((1, 0.0), (1, 2.0)))

    assert compare(first, same).severity == "none"
    assert compare(first, moved).worst == "moved"


def test_a_column_that_cannot_be_compared_says_why_and_does_not_alarm(reference):
    columns = [("still", "feature", pa.string()), ("fresh", "feature", pa.int64())]
    batch = {"still": pa.array(["a"]), "fresh": pa.array([1])}

    report = compare(reference, profile(reference, batch, columns))

    notes = {c.name: c.note for c in report.columns}
    assert notes == {
        "still": "the reference has this column in other bins or as another type",
        "fresh": "the reference does not have this column, or it has left the reference's bins",
    }
    assert (report.severity, report.psi) == ("none", None)


def test_a_run_without_rows_is_reported(reference):
    report = compare(reference, profile(reference, {}))

    assert (report.severity, report.psi, report.rows) == ("none", None, 0)
    assert report.verdict == "Drift was not measured: the run has no rows."


def test_the_document_is_strict_json_with_the_run_s_identity(reference):
    batch = rows(1, 2.0) | {"still": pa.array([1e300, -1e300, math.inf, math.nan])}
    report = compare(reference, profile(reference, batch))

    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))

    assert document["severity"] == "severe"
    assert document["thresholds"] == {"small": 0.1, "moderate": 0.15, "severe": 0.25}
    still = next(c for c in document["columns"] if c["name"] == "still")
    assert still["current"]["sd"] is None  # beyond float64
    assert still["bins"][0].keys() == {"label", "reference", "current"}


def test_columns_that_were_not_profiled_are_named(reference):
    columns = [("tags", "feature", pa.binary())]
    batch = {"tags": pa.array([b"a"])}

    report = compare(reference, profile(reference, batch, columns))

    assert report.skipped == ("tags",)
