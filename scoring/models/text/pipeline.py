"""A logged text model as one torch module with its tokenizer: what there is to export.

The module is the model's own modules one after the other (pooling and normalisation as the model
defines them), so that nothing of it is written a second time here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import yaml

from scoring.models.built import NotBuilt
from scoring.models.signature import ModelFiles

EXPORTED_MODULES = frozenset({"Transformer", "Pooling", "Normalize", "Dense", "LayerNorm"})
"""Modules of sentence-transformers that work on one padded batch and nothing else."""
IRRELEVANT_SETTINGS = frozenset({"padding", "batch_size", "device"})
"""Settings of a pipeline that no score depends on."""
TRUNCATION_SETTINGS = frozenset({"truncation", "max_length"})
Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPipeline:
    """What is exported."""

    module: torch.nn.Module
    """Takes a mapping of inputs [rows, tokens], gives the outputs [rows, ...]."""
    tokenizer: Any
    """Of transformers."""
    reference: Callable[[str], Mapping[str, Any]]
    """The tokens of one text as the model itself makes them, [1, tokens] by input."""
    outputs: tuple[str, ...]
    labels: tuple[str, ...] = ()
    """Names of the classes, when the first output is the index of one."""
    prompt: str = ""
    truncated: bool = True
    max_length: int | None = None


def read_pipeline(files: ModelFiles) -> TextPipeline:
    """Load a model of a text flavor, on the CPU.

    Raises:
        NotBuilt: it is no pipeline that can be exported.
    """
    if files.flavor == "sentence_transformers":
        return _sentence_transformer(files)
    task = str(files.flavors[files.flavor].get("task"))
    if task not in ("text-classification", "sentiment-analysis", "feature-extraction"):
        raise NotBuilt(f"its task is {task}; text-classification and feature-extraction are built")
    return _transformers(files, task)


def eager(model: Any) -> Any:
    """The model with attention written out, which exports to a third of the operators."""
    with_attention = getattr(model, "set_attn_implementation", None)
    if with_attention is not None:
        with_attention("eager")
    return model.eval()


class Embedding(torch.nn.Module):  # type: ignore[misc]
    """A sentence-transformers model from tokens to sentence embeddings."""

    def __init__(self, model: Any, constants: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self._constants = {**constants, "prompt_length": 0}
        leaves_out = any(getattr(module, "include_prompt", True) is False for module in model)
        self._left_out = int(constants.get("prompt_length") or 0) if leaves_out else 0

    def forward(self, inputs: Inputs) -> torch.Tensor:
        transformer, *others = self.model
        found = transformer({**inputs, **self._constants})
        if self._left_out:  # as Pooling does it, without looking at the values
            mask = found["attention_mask"]
            found["attention_mask"] = mask * (torch.arange(mask.shape[1]) >= self._left_out)
        for module in others:
            found = module(found)
        embeddings: torch.Tensor = found["sentence_embedding"].float()
        width = self.model.truncate_dim
        return embeddings if width is None else embeddings[:, :width]


class Classification(torch.nn.Module):  # type: ignore[misc]
    """A sequence classifier from tokens to the likeliest class and its score."""

    def __init__(self, model: Any, function: str) -> None:
        super().__init__()
        self.model = model
        self._function = function

    def forward(self, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.model(**inputs).logits.float()
        if self._function == "softmax":
            logits = torch.softmax(logits, dim=-1)
        elif self._function == "sigmoid":
            logits = torch.sigmoid(logits)
        score, label = logits.max(dim=-1)
        return label, score


class FirstToken(torch.nn.Module):  # type: ignore[misc]
    """A transformer from tokens to the features of each text's first token.

    What MLflow's own embedding task takes of a feature-extraction pipeline.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Inputs) -> torch.Tensor:
        found: torch.Tensor = self.model(**inputs)[0]
        return found[:, 0].float()


def _sentence_transformer(files: ModelFiles) -> TextPipeline:
    import mlflow.sentence_transformers

    model = mlflow.sentence_transformers.load_model(str(files.folder)).to("cpu")
    kinds = [type(module).__name__ for module in model]
    if other := [kind for kind in kinds if kind not in EXPORTED_MODULES]:
        raise NotBuilt(f"its module {other[0]} cannot be exported")
    if model.modalities != ["text"]:
        raise NotBuilt(f"it takes {', '.join(model.modalities)}, not text alone")
    prompt = model.prompts.get(model.default_prompt_name) or ""

    def reference(text: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = model.preprocess([text], prompt=prompt or None)
        return found

    constants = {
        name: value for name, value in reference("a").items() if not isinstance(value, torch.Tensor)
    }
    eager(model[0].auto_model)
    return TextPipeline(
        module=Embedding(model, constants).eval(),
        tokenizer=model.tokenizer,
        reference=reference,
        outputs=("score",),
        prompt=prompt,
    )


def _transformers(files: ModelFiles, task: str) -> TextPipeline:
    import mlflow.transformers

    settings = pipeline_settings(files)
    function = settings.pop("function_to_apply", None)
    features = task == "feature-extraction"
    truncation = _truncation(settings, features)
    pipeline = mlflow.transformers.load_model(str(files.folder))
    model = eager(pipeline.model.to("cpu").float())
    labels = () if features else tuple(model.config.id2label[i] for i in range(_classes(model)))
    return TextPipeline(
        module=FirstToken(model) if features else Classification(model, _function(model, function)),
        tokenizer=pipeline.tokenizer,
        reference=lambda text: dict(pipeline.tokenizer(text, return_tensors="pt", **truncation)),
        outputs=("score",) if features else ("label", "score"),
        labels=labels,
        truncated=bool(truncation.get("truncation")),
        max_length=truncation.get("max_length"),
    )


def pipeline_settings(files: ModelFiles) -> dict[str, Any]:
    """What was logged as ``model_config``.

    Raises:
        NotBuilt: the model has a prompt template.
    """
    content = yaml.safe_load((files.folder / "MLmodel").read_text(encoding="utf-8"))
    if (content.get("metadata") or {}).get("prompt_template"):
        raise NotBuilt("it has a prompt template")
    return dict(files.flavors.get("python_function", {}).get("config") or {})


def _truncation(settings: Mapping[str, Any], features: bool) -> dict[str, Any]:
    """What a pipeline hands on to its tokenizer.

    Raises:
        NotBuilt: it has settings that change more than that.
    """
    given = {**settings, **settings.get("tokenize_kwargs", {})} if features else dict(settings)
    given.pop("tokenize_kwargs", None)
    if other := given.keys() - TRUNCATION_SETTINGS - IRRELEVANT_SETTINGS:
        raise NotBuilt(f"its model_config sets {', '.join(sorted(other))}")
    return {name: given[name] for name in TRUNCATION_SETTINGS & given.keys()}


def _classes(model: Any) -> int:
    return int(model.config.num_labels)


def _function(model: Any, chosen: str | None) -> str:
    """What becomes of the logits: as transformers' TextClassificationPipeline chooses."""
    if chosen is not None:
        return chosen.lower()
    problem = model.config.problem_type
    if problem == "regression":
        return "none"
    if problem == "multi_label_classification" or _classes(model) == 1:
        return "sigmoid"
    return "softmax"
