"""The MLflow registry: what a name means now, and the files that a pin stands for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import structlog
from mlflow.models import ModelSignature, set_signature
from mlflow.types import ColSpec, Schema

from scoring import Settings
from scoring.errors import (
    ModelDigestMismatch,
    ModelFilesGone,
    ModelNotFound,
    RegistryUnreachable,
    SignatureMissing,
)
from scoring.models import ModelCache, Registry, Version, read_model
from scoring.models.cache import folder_digest
from scoring.models.patience import Patience
from tests.integration import models
from tests.integration.models import register
from tests.integration.processes import ROOT

pytestmark = pytest.mark.slow

AMOUNT = ModelSignature(inputs=Schema([ColSpec("float", "amount")]))
FETCHERS = 6
HASTY = Patience(retrying=0.2, pause=0.01)
"""For a registry that is away."""


@pytest.fixture
def registry(tracking_uri: str) -> Registry:
    return Registry(tracking_uri)


@pytest.fixture
def cache(tmp_path: Path, registry: Registry) -> ModelCache:
    return ModelCache(tmp_path / "cache", registry)


@pytest.fixture
def new_version(tracking_uri: str) -> Callable[..., str]:
    """Registers a version that multiplies by ``factor``; returns the model's URI."""

    def new(factor: float = 1.0, **how: object) -> str:
        graph = models.linear(np.array([[factor]], np.float32))
        how.setdefault("signature", AMOUNT)
        return register(tracking_uri, mlflow.onnx.log_model, graph, **how)

    return new


New = Callable[..., str]


def name_of(uri: str) -> str:
    return uri.removeprefix("models:/").partition("@")[0]


# Resolving


def test_an_alias_means_the_version_that_has_it_now(registry: Registry, new_version: New) -> None:
    uri = new_version(1)
    first = registry.resolve(uri)
    new_version(2, name=name_of(uri))

    second = registry.resolve(uri)

    assert (first.version, second.version) == ("1", "2")
    assert (second.model, second.name) == (uri, name_of(uri))
    assert second.uri == f"models:/{name_of(uri)}/2"


def test_a_number_means_that_version_for_ever(registry: Registry, new_version: New) -> None:
    name = name_of(new_version(1))
    new_version(2, name=name)

    assert registry.resolve(f"models:/{name}/1").version == "1"


def test_a_stage_still_works_and_warns(
    registry: Registry, tracking_uri: str, new_version: New
) -> None:
    name = name_of(new_version(1))
    new_version(2, name=name)
    with pytest.warns(FutureWarning, match="stage"):
        mlflow.MlflowClient(tracking_uri).transition_model_version_stage(name, "1", "Production")

    with structlog.testing.capture_logs() as lines:
        found = registry.resolve(f"models:/{name}/Production")

    assert found.version == "1"
    assert [(line["event"], line["log_level"], line["instead"]) for line in lines] == [
        ("model_stage_deprecated", "warning", f"models:/{name}@production")
    ]


def test_names_with_spaces_and_dots_are_found(registry: Registry, new_version: New) -> None:
    uri = new_version(name="flügel 2.0 (new)")

    assert registry.resolve(uri).name == "flügel 2.0 (new)"


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("models:/never-registered@production", "name=never-registered not found"),
        ("models:/never-registered/3", r"name=never-registered, version=3\) not found"),
        ("models:/{name}@champion", "alias champion not found"),
        ("models:/{name}/99", r"version=99\) not found"),
        ("models:/{name}/Staging", "no version is in stage Staging"),
        ("models:/{name}", "not of the form models:/name@alias"),
        ("runs:/1/model", "not of the form models:/name@alias"),
    ],
)
def test_what_is_not_there_is_named_with_the_remedy(
    registry: Registry, new_version: New, asked: str, reason: str
) -> None:
    asked = asked.format(name=name_of(new_version()))

    with pytest.raises(ModelNotFound, match=reason) as missing:
        registry.resolve(asked)

    text = str(missing.value)
    assert text.startswith(f"{asked} is not in the registry at sqlite:///")
    assert "set_registered_model_alias(name, 'production', version)" in text
    assert ".." not in text.replace("...", "")


def test_a_registry_that_does_not_answer_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    with pytest.raises(
        RegistryUnreachable, match=r"registry at http://127\.0\.0\.1:9 did"
    ) as silent:
        Registry("http://me:secret@127.0.0.1:9", HASTY).resolve("models:/m@production")

    assert "secret" not in str(silent.value)


# Gone, or changed


def test_an_alias_that_was_taken_away_is_named(registry: Registry, new_version: New) -> None:
    uri = new_version()
    client().delete_registered_model_alias(name_of(uri), "production")

    with pytest.raises(ModelNotFound, match=f"{uri} is not .* alias production not found"):
        registry.resolve(uri)


