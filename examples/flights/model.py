"""The registered model: a fitted scikit-learn pipeline, answering with one probability per row.

MLflow stores this file beside the pipeline and runs it wherever the model is loaded, so a worker
needs nothing of this folder.
"""

from __future__ import annotations

import joblib
import mlflow
import pandas as pd


class FlightsDelay(mlflow.pyfunc.PythonModel):
    """How likely each departure is to arrive late."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        self.pipeline = joblib.load(context.artifacts["pipeline"])

    def predict(
        self,
        context: mlflow.pyfunc.PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, object] | None = None,
    ) -> pd.DataFrame:
        features = model_input.reindex(columns=self.pipeline.feature_names_in_)
        probabilities = self.pipeline.predict_proba(features)
        return pd.DataFrame({"probability_late": probabilities[:, 1]})


mlflow.models.set_model(FlightsDelay())
