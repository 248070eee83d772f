"""One quiet MLflow run: what the examples and the benchmarks register their models in."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

from scoring.models.registry import artifact_location
from scoring.settings import Settings


@contextmanager
def tracked_run(experiment: str, tracking_uri: str = "") -> Iterator[None]:
    """Open a run in ``experiment``, created if need be; MLflow's notes are shown only on failure.

    ``tracking_uri`` defaults to the one that Nightscore reads.
    """
    import mlflow

    notes = io.StringIO()
    try:
        with redirect_stderr(notes):
            mlflow.set_tracking_uri(tracking_uri or Settings().tracking_uri)
            mlflow.set_experiment(experiment_id=_experiment(experiment))
            with mlflow.start_run():
                yield
    except BaseException:
        sys.stderr.write(notes.getvalue())
        raise


def _experiment(name: str) -> str:
    import mlflow

    found = mlflow.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = artifact_location(str(mlflow.get_tracking_uri()), name)
    return str(mlflow.create_experiment(name, artifact_location=location))
