"""Models: resolve, pin, fetch, load, predict."""

from scoring.models.cache import ModelCache
from scoring.models.engines import Engine, EngineOptions, load, load_built, score
from scoring.models.inputs import features
from scoring.models.registry import Registry, Version
from scoring.models.signature import Field, ModelFiles, Signature, read_model

__all__ = [
    "Engine",
    "EngineOptions",
    "Field",
    "ModelCache",
    "ModelFiles",
    "Registry",
    "Signature",
    "Version",
    "features",
    "load",
    "load_built",
    "read_model",
    "score",
]
