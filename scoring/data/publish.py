"""Publishing: a run's parts become its output by one rename.

A finisher assembles a folder of its own (``ready-<attempt>``) from the staged parts with the
manifest and ``_SUCCESS`` in it, and swaps it with the output folder in one step. Until then a
reader sees the previous run, from then on this one. Every step can be repeated: assembling begins
from nothing, and swapping in a second copy of the same run changes nothing that a reader sees.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from scoring.errors import OutputBusy, OutputOccupied
from scoring.urls import is_below

MANIFEST = "_manifest.json"
SUCCESS = "_SUCCESS"
STAGING = ".nightscore"
"""Folder of everything that is not published yet; hidden from readers."""

LOCK_SECONDS = 30
"""How long a finisher waits for another one to swap a folder beside its own."""
AT_FDCWD = -100
RENAME_EXCHANGE = 2
PART = re.compile(r"part-\d{5,}\.parquet")


def staging_folder(template: str, output: Path, run_id: str, roots: Sequence[str] = ()) -> Path:
    """Where a run's parts wait: on the output's filesystem, outside any folder a reader scans.

    ``template`` is the output path as the job gives it; its part before the first placeholder or
    ``key=value`` is the table's root, and a reader may well scan all of that. So the staging
    folder lies beside the root, or inside it, hidden, when the root is a filesystem of its own
    or one of the ``roots`` that jobs may write below.
    """
    parts = Path(template).parts
    varying = (index for index, part in enumerate(parts) if "{" in part or "=" in part)
    first = next(varying, len(parts))
    if first == len(parts):
        return output.parent / STAGING / run_id
    root = Path(*output.parts[: first - len(parts)])
    allowed = not roots or any(is_below(str(root.parent), one) for one in roots)
    beside = root.parent if allowed and _same_filesystem(root, root.parent) else root
    return beside / STAGING / run_id


def part_file(index: int) -> str:
    """Published name of a part."""
    return f"part-{index:05d}.parquet"


def check_output(output: Path) -> None:
    """Raise `OutputOccupied` if the output path holds anything that we did not write."""
    if not output.exists():
        return
    if not output.is_dir():
        raise OutputOccupied(str(output), "a file")
    names = sorted(os.listdir(output))
    foreign = [name for name in names if not is_ours(name)] if MANIFEST in names else names
    if foreign:
        raise OutputOccupied(str(output), f"{len(foreign)} files ({foreign[0]}, ...)")


def is_ours(name: str) -> bool:
    """Whether we wrote it, or it is hidden: what desktops and network filesystems leave behind."""
    return bool(PART.fullmatch(name)) or name in (MANIFEST, SUCCESS) or name.startswith(".")


def published_manifest(output: Path) -> dict[str, Any] | None:
    """The manifest of the run whose parts the output folder holds."""
    try:
        found: dict[str, Any] = json.loads((output / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found


def assemble(
    staging: Path,
    attempt: int,
    parts: Sequence[str],
    manifest: Mapping[str, Any],
    *,
    earlier: Path | None = None,
    earlier_parts: int = 0,
) -> Path:
    """A complete output folder in staging: parts in order, manifest, ``_SUCCESS``; durable.

    An addition to what is published begins with the parts of the ``earlier`` output.
    """
    ready = staging / f"ready-{attempt}"
    shutil.rmtree(ready, ignore_errors=True)
    ready.mkdir(parents=True)
    if earlier is not None:
        for index in range(earlier_parts):
            _link(earlier / part_file(index), ready / part_file(index))
    for index, part in enumerate(parts, earlier_parts):
        _link(staging / part, ready / part_file(index))
    _write(ready / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    _write(ready / SUCCESS, "")
    _sync(ready)
    return ready


def publish(ready: Path, output: Path, still_mine: Callable[[], bool]) -> bool:
    """Swap the assembled folder into place. False if another finisher took the run over.

    ``still_mine`` is asked while the output's lock is held, so a finisher that was frozen past
    its lease cannot put an old run over a newer one.

    Raises:
        OutputOccupied: the output holds files of somebody else.
        OutputBusy: whoever swaps a folder beside it does not come to an end.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with alone(output):
        if not still_mine():
            return False
        check_output(output)
        if output.exists():
            _exchange(ready, output)
        else:
            os.rename(ready, output)
        _sync(output.parent)
    return True


def discard(staging: Path) -> None:
    """Remove a run's staging folder, and the folder above when it is empty."""
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.parent.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.ENOENT, errno.EEXIST):
            raise


@contextmanager
def alone(output: Path) -> Iterator[None]:
    """Hold the only right to swap folders beside the output; released by the kernel on death.

    Raises:
        OutputBusy: whoever holds it does not come to an end.
    """
    folder = output.parent
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(BlockingIOError),
                wait=wait_fixed(0.05),
                stop=stop_after_delay(LOCK_SECONDS),
                reraise=True,
            ):
                with attempt:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputBusy(str(folder), LOCK_SECONDS) from None
        yield
    finally:
        os.close(handle)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV):
            raise
        shutil.copyfile(source, target)
        _sync(target)


def _exchange(ready: Path, output: Path) -> None:
    """Swap two folders atomically (Linux); elsewhere the output is absent for a moment."""
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if swap is not None:
        arguments = (AT_FDCWD, os.fsencode(ready), AT_FDCWD, os.fsencode(output), RENAME_EXCHANGE)
        if swap(*arguments) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
            raise OSError(code, os.strerror(code), str(output))
    aside = ready.with_name(f"{ready.name}-replaced")
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(output, aside)
    os.rename(ready, output)


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _same_filesystem(one: Path, other: Path) -> bool:
    return _existing(one).stat().st_dev == _existing(other).stat().st_dev and os.access(
        _existing(other), os.W_OK
    )


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
