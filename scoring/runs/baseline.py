"""What a run is compared with: the profile that its job names, found once, when it is planned.

A profile that a person put somewhere (the model's, a path) must be readable, or the run does not
start. Profiles that earlier runs left are taken as they are found: one that is gone or damaged is
passed over and said so in the log, because last month's clean-up must not stop tonight's run. No
profile at all is no fault either: the first run has none, and its report says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, tzinfo
from itertools import islice
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from scoring import telemetry, urls
from scoring.drift.profile.pooled import Pooled, pooled
from scoring.drift.profile.profile import Profile
from scoring.errors import ReferenceUnreadable
from scoring.job import Job
from scoring.ledger import Resolution, RunRecord
from scoring.models import Version
from scoring.runs.context import Context
from scoring.runs.nights import other_nights
from scoring.runs.pin import reference_profile
from scoring.runs.places import PROFILE_FILE, Occasion, check_within, whole_place

log = telemetry.logger(__name__)

Kind = Literal["model", "previous", "weekday", "path"]

LOOK_BACK = 2_500
"""Published runs among which those of a weekday are sought: a week of one every five minutes, or
years of nights."""
PAGE = 20
"""Published runs that are read at first; the previous one is nearly always among them."""
SHOWN = 10
"""Runs or columns that one log line names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedWith:
    """Where a reference came from, as ``drift.json`` and the plan say it."""

    kind: Kind
    rows: int
    """Rows of the reference."""
    runs: tuple[str, ...] = ()
    """The earlier runs that it was made of, newest first; none for a model's or a path's."""
    path: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "runs": list(self.runs)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A reference profile, and where it came from."""

    profile: Profile
    compared_with: ComparedWith


def find_baseline(
    context: Context,
    job: Job,
    occasion: Occasion,
    version: Version,
    resolution: Resolution = "registry",
) -> Baseline | None:
    """What a run of this occasion is compared with, or ``None`` when there is nothing yet.

    A version that was named from memory has the profile that was remembered with it.

    Raises:
        ReferenceUnreadable: the model's profile, or the one at the path, is none.
        PathOutsideRoots: the path leaves the places that jobs may read.
        RegistryUnreachable: the model's profile cannot be fetched.
    """
    named = job.drift.reference
    if named == "model":
        return _from_text("model", reference_profile(context, job, version, resolution), named)
    if named == "previous":
        found = other_nights(_published(context, job, PAGE), than=occasion.slot or occasion.date)
        return _from_runs("previous", found, 1)
    if named == "weekday":
        zone = ZoneInfo(job.schedule.timezone) if job.schedule else UTC
        day = day_of(occasion.slot or occasion.date, datetime.now(UTC), zone)
        every = _published(context, job, LOOK_BACK)
        found = other_nights(every, than=occasion.slot or occasion.date)
        return _from_runs("weekday", same_weekday(found, day, zone), job.drift.weekday_runs)
    return _from_path(context, named)


def same_weekday(runs: Iterable[RunRecord], day: date, zone: tzinfo) -> list[RunRecord]:
    """Runs of the same weekday before ``day``, the newest day first."""
    dated = [(day_of(run.slot, _utc(run.created_at), zone), run) for run in runs]
    found = [one for one in dated if one[0] < day and one[0].weekday() == day.weekday()]
    found.sort(key=lambda one: (one[0], one[1].created_at), reverse=True)
    return [run for _, run in found]


def day_of(slot: str | None, created: datetime, zone: tzinfo) -> date:
    """A run's logical date: its slot's on the schedule's own clock, else when it was created."""
    return date.fromisoformat(slot[:10]) if slot else created.astimezone(zone).date()


def _published(context: Context, job: Job, limit: int) -> Iterator[RunRecord]:
    """The newest `LOOK_BACK` published runs, newest first; `limit` of them are read at first.

    More are read anew with all before them, as runs that were created at once cannot be told
    apart by time: four times as many each time, so that little is read twice.
    """
    seen: set[str] = set()
    while True:
        found = context.ledger.runs.latest(
            job=job.name, states=["published"], limit=limit, replays=False
        )
        for run in found:
            if run.id not in seen:
                seen.add(run.id)
                yield run
        if len(found) < limit or limit >= LOOK_BACK:
            return
        limit = min(LOOK_BACK, 4 * limit)


def _from_runs(kind: Kind, runs: Iterable[RunRecord], most: int) -> Baseline | None:
    """The profiles of the first so many runs that have one."""
    skipped: dict[str, str] = {}
    found = list(islice(_profiles(runs, skipped), most))
    if skipped:
        first = dict(islice(skipped.items(), SHOWN))
        log.warning("earlier_profiles_unreadable", runs=len(skipped), first=first)
    together = pooled([profile for _, profile in found])
    if not together.profile.columns:
        return None
    ids = [run.id for run, _ in found]
    _log_losses(ids, together)
    return Baseline(
        profile=together.profile,
        compared_with=ComparedWith(
            kind=kind,
            rows=together.profile.rows,
            runs=tuple(ids[place] for place in together.used),
        ),
    )


def _profiles(
    runs: Iterable[RunRecord], skipped: dict[str, str]
) -> Iterator[tuple[RunRecord, Profile]]:
    """Runs with the profiles they left; why others are passed over goes into ``skipped``."""
    for run in runs:
        path = Path(run.artifacts) / PROFILE_FILE
        try:
            profile = Profile.from_json(path.read_text(encoding="utf-8"))
            profile.as_reference()  # a ValueError here is as good a reason as one before
        except (OSError, ValueError) as error:
            skipped[run.id] = f"{path}: {getattr(error, 'strerror', None) or error}"
            continue
        if profile.rows:
            yield run, profile


def _log_losses(ids: Sequence[str], together: Pooled) -> None:
    left_out: Mapping[str, Any] = {
        ids[place]: list(names[:SHOWN]) for place, names in together.left_out.items()
    }
    if left_out:
        log.warning("reference_in_other_bins", columns=left_out)
    if together.outgrown:
        log.warning("reference_outgrown", columns=list(together.outgrown[:SHOWN]))


def _from_path(context: Context, path: str) -> Baseline | None:
    check_within(path, "drift.reference", context.settings.data_roots)
    try:
        if urls.is_url(path):
            text = context.stores.read_bytes(whole_place(path, "drift.reference")).decode()
        else:
            text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ReferenceUnreadable(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise ReferenceUnreadable(path, str(error)) from error
    return _from_text("path", text, path)


def _from_text(kind: Kind, text: str | None, named: str) -> Baseline | None:
    if text is None:
        return None
    try:
        profile = Profile.from_json(text).as_reference()
    except ValueError as error:
        raise ReferenceUnreadable(named, str(error)) from error
    path = named if kind == "path" else None
    return Baseline(
        profile=profile,
        compared_with=ComparedWith(kind=kind, rows=profile.rows, path=path),
    )


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
