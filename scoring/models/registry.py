"""The MLflow registry: resolve a model once, pin it, remember its reference profile.

A pin names one registry version and the digest of its files. Everything after `resolve` works
from the pin, so a promotion in the middle of a run changes nothing until the next run. MLflow is
imported inside the functions: it costs a second that only those who talk to a registry pay.
How long a call may take, and what follows if none is answered, is in `asking`.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from scoring import telemetry
from scoring.errors import ModelNotFound
from scoring.models import drift_log
from scoring.models.choice import Choice
from scoring.models.patience import Patience
from scoring.models.registry_errors import in_our_words
from scoring.models.registry_file import check_file
from scoring.models.search_result import SearchResult
from scoring.models.version import Version

if TYPE_CHECKING:
    from scoring.models.asking import Circuit

log = telemetry.logger(__name__)

T = TypeVar("T")

MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/]+)|/(?P<version>[^/@]+))$")
LOGGED_MODEL_URI = re.compile(r"models:/(?P<model>m-[0-9a-f]+)$")
MANNERS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""MLflow's own settings, unless somebody chose others: by default it is silent for minutes before
it says that a server is not there, loud about every file, and tells its makers how it is used."""
PROFILE_TAG = "nightscore.profile"
"""Tag of a registered version: the artifact URI of its reference profile."""
SAMPLE_TAG = "nightscore.sample"
"""The same of the rows that variants are judged by."""
PERFORMANCE_TAG = "nightscore.performance"
"""The same of how good the version is on labelled rows."""
PROFILE_FILE, PERFORMANCE_FILE = "profile.json", "performance.json"
METRICS_PER_CALL = 1_000
"""As many as MLflow takes at once."""


