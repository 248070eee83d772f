"""The page says all that drift.json holds, is harmless, stands alone, and reads well everywhere."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from jsonschema import Draft202012Validator

from scoring.drift import wording
from scoring.drift.page import charts, run_charts
from scoring.drift.page.page import render
from scoring.drift.profile.frame import frames_for
from scoring.drift.profile.profile import Profiler, reference_from
from scoring.drift.report import compare
from scoring.job import Drift
from tests.unit import drift_documents as documents
from tests.unit.drift_documents import HOSTILE, THRESHOLDS, category, number, unmeasured

OUTPUT = number("probability_late", 0.03, role="output")
FEW = [OUTPUT, number("dep_delay", 0.41), category("carrier", 0.12)]
BY_CHANCE = number("early", 0.0, q=0.31, role="output") | {"psi": 0.4}
BEYOND_CHANCE = number("late", 0.2, q=0.003)
DERIVED = number("remark[length]", 0.2, of="remark", aspect="length", weight=3.0)
SHOWN = number("shown_only", 0.5, weight=0.0)
LONE_POINT = [None] * 12 + [0.2] + [None] * 16 + [0.02]
MIXED = [
    *FEW,
    BY_CHANCE,
    BEYOND_CHANCE,
    DERIVED,
    SHOWN,
    number("gaps") | {"trend": LONE_POINT, "bins": []},
]
WHY = "the reference does not have this column"
STRANGE = [
    build(name, value)
    for name in HOSTILE.values()
    for build, value in ((number, 0.3), (category, 0.01), (lambda n, _: unmeasured(n, WHY), 0))
]
DOCUMENTS: Mapping[str, dict[str, Any]] = {
    "three columns": documents.held(FEW),
    "all that a report can hold": documents.held(MIXED, performance=documents.performance()),
    "200 columns": documents.wide(),
    "no reference": documents.report([unmeasured("score", role="output"), unmeasured("age")]),
    "one column, first run": documents.report([number("score", 0.0, runs=1)], runs=1),
    "no column": documents.report([], runs=1, skipped=["tags"]),
    "some columns unmeasured": documents.report([*FEW, unmeasured("fresh", WHY)]),
    "failed": documents.held(FEW, outcome="fail", actions=["fail"]),
    "released": documents.held(
        FEW,
        outcome="publish",
        decision={"what": "released", "by": "a tester", "reason": "it is real"},
    ),
    "cancelled": documents.held(
        FEW, outcome="hold", decision={"what": "cancelled", "by": None, "reason": None}
    ),
    "rejected": documents.held(
        FEW, outcome="hold", decision={"what": "rejected", "by": "a tester", "reason": None}
    ),
    "no search": documents.held(FEW, gate=documents.gate(searched=False)),
    "no variants": documents.held(
        FEW,
        gate=documents.gate(searched=False)
        | {"variant": "native", "gate": None, "rows_per_second": None, "why": "no other fits"},
    ),
    "no time": documents.report(
        FEW, timing={"seconds": 0.0, "rows_per_second": None, "chunks": 1, "steps": {}}
    ),
    "earlier runs unmeasured": documents.report(FEW, trend=[None, 0.1, None, 0.41]),
    "compared with a weekday": documents.report(
        FEW,
        compared_with={"kind": "weekday", "rows": 99, "runs": ["a", "b"], "path": None},
        summary="mean",
        measure="wasserstein",
        slot=None,
    ),
    "strange names": documents.held(
        STRANGE,
        job=HOSTILE["markup"],
        verdict="Severe drift: " + " ".join(HOSTILE.values()),
        output=HOSTILE["quotes"],
        model=HOSTILE["markup"],
        device=HOSTILE["newline"],
        quarantine=[{"reason": name, "rows": 1} for name in HOSTILE.values()],
        skipped=list(HOSTILE.values()),
        performance=documents.performance(verdict=HOSTILE["quotes"], label=HOSTILE["markup"]),
        compared_with={"kind": "path", "rows": 9, "runs": [], "path": HOSTILE["quotes"]},
    ),
}
ALL_MOVED = documents.held([number(f"feature_{i:03}_of_the_customer", 0.5) for i in range(200)])
VARIED = documents.report([documents.varied(f"feature_{i:03}", 0.05) for i in range(200)])
VARIED_MOVED = documents.held([documents.varied(f"feature_{i:03}", 0.5) for i in range(200)])
VOID = {"br", "meta"}


class Page(HTMLParser):
    """A page taken apart: its elements in order, its text, and what does not close."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.children: list[list[str]] = []
        """Names of the elements directly inside each of `elements`."""
        self.text: list[str] = []
        self.faults: list[str] = []
        self._open: list[tuple[str, int]] = []
        self.feed(page)
        self.close()
        self.faults += [f"<{name}> is never closed" for name, _ in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._open:
            self.children[self._open[-1][1]].append(tag)
        self.elements.append((tag, dict(attrs)))
        self.children.append([])
        if tag not in VOID:
            self._open.append((tag, len(self.elements) - 1))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1][0] != tag:
            self.faults.append(f"</{tag}> closes {self._open[-1:]} at {self.getpos()}")
        else:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if all(name != "style" for name, _ in self._open):
            self.text.append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    return {name: render(document) for name, document in DOCUMENTS.items()}


