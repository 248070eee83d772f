"""A doorbell that wakes nobody, so that a test can do the workers' part step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scoring.ledger import RunRecord


class SilentBell:
    """Remembers who should have been woken: run ids, and names of tasks."""

    def __init__(self) -> None:
        self.woken: list[str] = []

    def chunks(self, run: RunRecord, numbers: Sequence[int], delay: float = 0.0) -> None:
        self.woken.append(run.id)

    def finish(self, run: RunRecord) -> None:
        self.woken.append(run.id)

    def call(self, task: str, *, event: Mapping[str, Any], queue: str, message_id: str) -> None:
        self.woken.append(task)

    def waiting(self, queue: str) -> int:
        return 0
