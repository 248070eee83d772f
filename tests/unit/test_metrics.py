"""What Prometheus is told: the ledger and the newest drift reports, whatever state they are in."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from scoring import metrics
from scoring.errors import PortUnusable
from scoring.ledger import Ledger
from scoring.ledger.overview import MOST_JOBS
from scoring.ledger.tables import runs
from scoring.metrics import collector, serve
from scoring.settings import Settings
from tests.conftest import make_settings
from tests.contract.ledgers import (
    claimed,
    finishing_run,
    held_run,
    made_by,
    new_delivery,
    start_run,
)

ALERTS = Path(__file__).parents[2] / "deploy/prometheus/alerts.yml"
Labels = dict[str, str]


@pytest.fixture
def settings(tmp_path: Path, sqlite_template: Path) -> Settings:
    """An installation with an empty ledger, and no registry."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "ledger.db").write_bytes(sqlite_template.read_bytes())
    return make_settings(home, f"sqlite:///{home}/mlflow.db")


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    opened = Ledger.open(settings.database_url, 60.0)
    yield opened
    opened.database.engine.dispose()


def told(text: str) -> dict[str, list[tuple[Labels, float]]]:
    """Samples by metric, as Prometheus reads them."""
    found: dict[str, list[tuple[Labels, float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def by_job(samples: list[tuple[Labels, float]]) -> dict[str, float]:
    return {labels["job"]: value for labels, value in samples}


def column(name: str, **more: Any) -> dict[str, Any]:
    """A column of a drift.json."""
    figures = {"psi": 0.31, "ks": 0.2, "missing_change": 0.05}
    usual = {"name": name, "role": "feature", "measure": "psi", "value": 0.31, "psi": 0.31}
    return {**usual, "figures": figures, **more}


def measured_run(
    ledger: Ledger, folder: Path, document: dict[str, Any] | str, job: str = "flights"
) -> str:
    """A published run that left this as its drift.json."""
    run_id, hold = finishing_run(ledger, job=job, slot="2026-11-23")
    artifacts = folder / run_id
    artifacts.mkdir(parents=True)
    text = document if isinstance(document, str) else json.dumps(document)
    (artifacts / "drift.json").write_text(text, encoding="utf-8")
    with ledger.database.transaction() as connection:
        place = update(runs).where(runs.c.id == run_id).values(artifacts=str(artifacts))
        connection.execute(place)
    assert ledger.runs.end(hold, "published", drift_severity="severe", report="drift.html")
    return run_id


def drift(*columns: dict[str, Any], **more: Any) -> dict[str, Any]:
    usual = {"version": 2, "severity": "severe", "psi": 0.31, "score": 0.4, "reference": "abc"}
    return {**usual, "columns": list(columns), **more}


def test_runs_and_chunks_are_counted_by_job_and_state(settings: Settings, ledger: Ledger) -> None:
    running = start_run(ledger, count=4, job="flights", deadline_seconds=3600.0)
    claim = claimed(ledger, running, 0)
    ledger.chunks.commit(claim, made_by(claim))
    claimed(ledger, running, 1)
    ended, hold = finishing_run(ledger, job="trips")
    ledger.runs.end(hold, "published")
    told_of = new_delivery()
    held_run(ledger, told_of)

    found = told(metrics.exposition(settings))

    states = {(one["job"], one["state"]): value for one, value in found["nightscore_runs"]}
    assert states == {("flights", "running"): 1, ("flights", "held"): 1, ("trips", "published"): 1}
    chunks = {one["state"]: value for one, value in found["nightscore_chunks"]}
    assert chunks == {"waiting": 2, "leased": 1, "done": 1}
    assert found["nightscore_up"] == [({}, 1.0)]
    assert found["nightscore_jobs"] == [({}, 2.0)]
    assert found["nightscore_deliveries"] == [
        ({"state": "waiting"}, 1.0),
        ({"state": "delivered"}, 0.0),
        ({"state": "failed"}, 0.0),  # said before the first, or nobody could see the increase
    ]
    now = ledger.slots.now()
    assert by_job(found["nightscore_run_deadline_timestamp_seconds"]) == {
        "flights": pytest.approx(now + 3600, abs=60)
    }
    assert by_job(found["nightscore_last_published_timestamp_seconds"]) == {
        "trips": pytest.approx(now, abs=60)
    }
    assert ledger.runs.get(ended).state == "published"


def test_the_newest_ended_run_of_a_job_is_described(settings: Settings, ledger: Ledger) -> None:
    older, hold = finishing_run(ledger)
    ledger.runs.end(hold, "published")
    newer = start_run(ledger, count=1, slot="2026-11-23T02:30:00-05:00", variant="int8")
    claim = claimed(ledger, newer)
    ledger.chunks.commit(claim, made_by(claim, quarantined=3))
    hold = ledger.runs.claim_finish(newer, "finisher")  # type: ignore[assignment]
    ledger.runs.end(hold, "failed", error="too many rows refused")
    start_run(ledger)

    found = told(metrics.exposition(settings))

    ((labels, _),) = found["nightscore_last_run_info"]
    assert older != newer
    assert labels == {
        "job": "flights",
        "run": newer,
        "state": "failed",
        "slot": "2026-11-23T02:30:00-05:00",
        "model": "flights",
        "model_version": "7",
        "variant": "int8",
        "device": "cpu",
    }
    assert by_job(found["nightscore_last_run_rows"]) == {"flights": 10.0}
    assert by_job(found["nightscore_last_run_quarantined_rows"]) == {"flights": 3.0}
    assert 0 <= by_job(found["nightscore_last_run_duration_seconds"])["flights"] < 60


def test_drift_is_that_of_the_newest_run_that_was_measured(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    measured_run(ledger, tmp_path, drift(column("old")))
    awkward = 'a "b"\\c\nd {e="f"}'
    measured_run(
        ledger,
        tmp_path,
        drift(
            column("score", role="output", measure="ks", value=0.2),
            column("score"),
            column(awkward),
            column("empty", measure=None, value=None, figures=None),
        ),
    )
    not_measured, hold = finishing_run(ledger)
    ledger.runs.end(hold, "failed", error="it broke")

    found = told(metrics.exposition(settings))

    values = {
        (one["role"], one["column"], one["measure"]): value
        for one, value in found["nightscore_drift_value"]
    }
    assert values == {
        ("output", "score", "ks"): 0.2,
        ("feature", "score", "psi"): 0.31,
        ("feature", awkward, "psi"): 0.31,
    }
    assert {value for _, value in found["nightscore_drift_missing_change"]} == {0.05}
    assert by_job(found["nightscore_drift_severity"]) == {"flights": 3.0}
    assert by_job(found["nightscore_drift_score"]) == {"flights": 0.4}
    assert found["nightscore_last_run_info"][0][0]["run"] == not_measured


def test_a_run_without_a_reference_has_no_severity(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    nothing = column("a", value=None, measure=None, figures=None, psi=None)
    unmeasured = drift(nothing, severity="none", reference=None, psi=None, score=None)
    measured_run(ledger, tmp_path, unmeasured)

    found = told(metrics.exposition(settings))

    assert not {name for name in found if name.startswith("nightscore_drift")}


def test_a_report_of_the_first_version_is_told_by_its_psi(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    first = {"name": "a", "role": "feature", "psi": 0.2}
    measured_run(
        ledger,
        tmp_path,
        {"severity": "moderate", "psi": 0.2, "reference": "abc", "columns": [first]},
    )

    found = told(metrics.exposition(settings))

    assert found["nightscore_drift_value"] == [
        ({"job": "flights", "role": "feature", "column": "a", "measure": "psi"}, 0.2)
    ]
    assert by_job(found["nightscore_drift_score"]) == {"flights": 0.2}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"columns": 3}', json.dumps(drift(column("a", value="much")))],
)
def test_a_damaged_report_costs_its_own_job_alone(
    settings: Settings, ledger: Ledger, tmp_path: Path, text: str
) -> None:
    measured_run(ledger, tmp_path, text, job="damaged")
    measured_run(ledger, tmp_path, drift(column("a")), job="whole")

    found = told(metrics.exposition(settings))

    assert by_job(found["nightscore_drift_score"]) == {"whole": 0.4}
    assert set(by_job(found["nightscore_last_run_rows"])) == {"damaged", "whole"}


def test_names_that_are_no_utf8_are_told_all_the_same(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    measured_run(ledger, tmp_path, drift(column("half \ud83d")))

    found = told(metrics.exposition(settings))

    assert [one["column"] for one, _ in found["nightscore_drift_value"]] == ["half ?"]


def test_columns_and_jobs_are_bounded(settings: Settings, ledger: Ledger, tmp_path: Path) -> None:
    measured_run(ledger, tmp_path, drift(*[column(f"c{n}") for n in range(1_000)]), job="wide")
    for number in range(MOST_JOBS + 5):
        start_run(ledger, count=1, job=f"job-{number:03}")
    measured_run(ledger, tmp_path, drift(*[column(f"c{n}") for n in range(1_000)]), job="new")

    found = told(metrics.exposition(settings))

    assert len(found["nightscore_drift_value"]) == collector.MOST_COLUMNS
    assert len({one["job"] for one, _ in found["nightscore_runs"]}) == MOST_JOBS
    assert {one["job"] for one, _ in found["nightscore_drift_value"]} == {"new"}
    assert found["nightscore_jobs"] == [({}, MOST_JOBS + 7)]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://someone:hidden@127.0.0.1:9/ledger",
        "sqlite:///{folder}/new.db",
        "sqlite:///{folder}",
    ],
)
def test_a_ledger_that_does_not_answer_is_told_and_no_error(
    tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = url.format(folder=tmp_path)
    down = make_settings(tmp_path / "home", "sqlite:///none.db", database_url=url)

    text = metrics.exposition(down)

    assert told(text) == {"nightscore_up": [({}, 0.0)]}
    assert "hidden" not in text + capsys.readouterr().err


def test_the_endpoint_serves_what_is_true_now_to_all_who_ask(
    settings: Settings, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "KEPT_SECONDS", 0.0)
    endpoint = serve(settings)

    def ask(_: int = 0) -> dict[str, list[tuple[Labels, float]]]:
        with urllib.request.urlopen(endpoint.address, timeout=30) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            return told(answer.read().decode())

    try:
        assert "nightscore_runs" not in ask()
        run_id = measured_run(ledger, tmp_path, drift(column("a", value=0.1)))
        assert ask()["nightscore_drift_value"][0][1] == 0.1
        fresh = drift(column("a", value=0.25))
        (tmp_path / run_id / "drift.json").write_text(json.dumps(fresh), encoding="utf-8")
        with ThreadPoolExecutor(4) as many:
            values = [one["nightscore_drift_value"][0][1] for one in many.map(ask, range(8))]
        assert values == [0.25] * 8
        (tmp_path / run_id / "drift.json").unlink()
        assert "nightscore_drift_value" not in ask()
    finally:
        endpoint.close()

    with pytest.raises(OSError, match="refused"):
        ask()


def test_who_asks_again_at_once_costs_no_look(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "KEPT_SECONDS", 1e9)
    kept = collector.Collector(ledger.database)
    before = kept.collect()
    start_run(ledger)

    assert kept.collect() is before


def test_a_port_that_is_taken_is_said_so(settings: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with pytest.raises(PortUnusable, match=f"cannot listen on 127.0.0.1 port {port}: "):
            serve(settings, port=port)
    with pytest.raises(PortUnusable, match="an address of this machine"):
        serve(settings, host="no.such.host.invalid")


# The rules that are shipped


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_every_alert_asks_for_metrics_and_labels_that_are_told(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    start_run(ledger, deadline_seconds=60.0)
    measured_run(ledger, tmp_path, drift(column("a")))
    held_run(ledger, new_delivery())
    _, hold = finishing_run(ledger)
    ledger.runs.end(hold, "failed", error="it broke")
    ledger.slots.considered_until("flights", None)
    found = told(metrics.exposition(settings))
    labels = {name: set().union(*(one for one, _ in found[name])) for name in found}
    for rule in rules():
        names = set(re.findall(r"\bnightscore_\w+", rule["expr"]))
        assert names, rule
        assert names <= found.keys(), rule["alert"]
        known = set().union(*(labels[name] for name in names))
        asked = set(re.findall(r"(\w+)=", rule["expr"]))
        said = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        assert asked | said <= known, rule["alert"]


def test_an_alert_about_what_is_never_taken_back_looks_at_its_increase() -> None:
    (rule,) = [one for one in rules() if one["alert"] == "NightscoreDeliveryFailed"]
    failed = 'nightscore_deliveries{state="failed"}'

    assert rule["expr"] == f"{failed} - min_over_time({failed}[6h]) > 0"


def test_the_rules_are_of_the_form_that_prometheus_reads() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"Nightscore[A-Z]\w+", rule["alert"])
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "5m"))
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}
    asks = yaml.safe_load((ALERTS.parent / "prometheus.yml").read_text(encoding="utf-8"))
    assert asks["rule_files"] == [ALERTS.name]
    assert asks["scrape_configs"][0]["honor_labels"], "or the label `job` is Prometheus's own"
