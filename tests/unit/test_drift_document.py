"""Profiles written by any release since the first are read; chunks leave their frames out."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from scoring.drift.profile.frame import frames_for
from scoring.drift.profile.profile import Profile, Profiler, reference_from

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
