"""What is derived from texts, lists, vectors and scores is right, and kept only where it tells."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.drift.performance.answers import Answers
from scoring.drift.performance.performance import measured
from scoring.drift.profile import text
from scoring.drift.profile.category_profile import FEW, NAMED, CategoryProfile
from scoring.drift.profile.elements import LONGEST_VECTOR, MOST_CLASSES
from scoring.drift.profile.frame import ColumnFrame, frames_for
from scoring.drift.profile.profile import Profile, Profiler, reference_from
from scoring.drift.profile.vectors import classes, decisions
from scoring.models import gate

SPACES = [chr(code) for code in range(0x3001) if chr(code).isspace()]
texts = st.text() | st.lists(
    st.sampled_from([*SPACES, "Ab", "ß", "日", "😀", "\u200b", "e\u0301", "\0"]), max_size=12
).map("".join)
STORY = ["The crew is late", "Gate changed to B12", "Snow on the runway", "日本語 の 案内"]


def profile(columns, batch, reference=None) -> Profile:
    profiler = Profiler(frames_for(reference, columns, {}))
    profiler.add(batch)
    return profiler.profile()


def names(found: Profile) -> list[str]:
    return [column.frame.name for column in found.columns]


def derived(array: pa.Array, aspect: text.TextAspect) -> list:
    return text.text_elements(text.readable_text(array), [aspect])[aspect].to_pylist()


def stories(rows: int, seed: int = 0) -> pa.Array:
    rng = np.random.default_rng(seed)
    return pa.array([f"{STORY[i % 4]} {rng.integers(1 << 60)}" for i in range(rows)])


@given(st.lists(st.none() | texts, max_size=20))
@pytest.mark.parametrize(
    "form",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_lengths_words_and_scripts_agree_with_python(form, rows):
    array = pa.array(rows, pa.string()).cast(form)
    known = [row for row in rows if row is not None]

    assert derived(array, "length") == [None if row is None else len(row) for row in rows]
    assert derived(array, "words") == [None if row is None else len(row.split()) for row in rows]
    assert len(derived(array, "tokens")) == sum(len(row.split()) for row in known)
    assert derived(array, "script") == [
        len(row.encode()) / len(row) if row else None for row in rows
    ]


@given(st.lists(texts, max_size=12), st.integers(0, 12))
def test_a_word_s_bucket_depends_on_nothing_but_the_word(rows, cut):
    array = pa.array(rows, pa.string())

    alone = [derived(pa.array([word]), "tokens") for row in rows for word in row.split()]

    assert derived(array, "tokens") == [bucket for found in alone for bucket in found]
    assert derived(array[cut:], "tokens") == derived(pa.array(rows[cut:], pa.string()), "tokens")


def test_words_are_hashed_without_regard_to_case_and_spread_over_the_buckets():
    words = pa.array([f"word{i}" for i in range(20_000)])
    found = derived(words, "tokens")

    assert derived(pa.array(["Größe STRASSE"]), "tokens") == derived(
        pa.array(["größe", "strasse"]), "tokens"
    )
    assert len(set(found)) == text.BUCKETS
    rows = np.unique(found, return_counts=True)[1]
    assert abs(rows - 20_000 / text.BUCKETS).max() < 6 * math.sqrt(20_000 / text.BUCKETS)


def test_texts_of_many_blocks_and_of_great_length_are_counted_as_short_ones_are():
    long = "wörd " * 300_000  # longer than what is hashed of one text
    rows = ["a b", long, None, "", *["the crew is late"] * 20_000]

    assert derived(pa.array(rows), "words") == [2, 300_000, None, 0, *[4] * 20_000]
    tokens = derived(pa.array(rows[-3:] + rows[:2]), "tokens")
    assert tokens[:12] == derived(pa.array(["the crew is late"] * 3), "tokens")
    assert len(set(tokens[14:-1])) == 1
    assert text._LONGEST // 7 < len(tokens) < 300_000


def test_bytes_that_are_no_text_are_replaced_and_do_not_stop_a_chunk():
    offsets = pa.array([0, 2, 5, 8], pa.int32()).buffers()[1]
    broken = pa.Array.from_buffers(
        pa.string(), 3, [None, offsets, pa.py_buffer(b"\xff\xfea b\xc3(d")]
    )
    columns = [("x", "feature", pa.string())]

    for form in (broken, broken.cast(pa.binary()).dictionary_encode()):
        if pa.types.is_dictionary(form.type):
            form = pa.DictionaryArray.from_arrays(form.indices, broken)
        found = profile(columns, {"x": form})
        assert found.column("x", "feature").counts == {"a b": 1, "\ufffd\ufffd": 1, "\ufffd(d": 1}
        assert found.column("x[length]", "feature").moments.mean == pytest.approx(8 / 3)


def test_text_is_profiled_by_length_words_script_and_word_hashes():
    columns = [("x", "feature", pa.string())]
    reference = reference_from(lambda: [{"x": stories(2_000)}], columns)

    found = profile(columns, {"x": pa.array(["The crew is late", None, "日本 の"])}, reference)

    assert names(found) == ["x", "x[length]", "x[script]", "x[tokens]", "x[words]"]
    assert [column.rows for column in found.columns] == [3, 3, 3, 6, 3]
    assert [column.nulls for column in found.columns] == [1, 1, 1, 0, 1]
    assert found.column("x[length]", "feature").moments.mean == 10
    assert found.column("x[words]", "feature").moments.mean == 3
    assert found.column("x[script]", "feature").moments.maximum == 10 / 4
    assert sum(found.column("x[tokens]", "feature").counts.values()) == 6
    assert (found.rows, {column.frame.of for column in found.columns}) == (3, {None, "x"})


def test_no_text_is_kept_in_a_reference_or_in_what_is_counted_against_it():
    columns = [("x", "feature", pa.string())]
    reference = reference_from(lambda: [{"x": stories(2_000)}], columns)
    of_a_run = profile(columns, {"x": stories(2_000)})
    against_it = profile(columns, {"x": stories(2_000, seed=1)}, reference)

    assert reference.column("x", "feature").frame.free_text
    for kept in (reference, of_a_run.settled(), of_a_run.as_reference(), against_it):
        assert not any(word in kept.to_json() for word in ("crew", "Gate", "日本"))
        assert len(kept.columns) == 5


def test_categories_have_no_derived_elements_with_a_reference_or_once_a_run_is_merged():
    columns = [("x", "feature", pa.string())]
    batch = {"x": pa.array(["AA", "DL", None, "UA"] * 20)}
    reference = reference_from(lambda: [batch], columns)
    of_a_run = profile(columns, batch)

    assert names(reference) == names(of_a_run.as_reference()) == ["x"]
    assert names(profile(columns, batch, reference)) == ["x"]
    assert len(of_a_run.columns) == 5
    assert names(of_a_run.settled()) == ["x"]
    assert of_a_run.settled().column("x", "feature").counts == {"AA": 20, "DL": 20, "UA": 20}


@pytest.mark.parametrize(
    ("counts", "other", "free"),
    [
        ({}, 0, False),
        ({f"n{i}": 1 for i in range(FEW)}, 0, False),
        ({f"n{i}": 1 for i in range(FEW + 1)}, 0, True),
        ({f"n{i}": 2 for i in range(FEW + 1)}, 0, False),
        ({"AA": 5}, 5, False),
        ({"AA": 5}, 6, True),
    ],
)
def test_names_that_occur_once_or_cover_less_than_half_are_free_text(counts, other, free):
    frame = ColumnFrame(name="x", role="feature", kind="category")
    rows = sum(counts.values()) + other + 3
    found = CategoryProfile(frame=frame, rows=rows, nulls=3, counts=counts, other=other)

    framed = found.as_reference()

    assert (found.is_free_text, framed.frame.free_text) == (free, free)
    assert framed.frame.categories == (() if free else tuple(sorted(counts)))
    assert framed.as_reference() == framed
    assert framed.other + sum(framed.counts.values()) == rows - 3


def test_known_categories_stay_categories_in_a_run_of_few_rows():
    columns = [("x", "feature", pa.string())]
    airports = [f"A{i:03d}" for i in range(200)]
    reference = reference_from(lambda: [{"x": pa.array(airports * 5)}], columns)

    tonight = profile(columns, {"x": pa.array(airports[:90])}, reference)

    assert tonight.settled() == tonight
    assert len(tonight.as_reference().column("x", "feature").frame.categories) == 90


def test_common_categories_are_named_even_where_rare_ones_are_many():
    rare = [f"rare {i}" for i in range(2 * NAMED)]
    batch = {"x": pa.array([*["AA", "DL"] * 3_000, *rare])}
    reference = reference_from(lambda: [batch], [("x", "feature", pa.string())])

    found = reference.column("x", "feature")
    assert found.counts["AA"] == found.counts["DL"] == 3_000
    assert (len(found.counts), names(reference)) == (NAMED, ["x"])


def test_a_column_that_was_empty_in_the_reference_is_still_named_and_derived_from():
    columns = [("x", "feature", pa.string())]
    reference = reference_from(lambda: [{"x": pa.nulls(9, pa.string())}], columns)

    found = profile(columns, {"x": pa.array(["a b", "c"])}, reference)

    assert names(reference) == ["x"]
    assert found.column("x", "feature").counts == {"a b": 1, "c": 1}
    assert found.column("x[words]", "feature").moments.mean == 1.5


@given(st.lists(st.none() | st.lists(st.none() | st.booleans().map(int), max_size=9), max_size=20))
@pytest.mark.parametrize("form", [pa.list_, pa.large_list, pa.list_view, pa.large_list_view])
def test_lists_are_profiled_by_length(form, rows):
    found = profile([("x", "feature", form(pa.int64()))], {"x": pa.array(rows, form(pa.int64()))})
    lengths = [len(row) for row in rows if row is not None]

    (length,) = found.columns
    assert (length.frame.name, length.frame.aspect, found.skipped) == ("x[length]", "length", ())
    assert (length.rows, length.nulls) == (len(rows), rows.count(None))
    assert (length.moments.mean if length.moments else None) == (
        pytest.approx(np.mean(lengths)) if lengths else None
    )


def test_a_list_of_the_signature_may_lie_in_files_as_vectors_of_one_length():
    vectors = pa.array([[1.0, 2.0, 3.0], None], pa.list_(pa.float64(), 3))

    found = profile([("x", "feature", pa.list_(pa.float64()))], {"x": vectors})

    (length,) = found.columns
    assert (length.frame.name, length.moments.mean, length.nulls) == ("x[length]", 3.0, 1)


@settings(deadline=None)
@given(st.data())
def test_a_long_vector_is_profiled_by_its_norm(data):
    width = LONGEST_VECTOR + 1
    row = st.lists(st.floats(-1e3, 1e3, width=32), min_size=width, max_size=width)
    rows = data.draw(st.lists(st.none() | row, max_size=8))
    dtype = pa.list_(pa.float32(), width)
    found = profile([("x", "feature", dtype)], {"x": pa.array(rows, dtype)})
    as_lists = profile([("x", "feature", dtype)], {"x": pa.array(rows, pa.list_(pa.float32()))})
    norms = [np.linalg.norm(np.array(row)) for row in rows if row is not None]

    (norm,) = found.columns
    assert (norm.frame.name, norm.rows, norm.nulls) == ("x[norm]", len(rows), rows.count(None))
    assert norm.moments is None or norm.moments.mean == pytest.approx(np.mean(norms), abs=1e-9)
    assert as_lists == found


def test_a_short_vector_that_a_file_holds_as_lists_is_profiled_by_place():
    dtype = pa.list_(pa.float64(), 3)
    rows = [[1.0, 2.0, 3.0], None, [4.0, 5.0], [7.0, None, 9.0], []]

    for form in (pa.list_, pa.large_list, pa.list_view):
        found = profile([("x", "feature", dtype)], {"x": pa.array(rows, form(pa.float64()))})
        assert names(found) == ["x[0]", "x[1]", "x[2]"]
        assert [column.moments.mean for column in found.columns] == [4, 2, 6]
        assert [column.nulls for column in found.columns] == [3, 4, 3]


@pytest.mark.parametrize("places", [2, LONGEST_VECTOR + 1, MOST_CLASSES])
@pytest.mark.parametrize("item", [pa.float16(), pa.float32(), pa.float64()], ids=str)
def test_the_class_of_a_probability_vector_is_its_largest_place(places, item):
    rng = np.random.default_rng(places)
    rows = rng.random((300, places)).astype(np.float16)
    expected = np.bincount(rows.argmax(axis=1), minlength=places)
    holes = [None, [math.nan, *[0.5] * (places - 1)], [None, *[0.5] * (places - 1)]]
    dtype = pa.list_(item, places)

    found = profile([("p", "output", dtype)], {"p": pa.array([*rows.tolist(), *holes], dtype)})

    balance = found.column("p[class]", "output")
    assert balance.counts == {str(i): n for i, n in enumerate(expected.tolist()) if n}
    assert (balance.rows, balance.nulls) == (303, 3)


def test_features_and_vectors_of_too_many_classes_have_no_class():
    dtypes = {"embedding": pa.list_(pa.float32(), 3), "score": pa.float64()}

    features = frames_for(None, [(n, "feature", t) for n, t in dtypes.items()], {})
    vast = frames_for(None, [("p", "output", pa.list_(pa.float32(), MOST_CLASSES + 1))], {})

    assert not any(frame.aspect for frame in features)
    assert [frame.name for frame in vast] == ["p[norm]"]


@pytest.mark.parametrize("item", [pa.float16(), pa.float32(), pa.float64()], ids=str)
def test_a_score_between_0_and_1_is_profiled_by_its_decision(item):
    columns = [("score", "output", item)]
    batch = {"score": pa.array([0.0, 0.25, 0.5, 1.0, None, math.nan], item)}
    reference = reference_from(lambda: [batch], columns)

    for found in (profile(columns, batch), profile(columns, batch).settled(), reference):
        decision = found.column("score[decision]", "output")
        assert decision.counts == {"0.5 or less": 3, "above 0.5": 1}
        assert (decision.rows, decision.nulls) == (6, 2)


def test_one_half_is_no_yes_to_whoever_decides():
    halves = np.array([0.5, 0.5])
    answers = Answers(kind="binary", truth=np.array([0.0, 0.0]), scores=halves)
    accuracy = next(one for one in measured(answers, "p", 1).metrics if one.name == "accuracy")
    agreement = gate.compare({"p": pa.array(halves)}, {"p": pa.array([0.4, 0.3])}).agreement

    assert (accuracy.value, agreement) == (1.0, 1.0)
    assert decisions(pa.array(halves)).to_pylist() == ["0.5 or less"] * 2
    assert classes(pa.array([[0.5, 0.5]], pa.list_(pa.float64(), 2))).to_pylist() == ["0"]


@pytest.mark.parametrize("beyond", [1.0000001, -1e-9, math.inf, -math.inf])
def test_what_leaves_0_to_1_has_no_decision(beyond):
    columns = [("score", "output", pa.float64())]
    batch = {"score": pa.array([0.1, 0.9, beyond])}

    of_a_run = profile(columns, batch)

    assert names(of_a_run) == ["score", "score[decision]"]
    assert names(of_a_run.settled()) == names(of_a_run.as_reference()) == ["score"]
    assert names(reference_from(lambda: [batch], columns)) == ["score"]
    assert names(profile(columns, batch, of_a_run)) == ["score"]


def test_the_reference_judges_whether_decisions_are_counted():
    columns = [("score", "output", pa.float64())]
    reference = reference_from(lambda: [{"score": pa.array([0.1, 0.9])}], columns)

    tonight = profile(columns, {"score": pa.array([0.1, 1.5])}, reference)

    assert names(tonight.settled()) == ["score", "score[decision]"]
    assert names(tonight.as_reference()) == ["score"]


def test_a_real_column_takes_the_place_of_a_derived_element_of_its_name():
    columns = [
        ("x", "feature", pa.string()),
        ("x[length]", "feature", pa.float64()),
        ("p", "feature", pa.list_(pa.float64(), 2)),
        ("p[1]", "feature", pa.int64()),
    ]
    batch = {
        "x": stories(200),
        "x[length]": pa.array([7.5] * 200),
        "p": pa.array([[1.0, 2.0]] * 200, pa.list_(pa.float64(), 2)),
        "p[1]": pa.array([9] * 200),
    }
    reference = reference_from(lambda: [batch], columns)

    for found in (profile(columns, batch), profile(columns, batch, reference), reference):
        assert found.column("x[length]", "feature").moments.mean == 7.5
        assert found.column("x[length]", "feature").frame.aspect == ""
        assert found.column("p[1]", "feature").moments.mean == 9
        assert found.column("p[1]", "feature").rows == 200
        assert found.column("p[0]", "feature").moments.mean == 1
        assert found.column("x[words]", "feature") is not None


def test_a_reference_s_derived_element_does_not_frame_a_real_column_of_its_name():
    text_only = [("x", "feature", pa.string())]
    reference = reference_from(lambda: [{"x": stories(200)}], text_only)
    columns = [*text_only, ("x[length]", "feature", pa.int64())]

    frames = {frame.name: frame for frame in frames_for(reference, columns, {"x[length]": 3.0})}

    length = frames["x[length]"]
    assert (length.aspect, length.edges, length.origin) == ("", None, 3.0)


def test_a_text_that_the_reference_has_as_a_number_is_counted_openly():
    reference = reference_from(
        lambda: [{"x": pa.array([1.0, 2.0])}], [("x", "feature", pa.float64())]
    )

    found = profile([("x", "feature", pa.string())], {"x": stories(5)}, reference)

    assert found.column("x", "feature").frame.categories is None
    assert len(found.columns) == 5


def test_free_text_that_a_first_reference_named_is_derived_from_from_then_on():
    frame = ColumnFrame(
        name="x", role="feature", kind="category", categories=tuple(f"n{i}" for i in range(900))
    )
    counts = dict.fromkeys(frame.categories, 1)
    first = Profile(columns=(CategoryProfile(frame=frame, rows=5_000, counts=counts, other=4_100),))

    reference = first.as_reference()

    found = profile([("x", "feature", pa.string())], {"x": stories(50)}, reference)

    assert found.column("x", "feature").frame.free_text
    assert (found.column("x", "feature").counts, found.column("x", "feature").other) == ({}, 50)
    assert len(found.as_reference().columns) == 5
