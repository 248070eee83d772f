"""What a run reports is written down, whatever becomes of the page."""

from __future__ import annotations

import json
from pathlib import Path

from scoring.runs.report import write_report
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