@pytest.mark.parametrize("asked", ["@production", "/1"])
def test_a_version_that_was_deleted_is_named(
    registry: Registry, new_version: New, asked: str
) -> None:
    name = name_of(new_version())
    client().delete_model_version(name, "1")

    with pytest.raises(ModelNotFound, match=f"models:/{name}{asked} is not .* not found"):
        registry.resolve(f"models:/{name}{asked}")


def test_a_model_that_was_deleted_is_named(registry: Registry, new_version: New) -> None:
    uri = new_version()
    client().delete_registered_model(name_of(uri))

    with pytest.raises(ModelNotFound, match=f"{uri} is not .*{name_of(uri)} not found"):
        registry.resolve(uri)


@pytest.mark.parametrize("deleted", ["version", "model"])
def test_a_version_that_was_deleted_after_the_pin_is_scored_where_it_is_and_missed_elsewhere(
    cache: ModelCache, tmp_path: Path, registry: Registry, new_version: New, deleted: str
) -> None:
    version = registry.resolve(new_version())
    digest, folder = cache.fetch(version)
    if deleted == "version":
        client().delete_model_version(version.name, "1")
    else:
        client().delete_registered_model(version.name)

    assert cache.get(version, digest) == folder
    with pytest.raises(ModelNotFound, match=f"{version.uri} is not in the registry"):
        ModelCache(tmp_path / "another machine", registry).get(version, digest)


@pytest.mark.parametrize("pinned", [False, True])
def test_a_version_whose_files_are_gone_is_named_with_their_place(
    cache: ModelCache, registry: Registry, new_version: New, pinned: bool
) -> None:
    version = registry.resolve(new_version())
    shutil.rmtree(files_of(version))

    with pytest.raises(ModelFilesGone, match=f"files of {version.uri} are gone from file://"):
        cache.get(version, "0" * 64) if pinned else cache.fetch(version)


def client() -> mlflow.MlflowClient:
    """Of the registry that the models were registered in."""
    return mlflow.MlflowClient()


def files_of(version: Version) -> Path:
    """Where the registry keeps a version's files."""
    logged = client().get_logged_model(version.source.removeprefix("models:/"))
    return Path(logged.artifact_location.removeprefix("file://"))


# Fetching


def test_the_same_files_have_the_same_digest_wherever_they_were_fetched(
    tmp_path: Path, registry: Registry, new_version: New
) -> None:
    version = registry.resolve(new_version())

    digests = {ModelCache(tmp_path / place, registry).fetch(version)[0] for place in "ab"}

    assert len(digests) == 1


def test_versions_with_other_weights_have_other_digests(
    cache: ModelCache, registry: Registry, new_version: New
) -> None:
    assert len({cache.fetch(registry.resolve(new_version(factor)))[0] for factor in (1, 2)}) == 2


class Counting(Registry):
    """The registry, and a list of what was downloaded from it."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.downloads: list[str] = []

    def download(self, version: Version, folder: Path, only: str = "") -> Path:
        self.downloads.append(only or "everything")
        return super().download(version, folder, only)


@pytest.mark.parametrize("pinned", [False, True])
def test_threads_that_need_a_model_at_once_fetch_it_once(
    tmp_path: Path, tracking_uri: str, new_version: New, pinned: bool
) -> None:
    registry = Counting(tracking_uri)
    cache = ModelCache(tmp_path / "cache", registry)
    version = registry.resolve(new_version())
    digest = folder_digest(Registry(tracking_uri).download(version, tmp_path))

    def fetch(_: int) -> Path:
        return cache.get(version, digest) if pinned else cache.fetch(version)[1]

    with ThreadPoolExecutor(FETCHERS) as pool:
        folders = set(pool.map(fetch, range(FETCHERS)))

    assert folders == {tmp_path / "cache" / digest}
    assert registry.downloads.count("everything") == 1
    assert not list((tmp_path / "cache").glob("arriving-*"))


def test_processes_that_need_a_model_at_once_share_one_copy(
    tmp_path: Path, tracking_uri: str, new_version: New
) -> None:
    uri = new_version()
    code = f"""
import os
from pathlib import Path
from scoring.models import ModelCache, Registry
registry = Registry({tracking_uri!r})
cache = ModelCache(Path({str(tmp_path / "cache")!r}), registry)
digest, folder = cache.fetch(registry.resolve({uri!r}))
print(folder, os.stat(folder / "MLmodel").st_ino)
"""
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]

    seen = {process.communicate(timeout=200)[0] for process in started}

    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(seen) == 1, "a second copy replaced the first"


def test_nobody_outside_is_told_that_mlflow_is_used(tmp_path: Path) -> None:
    code = f"""
