"""The jobs folder: find a job by name or path, load every job that is there."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from scoring.errors import JobFileInvalid, JobNotFound
from scoring.job import Job
from scoring.job_faults import toml_text


def find_job(job: str, jobs_folder: Path) -> Job:
    """The job at a path, or the one of that name in the folder.

    A name is first what a file says in its ``name`` key, then a file's own name, then a path.
    Raises ``JobFileInvalid`` when the file found has faults, ``JobNotFound`` when there is none.
    """
    paths = [
        *([Path(job), jobs_folder / job] if job.endswith(".toml") else []),
        *_of_that_name(job, jobs_folder),
        Path(job),
    ]
    return _first(paths, job, jobs_folder)


def named_job(job: str, jobs_folder: Path) -> Job:
    """The job of that name in the folder, never one at a path: who sends a message may choose
    among the operator's jobs, and not have another one run as the operator.

    Raises ``JobFileInvalid``, ``JobNotFound``.
    """
    return _first(_of_that_name(job, jobs_folder), job, jobs_folder)


def _of_that_name(job: str, folder: Path) -> list[Path]:
    files = _job_files(folder)
    by_name = [path for path in files if _name_in(path) == job]
    return [*by_name, *(path for path in files if job in (path.stem, path.name))]


def _first(paths: Sequence[Path], job: str, jobs_folder: Path) -> Job:
    for path in paths:
        if path.is_file():
            return Job.load(path)
    known = sorted(found.name for found in load_jobs(jobs_folder)[0])
    raise JobNotFound(job, str(jobs_folder), known)


def load_jobs(folder: Path) -> tuple[list[Job], list[JobFileInvalid]]:
    """Every job in a folder, by file name, and the faults of the files that hold none.

    Of two files with one job name the first counts and the second is at fault.
    """
    jobs: dict[str, Job] = {}
    files: dict[str, Path] = {}
    broken: list[JobFileInvalid] = []
    for path in _job_files(folder):
        try:
            job = Job.load(path)
        except JobFileInvalid as invalid:
            broken.append(invalid)
            continue
        if job.name in jobs:
            fault = (
                f"name is {toml_text(job.name)}; {files[job.name]} has that name already, "
                "and it must be a name of its own."
            )
            broken.append(JobFileInvalid(str(path), [fault]))
            continue
        jobs[job.name], files[job.name] = job, path
    return list(jobs.values()), broken


def _job_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.toml") if not path.name.startswith("."))


def _name_in(path: Path) -> object:
    """The ``name`` key of a file, be the rest of it valid or not; ``None`` if it has none."""
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig")).get("name")
    except (OSError, ValueError, RecursionError):
        return None  # whoever asks for this file by its own name is told what is wrong with it
