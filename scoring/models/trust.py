"""Which models may run here: data from any registry, code from those that are trusted.

Most of what MLflow registers is Python underneath: a pickle does what it likes when it is loaded,
and so does code that an artifact brings along. Invariant: of a model from any other registry
nothing is loaded but files that are known to be data, by a loader that imports nothing that the
artifact names. What is not known here to be data counts as code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from scoring.errors import ModelUntrusted
from scoring.models.signature import ModelFiles

BOOSTERS: Mapping[str, frozenset[str]] = {
    "lightgbm": frozenset({"lightgbm.basic.Booster"}),
    "xgboost": frozenset(
        {
            "xgboost.core.Booster",
            *(f"xgboost.sklearn.XGB{kind}" for kind in ("Classifier", "Regressor", "Ranker")),
            *(f"xgboost.sklearn.XGBRF{kind}" for kind in ("Classifier", "Regressor")),
        }
    ),
}
"""Flavors whose libraries read a format of their own, and the classes that MLflow fills from it."""
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}
"""Ports that an address means when it names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """A registry, and those whose models may bring code; all without name and password."""

    registry: str
    trusted: tuple[str, ...]

    @classmethod
    def of(cls, registry: str, trusted: Sequence[str] = ()) -> Self:
        """``registry`` as it is configured; if no other is named as trusted, it is itself."""
        named = tuple(plain(one) for one in trusted) or (plain(registry),)
        return cls(registry=plain(registry), trusted=named)

    def check(self, files: ModelFiles) -> None:
        """Raise `ModelUntrusted` unless the model may run here. Nothing of it is loaded for that.

        Raises: ModelUntrusted.
        """
        why = "" if self.registry in self.trusted else code_in(files)
        if why:
            raise ModelUntrusted(files.model, why, self.registry, self.trusted)


def code_in(files: ModelFiles) -> str:
    """What of a model would run as code when it is loaded; nothing, if all of it is data."""
    if files.flavor == "onnx":  # a graph, and all that the engine opens of the artifact
        return ""
    described = files.flavors.get(files.flavor)
    function = files.flavors.get("python_function")
    classes = BOOSTERS.get(files.flavor)
    if classes is None or not isinstance(described, Mapping) or not isinstance(function, Mapping):
        return f"the flavor {files.flavor} is loaded as Python objects (pickle)"
    if len(files.flavors) > len({files.flavor, "python_function"}):
        return f"it has several flavors: {', '.join(map(str, files.flavors))}"
    if any(one.get("code") for one in (described, function)):
        return "it brings Python code along (code_paths)"
    if function.get("loader_module") != f"mlflow.{files.flavor}":
        return f"it is loaded by {function.get('loader_module')!s}"
    named = described.get("model_class")
    if named not in classes:
        return f"its class {named!s} is loaded as Python objects (pickle)"
    if not all(_is_inside(files.folder, one.get("data")) for one in (described, function)):
        return "it is loaded from outside its own folder"
    return ""


def plain(uri: str) -> str:
    """An address of a registry, written so that two of the same are equal; no name, no password."""
    uri = uri.strip()
    scheme, found, rest = uri.partition("://")
    if not found:  # MLflow's names of Databricks, or a folder
        return uri if uri.startswith("databricks") or not uri else f"file://{_absolute(uri)}"
    kind = scheme.lower().partition("+")[0]  # without the driver, which does not change the place
    kind = "postgresql" if kind == "postgres" else kind
    if kind == "file":
        return f"file://{_absolute(rest.removeprefix('localhost'))}"
    if kind == "sqlite":
        return f"sqlite:///{_absolute(rest.removeprefix('/').partition('?')[0])}"
    try:
        address = urlsplit(f"//{rest}")
        port = address.port or PORTS.get(kind)
    except ValueError:
        return f"{kind}://{rest.rpartition('@')[2]}"
    at = f":{port}" if port else ""
    return f"{kind}://{(address.hostname or '').rstrip('.')}{at}{address.path.rstrip('/')}"


def _absolute(path: str) -> str:
    return str(Path(path).resolve())


def _is_inside(folder: Path, name: Any) -> bool:
    return isinstance(name, str) and (folder / name).resolve().is_relative_to(folder.resolve())
