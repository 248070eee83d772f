"""What drift costs: beside the scoring, on its own, and beside Evidently; each against its target.

*cost*: chunks scored with their profile and without it, in turn, and the finisher's measures.
*size*: ten million rows of 16 columns read, and read, profiled, merged and reported.
*evidently*: a million rows against a million, by Nightscore and by Evidently's DataDriftPreset,
from the same Parquet to a page; Evidently in an environment of its own, which this program makes.

Whatever is measured runs alone, in a process of its own, on one core and in turn; medians count.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, get_args

from rich.console import Console
from rich.table import Table

from benchmarks.drift_process import alone
from benchmarks.drift_report import freeze
from benchmarks.drift_rows import COLUMNS, FILE_ROWS, drift_rows
from benchmarks.drift_scoring import Form, Scoring
from benchmarks.models import built
from scoring import devices

RUNS = {"cost": 15, "size": 3, "evidently": 3}
ROWS = {"cost": 2_000_000, "size": 10_000_000, "evidently": 1_000_000}
EVIDENTLY = ("evidently==0.7.23", "pandas<3")

COST_LIMITS: Mapping[Form, float] = {"network-16": 10.0, "trees": 15.0}
"""Percent of scoring time. The network of 32 columns has no target and stands beside them."""
SIZE_SECONDS, SIZE_MIB = 6.0, 300.0
TIMES_FASTER, TIMES_SMALLER = 50.0, 10.0

CONSOLE = Console(width=110)
Spent = dict[str, Any]


class Part(Protocol):
    """Measures some rows some times."""

    def __call__(self, rows: int, runs: int) -> list[Target]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A figure, and what was promised."""

    what: str
    found: float
    limit: float
    unit: str
    at_least: bool = False
    """Whether more is better."""

    def __str__(self) -> str:
        room = self.found - self.limit if self.at_least else self.limit - self.found
        verdict = f"met, {room:,.1f} to spare" if room >= 0 else f"MISSED by {-room:,.1f}"
        wanted = f"{'at least' if self.at_least else 'at most'} {self.limit:g} {self.unit}"
        return f"{self.what}: {self.found:,.1f} {self.unit}, target {wanted}: {verdict}"


def cost(rows: int, runs: int, forms: Sequence[Form] = get_args(Form)) -> list[Target]:
    """What the profile and the measures add to scoring."""
    table = _table(
        f"added to the scoring of {rows:,} rows, medians of {runs} pairs",
        *(
            "columns",
            "chunks",
            "scoring, s",
            "profile",
            "measures",
            "report",
            "all",
            "by the clock",
        ),
    )
    targets = []
    for form in forms:
        Scoring(form=form, rows=rows).make()  # or the first process would measure the making
        found = alone("benchmarks.drift_scoring", form, "--rows", rows, "--runs", runs)
        added = Added.of(found["pairs"])
        table.add_row(form, f"{found['columns']}", f"{found['chunks']}", *added.cells())
        if form in COST_LIMITS:
            what = f"profile and measures, {form}, {found['columns']} columns"
            limit = COST_LIMITS[form]
            targets.append(Target(what=what, found=added.promised, limit=limit, unit="%"))
    CONSOLE.print(table)
    return targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What was added to the scoring alone, in percent of it; medians over the pairs."""

    scoring: float
    """Processor seconds of the scoring alone."""
    profile: float
    """The workers' part: every chunk's columns, counted and written."""
    measures: float
    """The finisher's: the chunks' profiles merged and compared with the reference."""
    promised: float
    """Profile and measures."""
    report: float
    """The trend of thirty nights and the page; once a run, whatever its size, as the measures."""
    everything: float
    by_clock: float
    """Everything, by the clock."""

    @classmethod
    def of(cls, pairs: Sequence[tuple[Spent, Spent]]) -> Added:
        def percent(added: Callable[[Spent, float], float]) -> float:
            return _median(100 * added(w, o["processor"]) / o["processor"] for w, o in pairs)

        def seconds(spent: Spent, *steps: str) -> float:
            return float(sum(spent["steps"][step] for step in steps))

        return cls(
            scoring=_median(bare["processor"] for _, bare in pairs),
            profile=percent(lambda w, bare: seconds(w, "score") - bare),
            measures=percent(lambda w, _: seconds(w, "merge", "compare")),
            promised=percent(lambda w, bare: seconds(w, "score", "merge", "compare") - bare),
            report=percent(lambda w, _: seconds(w, "trend", "page")),
            everything=percent(lambda w, bare: w["processor"] - bare),
            by_clock=_median(100 * (w["seconds"] / o["seconds"] - 1) for w, o in pairs),
        )

    def cells(self) -> list[str]:
        shares = (self.profile, self.measures, self.report, self.everything, self.by_clock)
        return [f"{self.scoring:.2f}", *(f"{share:.1f} %" for share in shares)]


def size(rows: int, runs: int) -> list[Target]:
    """Ten million rows, beyond reading them."""
    before, now = drift_rows("reference", min(rows, FILE_ROWS)), drift_rows("current", rows)
    with tempfile.TemporaryDirectory(prefix="nightscore-drift-") as scratch:
        frozen = Path(scratch) / "reference.json"
        frozen.write_text(freeze(before).to_json(), encoding="utf-8")
        program = "benchmarks.drift_report"
        found = in_turn(
            {
                "read": partial(alone, program, "--read", "--current", *now),
                "read and report": partial(alone, program, "--frozen", frozen, "--current", *now),
            },
            runs,
        )
    show(f"{rows:,} rows of {len(COLUMNS)} columns, {len(now)} chunks, {runs} runs", found)
    read, whole = found.values()
    beyond = _median(w["processor"] - r["processor"] for w, r in zip(whole, read, strict=True))
    return [
        Target(what="profile to page, beyond reading", found=beyond, limit=SIZE_SECONDS, unit="s"),
        Target(what="its memory", found=_peak(whole), limit=SIZE_MIB, unit="MiB"),
    ]


def evidently(rows: int, runs: int) -> list[Target]:
    """The same two files, by Evidently and by Nightscore."""
    files = before, now = [drift_rows(side, rows)[0] for side in ("reference", "current")]
    python = evidently_python()
    with tempfile.TemporaryDirectory(prefix="nightscore-drift-") as scratch:
        frozen = Path(scratch) / "reference.json"
        frozen.write_text(freeze([before]).to_json(), encoding="utf-8")
        ours = partial(alone, "benchmarks.drift_report", "--current", now)
        found = in_turn(
            {
                "Evidently": partial(alone, "benchmarks.drift_evidently", *files, python=python),
                "Nightscore": partial(ours, "--reference", before),
                "Nightscore, reference kept": partial(ours, "--frozen", frozen),
            },
            runs,
        )
    show(f"{rows:,} rows against {rows:,}, {len(COLUMNS)} columns, {runs} runs", found)
    theirs, both, nightly = found.values()
    return [*_beside(theirs, both, "both sides"), *_beside(theirs, nightly, "a night's part")]


def _beside(theirs: Sequence[Spent], ours: Sequence[Spent], name: str) -> Iterator[Target]:
    """How many times faster and smaller ours is."""
    pairs = list(zip(theirs, ours, strict=True))
    faster = _median(t["seconds"] / o["seconds"] for t, o in pairs)
    what = f"faster than Evidently, {name}"
    yield Target(what=what, found=faster, limit=TIMES_FASTER, unit="times", at_least=True)
    smaller = _median(t["peak_mib"] / o["peak_mib"] for t, o in pairs)
    what = f"smaller than Evidently, {name}"
    yield Target(what=what, found=smaller, limit=TIMES_SMALLER, unit="times", at_least=True)
    beyond = _median(_beyond_start(t) / _beyond_start(o) for t, o in pairs)
    print(f"{name}: {beyond:.1f} times smaller, not counting what each held before the first row")


def evidently_python() -> Path:
    """The interpreter of an environment with Evidently in it, made once."""

    def build(folder: Path) -> None:
        made = str(folder / "bin" / "python")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([made, "-m", "pip", "install", "-qq", *EVIDENTLY], check=True)

    python = built("-".join(EVIDENTLY[0].split("==")), build) / "bin" / "python"
    command = [str(python), "-m", "pip", "freeze"]
    frozen = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(f"Evidently's environment: {', '.join(frozen.split())}\n")
    return python


def in_turn(
    contenders: Mapping[str, Callable[[], Spent]], runs: int
) -> Mapping[str, Sequence[Spent]]:
    """Each contender's runs; all take a turn before any takes its next."""
    rounds = [{name: run() for name, run in contenders.items()} for _ in range(runs)]
    return {name: [one[name] for one in rounds] for name in contenders}


