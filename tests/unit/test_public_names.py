"""The public names, and what importing them costs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import scoring

HEAVY = {"torch", "onnxruntime", "onnx", "mlflow", "celery", "kombu", "pandas", "sklearn", "duckdb"}


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after the statement."""
    show = (
        "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", f"{statement}\n{show}"], capture_output=True, text=True, check=True
    )
    return set(json.loads(shown.stdout))


def test_the_public_names_are_these() -> None:
    assert scoring.__all__ == [
        "Job",
        "Run",
        "ScoringError",
        "Settings",
        "get_run",
        "latest_runs",
        "submit",
    ]
    assert dir(scoring) == sorted(scoring.__all__)


@pytest.mark.parametrize("name", scoring.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(scoring, name)

    assert found.__name__ == name
    assert found.__doc__


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'scoring' has no attribute 'sumbit'"):
        scoring.sumbit  # noqa: B018


def test_a_star_import_brings_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from scoring import *", names)

    assert set(scoring.__all__) <= names.keys()


def test_importing_scoring_loads_nothing_heavy() -> None:
    assert modules_after("import scoring") & (HEAVY | {"pyarrow", "numpy", "sqlalchemy"}) == set()


def test_importing_the_api_loads_no_model_runtime_and_no_celery() -> None:
    assert modules_after("from scoring import submit, get_run, Run, Job") & HEAVY == set()


def test_the_errors_and_the_job_need_no_data_library() -> None:
    loaded = modules_after("from scoring import Job, ScoringError, Settings")

    assert loaded & (HEAVY | {"pyarrow", "numpy", "sqlalchemy"}) == set()
