"""A night that is not like the training data is held, looked at, and released: real flights.

The model is trained and profiled on the winter's departures from two of New York's airports, and
meets a night with the third.
"""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from examples.flights.prepare import FEATURES, days, departures, late
from examples.flights.train import fit, register
from scoring import Settings, reference
from scoring.api import open_context
from tests.integration.processes import until
from tests.integration.terminal import Terminal

pytestmark = pytest.mark.slow
WINTER = days(date(2013, 1, 1), date(2013, 2, 28))
NIGHT = date(2013, 3, 5)
LEFT_OUT = "EWR"


def known(table: pa.Table) -> pa.Array:
    """The rows of the airports that the model has seen."""
    return pc.not_equal(table["origin"], LEFT_OUT)


@pytest.fixture(scope="module")
def model(tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Trained without one airport, its training rows profiled."""
    winter, labels = departures(WINTER), late(WINTER)
    seen = known(winter)
    version = register(fit(winter.filter(seen), labels.filter(seen)), 0.0, tracking_uri)
    rows = tmp_path_factory.mktemp("winter") / "train.parquet"
    pq.write_table(winter.filter(seen).select(FEATURES), rows)
    context = open_context(Settings(home=rows.parent / "home", MLFLOW_TRACKING_URI=tracking_uri))
    reference.from_training(context, f"models:/flights-delay/{version}", str(rows))
    return f"models:/flights-delay/{version}"


@pytest.fixture
def scoring(tmp_path: Path, stack: Settings, tracking_uri: str) -> Terminal:
    """A folder with one night in two forms: the airports that the model knows, and all of them."""
    night = departures([NIGHT])
    for name, rows in (("known", night.filter(known(night))), ("all", night)):
        folder = tmp_path / name / f"date={NIGHT}"
        folder.mkdir(parents=True)
        pq.write_table(rows, folder / "night.parquet")
    return Terminal(
        tmp_path,
        {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "MLFLOW_TRACKING_URI": tracking_uri,
            "SCORING_HOME": str(stack.home),
            "SCORING_BROKER_URL": stack.broker_url,
        },
    )


def write_job(folder: Path, name: str, model: str, rows: str) -> None:
    (folder / f"{name}.toml").write_text(
        f'name = "{name}"\nmodel = "{model}"\nkey = ["flight_id"]\n'
        f'[input]\npath = "{rows}/date={{date}}"\n[output]\npath = "{name}-scores/date={{date}}"\n'
        '[drift]\non_severe = ["hold"]\n',
        encoding="utf-8",
    )


def test_a_night_with_an_airport_the_model_never_saw_is_held_then_released(
    scoring: Terminal, model: str
) -> None:
    write_job(scoring.folder, "with-newark", model, "all")
    held = scoring("run", "with-newark.toml", "--date", str(NIGHT), "--json")

    assert (held.code, held.json["state"]) == (3, "held"), held.err
    assert held.json["drift_severity"] == "severe"
    report = scoring("report", held.json["id"], "--json").json
    origin = next(column for column in report["columns"] if column["name"] == "origin")
    assert report["worst"] == "origin"
    assert origin["new"][0]["name"] == LEFT_OUT
    assert report["actions"] == ["hold"]
    assert LEFT_OUT in Path(held.json["report"]).read_text(encoding="utf-8")
    output = scoring.folder / "with-newark-scores" / f"date={NIGHT}"
    assert not output.exists()

    released = scoring("release", held.json["id"], "--reason", "Newark is served from today")

    assert released.code == 0, released.err
    until(lambda: (output / "_SUCCESS").exists())
    until(lambda: scoring("status", held.json["id"], "--json").json["state"] == "published")
    manifest = json.loads((output / "_manifest.json").read_text(encoding="utf-8"))
    assert manifest["drift_severity"] == "severe"
    assert manifest["rows_scored"] == held.json["rows_in"]


def test_the_same_night_without_that_airport_is_published(scoring: Terminal, model: str) -> None:
    write_job(scoring.folder, "as-trained", model, "known")

    published = scoring("run", "as-trained.toml", "--date", str(NIGHT), "--json")

    assert (published.code, published.json["state"]) == (0, "published"), published.err
    assert published.json["drift_severity"] in ("none", "small")
