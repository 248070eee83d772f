"""docker-compose.yml and the Dockerfile: what they say agrees, and every command they name works.

No container is started: each service's command runs as a plain process on loopback, with the
environment and the paths that its container would see, moved into a folder of the test's, and
against the wheel that the image would hold.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import signal
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
import yaml
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scoring import submit
from scoring.settings import Settings
from scoring.stack import _valkey_binary
from tests.conftest import _database, _execute
from tests.integration import models
from tests.integration.processes import PATIENCE, ROOT, SCRIPTS, Process, start, until
from tests.ports import free_port

DAY = "2013-07-01"
ROWS = 400
SECRETS = {"POSTGRES_PASSWORD": "ledgersecret", "BROKER_PASSWORD": "brokersecret"}
SECRETS |= {"FLOWER_BASIC_AUTH": "ann:flowersecret", "CPU_CHILDREN": "1"}
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?P<kind>:-|:\?)(?P<text>[^}]*)\}|\$\$")


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    """A value with ``${NAME:-default}``, ``${NAME:?why}`` and ``$$`` read as compose does."""
    if isinstance(value, dict):
        return {key: interpolated(one, variables) for key, one in value.items()}
    if isinstance(value, list):
        return [interpolated(one, variables) for one in value]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        if found["name"] in variables:
            return variables[found["name"]]
        assert found["kind"] == ":-", f"{found['name']} {found['text']}"
        return str(found["text"])

    return VARIABLE.sub(fill, value)


COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE = interpolated(yaml.safe_load(COMPOSE_TEXT), SECRETS)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


@dataclass(slots=True)
class Stage:
    """One FROM of the Dockerfile and what follows it."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def dockerfile() -> dict[str, Stage]:
    """The stages of the Dockerfile, by name, in order."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    stages: dict[str, Stage] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages[name] = Stage(name, base)
        else:
            list(stages.values())[-1].steps.append((word, rest.strip()))
    return stages


STAGES = dockerfile()


def steps(target: str, word: str) -> list[str]:
    """A target's steps of one kind, those of the stages under it first."""
    if target not in STAGES:
        return []
    stage = STAGES[target]
    own = [rest for kind, rest in stage.steps if kind == word]
    return steps(stage.base, word) + own


def image_environment(target: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for step in steps(target, "ENV") for pair in shlex.split(step))


def mounts(service: Mapping[str, Any]) -> dict[str, str]:
    """Where a service sees its volumes: target -> source."""
    pairs = (text.removesuffix(":ro").rsplit(":", 1) for text in service.get("volumes", []))
    return {target: source for source, target in pairs}


def health_command(service: Mapping[str, Any], target: str = "") -> list[str] | None:
    """A service's health check as an argument list; the image's where it has none of its own."""
    check = service.get("healthcheck", {})
    if check.get("disable"):
        return None
    if "test" in check:
        kind, *command = check["test"]
        return ["sh", "-c", *command] if kind == "CMD-SHELL" else command
    (step,) = steps(target, "HEALTHCHECK")[-1:]
    found: list[str] = json.loads(step.partition("CMD ")[2])
    return found


# What the two files say


def test_every_scoring_variable_is_a_setting() -> None:
    known = {f"SCORING_{name.upper()}" for name in Settings.model_fields}
    known |= {"MLFLOW_TRACKING_URI", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"}
    known |= {"MLFLOW_DISABLE_TELEMETRY"}
    for name, service in OURS.items():
        given = set(service["environment"]) | set(image_environment(service["build"]["target"]))
        ours = {one for one in given if one.startswith(("SCORING_", "MLFLOW_"))}
        assert ours <= known, f"{name} gives {ours - known}, which nothing reads"


def test_every_variable_of_a_person_is_in_the_example_file() -> None:
    text = (ROOT / "deploy/compose/env.example").read_text(encoding="utf-8")
    offered = set(re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE))
    asked = {found["name"] for found in VARIABLE.finditer(COMPOSE_TEXT) if found["name"]}
    needed = set(re.findall(r"\$\{(\w+):\?", COMPOSE_TEXT))

    assert asked == offered
    assert needed == set(re.findall(r"^([A-Z_]+)=$", text, re.MULTILINE))


