"""What the integration tests share: one small registered model, and a bench for bad input."""

from __future__ import annotations

from collections.abc import Iterator

import mlflow
import numpy as np
import pandas as pd
import pytest

from tests.integration.bad_inputs import Bench
from tests.integration.models import linear, register


@pytest.fixture(scope="module")
def model(tracking_uri: str) -> str:
    """``score = a + 2 b`` in float32, in production under a name of its own."""
    frame = pd.DataFrame(np.zeros((4, 2), np.float32), columns=["a", "b"])
    return register(
        tracking_uri,
        mlflow.onnx.log_model,
        linear(np.array([[1.0], [2.0]], np.float32)),
        signature=mlflow.models.infer_signature(frame, np.zeros(4, np.float32)),
    )


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory, tracking_uri: str) -> Iterator[Bench]:
    """One installation, in which nothing happens by itself, for all cases of bad input."""
    opened = Bench(tmp_path_factory.mktemp("bench"), tracking_uri)
    yield opened
    opened.close()
