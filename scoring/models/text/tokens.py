"""Texts -> tokens -> batches of padded token ids.

Invariant: a row's tokens depend on its text alone, and a padded position is never attended to, so
a row's score does not depend on the rows it shares a batch with. Rows are held longest first: those
of one batch are then of nearly one length, and the first batch is the largest of all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Integers = npt.NDArray[np.int64]

TOKENIZER = "tokenizer.json"
FILLING = "text.json"
FIELDS = {"input_ids": "ids", "token_type_ids": "type_ids", "attention_mask": "attention_mask"}
"""Graph inputs that a tokenizer makes, and what it calls them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """What a text is preceded by, and what shorter rows of a batch are filled up with."""

    prompt: str
    padding: Mapping[str, int]
    """Value of a padded position, by graph input."""

    def write(self, folder: Path) -> None:
        content = {"prompt": self.prompt, "padding": dict(self.padding)}
        (folder / FILLING).write_text(json.dumps(content, indent=2), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Filling:
        return cls(**json.loads((folder / FILLING).read_text(encoding="utf-8")))


@dataclass(frozen=True, slots=True)
class Tokens:
    """Rows of tokens, longest first."""

    values: Mapping[str, Integers]
    """By graph input, the rows one after the other: [tokens]."""
    lengths: Integers
    """Tokens of each row: [rows], never increasing."""
    order: Integers
    """Where each row was before it was sorted: [rows]."""
    padding: Mapping[str, int]

    def batches(self, tokens: int) -> list[slice]:
        """Consecutive rows that make at most ``tokens`` tokens with their padding, or one row."""
        cuts = []
        start, rows = 0, len(self.lengths)
        while start < rows:
            fitting = max(tokens // max(int(self.lengths[start]), 1), 1)
            cuts.append(slice(start, min(start + fitting, rows)))
            start += fitting
        return cuts

    def padded(self, rows: slice) -> dict[str, Integers]:
        """The graph's inputs for some rows: [rows, tokens of the longest]."""
        lengths = self.lengths[rows]
        width = max(int(lengths[0]), 1)
        taken = np.arange(width) < lengths[:, None]
        start = int(self.lengths[: rows.start].sum())
        stop = start + int(lengths.sum())
        inputs = {}
        for name, flat in self.values.items():
            inputs[name] = np.full((len(lengths), width), self.padding[name], np.int64)
            inputs[name][taken] = flat[start:stop]
        return inputs

    def restored(self, scored: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Values of the rows [rows, ...] in the order that the rows came in."""
        found = np.empty_like(scored)
        found[self.order] = scored
        return found


class TextTokenizer:
    """The tokenizer of a built text variant; safe to use from any thread."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._filling = Filling.read(folder)

    def tokens(self, texts: Sequence[str | None]) -> Tokens:
        """The tokens of texts; a null is read as the empty text."""
        prompt = self._filling.prompt
        encoded = self._tokenizer.encode_batch_fast([prompt + (text or "") for text in texts])
        lengths = np.fromiter((len(row) for row in encoded), np.int64, len(encoded))
        order = np.argsort(-lengths, kind="stable")
        total = int(lengths.sum())
        values = {
            name: np.fromiter(
                chain.from_iterable(getattr(encoded[row], FIELDS[name]) for row in order),
                np.int64,
                total,
            )
            for name in self._filling.padding
        }
        return Tokens(values, lengths[order], order, self._filling.padding)
