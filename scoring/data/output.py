"""Where a run is published: a folder, or a prefix in a store.

Publishing is all or nothing in both. A folder is exchanged in one step (`publish`); in a store
readers go by ``_SUCCESS`` (`store_output`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from scoring import urls
from scoring.data import publish
from scoring.data.claim import Publisher
from scoring.data.staged import FolderStaging
from scoring.data.store_output import StoreOutput
from scoring.data.store_reader import StoreFile
from scoring.data.stores import Stores

if TYPE_CHECKING:
    import pyarrow.dataset


class Output(Protocol):
    """The place of one job's scores."""

    def check(self) -> None:
        """Raise `OutputOccupied` if it holds anything that we did not write."""

    def manifest(self) -> dict[str, Any] | None:
        """The manifest of the run that it holds complete; None: it holds none."""

    def reader(self, name: str) -> Path | StoreFile:
        """What pyarrow reads one of its files from. Raises: FileNotFoundError."""

    def dataset(self, names: Sequence[str]) -> pyarrow.dataset.Dataset:
        """Parts as one table, rows in the order of the names."""

    def publish(
        self,
        staging: Any,
        parts: Sequence[str],
        manifest: Mapping[str, Any],
        by: Publisher,
        earlier_parts: int = 0,
    ) -> bool:
        """Put staged parts there in place of what is there, but for its first ``earlier_parts``.

        False if the run is another finisher's now, or the output not what it has to be; nothing
        was changed then.

        Raises:
            OutputOccupied: it holds files of somebody else.
            PartMissing: a staged part is gone; nothing was changed.
            OutputClaimed: another run is being published there; nothing was changed.
            OutputIncomplete: publishing stopped half-way; it goes on when it is called again.
        """

    def alone(self) -> AbstractContextManager[None]:
        """Nobody publishes there in the block. Raises: OutputBusy."""

    def resume(self, staging: Any, by: Publisher) -> None:
        """Finish what an earlier publisher of the same run began and told of, if there is one."""


def output_at(place: str, stores: Stores, roots: Sequence[str] = ()) -> Output:
    """The output at a path or URL; ``roots`` are the places that may be written below."""
    if urls.is_url(place):
        return StoreOutput(url=place, stores=stores, roots=tuple(roots))
    return FolderOutput(Path(place))


@dataclass(frozen=True, slots=True)
class FolderOutput:
    """On a filesystem."""

    folder: Path

    def check(self) -> None:
        publish.check_output(self.folder)

    def manifest(self) -> dict[str, Any] | None:
        return publish.published_manifest(self.folder)

    def reader(self, name: str) -> Path:
        return self.folder / name

    def dataset(self, names: Sequence[str]) -> pyarrow.dataset.Dataset:
        import pyarrow.dataset

        return pyarrow.dataset.dataset([str(self.folder / n) for n in names], format="parquet")

    def publish(
        self,
        staging: FolderStaging,
        parts: Sequence[str],
        manifest: Mapping[str, Any],
        by: Publisher,
        earlier_parts: int = 0,
    ) -> bool:
        ready = publish.assemble(
            staging.folder,
            by.attempt,
            parts,
            manifest,
            earlier=self.folder if earlier_parts else None,
            earlier_parts=earlier_parts,
        )
        return publish.publish(ready, self.folder, lambda: by.still_mine() and by.unchanged())

    def alone(self) -> AbstractContextManager[None]:
        # Where there is no folder to lock, nobody has begun to publish.
        there = self.folder.parent.is_dir()
        return publish.alone(self.folder) if there else nullcontext()

    def resume(self, staging: FolderStaging, by: Publisher) -> None:
        """Nothing is ever half done."""