def test_nothing_secret_has_a_default() -> None:
    secret = {name for name in SECRETS if name != "CPU_CHILDREN"}
    assert not re.search(rf"\${{({'|'.join(secret)}):-", COMPOSE_TEXT)


def test_services_are_built_from_stages_that_exist_and_do_not_run_as_root() -> None:
    for name, service in OURS.items():
        target = service["build"]["target"]
        assert target in STAGES, name
        user = steps(target, "USER")[-1]
        assert user.split(":")[0] not in ("root", "0"), name
        arguments = {step.partition("=")[0] for stage in STAGES for step in steps(stage, "ARG")}
        assert set(service["build"]["args"]) <= arguments, name
    tags: dict[str, str] = {}
    for service in OURS.values():
        assert (
            tags.setdefault(service["image"], service["build"]["target"])
            == (service["build"]["target"])
        ), "one tag, one image"


def test_other_images_and_bases_name_a_version() -> None:
    others = [service["image"] for service in SERVICES.values() if "build" not in service]
    bases = [stage.base for stage in STAGES.values() if stage.base not in STAGES]
    for image in (*others, *bases):
        assert re.search(r":\d", image), image


def test_copies_between_stages_name_a_stage() -> None:
    for stage in STAGES.values():
        for step in (rest for word, rest in stage.steps if word == "COPY"):
            source = re.match(r"--from=(\S+)", step)
            assert source is None or source[1] in STAGES, step
            if source is None:
                for path in step.split()[:-1]:
                    assert (ROOT / path).exists(), path


def test_the_build_context_lets_through_what_is_copied() -> None:
    let_through = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    copied = {
        path
        for stage in STAGES.values()
        for word, rest in stage.steps
        if word == "COPY" and "--from" not in rest
        for path in rest.split()[:-1]
    }
    assert {f"!{path}" for path in copied} <= set(let_through)


def test_the_image_installs_what_the_project_depends_on(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (step,) = (step for step in steps("build", "RUN") if "tomllib" in step)
    path = {"PATH": f"{SCRIPTS}:/usr/bin:/bin"}
    subprocess.run(["sh", "-c", step], cwd=tmp_path, env=path, check=True)

    found = (tmp_path / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert found == project()["dependencies"]


def test_the_constraints_pin_what_the_project_depends_on() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pairs}
    named = [*project()["dependencies"], *project()["optional-dependencies"]["dev"]]

    for requirement in map(Requirement, named):
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} has no pin: make constraints"
        assert pin in requirement.specifier, f"{requirement} excludes its pin {pin}"


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return found


def test_named_volumes_are_declared_used_and_owned_by_our_user() -> None:
    used = {
        source
        for service in SERVICES.values()
        for source in mounts(service).values()
        if "/" not in source
    }
    assert used == set(COMPOSE["volumes"])
    made = set(" ".join(steps("runtime", "RUN")).split())
    for name, service in OURS.items():
        assert set(mounts(service)) <= made, f"{name}: a new volume would belong to root"


def test_files_that_are_mounted_exist() -> None:
    sources = {source for service in SERVICES.values() for source in mounts(service).values()}
    assert "./jobs" in sources
    for source in sources - {"./jobs"}:
        assert "/" not in source or (ROOT / source).is_file(), source


def test_ports_are_published_on_loopback_and_are_those_the_command_listens_on() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            host, _, inside = port.split(":")
            assert host == "127.0.0.1", f"{name} would be open to the network"
            assert inside in re.findall(r"\d+", " ".join(service["command"])), name
            assert f":{inside}/" in " ".join(health_command(service) or ()), name


def test_addresses_name_services() -> None:
    for name, service in SERVICES.items():
        for text in (*service.get("environment", {}).values(), *service.get("command", ())):
            for host in re.findall(r"://(?:[^@/ ]*@)?([a-z][a-z-]*):\d", str(text)):
                assert host in SERVICES, f"{name}: {text}"


def test_conditions_can_come_true() -> None:
    for name, service in SERVICES.items():
        for needed, wanted in service.get("depends_on", {}).items():
            other = SERVICES[needed]
            if wanted["condition"] == "service_healthy":
                assert health_command(other, "runtime"), f"{name} waits for {needed} for ever"
            else:
                assert other["restart"] == "no", f"{name} waits for {needed} for ever"


