"""Whether a run still keeps to the data roots, when it reads and when it publishes.

Places are checked when a run is planned, but links can change afterwards, and whoever planned it
may have had other roots. So the worker that reads and the finisher that publishes look once more,
by their own settings, following the links as they are then.
"""

from __future__ import annotations

from collections.abc import Iterable

from scoring.ledger import RunRecord
from scoring.runs.context import Context
from scoring.runs.places import check_within


def check_confined(context: Context, run: RunRecord, inputs: Iterable[str] = ()) -> None:
    """Raise unless a run's places, and the input files, lie below the roots of this process.

    A replay reads what its run left in quarantine, among the artifacts.

    Raises: PathOutsideRoots.
    """
    roots = context.settings.data_roots
    for path in () if run.replay_of else inputs:
        check_within(path, "input.path", roots)
    for place in (run.staging, run.output):
        check_within(str(place), "output.path", roots)
