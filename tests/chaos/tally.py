"""What was counted: faults that hit, runs and how they ended, and every promise that broke."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Counts of one session of chaos."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    """Faults that hit something, by kind."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Ends of runs, by state and reason."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Kinds of faults that cannot be caused on this machine, and why."""
    runs: int = 0
    rows_in: int = 0
    """Rows of the runs that were published."""
    rows_lost: int = 0
    rows_doubled: int = 0
    mixtures: int = 0
    looks: int = 0
    """How often the reader read the output."""
    broken: list[str] = field(default_factory=list)
    """Promises that were not kept, in words."""

    @property
    def kept(self) -> bool:
        """Whether every promise was."""
        return not (self.rows_lost or self.rows_doubled or self.mixtures or self.broken)

    def line(self) -> str:
        """All of it in one line."""
        return (
            f"faults={sum(self.faults.values())} runs={self.runs} rows_in={self.rows_in} "
            f"rows_lost={self.rows_lost} rows_doubled={self.rows_doubled} "
            f"mixtures={self.mixtures} (seed {self.seed})"
        )

    def page(self) -> str:
        """Tables of what was done and what came of it, as Markdown."""
        faults = [("fault", "times"), *sorted(self.faults.items())]
        never = {name: why for name, why in self.skipped.items() if name not in self.faults}
        faults += [(name, f"not on this machine: {why}") for name, why in never.items()]
        outcomes = [("outcome", "runs"), *sorted(self.outcomes.items())]
        parts = [
            _table(faults),
            _table(outcomes),
            f"The reader read the output {self.looks} times.",
        ]
        if self.broken:
            parts.append("Broken promises:\n\n" + "\n".join(f"- {one}" for one in self.broken))
        return "\n\n".join(parts)


def _table(rows: list[tuple[str, object]]) -> str:
    head, *body = [f"| {name} | {value} |" for name, value in rows]
    return "\n".join([head, "|---|---:|", *body])