def test_a_worker_may_take_longer_to_stop_than_its_soft_shutdown() -> None:
    from scoring.settings import Settings
    from tasks.stopping import HAND_BACK_SECONDS

    needed = Settings.model_fields["stop_seconds"].default + 2 * HAND_BACK_SECONDS
    for name in ("worker-cpu", "worker-gpu"):
        grace = SERVICES[name]["stop_grace_period"]
        assert grace.endswith("s")
        assert float(grace[:-1]) > needed


# What the commands do


@dataclass(slots=True)
class Plain:
    """Services as plain processes: what a container calls one thing is another here."""

    root: Path
    site: Path
    """Where the wheel is installed, and nothing of the checkout."""
    database: str
    """The PostgreSQL server's own address."""
    ports: dict[str, int]
    processes: dict[str, Process] = field(default_factory=dict)

    def moved(self, text: str) -> str:
        """A value of a container, as it has to be on this machine."""
        for name in ("nightscore", "mlflow"):
            text = text.replace(
                f"postgresql://nightscore:ledgersecret@postgres:5432/{name}",
                _database(self.database, name),
            ).replace(
                f"postgresql+psycopg://nightscore:ledgersecret@postgres:5432/{name}",
                _database(self.database, name).replace("postgresql:", "postgresql+psycopg:"),
            )
        text = text.replace("@broker:6379", f"@127.0.0.1:{self.ports['6379']}")
        text = text.replace("http://mlflow:5000", f"http://127.0.0.1:{self.ports['5000']}")
        text = text.replace("0.0.0.0", "127.0.0.1")
        text = re.sub(
            r"^(\d{4})$|(?<=--port=)(\d{4})$|(?<=127\.0\.0\.1:)(\d{4})(?=/)",
            lambda found: str(self.ports.get(found[0], found[0])),
            text,
        )
        return f"{self.root}{text}" if re.match(r"/(data|artifacts|srv|var)\b", text) else text

    def environment(self, name: str, service: Mapping[str, Any]) -> dict[str, str]:
        target = service.get("build", {}).get("target", "cpu")
        wanted = {**image_environment(target), **service.get("environment", {})}
        found = {key: self.moved(str(value)) for key, value in wanted.items()}
        return {
            **found,
            "PATH": f"{self.site}/bin:{SCRIPTS}:/usr/bin:/bin",
            "PYTHONPATH": str(self.site),
            "HOME": found["SCORING_HOME"],
            "HOSTNAME": name,
        }

    def start(self, name: str, service: Mapping[str, Any], command: list[str]) -> None:
        command = [self.moved(argument) for argument in command]
        if "worker" in command:
            command.append(f"--hostname=celery@{name}")  # a container's is its own
        self.processes[name] = start(
            name,
            command,
            env=self.environment(name, service),
            cwd=self.root / "srv/nightscore",
            logs=self.root,
        )

    def healthy(self, name: str, service: Mapping[str, Any]) -> bool:
        command = health_command(service, "cpu")
        if command is None:
            return True
        try:
            done = subprocess.run(
                [self.moved(argument) for argument in command],
                env=self.environment(name, service),
                cwd=self.root / "srv/nightscore",
                capture_output=True,
                timeout=PATIENCE / 3,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def settings(self) -> Settings:
        """What somebody who submits in one of the containers would read."""
        found = self.environment("worker-cpu", SERVICES["worker-cpu"])
        values = {
            key.removeprefix("SCORING_").lower(): value
            for key, value in found.items()
            if key.startswith("SCORING_")
        }
        return Settings(**values, MLFLOW_TRACKING_URI=found["MLFLOW_TRACKING_URI"])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel that the image would hold, built and installed by its own steps."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--quiet", "--no-deps", "--no-index"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(folder), "."]
    subprocess.run(build, cwd=ROOT, check=True)
    (wheel,) = folder.glob("nightscore-*.whl")
    install = [*pip, "install", *offline, "--target", str(folder / "site"), str(wheel)]
    subprocess.run(install, cwd=folder, check=True)
    return folder / "site"


