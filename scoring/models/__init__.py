"""Models: resolve, pin, fetch, load, predict."""

from scoring.models.cache import ModelCache
from scoring.models.engines import Engine, EngineOptions, load, load_built, score
from scoring.models.inputs import features
from scoring.models.memory import Memory, Remembered
from scoring.models.registry import Registry
from scoring.models.signature import Field, ModelFiles, Signature, read_model
from scoring.models.trust import Trust
from scoring.models.version import Version

__all__ = [
    "Engine",
    "EngineOptions",
    "Field",
    "Memory",
    "ModelCache",
    "ModelFiles",
    "Registry",
    "Remembered",
    "Signature",
    "Trust",
    "Version",
    "features",
    "load",
    "load_built",
    "read_model",
    "score",
]