from scoring.models import Registry
assert Registry("sqlite:///{tmp_path}/mlflow.db").count() == 0
from mlflow.telemetry.client import get_telemetry_client
assert get_telemetry_client() is None
"""
    elsewhere = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}  # it is silent in tests and CI
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=elsewhere, check=True, timeout=200)


def test_a_worker_that_is_frozen_while_it_fetches_does_not_stop_the_others_for_ever(
    tmp_path: Path, tracking_uri: str, new_version: New
) -> None:
    version = Registry(tracking_uri).resolve(new_version())
    frozen, wakes = threading.Event(), threading.Event()

    class Frozen(Registry):
        """The registry, of somebody who is frozen as soon as the files have come."""

        def download(self, version: Version, folder: Path, only: str = "") -> Path:
            found = super().download(version, folder, only)
            frozen.set()
            wakes.wait(60)
            return found

    slow = ModelCache(tmp_path / "cache", Frozen(tracking_uri))
    quick = ModelCache(tmp_path / "cache", Registry(tracking_uri), lock_seconds=0.05)
    with ThreadPoolExecutor(1) as pool, structlog.testing.capture_logs() as lines:
        first = pool.submit(slow.fetch, version)
        frozen.wait(60)
        second = quick.fetch(version)
        wakes.set()  # it finds the same files there already

        assert first.result() == second
    assert [line["event"] for line in lines] == ["model_lock_held"]
    assert folder_digest(second[1]) == second[0]
    assert not list((tmp_path / "cache").glob("arriving-*"))


def test_files_that_are_here_are_not_fetched_again(
    tmp_path: Path, tracking_uri: str, new_version: New
) -> None:
    registry = Counting(tracking_uri)
    cache = ModelCache(tmp_path / "cache", registry)
    version = registry.resolve(new_version())

    first, again = cache.fetch(version), cache.fetch(version)
    cache.get(version, first[0])

    assert first == again
    assert registry.downloads == ["everything", "MLmodel"]


def test_files_that_somebody_cleared_away_are_fetched_again(
    cache: ModelCache, registry: Registry, new_version: New
) -> None:
    version = registry.resolve(new_version())
    digest, folder = cache.fetch(version)
    shutil.rmtree(folder)

    assert cache.fetch(version) == (digest, folder)
    assert (folder / "MLmodel").is_file()


def test_files_that_changed_after_the_pin_are_refused(
    cache: ModelCache, tmp_path: Path, registry: Registry, new_version: New
) -> None:
    version = registry.resolve(new_version())
    digest, _ = cache.fetch(version)
    with (files_of(version) / "model.onnx").open("ab") as file:
        file.write(b"\0")
    elsewhere = ModelCache(tmp_path / "another machine", registry)

    with pytest.raises(ModelDigestMismatch, match="changed a registered version in place") as found:
        elsewhere.get(version, digest)

    assert found.value.pinned == digest
    assert cache.get(version, digest).is_dir(), "who has the pinned files goes on with them"


def test_a_signature_that_is_added_in_place_is_seen_by_the_next_run(
    cache: ModelCache, registry: Registry, new_version: New
) -> None:
    version = registry.resolve(new_version(signature=None))
    before, folder = cache.fetch(version)
    with pytest.raises(SignatureMissing):
        read_model(folder, version.uri)

    set_signature(version.source, AMOUNT)
    after, folder = cache.fetch(version)

    assert after != before
    assert [field.name for field in read_model(folder, version.uri).signature.inputs] == ["amount"]


# The folder that we happen to be in


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """An empty folder to run in, which must stay empty."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    yield folder
    assert os.listdir(folder) == []


def test_scoring_leaves_nothing_of_mlflows_in_the_current_folder(
    elsewhere: Path, settings: Settings, tracking_uri: str, tmp_path: Path
) -> None:
    signature = ModelSignature(inputs=Schema([ColSpec("double", "amount")]))
    uri = register(tracking_uri, mlflow.pyfunc.log_model, models.AsSeries(), signature=signature)
    pq.write_table(pa.table({"amount": [1.0, 2.0]}), tmp_path / "rows.parquet")
    code = f"""
import json
from scoring import Settings, reference
from scoring.api import open_context
from scoring.models import EngineOptions, load, read_model
import pyarrow as pa
context = open_context(Settings())
version = context.registry.resolve({uri!r})
_, folder = context.cache.fetch(version)
engine = load(read_model(folder, version.uri), EngineOptions(device="cpu", threads=1))
reference.from_training(context, {uri!r}, {str(tmp_path / "rows.parquet")!r})
context.registry.count()
rows = engine.prepare(pa.record_batch({{"amount": [1.0]}}))
print(json.dumps(engine.predict(rows)["score"].to_pylist()))
"""
    environment = {
        **os.environ,
        "SCORING_HOME": str(settings.home),
        "MLFLOW_TRACKING_URI": tracking_uri,
    }

    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, env=environment, capture_output=True, text=True
    )

    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [1.25]