@pytest.fixture(scope="module")
def plain(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, site: Path
) -> Iterator[Plain]:
    """Folders, ports and databases for the services; none runs yet, and none is left running."""
    root = tmp_path_factory.mktemp("compose")
    for target in ("srv/nightscore/jobs", "data", "artifacts", "var/lib/nightscore"):
        (root / target).mkdir(parents=True)
    (root / "var/lib/mlflow").mkdir()
    ports = {name: free_port() for name in ("6379", "5000", "5555", "9808")}
    plain = Plain(root, site, postgres_url, ports)
    _execute(postgres_url, "CREATE DATABASE nightscore")
    start_up = ROOT / next(iter(k for k in mounts(SERVICES["postgres"]).values() if "sql" in k))
    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute(start_up.read_bytes())
    with ExitStack() as after:
        for name in ("nightscore", "mlflow"):
            after.callback(_execute, postgres_url, f"DROP DATABASE {name} WITH (FORCE)")
        try:
            yield plain
        finally:
            for process in plain.processes.values():
                process.kill(process.family())


@pytest.mark.slow
def test_the_wheel_stands_alone(plain: Plain) -> None:
    code = "import scoring, tasks, schedules; print(scoring.__file__, tasks.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=plain.environment("worker-cpu", SERVICES["worker-cpu"]),
        cwd=plain.root / "srv/nightscore",
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(path.startswith(str(plain.site)) for path in done.stdout.split())


@pytest.mark.slow
def test_every_command_works_and_together_they_publish_a_run(plain: Plain) -> None:
    bring_up(plain)
    for name, process in plain.processes.items():
        assert name == "migrate" or process.popen.poll() is None, f"{name} ended:\n{process}"
    assert_mlflow_answers_by_its_service_name(plain)
    assert_flower_asks_who_you_are(plain)

    model = registered(plain.settings().tracking_uri)
    rows = write_job(plain, model)
    run = submit("nightly", date=DAY, settings=plain.settings()).wait(timeout=PATIENCE)

    assert run.status == "published"
    scores = run.scores().to_table()
    assert scores["id"].to_pylist() == rows["id"].to_pylist()
    truth = rows["a"].to_numpy() * 2 + rows["b"].to_numpy() * 3
    np.testing.assert_allclose(scores["score"].to_numpy(), truth, rtol=1e-6)
    assert Path(run.record.output).is_relative_to(plain.root / "data")
    assert Path(str(run.record.report)).is_relative_to(plain.root / "artifacts")
    assert list((plain.root / "var/lib/mlflow").rglob("*.onnx")), "artifacts are the server's"
    assert_the_run_is_shown_to_prometheus_and_in_mlflow(plain, run.id)

    needed_by_others = ["mlflow", "broker"]
    with ThreadPoolExecutor() as pool:
        names = [name for name in plain.processes if name not in needed_by_others]
        list(pool.map(lambda name: ask_to_stop(name, plain.processes[name]), names))
    for name in needed_by_others:
        ask_to_stop(name, plain.processes[name])


def bring_up(plain: Plain) -> None:
    """Start the services in their order, each when what it depends on has come true."""
    services = dict(SERVICES)
    del services["postgres"]  # the tests' own server stands in
    services["image"] = {**SERVICES["worker-cpu"], "command": json.loads(steps("cpu", "CMD")[-1])}
    order = TopologicalSorter(
        {name: services[name].get("depends_on", {}).keys() - {"postgres"} for name in services}
    )
    order.prepare()
    while order.is_active():
        ready = order.get_ready()
        for name in ready:
            command = services[name]["command"]
            if name == "broker":
                listen = ["--bind", "127.0.0.1", "--port", "6379"]
                command = [str(_valkey_binary()), *command[1:], *listen]
            plain.start(name, services[name], command)
        for name in ready:
            come_true(plain, name, services[name])
            order.done(name)


def come_true(plain: Plain, name: str, service: Mapping[str, Any]) -> None:
    """Wait until a service has ended well, or is healthy."""
    process = plain.processes[name]
    if service["restart"] == "no":
        assert process.popen.wait(PATIENCE) == 0, process
        assert "revision" in process.said
    elif name == "broker":  # its health check needs a program that only its image has
        client = redis.Redis(port=plain.ports["6379"], password=SECRETS["BROKER_PASSWORD"])
        process.wait_for("Ready to accept connections")
        assert client.ping()
        client.close()
    elif name == "beat":
        process.wait_for("beat: Starting...")
    else:
        if "worker" in service["command"]:
            process.wait_for("ready.")  # asking costs a second of a core
        process.wait_for(lambda: plain.healthy(name, service), every=0.5)


