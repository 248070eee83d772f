"""The gate: numbers against independent sources, and every way not to pass."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import r2_score, roc_auc_score

from scoring.job import Precision
from scoring.models import gate, quality

LIMITS = Precision()
RNG = np.random.default_rng(11)


def one(values: object) -> dict[str, pa.Array]:
    return {"score": pa.array(values)}


def vectors(values: np.ndarray) -> dict[str, pa.Array]:
    flat = pa.array(values.reshape(-1))
    return {"score": pa.FixedSizeListArray.from_arrays(flat, values.shape[1])}


def test_equal_outputs_pass_with_nothing_lost() -> None:
    scores = one(RNG.random(500))

    found = gate.compare(scores, scores)

    assert (found.mean_error, found.max_error, found.agreement) == (0.0, 0.0, 1.0)
    assert gate.refusals(found, LIMITS) == ()


def test_probabilities_agree_where_they_are_on_the_same_side_of_a_half() -> None:
    found = gate.compare(one([0.1, 0.4, 0.6, 0.9]), one([0.1, 0.55, 0.6, 0.8]))

    assert found.agreement == 0.75
    assert found.mean_error == pytest.approx((0.15 + 0.1) / 4)
    assert found.max_error == pytest.approx(0.15)
    assert not found.relative


def test_classes_agree_where_their_argmax_does() -> None:
    native = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.4, 0.3, 0.3]])
    variant = np.array([[0.6, 0.3, 0.1], [0.1, 0.7, 0.2], [0.4, 0.3, 0.3]])

    assert gate.compare(vectors(native), vectors(variant)).agreement == pytest.approx(2 / 3)


def test_labels_agree_where_they_are_equal() -> None:
    found = gate.compare(one(["late", "early", None]), one(["late", "late", None]))

    assert found.agreement == pytest.approx(2 / 3)
    assert gate.refusals(found, LIMITS) == ("agreement 0.6667, below min_agreement 0.995",)


def test_a_regression_is_judged_in_its_own_standard_deviations() -> None:
    dollars = RNG.normal(1e6, 2e5, 2_000)
    near, far = dollars + 100.0, dollars + 5_000.0

    passed, refused = gate.compare(one(dollars), one(near)), gate.compare(one(dollars), one(far))

    assert passed.relative
    assert passed.mean_error == pytest.approx(100.0 / dollars.std())
    assert gate.refusals(passed, LIMITS) == ()
    assert "standard deviations, above max_mean_error 0.005" in gate.refusals(refused, LIMITS)[0]


def test_small_probabilities_do_not_pass_because_they_are_small() -> None:
    """Every click rate is below a half, and an error of 0.004 is within the limit: R2 sees it."""
    rates = RNG.random(2_000) * 0.02
    found = gate.compare(one(rates), one(rates + RNG.choice([-0.004, 0.004], 2_000)))

    assert found.agreement == 1.0
    assert found.mean_error is not None
    assert found.mean_error < LIMITS.max_mean_error
    assert gate.refusals(found, LIMITS) == (
        f"R2 {found.determination:.4f}, below min_agreement 0.995",
    )


def test_embeddings_are_compared_by_their_angle() -> None:
    native = RNG.normal(size=(50, 8))
    native /= np.linalg.norm(native, axis=1, keepdims=True)
    variant = native + RNG.normal(scale=0.01, size=native.shape)
    cosine = np.sum(native * variant, axis=1) / np.linalg.norm(variant, axis=1)

    assert gate.kind_of(vectors(native)["score"]) == "embedding"
    assert gate.compare(vectors(native), vectors(variant)).agreement == pytest.approx(cosine.mean())


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf")])
def test_nan_and_infinite_outputs_never_pass(spoilt: float) -> None:
    scores = RNG.random(100)
    worse = scores.copy()
    worse[7] = spoilt
    boundless = Precision(max_batch_error=1e9, max_mean_error=1e9, min_agreement=0.0)

    for native, variant in ((scores, worse), (worse, scores)):
        found = gate.compare(one(native), one(variant))
        assert gate.refusals(found, boundless) == (
            "other outputs than native's are NaN or infinite, or more than 1 % of native's",
        )


def test_a_row_that_native_itself_cannot_score_counts_for_nothing() -> None:
    scores = RNG.random(400)
    scores[7] = np.nan

    found = gate.compare(one(scores), one(np.where(np.isnan(scores), np.inf, scores)))

    assert (found.mean_error, found.agreement) == (0.0, 1.0)
    scores[:10] = np.nan
    assert gate.refusals(gate.compare(one(scores), one(scores)), LIMITS) != ()


def test_a_variant_that_becomes_nan_in_other_batches_is_refused() -> None:
    assert gate.moved(one([0.1, 0.2]), one([0.1, np.nan])) > 1e6


def test_small_vectors_do_not_pass_because_they_are_small() -> None:
    """Three quantiles with a deviation of 0.002, and a variant that always returns their means."""
    native = RNG.normal(scale=0.002, size=(2_000, 3)) + np.array([0.1, 0.2, 0.3])
    means = np.tile(native.mean(axis=0), (2_000, 1))

    assert gate.kind_of(vectors(native)["score"]) == "vector"
    assert len(gate.refusals(gate.compare(vectors(native), vectors(means)), LIMITS)) == 2


@pytest.mark.parametrize("value", [3.3, 0.1])
def test_a_constant_rounded_to_float32_is_the_same(value: float) -> None:
    rounded = float(np.float32(value))

    found = gate.compare(one([value] * 500), one([rounded] * 500))

    assert gate.refusals(found, LIMITS) == ()


def test_a_row_that_moves_with_its_batch_is_refused() -> None:
    scores = one([0.2, 0.4])
    moved = gate.moved(scores, one([0.2, 0.458]))

    found = gate.compare(scores, scores)
    refused = gate.refusals(gate.Comparison(**{**_fields(found), "batch_error": moved}), LIMITS)

    assert moved == pytest.approx(0.058)
    assert refused == ("a row's score moves by 0.058 with its batch, above max_batch_error 0.001",)


def test_a_label_that_moves_with_its_batch_counts_as_one() -> None:
    assert gate.moved(one(["a", "b"]), one(["a", "c"])) == 1.0
    assert gate.moved(one(["a", "b"]), one(["a", "b"])) == 0.0


@given(st.integers(0, 2**32 - 1))
def test_auc_and_r2_are_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.append(rng.random(60) < 0.4, [True, False])
    scores = np.round(rng.random(62) + 0.2 * labels, 1)  # with ties
    other = scores + rng.normal(scale=0.1, size=62)

    assert quality.auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    found = gate.compare(one(scores), one(other)).determination
    assert found == pytest.approx(r2_score(scores, other))


def test_known_labels_show_what_a_variant_costs() -> None:
    labels = pa.array(RNG.random(4_000) < 0.5)
    native = np.where(labels, 0.6, 0.4) + RNG.normal(scale=0.1, size=4_000)
    variant = np.where(RNG.random(4_000) < 0.1, 0.5, native)

    change = quality.label_change(one(native), one(variant), labels)

    assert change is not None
    assert change.metric == "auc"
    assert change.native == pytest.approx(roc_auc_score(labels, native))
    assert change.variant == pytest.approx(roc_auc_score(labels, variant))
    found = gate.Comparison(**{**_fields(gate.compare(one(native), one(native))), "labels": change})
    assert any(reason.startswith("auc") for reason in gate.refusals(found, LIMITS))


def test_a_regression_with_labels_is_judged_by_its_rmse() -> None:
    truth = RNG.normal(100.0, 20.0, 1_000)
    native, variant = truth + 1.0, truth + 1.1

    change = quality.label_change(one(native), one(variant), pa.array(truth))

    assert change is not None
    assert (change.metric, change.loss) == ("rmse", pytest.approx(0.1))


def test_labels_of_one_class_have_no_auc() -> None:
    change = quality.label_change(one([0.1, 0.2]), one([0.1, 0.4]), pa.array([1, 1]))

    assert change is not None
    assert change.metric == "rmse"


def _fields(found: gate.Comparison) -> dict[str, object]:
    return {name: getattr(found, name) for name in found.__slots__}
