"""Train ``flights-delay`` on January to June, register it in MLflow and put it in production.

The model is a plain scikit-learn pipeline behind a short ``PythonModel`` (``model.py``), because a
column ``probability_late`` is what a reader of the scores wants and ``predict_proba`` gives pairs.

``train.parquet`` holds the features of every departure of those months, for the drift reference.
Cancelled flights are among them although they have no label: they are part of every night.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from examples.flights.prepare import CATEGORIES, FEATURES, days, departures, late
from examples.tracking import tracked_run

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

NAME = "flights-delay"
ALIAS = "production"
REQUIREMENTS = ("mlflow", "pandas", "scikit-learn")
TRAINED_ON = days(date(2013, 1, 1), date(2013, 6, 30))
TESTED_ON = days(date(2013, 7, 1), date(2013, 7, 31))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a training left behind."""

    version: int
    """The registry version that ``production`` now names."""
    auc: float
    """Area under the ROC curve on July's departures, which the model has not seen."""
    train_path: Path
    """Features of January to June, for the drift reference."""


def train(folder: Path, tracking_uri: str = "") -> TrainResult:
    """Fit, test and register a version, and write its features to ``folder/train.parquet``.

    ``tracking_uri`` defaults to the one that Nightscore reads.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = fit(departures(TRAINED_ON), late(TRAINED_ON))
    auc = measure(pipeline, departures(TESTED_ON), late(TESTED_ON))
    registered = register(pipeline, auc, tracking_uri)

    train_path = folder / "train.parquet"
    pq.write_table(departures(TRAINED_ON).select(FEATURES), train_path)
    return TrainResult(version=registered, auc=auc, train_path=train_path)


def fit(table: pa.Table, labels: pa.ChunkedArray) -> Pipeline:
    """Fit gradient-boosted trees to the rows that have a label; missing numbers need no filling."""
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=float("nan"))
    pipeline = make_pipeline(
        make_column_transformer((encoder, list(CATEGORIES)), remainder="passthrough"),
        HistGradientBoostingClassifier(
            categorical_features=list(range(len(CATEGORIES))), random_state=2013
        ),
    )
    return pipeline.fit(*_labelled(table, labels))


def measure(pipeline: Pipeline, table: pa.Table, labels: pa.ChunkedArray) -> float:
    """Area under the ROC curve over the rows that have a label."""
    features, truth = _labelled(table, labels)
    return float(roc_auc_score(truth, pipeline.predict_proba(features)[:, 1]))


def register(pipeline: Pipeline, auc: float, tracking_uri: str = "") -> int:
    """Store the pipeline as a new version of the registered model and give it the alias."""
    import mlflow

    with tempfile.TemporaryDirectory() as scratch, tracked_run(NAME, tracking_uri):
        file = Path(scratch) / "pipeline.joblib"
        joblib.dump(pipeline, file)
        mlflow.log_metric("auc_july", auc)
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=Path(__file__).with_name("model.py"),
            artifacts={"pipeline": str(file)},
            signature=_signature(),
            registered_model_name=NAME,
            # Named here, because MLflow would find them by loading the model in another process.
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
        )
        mlflow.MlflowClient().set_registered_model_alias(
            NAME, ALIAS, str(logged.registered_model_version)
        )
    return int(logged.registered_model_version)


def _signature() -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    inputs = [
        *(ColSpec("string", name) for name in CATEGORIES),
        ColSpec("integer", "sched_dep_minute"),
        ColSpec("integer", "sched_arr_minute"),
        ColSpec("integer", "distance"),
        ColSpec("double", "dep_delay", required=False),
    ]
    return ModelSignature(
        inputs=Schema(inputs), outputs=Schema([ColSpec("double", "probability_late")])
    )


def _labelled(table: pa.Table, labels: pa.ChunkedArray) -> tuple[pd.DataFrame, np.ndarray]:
    known = labels.is_valid()
    return table.select(FEATURES).filter(known).to_pandas(), labels.filter(known).to_numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train, register and promote flights-delay.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path(".scoring/demo"))
    result = train(parser.parse_args().folder)
    print(f"models:/{NAME}/{result.version} is in {ALIAS}: AUC {result.auc:.3f} on July")
    print(f"its drift reference can be made from {result.train_path}")


if __name__ == "__main__":
    main()
