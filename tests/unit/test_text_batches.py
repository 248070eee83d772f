"""Texts become batches without losing, mixing or moving a row; int8 scales waste no step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from scoring.models.text.products import Range
from scoring.models.text.static import activation_scale, smoothing, weight_scale
from scoring.models.text.tokens import TOKENIZER, Filling, TextTokenizer, Tokens

PADDING = {"input_ids": -1, "attention_mask": 0}
LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=60)


def rows_of(lengths: list[int]) -> list[list[int]]:
    """A row of that many tokens each; every token in the table is another."""
    starts = np.cumsum([0, *lengths])
    return [
        list(range(start, start + length)) for start, length in zip(starts, lengths, strict=False)
    ]


def tokens_of(rows: list[list[int]]) -> Tokens:
    """The rows sorted as `TextTokenizer` sorts them."""
    lengths = np.array([len(row) for row in rows])
    order = np.argsort(-lengths, kind="stable")
    ids = np.array([token for row in order for token in rows[row]], np.int64)
    values = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return Tokens(values, lengths[order], order, PADDING)


@given(LENGTHS, st.integers(1, 200))
def test_every_row_is_in_one_batch_with_its_own_tokens(lengths: list[int], budget: int) -> None:
    rows = rows_of(lengths)
    tokens = tokens_of(rows)

    found = [
        ids[mask == 1].tolist()
        for batch in tokens.batches(budget)
        for inputs in [tokens.padded(batch)]
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]

    assert found == [rows[row] for row in tokens.order]
    assert sorted(tokens.order) == list(range(len(rows)))


@given(LENGTHS, st.integers(1, 200))
def test_a_batch_holds_no_more_tokens_than_allowed_unless_it_is_one_row(
    lengths: list[int], budget: int
) -> None:
    tokens = tokens_of(rows_of(lengths))

    for batch in tokens.batches(budget):
        padded = tokens.padded(batch)["input_ids"]
        assert padded.size <= budget or len(padded) == 1
        assert padded.shape[1] == max(int(tokens.lengths[batch][0]), 1)


@given(LENGTHS, st.integers(1, 200))
def test_padding_fills_up_with_each_inputs_own_value(lengths: list[int], budget: int) -> None:
    tokens = tokens_of(rows_of(lengths))

    for batch in tokens.batches(budget):
        inputs = tokens.padded(batch)
        padded = inputs["attention_mask"] == 0
        assert (inputs["input_ids"][padded] == -1).all()
        assert (~padded).sum() == tokens.lengths[batch].sum()


@given(LENGTHS, st.integers(1, 200))
def test_scores_come_back_in_the_order_of_the_rows(lengths: list[int], budget: int) -> None:
    rows = rows_of(lengths)
    tokens = tokens_of(rows)

    def score(batch: slice) -> np.ndarray:
        inputs = tokens.padded(batch)
        return (inputs["input_ids"] * inputs["attention_mask"]).sum(axis=1)

    scored = np.concatenate([score(batch) for batch in tokens.batches(budget)])

    assert tokens.restored(scored).tolist() == [sum(row) for row in rows]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer that knows five words."""
    words = {"?": 0, "a": 1, "b": 2, "c": 3, "query": 4}
    tokenizer = Tokenizer(WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / TOKENIZER))
    return tmp_path


def test_rows_are_sorted_longest_first_and_a_null_is_the_empty_text(folder: Path) -> None:
    Filling(prompt="", padding=PADDING).write(folder)

    tokens = TextTokenizer(folder).tokens(["a", None, "c b a", "b d", ""])

    assert tokens.lengths.tolist() == [3, 2, 1, 0, 0]
    assert tokens.order.tolist() == [2, 3, 0, 1, 4]
    assert tokens.values["input_ids"].tolist() == [3, 2, 1, 2, 0, 1]
    assert tokens.values["attention_mask"].tolist() == [1] * 6


def test_a_prompt_precedes_every_text(folder: Path) -> None:
    Filling(prompt="query ", padding={"input_ids": 0}).write(folder)

    tokens = TextTokenizer(folder).tokens(["a b", None])

    assert tokens.values["input_ids"].tolist() == [4, 1, 2, 4]


def test_no_rows_make_no_batches(folder: Path) -> None:
    Filling(prompt="", padding=PADDING).write(folder)

    assert TextTokenizer(folder).tokens([]).batches(256) == []


FLOATS = st.floats(-50, 50, width=32)


@given(st.lists(FLOATS, min_size=1, max_size=20))
def test_every_measured_activation_is_rounded_by_half_a_step_at_most(values: list[float]) -> None:
    seen = np.array(values, np.float32)

    scale, zero = activation_scale(Range(seen, seen))

    steps = np.clip(np.round(seen / scale) + zero, 0, 255)
    assert np.abs((steps - zero) * scale - seen).max() <= scale * 0.501


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1_000), st.sampled_from([63, 127]))
def test_every_weight_is_rounded_by_half_a_step_of_its_output_at_most(
    inputs: int, outputs: int, seed: int, steps: int
) -> None:
    weights = np.random.default_rng(seed).normal(size=(inputs, outputs)).astype(np.float32)

    whole, scales = weight_scale(weights, steps)

    assert np.abs(whole).max() <= steps
    assert (np.abs(whole * scales - weights) <= scales * 0.501).all()


@given(st.integers(0, 1_000), st.floats(0, 1))
def test_smoothing_changes_no_product(seed: int, alpha: float) -> None:
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.normal(size=8))
    activation = rng.normal(size=(5, 8)) * sizes
    weights = rng.normal(size=(8, 3)).astype(np.float32)
    most = np.abs(activation).max(axis=0).astype(np.float32)

    divisor = smoothing(most, [weights], alpha)

    smoothed = (activation / divisor) @ (weights * divisor[:, None])
    np.testing.assert_allclose(smoothed, activation @ weights, rtol=1e-5, atol=1e-5)
    assert np.exp(np.log(divisor).mean()) == pytest.approx(1, rel=1e-4)


def test_smoothing_by_one_makes_all_channels_of_an_activation_equally_large() -> None:
    most = np.array([0.1, 1.0, 30.0], np.float32)

    divisor = smoothing(most, [np.ones((3, 2), np.float32)], alpha=1.0)

    assert most / divisor == pytest.approx([(most / divisor)[0]] * 3)