@pytest.fixture(scope="module")
def pages(sources: dict[str, str]) -> dict[str, Page]:
    return {name: Page(source) for name, source in sources.items()}


@pytest.fixture(scope="module")
def style() -> str:
    return files("scoring.drift.page").joinpath("page.css").read_text(encoding="utf-8")


EACH = pytest.mark.parametrize("name", DOCUMENTS)


def test_the_schema_is_one_and_describes_every_field():
    found = documents.schema()
    Draft202012Validator.check_schema(found)

    tables = [found, *found["$defs"].values()]
    fields = [field for one in tables for field in one.get("properties", {}).values()]

    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert len(fields) > 100
    assert all(field["description"].endswith(".") for field in fields)


@EACH
def test_every_document_is_valid(name):
    Draft202012Validator(documents.schema()).validate(DOCUMENTS[name])


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("version",), 1),
        (("severity",), "terrible"),
        (("verdict",), None),
        (("outcome",), "published"),
        (("thresholds", "small"), 0),
        (("thresholds", "tiny"), 0.01),
        (("rows_in",), -1),
        (("actions",), ["shout"]),
        (("trend",), []),
        (("timing", "steps", "read"), "long"),
        (("quarantine", 0, "rows"), "many"),
        (("gate", "why"), 7),
        (("performance", "metrics", 0, "name"), "luck"),
        (("columns", 0, "role"), "key"),
        (("columns", 0, "value"), -0.1),
        (("columns", 0, "surprise"), 1),
        (("columns", 0, "bins", 0, "current"), 1.2),
        (("columns", 0, "figures", "psi"), None),
        (("columns", 0, "trend", 0), "high"),
    ],
)
def test_a_broken_document_is_rejected(path, wrong):
    broken = deepcopy(DOCUMENTS["all that a report can hold"])
    place: Any = broken
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = wrong

    assert not Draft202012Validator(documents.schema()).is_valid(broken)


def test_a_document_without_a_field_is_rejected():
    whole = DOCUMENTS["all that a report can hold"]
    validator = Draft202012Validator(documents.schema())

    for part in whole:
        assert not validator.is_valid({key: whole[key] for key in whole if key != part}), part


def test_what_is_measured_is_what_the_schema_says():
    columns = [("carrier", "feature", pa.string()), ("score", "output", pa.float64())]
    rng = np.random.default_rng(4)

    def batch(shift: float) -> dict[str, pa.Array]:
        names = rng.choice(["UA", "B6", "DL"], 5_000, p=[0.5, 0.3 + shift, 0.2 - shift])
        return {"carrier": pa.array(names), "score": pa.array(rng.normal(shift, size=5_000))}

    training = batch(0.0)
    reference = reference_from(lambda: [training], columns)
    profiler = Profiler(frames_for(reference, columns, {}))
    profiler.add(batch(0.2))
    found = compare(reference, profiler.profile(), Drift()).to_dict()
    for column in found["columns"]:
        column["trend"] = [column["value"]]

    whole = {**documents.report([], runs=1), **found}

    Draft202012Validator(documents.schema()).validate(whole)
    words = Page(render(whole)).words
    assert all(column["name"] in words for column in found["columns"])
    assert found["verdict"] in words


