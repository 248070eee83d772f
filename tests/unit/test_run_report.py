"""What a run reports is written down, whatever becomes of the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scoring.runs.report import read_report, write_report
from tests.unit import drift_documents


def test_a_report_is_a_document_and_the_page_that_shows_it(tmp_path: Path) -> None:
    document = drift_documents.report([drift_documents.number("fare")])

    write_report(tmp_path, document)

    assert json.loads((tmp_path / "drift.json").read_text("utf-8")) == document
    assert document["verdict"] in (tmp_path / "drift.html").read_text("utf-8")


def test_a_document_that_cannot_be_drawn_is_kept_and_does_not_stop_the_run(tmp_path: Path) -> None:
    write_report(tmp_path, {"version": 2, "columns": [{"name": "fare"}]})

    assert json.loads((tmp_path / "drift.json").read_text("utf-8"))["version"] == 2
    assert "could not be drawn" in (tmp_path / "drift.html").read_text("utf-8")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"text"', "null", "{}", '{"version": 1}', "\udcff"], ids=repr
)
def test_what_is_no_report_of_this_release_is_not_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "drift.json").write_text(text, encoding="utf-8", errors="surrogateescape")

    assert read_report(tmp_path) is None


def test_a_run_without_a_report_has_none(tmp_path: Path) -> None:
    assert read_report(tmp_path) is None


def test_what_is_not_a_number_is_read_as_nothing(tmp_path: Path) -> None:
    (tmp_path / "drift.json").write_text('{"version": 2, "score": NaN, "psi": Infinity}')

    assert read_report(tmp_path) == {"version": 2, "score": None, "psi": None}
