"""Code of a model runs only if its registry is trusted: it is refused before it is loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import lightgbm
import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LinearRegression

from scoring import Settings, reference
from scoring.errors import ModelError, ModelUntrusted
from scoring.models import ModelCache, Registry
from scoring.models.search_request import Request
from scoring.runs import Occasion, create_or_record, sample
from scoring.runs.context import Context
from scoring.runs.search_process import REQUEST, run_search
from scoring.variants import of_model
from tests.conftest import make_settings
from tests.integration.in_process import created, job, opened, rows, scored
from tests.integration.models import linear, register

pytestmark = pytest.mark.slow

OTHER = "http://someone:planted@another.example:5000"
FRAME = pd.DataFrame(np.zeros((4, 2), np.float32), columns=["a", "b"])
SIGNATURE = mlflow.models.infer_signature(FRAME, np.zeros(4, np.float32))


class Evil(mlflow.pyfunc.PythonModel):
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.trace.touch()

    def predict(self, context, model_input, params=None):
        return model_input["a"].to_numpy()


cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def trusting(tmp_path: Path, tracking_uri: str) -> Settings:
    return make_settings(tmp_path / "home", tracking_uri)


@pytest.fixture
def wary(trusting: Settings) -> Settings:
    """The same installation, whose registry is not trusted any more."""
    return trusting.model_copy(update={"trusted_registries": (OTHER,)})


@pytest.fixture
def context(wary: Settings) -> Iterator[Context]:
    with opened(wary) as found:
        yield found


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "it-was-loaded"


@pytest.fixture
def evil(tracking_uri: str, trace: Path) -> str:
    uri = register(tracking_uri, mlflow.pyfunc.log_model, Evil(trace), signature=SIGNATURE)
    trace.unlink(missing_ok=True)
    return uri


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return rows(tmp_path / "in" / "rows.parquet")


def test_a_pickle_of_another_registry_is_refused_before_it_is_loaded(
    context: Context, evil: str, source: Path, tmp_path: Path, trace: Path
) -> None:
    with pytest.raises(ModelUntrusted, match="at sqlite:") as refused:
        created(context, job(evil, source, tmp_path / "out"))

    assert "planted" not in str(refused.value)
    assert context.ledger.runs.latest() == []
    assert not trace.exists()


def test_the_same_pickle_runs_where_its_registry_is_trusted(
    trusting: Settings, evil: str, source: Path, tmp_path: Path, trace: Path
) -> None:
    with opened(trusting) as context:
        run = scored(context, created(context, job(evil, source, tmp_path / "out")))

    assert run.state == "published", run.error
    assert trace.exists()


def test_a_schedule_is_told_of_it_by_a_failed_run(
    context: Context, evil: str, source: Path, tmp_path: Path, trace: Path
) -> None:
    run = create_or_record(
        context, job(evil, source, tmp_path / "out"), Occasion(), trigger="schedule", priority=3
    )

    assert run.state == "failed"
    assert "SCORING_TRUSTED_REGISTRIES" in str(run.error)
    assert not trace.exists()


def test_a_worker_refuses_what_somebody_else_has_planned(
    trusting: Settings, wary: Settings, evil: str, source: Path, tmp_path: Path, trace: Path
) -> None:
    with opened(trusting) as planner:
        run = created(planner, job(evil, source, tmp_path / "out"))
    with opened(wary) as worker:
        ended = scored(worker, run)

    assert ended.state == "failed"
    assert "may not run" in str(ended.error)
    assert not trace.exists()
    assert not (tmp_path / "out").exists()


def test_the_search_for_variants_refuses_it_too(
    trusting: Settings, wary: Settings, tracking_uri: str, source: Path, tmp_path: Path
) -> None:
    table = pq.read_table(source).select(["a", "b"])
    model = register(
        tracking_uri,
        mlflow.sklearn.log_model,
        LinearRegression().fit(FRAME, [0, 1, 2, 3]),
        signature=SIGNATURE,
    )
    with opened(trusting) as context:
        version = context.registry.resolve(model)
        digest, folder = context.cache.fetch(version)
    (tmp_path / "search").mkdir()
    sample.write(table, tmp_path / "search" / "rows.arrow")
    with opened(wary) as context:
        request = Request(
            **dict.fromkeys(("device_name", "runtimes", "sample", "cache"), ""),
            model=version.uri,
            model_folder=str(folder),
            model_digest=digest,
            columns=(),
            device="cpu",
            threads=1,
            tensorrt=False,
            rows=str(tmp_path / "search" / "rows.arrow"),
            folder=str(tmp_path / "search"),
            registry=context.trust.registry,
            trusted=context.trust.trusted,
        )
    (tmp_path / "search" / REQUEST).write_text(request.to_json(), encoding="utf-8")

    why = run_search(tmp_path / "search", 1, 180.0, lambda: None)

    assert "ModelUntrusted" in why
    assert "planted" not in request.to_json()


def test_commands_on_models_refuse_it(
    context: Context, evil: str, source: Path, trace: Path, tracking_uri: str
) -> None:
    model = register(
        tracking_uri,
        mlflow.sklearn.log_model,
        LinearRegression().fit(FRAME, [0, 1, 2, 3]),
        signature=SIGNATURE,
    )

    with pytest.raises(ModelUntrusted):
        reference.from_training(context, evil, str(source))
    with pytest.raises(ModelUntrusted):
        of_model(context, model, path=str(source))
    assert not trace.exists()


def test_onnx_runs_from_any_registry_and_code_beside_it_does_not(
    context: Context, tracking_uri: str, source: Path, tmp_path: Path, trace: Path
) -> None:
    code = tmp_path / "evil_module.py"
    code.write_text(f"open({str(trace)!r}, 'w')\n", encoding="utf-8")
    model = register(
        tracking_uri,
        mlflow.onnx.log_model,
        linear(np.array([[1.0], [2.0]], np.float32)),
        signature=SIGNATURE,
        code_paths=[str(code)],
    )
    trace.unlink(missing_ok=True)

    run = scored(context, created(context, job(model, source, tmp_path / "out")))

    assert run.state == "published", run.error
    assert_scores(tmp_path / "out", source, lambda table: table["a"] + 2 * table["b"])
    assert not trace.exists()
    assert not any("evil_module" in place for place in sys.modules)


def test_trees_in_their_own_format_run_from_any_registry(
    context: Context, tracking_uri: str, source: Path, tmp_path: Path
) -> None:
    table = pq.read_table(source).select(["a", "b"]).to_pandas()
    fitted = lightgbm.LGBMRegressor(n_estimators=5, verbose=-1).fit(table, table["a"])
    booster = fitted.booster_
    model = register(tracking_uri, mlflow.lightgbm.log_model, booster, signature=SIGNATURE)

    run = scored(context, created(context, job(model, source, tmp_path / "out")))

    assert run.state == "published", run.error
    assert_scores(tmp_path / "out", source, lambda _: booster.predict(table))


@pytest.mark.parametrize("kind", ["a file", "a folder", "nothing"])
def test_a_link_out_of_an_artifact_is_not_followed(
    tracking_uri: str, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_text("planted")
    model = register(
        tracking_uri,
        mlflow.onnx.log_model,
        linear(np.array([[1.0], [2.0]], np.float32)),
        signature=SIGNATURE,
    )
    registry = Registry(tracking_uri)
    version = registry.resolve(model)
    artifact = Path(registry._artifacts(version).removeprefix("file://"))
    targets = {"a file": "elsewhere/secret", "a folder": "elsewhere", "nothing": "none"}
    (artifact / "link").symlink_to(tmp_path / targets[kind])

    with pytest.raises(ModelError):
        ModelCache(tmp_path / "cache", registry).fetch(version)

    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert not any(b"planted" in path.read_bytes() for path in kept)


@pytest.mark.parametrize("place", ["../graph.onnx", "{folder}/graph.onnx"])
def test_a_graph_out_of_an_artifact_is_not_opened(
    trusting: Settings, tracking_uri: str, source: Path, tmp_path: Path, place: str
) -> None:
    model = register(
        tracking_uri,
        mlflow.onnx.log_model,
        linear(np.array([[1.0], [2.0]], np.float32)),
        signature=SIGNATURE,
    )
    with opened(trusting) as context:
        version = context.registry.resolve(model)
        artifact = Path(context.registry._artifacts(version).removeprefix("file://"))
        folder = context.settings.model_cache
        folder.mkdir(parents=True)
        (artifact / "model.onnx").rename(folder / "graph.onnx")
        described = (artifact / "MLmodel").read_text(encoding="utf-8")
        elsewhere = described.replace("model.onnx", place.format(folder=folder))
        (artifact / "MLmodel").write_text(elsewhere, encoding="utf-8")
        run = scored(context, created(context, job(model, source, tmp_path / "out")))

    assert run.state == "failed"
    assert "outside its own folder" in str(run.error)


def assert_scores(output: Path, source: Path, expected: Any) -> None:
    table = pq.read_table(source).to_pandas()
    found = pa.concat_tables([pq.read_table(path) for path in sorted(output.glob("*.parquet"))])
    np.testing.assert_allclose(found["score"].to_numpy(), expected(table), rtol=1e-5)
