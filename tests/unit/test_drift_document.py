"""Profiles written by any release since the first are read; chunks leave their frames out."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.drift.profile.columns import CategoryProfile
from scoring.drift.profile.frame import ColumnFrame, frames_for
from scoring.drift.profile.profile import Profile, Profiler, reference_from
from scoring.drift.report import compare
from scoring.job import Drift

COLUMNS = [
    ("c", "feature", pa.string()),
    ("note", "feature", pa.string()),
    ("x", "feature", pa.float64()),
    ("p", "output", pa.float64()),
]
FIRST = """{"version":1,"columns":[
{"name":"c","role":"feature","kind":"category","rows":4,"nulls":1,"bins":["a","b"],
 "counts":[2,1],"categories":["a","b"],"other":0},
{"name":"x","role":"feature","kind":"number","rows":4,"nulls":1,"bins":[1,2],"counts":[1,1],
 "unit":"plain","edges":[1.0,2.0,"inf"],"origin":0.0,"nans":0,"infinities":[0,1],
 "moments":{"count":2,"mean":1.75,"m2":1.125,"minimum":1.0,"maximum":2.5}},
{"name":"p","role":"output","kind":"number","rows":4,"nulls":0,"bins":[48588,48998],
 "counts":[3,1],"unit":"plain","edges":null,"origin":0.0,"nans":0,"infinities":[0,0],
 "moments":{"count":4,"mean":0.475,"m2":0.3275,"minimum":0.1,"maximum":0.9}}],"skipped":["s"]}"""
"""As the first release wrote it."""


def batch(rows: int, seed: int) -> dict[str, pa.Array]:
    rng = np.random.default_rng(seed)
    return {
        "c": pa.array(rng.choice(["AA", "DL"], rows)),
        "note": pa.array([f"note {i}" for i in rng.integers(0, 1 << 40, rows)]),
        "x": pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.1),
        "p": pa.array(rng.random(rows)),
    }


def profile(reference: Profile | None, rows: int, seed: int, columns=COLUMNS) -> Profile:
    profiler = Profiler(frames_for(reference, columns, {"x": -9.0}))
    found = batch(rows, seed)
    profiler.add({name: found[name] for name, _, _ in columns})
    return profiler.profile()


@pytest.fixture(scope="module")
def reference() -> Profile:
    return reference_from(lambda: [batch(5_000, 0)], COLUMNS)


def test_a_profile_of_the_first_version_is_read_and_frames_a_run():
    first = Profile.from_json(FIRST)

    assert first.column("x", "feature").frame.edges == (1.0, 2.0, float("inf"))
    assert first.column("c", "feature").counts == {"a": 2, "b": 1}
    assert first.column("p", "output").frame.aspect == ""
    assert first.skipped == ("s",)
    frames = {frame.name: frame for frame in frames_for(first, COLUMNS, {})}
    assert frames["c"].categories == ("a", "b")
    assert {"c[length]", "x[decision]"}.isdisjoint(frames)
    assert frames["p[decision]"].categories is None  # the range it knows is that of a probability


def test_a_profile_of_the_first_version_is_the_same_when_written_anew():
    first = Profile.from_json(FIRST)

    assert Profile.from_json(first.to_json()) == first
    assert json.loads(first.to_json())["version"] == 2


def test_chunks_leave_out_the_reference_s_frames_and_get_them_back(reference):
    chunks = [profile(reference, rows, seed) for seed, rows in enumerate((900, 0, 300))]
    written = [chunk.to_json(reference) for chunk in chunks]

    merged = Profile.from_chunks(written, reference)

    assert merged == Profile.merged(chunks)
    assert Profile.from_chunks(reversed(written), reference) == merged
    assert '"edges"' not in written[0]
    assert len(written[0]) < 0.6 * len(chunks[0].to_json())


def test_chunks_that_hold_their_frames_are_read_with_or_without_a_reference(reference):
    chunks = [profile(reference, 300, 1), profile(reference, 200, 2)]
    mixed = [chunks[0].to_json(), chunks[1].to_json(reference)]
    openly = [profile(None, 300, 1), profile(None, 200, 2)]

    assert Profile.from_chunks(mixed, reference) == Profile.merged(chunks)
    assert Profile.from_chunks([c.to_json(None) for c in openly], None) == Profile.merged(openly)
    assert Profile.from_chunks([], reference) == Profile()


def test_a_column_that_the_reference_lacks_keeps_its_frame_in_a_chunk(reference):
    known = [column for column in COLUMNS if column[0] != "x"]
    smaller = reference_from(lambda: [batch(500, 0)], known)
    chunk = profile(smaller, 300, 1)

    read = Profile.from_chunks([chunk.to_json(smaller)], smaller)

    assert read == Profile.merged([chunk])
    assert read.column("x", "feature").frame.origin == -9.0


def test_a_chunk_is_not_read_with_another_reference_than_it_was_counted_by(reference):
    written = profile(reference, 300, 1).to_json(reference)
    other = reference_from(lambda: [batch(5_000, 7)], COLUMNS)

    with pytest.raises(ValueError, match=f"bins of reference {reference.framed_by}"):
        Profile.from_chunks([written], other)
    with pytest.raises(ValueError, match=f"bins of reference {reference.framed_by}"):
        Profile.from_json(written)


def test_a_run_that_is_under_way_while_workers_are_replaced_adds_up():
    """The first release named the commonest texts, and counted chunks by these names."""
    names = tuple(f"note {i}" for i in range(3))
    named = ColumnFrame(name="note", role="feature", kind="category", categories=names)
    frozen = Profile(
        columns=(CategoryProfile(frame=named, rows=9, counts=dict.fromkeys(names, 1), other=6),)
    )
    counted = CategoryProfile(frame=named, rows=4, counts={names[0]: 3, "new": 1})
    old_chunk = json.loads(Profile(columns=(counted,)).to_json())
    old_chunk["version"] = 1
    for column in old_chunk["columns"]:
        del column["aspect"], column["free_text"]

    new_chunk = profile(frozen, 5, 1, [("note", "feature", pa.string())])
    written = [json.dumps(old_chunk), new_chunk.to_json(frozen)]
    merged = Profile.from_chunks(written, frozen)

    column = merged.column("note", "feature")
    assert (column.frame, column.rows, column.counts[names[0]]) == (named, 9, 3)
    report = compare(frozen, merged, Drift())
    assert next(c for c in report.columns if c.name == "note").psi is not None
    assert frozen.as_reference().column("note", "feature").frame.free_text


def broken(**changes: object) -> str:
    """The first release's profile with one number column whose document is changed so."""
    document = json.loads(FIRST)
    number = document["columns"][1]
    moments = {key[8:]: changes.pop(key) for key in list(changes) if key.startswith("moments_")}
    number["moments"] |= moments
    document["columns"][1] = number | changes
    return json.dumps(document)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"bins": [1, 4]}, "not all whole numbers from 0 to 3"),
        ({"bins": [-1, 2]}, "not all whole numbers from 0 to 3"),
        ({"bins": [1.0, 2]}, "not all whole numbers from 0 to 3"),
        ({"bins": [1, 1]}, "2 bins, 1 of them different, have 2 counts"),
        ({"bins": [1]}, "1 bins, 1 of them different, have 2 counts"),
        ({"bins": 3}, "not all whole numbers from 0 to 3"),
        ({"counts": [3, -1]}, "counts are not all whole numbers from 0"),
        ({"counts": [0.5, 1.5]}, "counts are not all whole numbers from 0"),
        ({"counts": [True, 1]}, "counts are not all whole numbers from 0"),
        ({"rows": 5}, "has 5 rows, but counts 4"),
        ({"nulls": -1, "rows": 2}, "counts are not all whole numbers from 0"),
        ({"counts": [2**53, 1], "rows": 2**53 + 3}, "counts more than"),
        ({"infinities": []}, "not enough values"),
        ({"infinities": [0, 1, 0]}, "too many values"),
        ({"moments": None}, "2 finite values, but no moments"),
        ({"moments_count": 3}, "those of 3 values, not of 2"),
        ({"moments_mean": "nan"}, "no moments of finite numbers"),
        ({"moments_m2": -1.0}, "no moments of finite numbers"),
        ({"moments_minimum": 9.0}, "no moments of finite numbers"),
        ({"edges": [2.0, 1.0, 3.0]}, "edges must ascend"),
        ({"edges": ["nan"], "bins": [0, 1]}, "an edge or the origin is no number"),
        ({"origin": "inf"}, "an edge or the origin is no number"),
        ({"kind": "colour"}, "'colour' is none of number, category"),
        ({"role": "label"}, "'label' is none of feature, output"),
        ({"unit": "miles"}, "'miles' is none of plain, days, seconds"),
        ({"name": 7}, "a name is no text"),
        ({"name": "\ud800"}, "surrogates not allowed"),
        ({"name": "p", "role": "output"}, "column 'p' is in it twice"),
        ({"nans": None}, "counts are not all whole numbers from 0"),
        ({"rows": None}, "counts are not all whole numbers from 0"),
        ({"edges": [10**400]}, "OverflowError"),
        ({"edges": 1}, "TypeError"),
    ],
)
def test_a_profile_that_does_not_add_up_is_refused_where_it_is_read(changes, why):
    with pytest.raises(ValueError, match=r"this is no profile \(.*" + why):
        Profile.from_json(broken(**changes))


@settings(deadline=None)  # scipy is loaded at its first use
@given(st.data())
def test_whatever_is_wrong_with_a_profile_is_said_as_one_error(data):
    document = json.loads(FIRST)
    column = data.draw(st.sampled_from(document["columns"]))
    key = data.draw(st.sampled_from(sorted(column)))
    anything = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=3),
        st.just([]),
        st.just({}),
        st.lists(st.integers(-1, 5), max_size=3),
    )
    column[key] = data.draw(anything)

    try:
        found = Profile.from_json(json.dumps(document))
        reference = found.as_reference()
    except ValueError:
        return

    assert Profile.merged([reference, reference]).rows == 2 * found.rows
    frames_for(reference, COLUMNS, {})
    compare(reference, reference, Drift())
