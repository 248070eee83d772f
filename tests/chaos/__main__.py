"""The long form of the chaos: ``python -m tests.chaos``; prints one line when it is over.

It ends with 0 only if every promise was kept and as much was hit as was asked for.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.campaign import Campaign, Goal
from tests.chaos.installation import Kind
from tests.chaos.report import report
from tests.chaos.tally import Tally

KINDS: dict[str, tuple[Kind, ...]] = {
    "sqlite": ("sqlite",),
    "postgresql": ("postgresql",),
    "both": ("sqlite", "postgresql"),
}


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    # Not below a folder that only we may enter: a database server runs as another user if we are
    # root.
    root = Path(tempfile.mkdtemp(prefix="nightscore-chaos-"))
    root.chmod(0o755)
    goal = Goal(
        runs=options.runs,
        faults=options.faults,
        minutes=options.minutes,
        kinds=KINDS[options.kind],
        every_step=not options.sessions_only,
    )
    campaign = Campaign(seed=options.seed, goal=goal, root=root, tally=Tally(seed=options.seed))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing is left then either
    try:
        campaign.run()
    finally:
        tally = campaign.tally
        for broken in tally.broken:
            print(f"broken: {broken}", file=sys.stderr)
        if not campaign.reached:
            print(f"fell short of {goal.faults} faults, {goal.runs} runs", file=sys.stderr)
        print(tally.line(), flush=True)
    if options.report is not None:
        seconds = time.monotonic() - campaign.began
        options.report.write_text(report(tally, arguments, seconds), encoding="utf-8")
    kept = tally.kept and campaign.reached
    if kept:
        shutil.rmtree(root, ignore_errors=True)
    else:
        print(f"logs are kept in {root}", file=sys.stderr)
    return 0 if kept else 1


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    made.add_argument("--seed", type=int, default=20130701, help="of all that is drawn")
    made.add_argument("--runs", type=int, default=100, help="at least so many, of sessions")
    made.add_argument("--faults", type=int, default=500, help="at least so many")
    made.add_argument("--minutes", type=float, default=60.0, help="give up after so long")
    made.add_argument("--kind", choices=sorted(KINDS), default="both", help="of ledger")
    made.add_argument("--report", type=Path, help="write what was counted here, as Markdown")
    made.add_argument(
        "--sessions-only", action="store_true", help="leave out the finisher's every step"
    )
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