@EACH
def test_a_page_stands_alone(sources, pages, name):
    loads = [
        value
        for _, attributes in pages[name].elements
        for key, value in attributes.items()
        if key in ("src", "href", "srcset", "action", "xlink:href", "data", "poster")
    ]

    assert all(load.startswith("#") for load in loads)
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & {
        tag for tag, _ in pages[name].elements
    }
    assert not re.search(r"https?:|url\(|@import", sources[name])


@EACH
def test_a_page_is_well_formed(pages, name):
    page = pages[name]
    ids = Counter(a["id"] for _, a in page.elements if "id" in a)
    targets = {a["href"][1:] for _, a in page.elements if "href" in a}

    assert page.faults == []
    assert [one for one, times in ids.items() if times > 1] == []
    assert targets <= set(ids)
    assert page.attributes("html") == [{"lang": "en"}]
    assert len(page.attributes("h1")) == len(page.attributes("main")) == 1


@EACH
def test_a_page_can_be_read_aloud(pages, name):
    page = pages[name]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    drawings = [
        (attributes, children)
        for (tag, attributes), children in zip(page.elements, page.children, strict=True)
        if tag == "svg"
    ]

    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(cell.get("scope") in ("row", "col") for cell in page.attributes("th"))
    assert all(
        a.get("aria-hidden") == "true" or (a.get("role") == "img" and children[0] == "title")
        for a, children in drawings
    )
    for place in [a for _, a in page.elements if "scroll" in (a.get("class") or "").split()]:
        assert place["tabindex"] == "0"
        assert place["role"] == "region"
        assert place["aria-label"]


@EACH
def test_no_value_of_the_language_is_shown(pages, sources, name):
    drawn = " ".join(re.findall(r'(?:\bd|style|viewBox)="([^"]*)"', sources[name]))

    assert not re.search(r"\b(None|nan|inf|[uU]ndefined)\b", f"{pages[name].words} {drawn}")


def test_names_and_values_are_shown_as_text(pages):
    page = pages["strange names"]
    shown = "".join(page.text)

    for name in HOSTILE.values():
        assert shown.count(wording.visible(name)) >= 5, name
    assert not {"onerror", "onload"} & {key for _, a in page.elements for key in a}
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", shown)


@pytest.mark.parametrize("document", [documents.wide(), ALL_MOVED, VARIED, VARIED_MOVED])
def test_a_page_of_200_columns_with_30_runs_is_below_one_megabyte(document):
    assert len(document["columns"]) == 200
    assert {len(column["trend"]) for column in document["columns"]} == {30}
    assert len(render(document).encode()) < 1_000_000


def test_the_verdict_comes_first_with_what_was_done(pages):
    words = pages["three columns"].words
    run = documents.RUN_ID

    assert words.index("Severe") < words.index("Severe drift: 2 of 3 columns moved")
    assert f"Publish it: scoring release {run}" in words
    assert f"Drop it: scoring reject {run}" in words
    assert "A review was asked for" in words
    assert "2 runs in a row have drifted this far; this job acts from 2 in a row." in words


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("failed", "Failed. Nothing of this run is published."),
        ("released", "Released. a tester decided to publish this run as it is: it is real."),
        ("cancelled", "Cancelled. A person stopped this run. The earlier output stands."),
        ("rejected", "Rejected. a tester decided to drop this run. The earlier output stands."),
        (
            "one column, first run",
            "Not held back. Its drift does not keep this run from being published.",
        ),
        ("no reference", "Not held back. Without a reference there is nothing to hold a run for."),
    ],
)
def test_a_run_that_is_not_held_offers_no_command(pages, name, said):
    assert said in pages[name].words
    assert "scoring release" not in pages[name].words


def test_the_identity_of_the_run_is_there(pages):
    words = pages["three columns"].words

    for part in (
        "flights-delay",
        "2013-12-24 02:30",
        "2013-12-24 07:30 UTC",
        documents.RUN_ID,
        "models:/flights-delay@production version 7",
        "int8 onnx on cpu",
        "27,004",
        "12 quarantined of 27,016",
        "the profile that is kept with the model 166,158 rows",
        "/srv/scores/flights-delay/date=2013-12-24",
    ):
        assert part in words, part


