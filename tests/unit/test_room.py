"""A full disk is told as one, and nothing else is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from scoring.data.room import room_in
from scoring.errors import OutputFull


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_or_a_quota_that_is_full_names_the_folder(code: int, tmp_path: Path) -> None:
    with pytest.raises(OutputFull, match=f"no space left under {tmp_path}"), room_in(tmp_path):
        raise OSError(code, os.strerror(code))


def test_another_fault_of_a_disk_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), room_in(tmp_path):
        raise OSError(errno.EACCES, "no")
