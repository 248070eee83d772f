"""Text variants score like the models that they were made of, and rows do not touch each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest
import torch
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Normalize, WordWeights

from scoring.models import Engine, EngineOptions, ModelFiles, features, load, read_model, score
from scoring.models.built import Built, NotBuilt, write_outputs
from scoring.models.engines.text import TextEngine
from scoring.models.text.export import convert
from scoring.models.text.native import FeatureEngine
from scoring.models.text.quantize import recipes
from tests.integration import text_models
from tests.integration.models import register

pytestmark = pytest.mark.slow

TEXTS = 200
CALIBRATION = 100
OPTIONS = EngineOptions(device="cpu", threads=2, columns=("text",))

Numbers = npt.NDArray[np.floating[Any]]
Log = Callable[..., ModelFiles]


@pytest.fixture(scope="module")
def log(tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Log:
    """``log(mlflow.<flavor>, model)``: the model as a worker finds it."""

    def logged(flavor: Any, model: Any, **how: Any) -> ModelFiles:
        uri = register(tracking_uri, flavor.log_model, model, **how)
        folder = tmp_path_factory.mktemp("model")
        mlflow.artifacts.download_artifacts(uri, dst_path=str(folder))
        return read_model(folder, uri)

    return logged


def made(files: ModelFiles, outputs: pa.Schema, folder: Path) -> Built:
    """The float32 variant."""
    folder.mkdir(exist_ok=True)
    convert(files, features(files.signature, ("text",), files.model), outputs, folder)
    write_outputs(folder, outputs)
    return Built(variant="fp32", recipe="exported", engine="text", folder=folder)


def requantized(source: Built, recipe: str, texts: Sequence[str], folder: Path) -> Built:
    """The variant that a recipe makes of the float32 one."""
    folder.mkdir()
    found = next(one for one in (*recipes("cpu"), *recipes("cuda")) if one.name.startswith(recipe))
    found.make(source.folder, texts, folder)
    write_outputs(folder, source.outputs)
    return Built(variant=found.variant, recipe=found.name, engine="text", folder=folder)


def engine(files: ModelFiles, built: Built, options: EngineOptions = OPTIONS) -> TextEngine:
    return TextEngine(files, built, features(files.signature, ("text",), files.model), options)


def texts_of(texts: Sequence[str | None]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(texts, pa.string())], names=["text"])


def vectors(found: dict[str, pa.Array]) -> Numbers:
    """The only output as [rows, width]."""
    (values,) = found.values()
    flat: Numbers = values.flatten().to_numpy()
    return flat.reshape(len(values), -1)


def embedding(width: int, name: str = "score") -> pa.Schema:
    return pa.schema([(name, pa.list_(pa.float32(), width))])


CLASSES = pa.schema([("label", pa.string()), ("score", pa.float64())])


def largest_change(engine: Engine, texts: Sequence[str]) -> float:
    """How far any value of a row moves with the size and the order of its batches."""
    expected = vectors(score(engine, texts_of(texts)))
    order = np.random.default_rng(1).permutation(len(texts))
    shuffled = np.empty_like(expected)
    moved = []
    for rows in (1, 5, 16):
        engine.resize(rows)
        moved.append(vectors(score(engine, texts_of(texts))))
        shuffled[order] = vectors(score(engine, texts_of([texts[row] for row in order])))
        moved.append(shuffled.copy())
    return float(max(np.abs(again - expected).max() for again in moved))


# all-MiniLM-L6-v2


class MiniLM:
    """The real model, logged and exported once."""

    def __init__(self, log: Log, folder: Path) -> None:
        model = text_models.minilm()
        texts = text_models.paragraphs(TEXTS + CALIBRATION)
        self.texts, self.calibration = texts[:TEXTS], texts[TEXTS:]
        self.expected: Numbers = model.encode(self.texts, show_progress_bar=False)
        self.files = log(mlflow.sentence_transformers, model)
        self.exported = made(self.files, embedding(384), folder)


@pytest.fixture(scope="module")
def minilm(log: Log, tmp_path_factory: pytest.TempPathFactory) -> MiniLM:
    return MiniLM(log, tmp_path_factory.mktemp("minilm"))


def test_the_exported_graph_gives_what_encode_gives(minilm: MiniLM) -> None:
    found = score(engine(minilm.files, minilm.exported), texts_of(minilm.texts))

    assert {name: values.type for name, values in found.items()} == {
        "score": pa.list_(pa.float32(), 384)
    }
    assert np.abs(vectors(found) - minilm.expected).max() < 1e-5


def test_int8_stays_near_encode_and_no_row_moves_with_its_batch(
    minilm: MiniLM, tmp_path: Path
) -> None:
    built = requantized(minilm.exported, "static, smoothed", minilm.calibration, tmp_path / "int8")
    int8 = engine(minilm.files, built)

    found = vectors(score(int8, texts_of(minilm.texts)))

    cosine = (found * minilm.expected).sum(axis=1)
    assert cosine.mean() > 0.99
    assert cosine.min() > 0.97
    assert np.abs(found - minilm.expected).mean() < 0.005
    assert largest_change(int8, minilm.texts[:64]) <= 0.001
    assert size(built) < 0.7 * size(minilm.exported)


def test_fp16_is_near_encode(minilm: MiniLM, tmp_path: Path) -> None:
    built = requantized(minilm.exported, "float16", (), tmp_path / "fp16")

    found = vectors(score(engine(minilm.files, built), texts_of(minilm.texts[:40])))

    assert np.abs(found - minilm.expected[:40]).max() < 0.005
    assert size(built) < 0.6 * size(minilm.exported)


def test_a_registered_embedding_model_scores_through_pyfunc(minilm: MiniLM) -> None:
    native = load(minilm.files, OPTIONS)

    found = vectors(score(native, texts_of(minilm.texts[:20])))

    np.testing.assert_allclose(found, minilm.expected[:20], atol=1e-5)


def test_a_null_is_scored_as_the_empty_text_and_no_rows_give_no_rows(minilm: MiniLM) -> None:
    exported = engine(minilm.files, minilm.exported)

    found = vectors(score(exported, texts_of([None, "one", ""])))

    assert (found[0] == found[2]).all()
    assert not (found[0] == found[1]).all()
    nothing = score(exported, texts_of([]))
    assert {name: (len(values), values.type) for name, values in nothing.items()} == {
        "score": (0, pa.list_(pa.float32(), 384))
    }


def test_threads_change_no_score(minilm: MiniLM) -> None:
    alone = EngineOptions(device="cpu", threads=1, columns=("text",))
    rows = texts_of(minilm.texts[:40])

    one = score(engine(minilm.files, minilm.exported, alone), rows)
    two = score(engine(minilm.files, minilm.exported), rows)

    assert one["score"].equals(two["score"])


def size(built: Built) -> int:
    return (built.folder / "model.onnx").stat().st_size


# Small models of sentence-transformers


@pytest.mark.parametrize(
    ("pooling", "how"),
    [
        pytest.param("mean", {"max_seq_length": 12}, id="mean-truncated"),
        pytest.param("cls", {"do_lower_case": True}, id="first-token-lower-case"),
        pytest.param(
            "max",
            {"prompts": {"query": "Find THIS: "}, "default_prompt_name": "query"},
            id="max-with-prompt",
        ),
        pytest.param(
            "mean",
            {
                "prompts": {"query": "Find this: "},
                "default_prompt_name": "query",
                "include_prompt": False,
            },
            id="mean-without-the-prompts-tokens",
        ),
        pytest.param("mean", {"truncate_dim": 16}, id="fewer-dimensions"),
    ],
)
def test_pooling_prompts_and_truncation_are_the_models_own(
    pooling: str, how: dict[str, Any], log: Log, tmp_path: Path
) -> None:
    texts = text_models.paragraphs(40)
    normalise = [] if pooling == "cls" else [Normalize()]
    model = text_models.embedder(tmp_path / "tiny", *normalise, pooling=pooling, **how)
    files = log(mlflow.sentence_transformers, model)
    loaded = mlflow.pyfunc.load_model(str(files.folder))
    expected = loaded.predict(pd.DataFrame({"text": texts}))

    built = made(files, embedding(expected.shape[1]), tmp_path / "built")

    found = vectors(score(engine(files, built), texts_of(texts)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_dense_layer_after_the_pooling_is_exported(log: Log, tmp_path: Path) -> None:
    texts = text_models.paragraphs(20)
    model = text_models.embedder(tmp_path / "tiny", Dense(32, 8))
    files = log(mlflow.sentence_transformers, model)

    built = made(files, embedding(8), tmp_path / "built")

    found = vectors(score(engine(files, built), texts_of(texts)))
    np.testing.assert_allclose(found, model.encode(texts), atol=1e-5)


def test_a_module_that_looks_at_words_is_not_built(log: Log, tmp_path: Path) -> None:
    model = text_models.embedder(tmp_path / "tiny")
    model.insert(1, WordWeights(vocab=["a"], word_weights={"a": 2.0}))
    files = log(mlflow.sentence_transformers, model)

    with pytest.raises(NotBuilt, match="its module WordWeights cannot be exported"):
        made(files, embedding(32), tmp_path / "built")


# Pipelines of transformers


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({}, id="softmax"),
        pytest.param({"problem_type": "multi_label_classification"}, id="sigmoid"),
        pytest.param({"id2label": {0: "score"}, "problem_type": "regression"}, id="regression"),
    ],
)
def test_a_classifier_gives_the_label_and_the_score_that_pyfunc_gives(
    more: dict[str, Any], log: Log, tmp_path: Path
) -> None:
    texts = text_models.paragraphs(60)
    settings = {"truncation": True}
    files = log(mlflow.transformers, text_models.classifier(**more), model_config=settings)
    native = score(load(files, OPTIONS), texts_of(texts))

    built = made(files, CLASSES, tmp_path / "built")

    found = score(engine(files, built), texts_of(texts))
    assert {name: values.type for name, values in found.items()} == dict(
        zip(CLASSES.names, CLASSES.types, strict=True)
    )
    assert found["label"].equals(native["label"])
    np.testing.assert_allclose(found["score"], native["score"], atol=1e-5)
    assert len(set(found["label"].to_pylist())) > 1 or len(more) == 2


def test_a_classifier_in_int8_mostly_decides_the_same(log: Log, tmp_path: Path) -> None:
    texts = text_models.paragraphs(120)
    model = text_models.classifier()
    files = log(mlflow.transformers, model, model_config={"truncation": True})
    exported = made(files, CLASSES, tmp_path / "built")

    built = requantized(exported, "static, smoothed", texts[60:], tmp_path / "int8")

    expected = score(engine(files, exported), texts_of(texts[:60]))
    found = score(engine(files, built), texts_of(texts[:60]))
    same = np.array(found["label"].to_pylist()) == np.array(expected["label"].to_pylist())
    ranked = model(texts[:60], top_k=None, truncation=True)
    clear = np.array([first["score"] - second["score"] > 0.03 for first, second, *_ in ranked])
    assert clear.sum() >= 20  # the others lie nearer to a second label than int8 moves a text
    assert same[clear].mean() >= 0.95


def test_a_text_longer_than_the_model_reads_is_refused_where_native_refuses_it(
    log: Log, tmp_path: Path
) -> None:
    files = log(mlflow.transformers, text_models.classifier())
    built = made(files, CLASSES, tmp_path / "built")
    rows = texts_of(["short", "word " * text_models.MODEL_TOKENS])

    for one in (load(files, OPTIONS), engine(files, built)):
        with pytest.raises(Exception, match=r"size|shape|dimension|range|index"):
            score(one, rows)


def test_settings_that_change_the_scores_are_not_built(log: Log, tmp_path: Path) -> None:
    files = log(mlflow.transformers, text_models.classifier(), model_config={"top_k": 2})

    with pytest.raises(NotBuilt, match="its model_config sets top_k"):
        made(files, CLASSES, tmp_path / "built")


def test_features_are_those_of_the_first_token(log: Log, tmp_path: Path) -> None:
    texts = text_models.paragraphs(40)
    pipeline = text_models.extractor()
    files = log(mlflow.transformers, pipeline, model_config={"truncation": True})
    with torch.inference_mode():
        expected = np.stack([pipeline(text, truncation=True)[0][0] for text in texts])

    native = FeatureEngine(files, features(files.signature, ("text",), files.model), OPTIONS)
    built = made(files, embedding(32, native_name(native)), tmp_path / "built")

    np.testing.assert_allclose(vectors(score(native, texts_of(texts))), expected, atol=1e-5)
    found = vectors(score(engine(files, built), texts_of(texts)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def native_name(native: Engine) -> str:
    (name,) = native.empty()
    return name