def test_outputs_come_before_features_and_what_moved_before_what_did_not(pages):
    page = pages["200 columns"]
    words = page.words
    drawn, lines = (
        [a["id"] for tag, a in page.elements if tag == element and "id" in a]
        for element in ("article", "details")
    )

    assert words.index("Outputs") < words.index("Features")
    assert drawn == [f"c{i}" for i in range(17)]  # the output, and the 16 that moved
    assert lines == [f"c{i}" for i in range(17, 200)]
    assert [a["href"] for a in page.attributes("a")][1:] == [f"#c{i}" for i in range(1, 17)]


def test_very_many_columns_that_moved_are_cut_and_it_is_said():
    page = Page(render(ALL_MOVED))

    assert len(page.attributes("a")) == 1 + 24
    assert "and 176 more below" in page.words
    assert len(page.attributes("article")) == 24
    assert "176 more columns" in page.words


def test_a_column_says_all_that_was_measured_of_it(pages):
    words = pages["all that a report can hold"].words

    for part in (
        "Jensen-Shannon 0.120 small, 0.1 to 0.15",
        "severe, 0.25 and above",
        "Missing 0.1% was 0.1%",
        "Mean 12.64 was 11.2",
        "New HA 1.1%, ZZ <0.1%",
        "Vanished OO <0.1%",
        "KS 0.205 ±0.001",
        "KS, p <0.001",
        "Missing, change +0.1 points",
        "Rows of new categories 1.1%",
        "UA 18.0% → 18.8%",
        "number · length of remark · weight 3",
        "within what chance does, q 0.310",
        "moderate, 0.15 to 0.25; beyond chance, q 0.003",
        "Measures PSI beyond chance 0.200 PSI 0.200 KS 0.100",
    ):
        assert part in words, part


def test_a_column_of_no_weight_is_shown_and_not_counted(pages):
    page = pages["all that a report can hold"]

    assert "4 of 7" in page.words
    assert "number · weight 0" in page.words
    assert len(page.attributes("a")) == 1 + 4


def test_what_could_not_be_measured_says_why(pages):
    assert f"fresh {WHY} 27,004" in pages["some columns unmeasured"].words
    assert "Not profiled, because of their type: tags ." in pages["no column"].words


def test_the_gate_the_time_and_the_quarantine_are_told(pages):
    words = pages["three columns"].words

    for part in (
        "int8 (static, percentile): the fastest admitted, 6.7 times native",
        "fp32 21,000 1,024 1e-07 2e-06 99.84% 0 agreement 0.9712, below min_agreement 0.995",
        "int8 61,400 1,024 0.00112 0.0224 99.84% 0 chosen",
        "12 s from the first row to the last; the steps are summed over 4 chunks",
        "predict 14 s read 3.1 s",
        "dep_delay: NaN is not allowed 9",
    ):
        assert part in words, part
    native = " ".join(["native 9,200", *[wording.ABSENT] * 5, "admitted"])
    assert f"{native} int8 61,400 1,024" in pages["no search"].words

    assert "no other fits Where the time went" in pages["no variants"].words


def test_performance_is_told_once_labels_have_arrived(pages):
    words = pages["all that a report can hold"].words

    for part in (
        "AUC is 0.871 (95% interval 0.862 to 0.880)",
        "26,611 rows with a label, 14 still without · 2013-12-26 09:12 UTC",
        "AUC 0.871 0.862 to 0.880 0.904 +3.3 points moderate",
        "Brier score 0.1181 0.1142 to 0.122 0.1042 +13.3% severe",
        " ".join(["Logarithmic loss 0.381", *[wording.ABSENT] * 4]),
        "Calibration in 10 bins. Furthest off: 39.0% given, 32.3% came true",
    ):
        assert part in words, part
    assert "Performance" not in pages["three columns"].words


def test_the_trend_names_its_thresholds_where_there_is_room():
    def labels(largest: float) -> list[str]:
        trend = [{"score": largest, "slot": None}]
        return [tier for tier, _ in run_charts.trend_labels(trend, THRESHOLDS)]

    assert labels(0.1) == ["severe", "small", "moderate"]
    assert labels(9.0) == ["severe", "small"]


