"""What the integration tests share: one small registered model."""

from __future__ import annotations

import mlflow
import numpy as np
import pandas as pd
import pytest

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
