"""What it takes to load a model crosses into another process as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from scoring.models.built import Built
from scoring.models.engines import EngineOptions
from scoring.models.loadable import Loadable

BUILT = Built(
    variant="int8",
    recipe="static",
    engine="onnx",
    folder=Path("/variants/int8"),
    refused=("fare",),
    bounded=("fare", "stops"),
)


@pytest.mark.parametrize("built", [None, BUILT])
@pytest.mark.parametrize("cache", [None, Path("/engines")])
def test_it_is_the_same_after_json(built: Built | None, cache: Path | None) -> None:
    options = EngineOptions(
        device="cpu", threads=3, columns=("a", "b"), batch_rows=77, tensorrt=True, cache=cache
    )
    what = Loadable(model="models:/m/1", folder=Path("/m"), built=built, options=options)

    assert Loadable.from_json(what.to_json()) == what
