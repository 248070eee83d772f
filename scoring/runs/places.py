"""Where a run reads and writes: templates filled in, made absolute, checked against the roots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from scoring import urls
from scoring.data.publish import staging_folder
from scoring.data.store_output import staging_prefix
from scoring.errors import DateInvalid, PathOutsideRoots
from scoring.job import Job, fill

PROFILE_FILE, DRIFT_FILE, PAGE_FILE = "profile.json", "drift.json", "drift.html"
"""What a run leaves among its artifacts: the counts, the report, and the page that shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """What a run is for: a slot of a schedule, a logical date, or neither."""

    date: str | None = None
    """Logical date, YYYY-MM-DD."""
    slot: str | None = None
    """Due time with offset, ISO 8601, for a scheduled run; the date for a manual one."""
    scheduled: bool = False
    """Whether (job, slot) must be unique."""

    def __post_init__(self) -> None:
        if self.date is not None and not _is_date(self.date):
            raise DateInvalid(self.date)


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except (TypeError, ValueError):
        return False


def on_date(day: date | str | None) -> Occasion:
    """The occasion of a run that a person or an application asks for. Raises: DateInvalid."""
    text = day.isoformat() if isinstance(day, date) else day
    return Occasion(date=text, slot=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The absolute paths, or URLs of stores, of one run."""

    input: str
    output: str
    staging: str
    artifacts: Path


def places(
    job: Job, run_id: str, occasion: Occasion, *, artifacts: Path, roots: Sequence[str]
) -> Places:
    """Fill in the job's paths.

    Raises:
        TemplateUnfilled: a path needs a date or slot that this run does not have.
        PathOutsideRoots: a path leaves the places that jobs may read and write.
        StoreUnsupported, UrlInvalid: a path names a store that we do not know, or no place in one.
    """
    values = {
        "date": occasion.date,
        "slot": _in_a_path(occasion.slot),
        "run_id": run_id,
        "job": job.name,
    }
    read = _absolute(fill(job.input.path, values, "input.path"), "input.path", roots)
    written = _absolute(fill(job.output.path, values, "output.path"), "output.path", roots)
    return Places(
        input=read,
        output=written,
        staging=_staging(job.output.path, written, run_id, roots),
        artifacts=artifacts / job.name / run_id,
    )


def _in_a_path(slot: str | None) -> str | None:
    """A slot without the characters that paths and other systems trip over."""
    if slot is None or "T" not in slot:
        return slot
    return datetime.fromisoformat(slot).strftime("%Y-%m-%dT%H%M")


def _staging(template: str, written: str, run_id: str, roots: Sequence[str]) -> str:
    if urls.is_url(written):
        return staging_prefix(template, written, run_id, roots)
    return str(staging_folder(template, Path(written), run_id, roots))


def _absolute(path: str, key: str, roots: Sequence[str]) -> str:
    absolute = whole_place(path, key)
    check_within(absolute, key, roots)
    return absolute


def whole_place(path: str, key: str) -> str:
    """An absolute path, or the URL of a store, written in the one way that means it.

    Raises:
        StoreUnsupported, UrlInvalid.
    """
    if urls.is_url(path):
        scheme, *names = urls.parts(path, key)
        return f"{scheme}://{'/'.join(names)}"
    local = Path(path.removeprefix("file://"))
    try:
        return str(local.expanduser().absolute())
    except RuntimeError:  # ~somebody that this machine does not know is a name like any other
        return str(local.absolute())


def check_within(path: str, key: str, roots: Sequence[str]) -> None:
    """Raise `PathOutsideRoots` if a path, its links followed, leaves the roots (none: anywhere)."""
    if roots and not any(urls.is_below(path, root, key) for root in roots):
        raise PathOutsideRoots(key, path, list(roots))
