"""Hostile names and values are text everywhere: in SQL, in the report's page, on the terminal."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from onnx import TensorProto, helper

from scoring import Settings
from scoring.api import Run
from scoring.errors import KeyInvalid, KeyTaken, RunNotFound, ScoringError
from scoring.ledger import RunRecord
from scoring.runs.context import Context
from tests.conftest import make_settings
from tests.integration.in_process import created, job, opened, scored
from tests.integration.models import graph, register
from tests.integration.terminal import Terminal

pytestmark = pytest.mark.slow

WORDS = "<script>alert('words')</script>"
NUMBER = '"><img src=x onerror="alert(1)">{{7*7}}${7*7}<%= 7*7 %>'
SAID = "</title></svg><svg onload=alert(2)>"
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\u202egnp.exe\r\nFORGED: all is well\t\x9b2J"
SQL = "'; DROP TABLE runs; --"
KEY = "Robert'); DROP TABLE runs;-- <b>&amp;</b>"
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "footer", "main", "section"),
    *("nav", "div", "p", "h1", "h2", "h3", "h4", "a", "span", "strong", "em", "b", "i", "code"),
    *("small", "ul", "ol", "li", "dl", "dt", "dd", "details", "summary", "figure", "figcaption"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "br", "time", "sup", "sub"),
    *("svg", "g", "rect", "path", "line", "polyline", "polygon", "circle", "text", "article"),
    *("use", "symbol", "bdi", "abbr", "wbr", "hr", "colgroup", "col"),
}
"""Elements that the page is made of; of the hostile ones there is none."""


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.shown: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


@dataclass(frozen=True, slots=True)
class Hostile:
    """A run of such a model over such rows, compared with one before it."""

    context: Context
    run: RunRecord
    settings: Settings


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, tracking_uri: str) -> Iterator[Hostile]:
    folder = tmp_path_factory.mktemp("hostile")
    model = register(
        tracking_uri,
        mlflow.onnx.log_model,
        graph(
            [
                helper.make_node("Identity", [WORDS], [SAID]),
                helper.make_node("Abs", [NUMBER], ["n"]),
            ],
            {WORDS: (TensorProto.STRING, ["rows"]), NUMBER: (TensorProto.FLOAT, ["rows", 1])},
            {SAID: (TensorProto.STRING, ["rows"]), "n": (TensorProto.FLOAT, ["rows", 1])},
        ),
        signature=ModelSignature(
            inputs=Schema([ColSpec("string", WORDS), ColSpec("float", NUMBER)]),
            outputs=Schema([ColSpec("string", SAID), ColSpec("float", "n")]),
        ),
    )
    settings = make_settings(folder / "home", tracking_uri)
    wanted = job(
        model,
        folder / "in.parquet",
        folder / "out",
        key=[KEY],
        drift={"reference": "previous", "on_severe": ["hold"]},
    )
    with opened(settings) as context:
        write(folder / "in.parquet", ["calm", SAID, WORDS, "other"], 0.0)
        assert scored(context, created(context, wanted)).state == "published"
        write(folder / "in.parquet", [ESCAPES, NUMBER, SQL, "\x00\u202e"], 100.0)
        run = created(context, wanted, idempotency_key=SQL + ESCAPES, who=f"{WORDS}{ESCAPES}")
        held = scored(context, run)
        assert held.state == "held", held.error
        Run(run.id, context).reject(f"{SQL}{ESCAPES}", f"{WORDS}{ESCAPES}")
        yield Hostile(context, context.ledger.runs.get(run.id), settings)


def write(path: Path, words: list[str], far: float) -> None:
    count = 400
    pq.write_table(
        pa.table(
            {
                KEY: np.arange(count),
                WORDS: [words[row % len(words)] for row in range(count)],
                NUMBER: pa.array(np.linspace(0, 1, count) + far, pa.float32()),
            }
        ),
        path,
    )


def test_the_page_holds_no_element_or_attribute_that_the_data_wrote(hostile: Hostile) -> None:
    text = Path(str(hostile.run.report)).read_text(encoding="utf-8")
    page = Page(text)

    assert set(page.elements) <= ALLOWED
    assert not [one for one in page.attributes if one[1].lower().startswith("on")]
    links = [value for _, name, value in page.attributes if name in ("href", "src", "xlink:href")]
    assert all(value.startswith("#") for value in links), links
    assert "49" not in re.findall(r"\d+", " ".join(one for one in page.shown if "7*7" in one))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    shown = "".join(page.shown)
    assert all(name in shown for name in (WORDS, NUMBER, SAID))  # as text


def test_the_terminal_is_told_nothing_by_names_reasons_or_values(
    hostile: Hostile, tmp_path: Path
) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": str(tmp_path),
        "FORCE_COLOR": "",
        "SCORING_HOME": str(hostile.settings.home),
        "MLFLOW_TRACKING_URI": hostile.settings.tracking_uri,
    }
    scoring = Terminal(tmp_path, environment)
    run_id = hostile.run.id

    typed = {
        "status": scoring("status", run_id, "--history"),
        "report": scoring("report", run_id, "--all"),
        "audit": scoring("audit", "log"),
        "json": scoring("status", run_id, "--json"),
    }

    for name, one in typed.items():
        assert one.code == 0, (name, one.err)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", one.out + one.err), name
        assert not re.search(r"^FORGED", one.out + one.err, re.MULTILINE), name
    assert "rejected" in typed["audit"].out
    assert typed["json"].json["decision_reason"].startswith(WORDS)


def test_what_is_no_one_line_is_kept_as_one(hostile: Hostile) -> None:
    run = hostile.run

    assert str(run.decided_by).startswith(SQL)
    for text in (run.decided_by, run.decision_reason, run.error):
        assert not re.search(r"[\n\x1b\x00]", str(text))
    assert hostile.context.ledger.audit.verify().intact


@pytest.mark.parametrize("text", [SQL, KEY, WORDS, "\x00", "%", "\udcff", "latest' OR 1=1"])
def test_no_text_is_sql(hostile: Hostile, text: str) -> None:
    ledger = hostile.context.ledger
    with pytest.raises((ScoringError, UnicodeEncodeError)) as unknown:
        Run(text, hostile.context).record  # noqa: B018
    assert isinstance(unknown.value, RunNotFound | UnicodeEncodeError)
    assert len(ledger.runs.latest()) == 2


@pytest.mark.parametrize("key", ["", "k" * 201, "a\x00b", "\udcff"])
def test_a_key_that_no_ledger_could_keep_is_refused(hostile: Hostile, key: str) -> None:
    again = job(str(hostile.run.model), "none", "out")

    with pytest.raises(KeyInvalid, match="Nothing was started"):
        created(hostile.context, again, idempotency_key=key)


def test_an_idempotency_key_is_any_text(hostile: Hostile, tmp_path: Path) -> None:
    other = job(str(hostile.run.model), tmp_path / "none", tmp_path / "out", name="other")

    with pytest.raises(KeyTaken) as taken:
        created(hostile.context, other, idempotency_key=SQL + ESCAPES)

    assert "\x1b" not in str(taken.value)
    assert "\n" not in str(taken.value)
