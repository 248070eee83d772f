"""The memory that is ours: the machine's, or what a container was given."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from scoring.memory import MIB, child_memory_mb, memory_mb
from scoring.settings import Settings
from tasks.child import KIB, limit_memory

MACHINE = psutil.virtual_memory().total // MIB


def limits(folder: Path, own: str, **files: str) -> int:
    """What is found with these control groups; ``__`` in a name stands for a folder."""
    (folder / "own").write_text(own)
    for name, text in files.items():
        path = folder / "groups" / name.replace("__", "/").replace("memory_", "memory.", 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return memory_mb(folder / "groups", folder / "own")


def test_without_control_groups_it_is_the_machines(tmp_path: Path) -> None:
    assert memory_mb(tmp_path / "none", tmp_path / "none either") == MACHINE


@pytest.mark.parametrize(
    ("own", "files", "found"),
    [
        ("0::/\n", {"memory_max": f"{64 * MIB}\n"}, 64),
        ("0::/\n", {"memory_max": "max\n"}, MACHINE),
        ("0::/a/b\n", {"a__b__memory_max": "max", "a__memory_max": f"{32 * MIB}"}, 32),
        ("0::/a\n", {"a__memory_max": f"{99 * MIB}", "memory_max": f"{16 * MIB}"}, 16),
        ("0::/../../c\n", {"c__memory_max": f"{8 * MIB}"}, MACHINE),
        (
            "4:cpu:/x\n3:memory:/y\n",
            {"memory__y__memory_limit_in_bytes": f"{24 * MIB}"},
            24,
        ),
    ],
    ids=["container", "no limit", "parent", "smallest", "elsewhere", "first version"],
)
def test_the_smallest_limit_of_our_control_groups_counts(
    tmp_path: Path, own: str, files: dict[str, str], found: int
) -> None:
    assert limits(tmp_path, own, **files) == found


def test_children_share_most_of_the_memory() -> None:
    assert child_memory_mb(4, 10_000) == 2_000
    assert child_memory_mb(1, 10_000) == 8_000
    assert child_memory_mb(1_000, 100) == 1


def test_a_worker_is_told_the_limit_of_its_children_in_kib() -> None:
    worker = SimpleNamespace(max_memory_per_child=None)

    limit_memory(worker, 2, Settings(child_memory_mb=500))

    assert worker.max_memory_per_child == 500 * KIB


def test_a_limit_on_celerys_command_line_stands() -> None:
    worker = SimpleNamespace(max_memory_per_child=7)

    limit_memory(worker, 2, Settings(child_memory_mb=500))

    assert worker.max_memory_per_child == 7
