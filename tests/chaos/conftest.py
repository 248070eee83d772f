"""What the short form shares: small material, and a bench where nothing happens by itself."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.at_every_step import Bench, bench
from tests.chaos.campaign import SMALL
from tests.chaos.material import Material, make
from tests.chaos.tally import Tally

SEED = 20130701


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, tracking_uri: str) -> Material:
    """Tables of two chunks, and a narrow network: what is struck is the finisher."""
    folder = tmp_path_factory.mktemp("small")
    return make(folder, tracking_uri, seed=SEED, tables=SMALL, width=64)


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, tracking_uri: str, small: Material
) -> Iterator[Bench]:
    """A bench for the tests of one module."""
    root = tmp_path_factory.mktemp("bench")
    with bench(root, tracking_uri, small, Tally(seed=SEED)) as found:
        yield found


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that a database server, which runs as another user, may enter too."""
    folder = Path(tempfile.mkdtemp(prefix="nightscore-chaos-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