def assert_mlflow_answers_by_its_service_name(plain: Plain) -> None:
    address = (
        f"http://127.0.0.1:{plain.ports['5000']}/api/2.0/mlflow/experiments/get?experiment_id=0"
    )
    for host, status in (("mlflow:5000", 200), ("localhost:5000", 200), ("evil.example", 403)):
        request = urllib.request.Request(address, headers={"Host": host})
        assert status_of(request) == status, host


def assert_flower_asks_who_you_are(plain: Plain) -> None:
    address = f"http://127.0.0.1:{plain.ports['5555']}/api/workers"
    who = base64.b64encode(SECRETS["FLOWER_BASIC_AUTH"].encode()).decode()
    known = urllib.request.Request(address, headers={"Authorization": f"Basic {who}"})

    assert status_of(urllib.request.Request(address)) == 401
    until(lambda: status_of(known) == 200)


def assert_the_run_is_shown_to_prometheus_and_in_mlflow(plain: Plain, run_id: str) -> None:
    address = f"http://127.0.0.1:{plain.ports['9808']}/metrics"
    published = 'nightscore_runs{job="nightly",state="published"} 1.0'

    def told() -> str:
        with urllib.request.urlopen(address, timeout=30) as response:
            return str(response.read().decode())

    until(lambda: published in told())
    assert f'run="{run_id}"' in told()
    pages = plain.root / "var/lib/mlflow"
    until(
        lambda: any(pages.rglob("drift.html")), otherwise=lambda: str(plain.processes["worker-cpu"])
    )
    client = mlflow.MlflowClient(plain.settings().tracking_uri)
    experiment = client.get_experiment_by_name("nightscore/nightly")
    assert run_id in [run.info.run_name for run in client.search_runs([experiment.experiment_id])]


def status_of(request: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def registered(tracking_uri: str) -> str:
    """Log and register a model the way anybody does, through the server."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tracking_uri)
    try:
        mlflow.set_experiment("nightly")
        inputs = Schema([ColSpec("float", "a"), ColSpec("float", "b")])
        outputs = Schema([ColSpec("float", "score")])
        with mlflow.start_run():
            logged = mlflow.onnx.log_model(
                models.linear(np.array([[2], [3]], np.float32)),
                name="model",
                signature=ModelSignature(inputs=inputs, outputs=outputs),
                registered_model_name="nightly",
                pip_requirements=[],
            )
        mlflow.MlflowClient().set_registered_model_alias(
            "nightly", "production", str(logged.registered_model_version)
        )
    finally:
        mlflow.set_tracking_uri(before)
    return "models:/nightly@production"


def write_job(plain: Plain, model: str) -> pa.Table:
    """A job file in the jobs folder, and the rows that it scores, in the data folder."""
    data = plain.root / "data"
    rows = np.random.default_rng(7).random((ROWS, 2), np.float32)
    table = pa.table({"id": np.arange(ROWS), "a": rows[:, 0], "b": rows[:, 1]})
    (data / f"in/date={DAY}").mkdir(parents=True)
    pq.write_table(table, data / f"in/date={DAY}/part-0.parquet", row_group_size=150)
    (plain.root / "srv/nightscore/jobs/nightly.toml").write_text(
        f'name = "nightly"\nmodel = "{model}"\nkey = ["id"]\n'
        f'[input]\npath = "{data}/in/date={{date}}"\n'
        f'[output]\npath = "{data}/out/date={{date}}"\n[precision]\nvariant = "native"\n'
        "[execution]\nchunk_rows = 150\n",
        encoding="utf-8",
    )
    return table


def ask_to_stop(name: str, process: Process) -> None:
    """Stop a service as its container would be; it has its grace to leave, with all it started.

    Where none is named, only that it ends is promised, not in how many seconds on a busy machine.
    """
    if name == "migrate":
        return
    service = SERVICES.get(name, SERVICES["worker-cpu"])
    named = service.get("stop_grace_period")
    grace = float(named.removesuffix("s")) if named else PATIENCE
    how = getattr(signal, service.get("stop_signal", "SIGTERM"))
    process.end(how, seconds=grace)
