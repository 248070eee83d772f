"""Staging folders as a clean-up sees them: what lies in a place, how old, how large, and away.

Removing takes two steps. What is to go is first set aside, by a rename, under a name that nobody
looks for; only then is it deleted. So whoever writes into the folder again finds it empty, never
half of it, and a clean-up that was killed is known by the name.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from scoring.urls import above, is_url

ASIDE = ".removed-"
"""What the name of something that is being deleted begins with."""


def place_of(staging: str) -> str:
    """Where a run's staging folder lies, beside those of others."""
    return above(staging) if is_url(staging) else str(Path(staging).parent)


def folders(place: Path) -> list[Path]:
    """The folders directly in a place, links left out; none if it is not here.

    Raises:
        OSError: it is here and cannot be read.
    """
    try:
        with os.scandir(place) as found:
            names = [one.name for one in found if one.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [place / name for name in sorted(names)]


def others(folder: Path, keep: Collection[str]) -> list[Path]:
    """What lies directly in a folder beside what is to be kept."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder / name for name in sorted(names) if name not in keep]


def freed_bytes(*paths: Path) -> int:
    """What deleting files and folders frees: a file counts once all its names are among them."""
    seen: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0, 0])
    for found in _stats(paths):
        known = seen[found.st_dev, found.st_ino]
        known[:] = known[0] + 1, found.st_nlink, found.st_size
    return sum(size for names, links, size in seen.values() if names >= links)


def idle_seconds(path: Path, now: float) -> float:
    """Time since anything in a folder was changed, as of ``now``; 0 if it is gone."""
    return max(
        0.0, now - max((found.st_mtime for found in _stats([path], all_of=True)), default=now)
    )


def set_aside(folder: Path, keep: Collection[str] = ()) -> Path | None:
    """Rename a folder, or what in it is not to be kept; ``None`` if there was nothing.

    The rename stays in the same place, so it moves no bytes.
    """
    aside = folder.with_name(f"{ASIDE}{folder.name}-{secrets.token_hex(4)}")
    going = others(folder, keep)
    staying = bool(keep) and len(going) < len(others(folder, ()))
    if not staying:
        try:
            os.rename(folder, aside)
        except FileNotFoundError:
            return None
        return aside
    if not going:
        return None
    aside.mkdir()
    for path in going:
        with suppress(FileNotFoundError):  # whoever wrote it has removed it
            os.rename(path, aside / path.name)
    return aside


def remove(path: Path) -> None:
    """Delete a folder; others may be at it too.

    Raises:
        OSError: something in it cannot be deleted.
    """
    shutil.rmtree(path, onerror=_unless_gone)


def take_away(folder: Path) -> bool:
    """Set a whole folder aside and delete it. False if it was gone. Raises: OSError."""
    aside = folder if folder.name.startswith(ASIDE) else set_aside(folder)
    if aside is None or not aside.exists():
        return False
    remove(aside)
    return True


def remove_if_empty(folder: Path) -> None:
    """Delete a folder unless there is something in it."""
    with suppress(OSError):
        folder.rmdir()


def _stats(paths: Collection[Path], *, all_of: bool = False) -> Iterator[os.stat_result]:
    """Of the files at and below the paths; of the folders too with ``all_of``."""
    for path in paths:
        with suppress(FileNotFoundError):
            if path.is_symlink() or not path.is_dir():
                yield path.lstat()
                continue
        for at, _, names in os.walk(path):
            for name in [*names, *([""] if all_of else [])]:
                with suppress(FileNotFoundError):
                    yield os.lstat(Path(at, name))


def _unless_gone(_: object, path: str, failed: tuple[object, BaseException, object]) -> None:
    if not isinstance(failed[1], FileNotFoundError):
        raise failed[1]
