"""The drift report in a terminal fits it, and shows what data holds as text."""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console

from scoring.cli.report_table import render
from tests.unit import drift_documents as documents
from tests.unit.drift_documents import HOSTILE, category, number, unmeasured


def printed(document: dict[str, Any], **options: Any) -> list[str]:
    console = Console(width=220, record=True, color_system=None, file=None, quiet=False)
    with console.capture() as captured:
        console.print(render(document, **options))
    return captured.get().splitlines()


def test_the_verdict_and_what_to_do_come_first():
    lines = printed(documents.held([number("dep_delay", 0.41)]))

    assert lines[0].startswith("Severe drift: 1 of 1 columns moved, most of all dep_delay")
    assert lines[1].startswith("Held. The scores are kept and not published")
    assert lines[2] == f"Publish it: scoring release {documents.RUN_ID}"
    assert lines[3] == f"Drop it: scoring reject {documents.RUN_ID}"


def test_a_line_has_what_was_measured_of_a_column():
    trend = [None, 0.0, 0.05, 0.25, 0.5]
    columns = [category("carrier", 0.12) | {"trend": trend}, unmeasured("fresh[bold]", "why")]

    *_, carrier, fresh = printed(documents.report(columns))

    assert carrier.split() == [
        "carrier", "feature", "Jensen-Shannon", "0.120", "small", "0.1%", "+0.1", "points", "1.1%",
        "▁▁▅█",
    ]  # fmt: skip
    assert fresh.split()[:2] == ["fresh[bold]", "feature"]
    assert "not measured" in fresh


def test_200_columns_are_cut_and_the_rest_is_counted():
    document = documents.wide()

    short, whole = printed(document, limit=10), printed(document, limit=None)

    assert short[-1] == "and 190 more, 7 of them moved: --all shows them"
    assert len(short) == len(whole) - 190 + 1
    assert not any("more" in line for line in whole)


def test_names_are_text_in_a_terminal():
    columns = [number(name, 0.3) for name in HOSTILE.values()]

    lines = printed(documents.report(columns, skipped=["[red]", HOSTILE["newline"]]))

    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", "\n".join(lines))
    assert lines[-1].startswith("not profiled, because of their type: [red], two␊lines")
    assert max(map(len, lines[4:-1])) < 160
