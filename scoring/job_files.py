"""The jobs folder: find a job by name or path, load every job that is there."""

from __future__ import annotations

import tomllib
from pathlib import Path

from scoring.errors import JobFileInvalid, JobNotFound
from scoring.job import Job
from scoring.job_faults import toml_text


def find_job(job: str, jobs_folder: Path) -> Job:
    """The job at a path, or the one of that name in the folder.

    A name is first what a file says in its ``name`` key, then a file's own name, then a path.
    Raises ``JobFileInvalid`` when the file found has faults, ``JobNotFound`` when there is none.
    """
    in_folder = _job_files(jobs_folder)
    paths = [
        *([Path(job), jobs_folder / job] if job.endswith(".toml") else []),
        *(path for path in in_folder if _name_in(path) == job),
        *(path for path in in_folder if path.stem == job),
        Path(job),
    ]
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
