"""Where a run reads and writes: templates filled in, made absolute, checked against the roots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from scoring.data.publish import staging_folder
from scoring.errors import DateInvalid, PathOutsideRoots, StoreUnsupported
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
    """The absolute paths of one run."""

    input: str
    output: Path
    staging: Path
    artifacts: Path


def places(
    job: Job, run_id: str, occasion: Occasion, *, artifacts: Path, roots: Sequence[Path]
) -> Places:
    """Fill in the job's paths.

    Raises:
        TemplateUnfilled: a path needs a date or slot that this run does not have.
        PathOutsideRoots: a path leaves the places that jobs may read and write.
        StoreUnsupported: a path names an object store.
    """
    values = {
        "date": occasion.date,
        "slot": _in_a_path(occasion.slot),
        "run_id": run_id,
        "job": job.name,
    }
    read = _absolute(fill(job.input.path, values, "input.path"), "input.path", roots)
    written = Path(_absolute(fill(job.output.path, values, "output.path"), "output.path", roots))
    return Places(
        input=read,
        output=written,
        staging=staging_folder(job.output.path, written, run_id, roots),
        artifacts=artifacts / job.name / run_id,
    )


def _in_a_path(slot: str | None) -> str | None:
    """A slot without the characters that paths and other systems trip over."""
    if slot is None or "T" not in slot:
        return slot
    return datetime.fromisoformat(slot).strftime("%Y-%m-%dT%H%M")


def _absolute(path: str, key: str, roots: Sequence[Path]) -> str:
    if "://" in path:
        scheme, _, rest = path.partition("://")
        if scheme != "file":
            raise StoreUnsupported(key, path)
        path = rest
    absolute = str(Path(path).expanduser().absolute())
    check_within(absolute, key, roots)
    return absolute


def check_within(path: str, key: str, roots: Sequence[Path]) -> None:
    """Raise `PathOutsideRoots` if a path, its links followed, leaves the roots (none: anywhere)."""
    resolved = Path(path).resolve()
    if roots and not any(resolved.is_relative_to(root.resolve()) for root in roots):
        raise PathOutsideRoots(key, path, [str(root) for root in roots])