def test_every_legend_entry_is_there(pages):
    words = pages["one column, first run"].words

    for meaning in (*wording.MEASURES.values(), *wording.FIGURES.values()):
        assert f"{meaning.name} {meaning.text}" in words


def test_a_histogram_draws_both_sides_to_one_scale():
    bins = [
        {"label": "[0, 1)", "reference": 0.5, "current": 0.25},
        {"label": "[1, 2)", "reference": 0.5, "current": 0.5},
        {"label": "(missing)", "reference": 0.0, "current": 0.25},
    ]

    drawn = charts.histogram(bins, "number", "title")

    assert 'class="ref" d="M0 100V4h9V100zM10 100V4h9V100zM25 100V100h9V100z"' in drawn
    assert 'class="now" d="M0 100V52h10V4h10V100M25 100V52h10V100"' in drawn


def test_a_sparkline_leaves_gaps_and_marks_the_last_known_run():
    drawn = charts.sparkline([None, 0.25, None, 0.0, 0.1, None], THRESHOLDS)

    assert 'class="line" d="M6 2h0M18 40l6-15"' in drawn
    assert 'class="dot" d="M24 25h0"' in drawn
    assert charts.sparkline([None, None], THRESHOLDS) == ""


def test_a_bullet_ends_at_twice_severe_and_says_that_it_goes_on():
    within, beyond = (charts.bullet(value, THRESHOLDS, "far <out") for value in (0.125, 7.0))

    assert 'd="M0 4h50v4H0z"' in within
    assert "beyond" not in within
    assert 'd="M0 4h200v4H0z"' in beyond
    assert 'href="#beyond"' in beyond
    assert "<title>far &lt;out</title>" in beyond


@pytest.mark.parametrize(
    ("shown", "as_text"),
    [
        (wording.share(0.0), "0.0%"),
        (wording.share(0.0001), "<0.1%"),
        (wording.share(0.99999), ">99.9%"),
        (wording.share(1.0), "100.0%"),
        (wording.change(-0.031), "\N{MINUS SIGN}3.1 points"),
        (wording.change(0.0), "no change"),
        (wording.figure(0.0001), "<0.001"),
        (wording.figure(1234.5), "1,234"),
        (wording.chance(1e-9), "<0.001"),
        (wording.duration(0.031), "0.031 s"),
        (wording.duration(134), "2 min 14 s"),
        (wording.duration(7_320), "2 h 2 min"),
        (wording.moment("2013-07-01"), "2013-07-01"),
        (wording.moment("soon"), "soon"),
        (wording.value(15_706.0, "days"), "2013-01-01"),
        (wording.spread(2.5, "days"), "2.5 days"),
        (wording.visible("a\x1b[31m\x7f\x9b"), "a␛[31m␡\ufffd"),
    ],
)
def test_figures_read_as_people_say_them(shown, as_text):
    assert shown == as_text


def test_text_and_marks_stand_out_in_light_and_dark(style):
    roots = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6});", root)) for root in roots[:2])
    tiers = ("none", "small", "moderate", "severe")
    text = [("ink", "page"), ("ink", "card"), ("soft", "page"), ("soft", "card"), ("soft", "line")]
    text += [("now", "page"), ("now", "card"), *((tier, f"{tier}-tint") for tier in tiers)]
    marks = [("ref-edge", "card"), ("now", "card"), ("now", "ref")]
    marks += [(f"{tier}-mark", ground) for tier in tiers for ground in ("card", "page")]
    marks += [(tier, "page") for tier in tiers]

    assert set(dark) < set(light) | {"mono"}
    for scheme in (light, light | dark):
        for pairs, least in ((text, 4.5), (marks, 3.0)):
            for front, back in pairs:
                found = contrast(scheme[front], scheme[back])
                assert found >= least, (front, back, scheme[front], found)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_paper_shows_light_colours_whatever_the_screen(style):
    assert "@media screen and (prefers-color-scheme: dark)" in style
    assert not re.search(r"@media \(prefers-color-scheme", style)
    assert "print-color-adjust: exact" in style
