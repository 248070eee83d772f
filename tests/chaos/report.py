"""The page that a long run leaves: how it was started, its line, and what was counted."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime

from tests.chaos.tally import Tally


def report(tally: Tally, arguments: Sequence[str], seconds: float) -> str:
    """Markdown; it names no machine."""
    command = shlex.join(["python", "-m", "tests.chaos", *arguments])
    verdict = "Every promise was kept." if tally.kept else "Promises were broken."
    return "\n\n".join(
        [
            "# What the chaos found",
            f"`{command}`, seed {tally.seed}, {datetime.now(UTC):%Y-%m-%d}, "
            f"{seconds / 60:.0f} minutes. {verdict}",
            f"```\n{tally.line()}\n```",
            tally.page() + "\n",
        ]
    )
