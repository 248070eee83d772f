"""What it takes to load a pinned model: where its files lie, which variant, on what.

As JSON it crosses into the process of its own that a model gets once it has killed a worker
(see `scoring.models.apart`); loaded from there or here, it is the same engine.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scoring.errors import ModelNotLoaded, ScoringError
from scoring.models.built import Built
from scoring.models.engines import Engine, EngineOptions, load, load_built
from scoring.models.faults import said
from scoring.models.signature import read_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Loadable:
    """One model version, as registered or as a variant."""

    model: str
    """As the registry names it: ``models:/name/version``."""
    folder: Path
    built: Built | None
    """The variant; ``None``: as registered."""
    options: EngineOptions

    def load(self) -> Engine:
        """Load it into this process.

        Raises:
            ModelNotLoaded: its own code raised, or a package that it needs is missing.
            ModelError: it cannot be scored here.
        """
        files = read_model(self.folder, self.model)
        try:
            if self.built is None:
                return load(files, self.options)
            return load_built(files, self.built, self.options)
        except ScoringError:
            raise
        except Exception as error:
            raise ModelNotLoaded(self.model, f"{type(error).__name__}: {said(error)}") from error

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Loadable:
        values = json.loads(text)
        return cls(
            model=values["model"],
            folder=Path(values["folder"]),
            built=_built(values["built"]),
            options=_options(values["options"]),
        )


def _built(values: dict[str, Any] | None) -> Built | None:
    if values is None:
        return None
    lists = {name: tuple(values[name]) for name in ("refused", "bounded")}
    return Built(**{**values, **lists, "folder": Path(values["folder"])})


def _options(values: dict[str, Any]) -> EngineOptions:
    cache = None if values["cache"] is None else Path(values["cache"])
    return EngineOptions(**{**values, "columns": tuple(values["columns"]), "cache": cache})