class Registry:
    """One MLflow registry."""

    def __init__(self, uri: str, patience: Patience | None = None) -> None:
        self._uri = uri
        self._patience = patience or Patience()
        for variable, value in MANNERS.items():  # read when it is imported, by us or an engine
            os.environ.setdefault(variable, value)

    @property
    def shown(self) -> str:
        """Its address, without name and password."""
        return telemetry.without_credentials(self._uri)

    def resolve(self, model: str) -> Version:
        """The version that ``model`` means now: by alias, by number, or by stage (deprecated).

        Raises:
            ModelNotFound: no such model, alias, stage or version.
            RegistryRefused: it answers, but not to us.
            RegistryUnreachable: the registry did not answer.
        """
        parts = MODEL_URI.match(model)
        if parts is None:
            raise ModelNotFound(model, self.shown, "it is not of the form models:/name@alias")
        found = self._ask(
            model, lambda: self._find(parts["name"], parts["alias"], parts["version"])
        )
        if found is None:
            raise ModelNotFound(model, self.shown, f"no version is in stage {parts['version']}")
        return Version(
            model=model,
            name=found.name,
            version=str(found.version),
            source=str(found.source),
            profile_uri=found.tags.get(PROFILE_TAG),
        )

    def download(self, version: Version, folder: Path, only: str = "") -> Path:
        """Copy the version's files, or ``only`` one of them, below ``folder``; return where."""
        seconds = self._patience.question if only else self._patience.download
        return self._ask(version.uri, lambda: self._copy(version, folder, only), seconds)

    def _copy(self, version: Version, folder: Path, only: str) -> Path:
        place = self._artifacts(version)
        # MLflow resolves models:/ addresses in its process-wide registry, which is the caller's to
        # set; a plain artifact address means the same everywhere.
        return self._file(f"{place}/{only}" if only else place, folder)

    def _file(self, address: str, folder: Path) -> Path:
        """Copy what lies at a plain address below ``folder``; return where."""
        from mlflow.artifacts import download_artifacts

        found = download_artifacts(
            artifact_uri=address, dst_path=str(folder), tracking_uri=self._uri
        )
        return Path(found)

    def _text(self, address: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            return self._file(address, Path(folder)).read_text(encoding="utf-8")

    def _artifacts(self, version: Version) -> str:
        """The plain address of a version's files."""
        client = self._client()
        place = str(client.get_model_version_download_uri(version.name, version.version))
        logged = LOGGED_MODEL_URI.match(place)
        if logged is None:
            return place
        return str(client.get_logged_model(logged["model"]).artifact_location)

    def reference_profile(self, version: Version) -> str | None:
        """The reference profile that was logged to this version, as JSON text."""
        address = version.profile_uri
        if address is None:
            return None
        return self._ask(version.uri, lambda: self._text(address))

    def reference_sample(self, version: Version, folder: Path) -> Path | None:
        """The rows that were logged with the version's profile, as Parquet below ``folder``.

        There are others to judge by, so this is asked once.
        """

        def rows() -> Path | None:
            address = self._tags(version).get(SAMPLE_TAG)
            return self._file(address, folder) if address else None

        return self._ask(version.uri, rows, self._patience.optional, once=True)

    def reference_performance(self, version: Version) -> str | None:
        """How good the version is on labelled rows, as JSON text, if that was logged to it."""

        def performance() -> str | None:
            address = self._tags(version).get(PERFORMANCE_TAG)
            return self._text(address) if address else None

        return self._ask(version.uri, performance)

    def _tags(self, version: Version) -> Mapping[str, str]:
        tags: Mapping[str, str] = (
            self._client().get_model_version(version.name, version.version).tags
        )
        return tags

    def log_reference(
        self,
        version: Version,
        profile: str,
        sample: Path | None = None,
        performance: str | None = None,
    ) -> None:
        """Log a reference profile to the version, with the rows of ``sample`` and what is known
        of its performance."""

        def log_it() -> None:
            client = self._client()
            title = f"reference profile of version {version.version}"
            run_id = self._new_run(f"nightscore/{version.name}", title)
            client.log_text(run_id, profile, PROFILE_FILE)
            tags = {PROFILE_TAG: f"runs:/{run_id}/{PROFILE_FILE}"}
            if sample is not None:
                client.log_artifact(run_id, str(sample))
                tags[SAMPLE_TAG] = f"runs:/{run_id}/{sample.name}"
            if performance is not None:
                client.log_text(run_id, performance, PERFORMANCE_FILE)
                tags[PERFORMANCE_TAG] = f"runs:/{run_id}/{PERFORMANCE_FILE}"
            client.set_terminated(run_id)
            for tag, uri in tags.items():
                client.set_model_version_tag(version.name, version.version, tag, uri)

        self._ask(version.uri, log_it, self._patience.download, once=True)

    def log_variants(self, version: Version, job: str, found: SearchResult, choice: Choice) -> None:
        """Show what a search found: metrics on a run, tags on the version. Tried once.

        Raises:
            RegistryUnreachable, ModelNotFound: nothing depends on it.
        """

        def log_it() -> None:
            from mlflow.entities import Metric, Param

            client, at = self._client(), int(time.time() * 1_000)
            title = f"variants of {version.name} version {version.version}"
            run_id = self._new_run(f"nightscore/{job}", title)
            params = {
                "device": found.device,
                "runtimes": found.runtimes,
                "variant": choice.variant,
            }
            metrics = [Metric(*one, at, 0) for one in found.metrics().items()]
            client.log_batch(run_id, metrics, [Param(*one) for one in params.items()])
            client.log_text(run_id, found.to_json(), "variants.json")
            client.set_terminated(run_id)
            tags = {
                "nightscore.variant": choice.variant,
                "nightscore.batch_rows": str(choice.batch_rows),
                "nightscore.device": found.device,
                "nightscore.variants": f"runs:/{run_id}/variants.json",
            }
            for tag, text in tags.items():
                client.set_model_version_tag(version.name, version.version, tag, text)

        self._ask(version.uri, log_it, self._patience.optional, once=True)

    def log_drift(
        self, version: Version, job: str, run_id: str, document: Mapping[str, Any], page: Path
    ) -> None:
        """Show a run's drift.json and its page: one MLflow run, however often this is repeated.

        Tried once, and not for long, as a finisher waits for it.

        Raises:
            RegistryUnreachable, ModelNotFound: nothing depends on it.
        """

        def log_it() -> None:
            from mlflow.entities import Metric, Param, RunTag

            client, at = self._client(), drift_log.logged_at(document)
            shown_by = self._run_showing(job, run_id, at)
            params = [Param(*one) for one in drift_log.params(document).items()]
            tags = [RunTag(*one) for one in drift_log.tags(run_id, document).items()]
            client.log_batch(shown_by, params=params, tags=tags)
            evaluated_at, performance = drift_log.performance(document)
            metrics = [Metric(*one, at, 0) for one in drift_log.metrics(document).items()]
            metrics += [Metric(*one, evaluated_at, 0) for one in performance.items()]
            for start in range(0, len(metrics), METRICS_PER_CALL):
                client.log_batch(shown_by, metrics=metrics[start : start + METRICS_PER_CALL])
            client.log_text(shown_by, json.dumps(document, indent=1), "drift.json")
            client.log_artifact(shown_by, str(page))
            client.set_terminated(shown_by)

        self._ask(version.uri, log_it, self._patience.optional, once=True)

    def _run_showing(self, job: str, run_id: str, created: int) -> str:
        """The MLflow run that shows a scoring run, which was created at so many milliseconds."""
        client, experiment = self._client(), self._experiment(f"nightscore/{job}")
        wanted = f"tags.`{drift_log.RUN_TAG}` = '{run_id}'"
        found = client.search_runs([experiment], filter_string=wanted, max_results=1)
        tags = {drift_log.RUN_TAG: run_id}
        run = found[0] if found else client.create_run(experiment, created, tags, run_id)
        return str(run.info.run_id)

    def _new_run(self, experiment: str, title: str) -> str:
        run = self._client().create_run(self._experiment(experiment), run_name=title)
        return str(run.info.run_id)

    def _experiment(self, name: str) -> str:
        client = self._client()
        known = client.get_experiment_by_name(name)
        place = artifact_location(self._uri, name)
        return str(known.experiment_id if known else client.create_experiment(name, place))

    def count(self) -> int:
        """Registered models, up to a thousand; a registry's file is made if it is not there.

        Raises: RegistryRefused, RegistryUnreachable.
        """
        import mlflow  # noqa: F401 - outside the time that the registry is given

        def models() -> int:
            with in_our_words("models:/", self.shown):
                return len(self._client().search_registered_models(max_results=1000))

        return self._circuit.ask(models, 4 * self._patience.question)

    def _client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)

    def _find(self, name: str, alias: str | None, version: str | None) -> Any:
        client = self._client()
        if alias is not None:
            return client.get_model_version_by_alias(name, alias)
        if version is not None and version.isdigit():
            return client.get_model_version(name, version)
        log.warning(
            "model_stage_deprecated",
            model=name,
            stage=version,
            instead=f"models:/{name}@{str(version).lower()}",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # said above, in our words
            latest = client.get_latest_versions(name, stages=[version])
        return latest[0] if latest else None

    def _ask(
        self,
        model: str,
        question: Callable[[], T],
        seconds: float | None = None,
        *,
        once: bool = False,
    ) -> T:
        """The answer to what is asked about a model; errors in our words."""
        import mlflow  # noqa: F401 - outside the time that the registry is given

        def in_words() -> T:
            check_file(self._uri, self.shown)
            with in_our_words(model, self.shown):
                return question()

        return self._circuit.ask(in_words, seconds or self._patience.question, once=once)

    @property
    def _circuit(self) -> Circuit:
        from scoring.models.asking import circuit  # its breaker imports all of redis

        return circuit(self._uri, self.shown, self._patience)


def artifact_location(tracking_uri: str, experiment: str) -> str | None:
    """Where a new experiment keeps its files: beside an SQLite store, else MLflow's choice.

    MLflow would put the files of an SQLite store into the current folder, wherever that is.
    """
    if not tracking_uri.startswith("sqlite:///"):
        return None
    folder = Path(tracking_uri.removeprefix("sqlite:///")).absolute().parent
    return (folder / "mlartifacts" / experiment).as_uri()
