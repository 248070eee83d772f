"""The MLflow registry: resolve a model once, pin it, remember its reference profile.

A pin names one registry version and the digest of its files. Everything after `resolve` works
from the pin, so a promotion in the middle of a run changes nothing until the next run. MLflow is
imported inside the functions: it costs a second that only those who talk to a registry pay.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoring import telemetry
from scoring.errors import ModelNotFound, RegistryUnreachable
from scoring.models import drift_log
from scoring.models.choice import Choice
from scoring.models.search_result import SearchResult

log = telemetry.logger(__name__)

MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/]+)|/(?P<version>[^/@]+))$")
LOGGED_MODEL_URI = re.compile(r"models:/(?P<model>m-[0-9a-f]+)$")
USER_INFO = re.compile(r"//[^/\s]*@")
"""Name and password in an address: for a connection, never for a message."""
MANNERS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""MLflow's own settings, unless somebody chose others: by default it is silent for minutes before
it says that a server is not there, and loud about every file."""
PROFILE_TAG = "nightscore.profile"
"""Tag of a registered version: the artifact URI of its reference profile."""
SAMPLE_TAG = "nightscore.sample"
"""The same of the rows that variants are judged by."""
PERFORMANCE_TAG = "nightscore.performance"
"""The same of how good the version is on labelled rows."""
PROFILE_FILE, PERFORMANCE_FILE = "profile.json", "performance.json"
METRICS_PER_CALL = 1_000
"""As many as MLflow takes at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version in the registry."""

    model: str
    """As the job names it."""
    name: str
    version: str
    source: str
    profile_uri: str | None
    """Where the reference profile of this version lies, if it has one."""

    @property
    def uri(self) -> str:
        """The exact version, whatever its alias does next."""
        return f"models:/{self.name}/{self.version}"


class Registry:
    """One MLflow registry."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def resolve(self, model: str) -> Version:
        """The version that ``model`` means now: by alias, by number, or by stage (deprecated).

        Raises:
            ModelNotFound: no such model, alias, stage or version.
            RegistryUnreachable: the registry did not answer.
        """
        parts = MODEL_URI.match(model)
        if parts is None:
            raise ModelNotFound(model, self._shown, "it is not of the form models:/name@alias")
        with self._answering(model):
            found = self._find(parts["name"], parts["alias"], parts["version"])
        if found is None:
            raise ModelNotFound(model, self._shown, f"no version is in stage {parts['version']}")
        return Version(
            model=model,
            name=found.name,
            version=str(found.version),
            source=str(found.source),
            profile_uri=found.tags.get(PROFILE_TAG),
        )

    def download(self, version: Version, folder: Path, only: str = "") -> Path:
        """Copy the version's files, or ``only`` one of them, below ``folder``; return where."""
        with self._answering(version.uri):
            from mlflow.artifacts import download_artifacts

            place = self._artifacts(version)
            # MLflow resolves models:/ addresses in its process-wide registry, which is the
            # caller's to set; a plain artifact address means the same everywhere.
            found = download_artifacts(
                artifact_uri=f"{place}/{only}" if only else place,
                dst_path=str(folder),
                tracking_uri=self._uri,
            )
        return Path(found)

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
        if version.profile_uri is None:
            return None
        with self._answering(version.uri):
            from mlflow.artifacts import download_artifacts

            path = download_artifacts(artifact_uri=version.profile_uri, tracking_uri=self._uri)
        return Path(path).read_text(encoding="utf-8")

    def reference_sample(self, version: Version, folder: Path) -> Path | None:
        """The rows that were logged with the version's profile, as Parquet below ``folder``."""
        with self._answering(version.uri):
            from mlflow.artifacts import download_artifacts

            tags = self._client().get_model_version(version.name, version.version).tags
            if SAMPLE_TAG not in tags:
                return None
            found = download_artifacts(
                artifact_uri=tags[SAMPLE_TAG], dst_path=str(folder), tracking_uri=self._uri
            )
        return Path(found)

    def reference_performance(self, version: Version) -> str | None:
        """How good the version is on labelled rows, as JSON text, if that was logged to it."""
        with self._answering(version.uri):
            from mlflow.artifacts import download_artifacts

            tags = self._client().get_model_version(version.name, version.version).tags
            if PERFORMANCE_TAG not in tags:
                return None
            path = download_artifacts(artifact_uri=tags[PERFORMANCE_TAG], tracking_uri=self._uri)
        return Path(path).read_text(encoding="utf-8")

    def log_reference(
        self,
        version: Version,
        profile: str,
        sample: Path | None = None,
        performance: str | None = None,
    ) -> None:
        """Log a reference profile to the version, with the rows of ``sample`` and what is known
        of its performance."""
        with self._answering(version.uri):
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

    def log_variants(self, version: Version, job: str, found: SearchResult, choice: Choice) -> None:
        """Show what a search found: metrics on a run, tags on the version.

        Raises:
            RegistryUnreachable, ModelNotFound: nothing depends on it.
        """
        with self._answering(version.uri):
            client = self._client()
            title = f"variants of {version.name} version {version.version}"
            run_id = self._new_run(f"nightscore/{job}", title)
            for name, value in found.metrics().items():
                client.log_metric(run_id, name, value)
            for name, text in (("device", found.device), ("runtimes", found.runtimes)):
                client.log_param(run_id, name, text)
            client.log_param(run_id, "variant", choice.variant)
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

    def log_drift(
        self, version: Version, job: str, run_id: str, document: Mapping[str, Any], page: Path
    ) -> None:
        """Show a run's drift.json and its page: one MLflow run, however often this is repeated.

        Raises:
            RegistryUnreachable, ModelNotFound: nothing depends on it.
        """
        with self._answering(version.uri):
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
        """Registered models, up to a thousand. Raises: RegistryUnreachable."""
        with self._answering("models:/"):
            return len(self._client().search_registered_models(max_results=1000))

    def _client(self) -> Any:
        for variable, value in MANNERS.items():
            os.environ.setdefault(variable, value)
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

    @contextmanager
    def _answering(self, model: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise ModelNotFound(model, self._shown, _reason(error.message)) from error
            raise RegistryUnreachable(self._shown, _reason(error.message)) from error
        except (OSError, SQLAlchemyError) as error:
            raise RegistryUnreachable(self._shown, _reason(str(error))) from error

    @property
    def _shown(self) -> str:
        return USER_INFO.sub("//", self._uri)


def _reason(text: str) -> str:
    """The first line of a message, to stand inside a sentence; without a password."""
    first = (text.strip().splitlines() or ["no reason given"])[0]
    return USER_INFO.sub("//", first).rstrip(".")


def artifact_location(tracking_uri: str, experiment: str) -> str | None:
    """Where a new experiment keeps its files: beside an SQLite store, else MLflow's choice.

    MLflow would put the files of an SQLite store into the current folder, wherever that is.
    """
    if not tracking_uri.startswith("sqlite:///"):
        return None
    folder = Path(tracking_uri.removeprefix("sqlite:///")).absolute().parent
    return (folder / "mlartifacts" / experiment).as_uri()