def show(title: str, found: Mapping[str, Sequence[Spent]]) -> None:
    """A table of the contenders, and where their time goes."""
    table = _table(title, "seconds", "min", "max", "processor", "peak MiB", "at start")
    for name, spent in found.items():
        seconds = [one["seconds"] for one in spent]
        figures = (statistics.median(seconds), min(seconds), max(seconds))
        processor = _median(one["processor"] for one in spent)
        memory = (_peak(spent), max(one["base_mib"] for one in spent))
        table.add_row(
            name,
            *(f"{figure:.2f}" for figure in (*figures, processor)),
            *(f"{figure:,.0f}" for figure in memory),
        )
    CONSOLE.print(table)
    for name, spent in found.items():
        if not spent[0]["steps"]:
            continue
        steps = (
            f"{step} {_median(s['steps'][step] for s in spent):.2f}" for step in spent[0]["steps"]
        )
        counted = f", {spent[0]['columns']} columns measured" if "columns" in spent[0] else ""
        print(f"{name}, processor seconds by step: {', '.join(steps)}{counted}")
    print()


def _table(title: str, *figures: str) -> Table:
    table = Table(title=title)
    table.add_column("")
    for name in figures:
        table.add_column(name, justify="right")
    return table


def _median(figures: Iterable[float]) -> float:
    return statistics.median(figures)


def _beyond_start(spent: Spent) -> float:
    """Peak memory beyond the interpreter and its libraries, in MiB."""
    return float(spent["peak_mib"] - spent["base_mib"])


def _peak(spent: Sequence[Spent]) -> float:
    return float(max(one["peak_mib"] for one in spent))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what drift costs.")
    parser.add_argument("--parts", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--rows", type=int, help="of every part; default: 2, 10 and 1 million")
    parser.add_argument("--runs", type=int, help="of every part; default: 15 pairs, 3, 3")
    parser.add_argument(
        "--forms", nargs="+", choices=get_args(Form), default=get_args(Form), help="of part cost"
    )
    options = parser.parse_args()
    parts: Mapping[str, Part] = {
        "cost": partial(cost, forms=options.forms),
        "size": size,
        "evidently": evidently,
    }
    targets: list[Target] = []
    for part in options.parts:
        targets += parts[part](options.rows or ROWS[part], options.runs or RUNS[part])
    for target in targets:
        print(target)
    print(f"on one core of {devices.processor()}")


if __name__ == "__main__":
    main()
