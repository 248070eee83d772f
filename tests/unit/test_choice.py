"""Which variant a run gets from what a search found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scoring.errors import VariantRefused, VariantUnavailable
from scoring.job import Precision
from scoring.models.choice import choose
from scoring.models.gate import Comparison
from scoring.models.search_result import Candidate, SearchResult, Timing

GOOD = Comparison(
    rows=4_000,
    finite=True,
    mean_error=0.001,
    max_error=0.02,
    relative=False,
    agreement=0.999,
    determination=0.9999,
)
BAD = replace(GOOD, mean_error=0.02, agreement=0.97)


def timings(**by_size: float) -> tuple[Timing, ...]:
    return tuple(
        Timing(batch_rows=int(size.lstrip("b")), rows_per_second=rate)
        for size, rate in by_size.items()
    )


NATIVE = Candidate(variant="native", recipe="as registered", timings=timings(b64=900, b256=1_000))
INT8 = Candidate(
    variant="int8",
    recipe="static",
    engine="onnx",
    folder="int8",
    comparison=GOOD,
    timings=timings(b256=4_000, b1024=5_000),
)
FP32 = Candidate(
    variant="fp32",
    recipe="exported",
    engine="onnx",
    folder="fp32",
    comparison=replace(GOOD, mean_error=1e-7),
    timings=timings(b256=2_000),
)


def found(*candidates: Candidate) -> SearchResult:
    return SearchResult(
        model="models:/late/3",
        model_digest="d" * 64,
        device="a processor",
        runtimes="onnxruntime 1",
        rows=4_000,
        sample="input",
        seconds=3.0,
        candidates=(NATIVE, *candidates),
    )


def test_the_fastest_admitted_variant_wins_with_its_best_batch() -> None:
    choice = choose(found(FP32, INT8), Precision())

    assert (choice.variant, choice.batch_rows) == ("int8", 1024)
    assert choice.why == "the fastest admitted, 5.0 times native"


def test_a_variant_beyond_the_limits_is_passed_over() -> None:
    choice = choose(found(FP32, replace(INT8, comparison=BAD)), Precision())

    assert choice.variant == "fp32"


def test_wider_limits_admit_what_was_refused_without_another_search() -> None:
    limits = Precision(max_mean_error=0.05, min_agreement=0.9)

    assert choose(found(replace(INT8, comparison=BAD)), limits).variant == "int8"


def test_native_stands_unless_another_is_clearly_faster() -> None:
    barely = replace(FP32, timings=timings(b256=1_040))

    choice = choose(found(barely), Precision())

    assert (choice.variant, choice.batch_rows) == ("native", 256)
    assert choice.why == "no admitted variant is clearly faster"


def test_native_stands_where_nothing_else_is_admitted() -> None:
    choice = choose(found(replace(INT8, comparison=BAD)), Precision())

    assert choice.variant == "native"
    assert choice.why == (
        "no other variant is admitted: mean error 0.02, above max_mean_error 0.005; "
        "agreement 0.9700, below min_agreement 0.995"
    )


def test_a_named_variant_is_used_even_if_it_is_slower() -> None:
    assert choose(found(FP32, INT8), Precision(variant="fp32")).variant == "fp32"
    assert choose(found(FP32, INT8), Precision(variant="native")).variant == "native"


def test_a_named_variant_that_fails_the_gate_is_refused_with_its_numbers() -> None:
    with pytest.raises(VariantRefused) as refused:
        choose(found(FP32, replace(INT8, comparison=BAD)), Precision(variant="int8"))

    text = str(refused.value)
    assert "models:/late/3 may not be scored as int8: on 4,000 rows" in text
    assert "mean error 0.02, above max_mean_error 0.005" in text
    assert "agreement 0.9700, below min_agreement 0.995" in text
    assert "Nothing was scored" in text


def test_a_named_variant_that_cannot_be_made_says_why() -> None:
    missing = Candidate(variant="int8", recipe="static", why_not="trees have nothing to quantize")

    with pytest.raises(VariantUnavailable, match="trees have nothing to quantize") as refused:
        choose(found(FP32, missing), Precision(variant="int8"))

    assert refused.value.available == ("native", "fp32")


def test_a_variant_that_is_not_for_this_device_says_so() -> None:
    with pytest.raises(VariantUnavailable, match="no such variant on a processor"):
        choose(found(FP32), Precision(variant="fp16"))


def test_a_result_survives_json() -> None:
    whole = found(FP32, replace(INT8, why_not="x", comparison=None))

    assert SearchResult.from_json(whole.to_json()) == whole


def test_a_ceiling_takes_larger_batches_out_of_the_choice() -> None:
    limited = found(INT8).limited("int8", 512)

    assert choose(limited, Precision()).batch_rows == 256
    assert choose(limited.limited("int8", 8), Precision()).batch_rows == 8
