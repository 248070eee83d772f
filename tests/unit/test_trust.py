"""What of a model is code, and when two addresses are the same registry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from scoring.errors import ModelUntrusted
from scoring.models.signature import Field, ModelFiles, Signature
from scoring.models.trust import Trust, code_in, plain

Flavors = Mapping[str, Any]


def model(folder: Path, flavors: Flavors) -> ModelFiles:
    one = Field(name="a", type=pa.float32(), shape=None, required=True)
    signature = Signature(inputs=(one,), outputs=())
    return ModelFiles(folder=folder, model="models:/m/1", flavors=flavors, signature=signature)


def booster(flavor: str, **more: Any) -> dict[str, Any]:
    """A booster in its library's own format, as MLflow describes one; ``more`` of its flavor."""
    named = {"xgboost": "xgboost.core.Booster", "lightgbm": "lightgbm.basic.Booster"}[flavor]
    described = {"data": "model.txt", "model_class": named, **more}
    return {
        flavor: described,
        "python_function": {"loader_module": f"mlflow.{flavor}", "data": "model.txt"},
    }


def function(**more: Any) -> dict[str, Any]:
    return {"loader_module": "mlflow.sklearn", "model_path": "model.pkl", **more}


CODE: Mapping[str, Flavors] = {
    "sklearn": {"sklearn": {"pickled_model": "model.pkl"}, "python_function": function()},
    "pyfunc": {"python_function": {"loader_module": "mlflow.pyfunc.model"}},
    "pyfunc with a loader of its own": {"python_function": {"loader_module": "evil", "code": "c"}},
    "pytorch": {"pytorch": {"model_data": "data"}, "python_function": function()},
    "transformers": {"transformers": {"task": "x"}, "python_function": function()},
    "sentence_transformers": {"sentence_transformers": {}, "python_function": function()},
    "a flavor nobody knows": {"evil": {"data": "model.txt"}},
    "no flavor": {},
    "skops": {
        "sklearn": {"serialization_format": "skops", "skops_trusted_types": ["os.system"]},
        "python_function": function(),
    },
    "LightGBM's sklearn class": booster("lightgbm", model_class="lightgbm.sklearn.LGBMClassifier"),
    "LightGBM without a class": booster("lightgbm", model_class=None),
    "XGBoost's class of another's": booster("xgboost", model_class="subprocess.Popen"),
    "a booster with code": booster("lightgbm", code="code"),
    "a booster whose pyfunc has code": {
        **booster("xgboost"),
        "python_function": {"loader_module": "mlflow.xgboost", "data": "m", "code": "code"},
    },
    "a booster with a loader of its own": {
        **booster("xgboost"),
        "python_function": {"loader_module": "evil", "data": "model.txt"},
    },
    "a booster beside a pickle": {**booster("xgboost"), "sklearn": {"pickled_model": "m.pkl"}},
    "a booster from elsewhere": booster("lightgbm", data="../../elsewhere/model.txt"),
    "a booster at the root": booster("lightgbm", data="/etc/passwd"),
    "a booster from a number": booster("lightgbm", data=5),
    "a booster that is a list": {"lightgbm": [], "python_function": []},
}
DATA: Mapping[str, Flavors] = {
    "onnx": {"onnx": {"data": "model.onnx"}, "python_function": {"loader_module": "mlflow.onnx"}},
    "onnx with code, which nobody opens": {
        "onnx": {"data": "model.onnx", "code": "code"},
        "python_function": {"loader_module": "evil", "code": "code"},
    },
    "lightgbm": booster("lightgbm"),
    "xgboost": booster("xgboost"),
    "XGBoost's sklearn class": booster("xgboost", model_class="xgboost.sklearn.XGBClassifier"),
}


@pytest.mark.parametrize("name", CODE)
def test_what_would_run_code_runs_from_trusted_registries_only(name: str, tmp_path: Path) -> None:
    files = model(tmp_path, CODE[name])

    assert code_in(files)
    with pytest.raises(ModelUntrusted, match="Nothing of it was loaded"):
        Trust.of("http://other:5000", ["http://ours:5000"]).check(files)
    Trust.of("http://ours:5000/", ["http://ours:5000"]).check(files)
    Trust.of("http://ours:5000").check(files)


@pytest.mark.parametrize("name", DATA)
def test_data_runs_from_anywhere(name: str, tmp_path: Path) -> None:
    files = model(tmp_path, DATA[name])

    assert code_in(files) == ""
    Trust.of("http://other:5000", ["http://ours:5000"]).check(files)


def test_a_link_out_of_the_folder_is_no_data(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.txt").symlink_to(tmp_path / "elsewhere.txt")

    assert "outside" in code_in(model(folder, booster("lightgbm")))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://host:5000", "http://host:5000/"),
        ("http://Host", "HTTP://host:80//"),
        ("https://user:secret@host/mlflow", "https://host:443/mlflow/"),
        ("http://user@host", "http://host."),
        ("http://[::1]:5000", "http://[::1]:5000/"),
        ("postgresql+psycopg2://a:b@DB/mlflow", "postgresql://db:5432/mlflow"),
        ("postgres://db/mlflow", "postgresql://db/mlflow"),
        ("sqlite:///mlflow.db", f"sqlite:///{Path.cwd()}/mlflow.db"),
        ("sqlite:///./x/../mlflow.db", f"sqlite:////{str(Path.cwd()).lstrip('/')}/mlflow.db"),
        ("mlruns", f"file://{Path.cwd()}/mlruns/"),
        ("file:///srv/mlruns", "/srv/mlruns"),
        ("databricks", " databricks "),
    ],
)
def test_one_registry_has_one_name(one: str, other: str) -> None:
    assert plain(one) == plain(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://host:5000", "https://host:5000"),
        ("http://host:5000", "http://host:5001"),
        ("http://host", "http://host.evil"),
        ("http://host@evil", "http://host"),
        ("http://host/a", "http://host/b"),
        ("http://host/a", "http://host/A"),
        ("sqlite:///a.db", "sqlite:////a.db"),
        ("postgresql://db/mlflow", "postgresql://db/other"),
        ("databricks://one", "databricks://two"),
    ],
)
def test_two_registries_have_two_names(one: str, other: str) -> None:
    assert plain(one) != plain(other)


@pytest.mark.parametrize(
    "uri", ["http://u:planted@host", "postgresql://u:planted@host:x/db", "s@a"]
)
def test_no_name_of_a_registry_holds_a_password(uri: str) -> None:
    assert "planted" not in plain(uri)
    assert "planted" not in str(Trust.of(uri, [uri]))
