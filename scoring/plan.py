"""From Parquet footers to chunks: what a run will read, in which pieces, in which order.

Pure: footers come in as values, a plan goes out; nothing here opens a file. Invariant: the chunks
of a plan partition its rows, in input order, and reading them needs nothing but the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

CHUNK_BYTES = 256 * 2**20
"""Most uncompressed bytes of the read columns in one planned chunk."""
CHUNK_ROWS = (262_144, 1_048_576)
"""Fewest and most rows aimed at; between them, a run is cut into about ``CHUNKS_PER_RUN``."""
CHUNKS_PER_RUN = 12
"""Enough to keep a small fleet busy and a progress bar moving."""
PIECES_PER_ROW_GROUP = 4
"""Most pieces of one row group: each decodes the rows before its own, so more would cost more
than they gain. An explicit ``chunk_rows`` overrules it."""
SPANS_PER_CHUNK = 256
"""Most files or pieces in one chunk, so that a chunk of tiny files stays quick to retry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """One row group, as its footer describes it."""

    rows: int
    bytes: int
    """Uncompressed size of the columns that will be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """One line of the input manifest: a file as it was when the run was planned."""

    path: str
    size: int
    """Bytes on disk."""
    stamp: str
    """Modification time in nanoseconds, or ETag: with ``size``, the file's identity."""
    row_groups: tuple[RowGroup, ...]
    partitions: tuple[tuple[str, str], ...] = ()
    """Hive partition columns of the path, name and value."""

    @property
    def rows(self) -> int:
        return sum(group.rows for group in self.row_groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A run of rows in one file: whole row groups, or a row range inside one."""

    file: int
    """Index into the input manifest."""
    first_group: int
    groups: int
    skip: int
    """Rows of the first group that belong to earlier chunks."""
    rows: int
    first_row: int
    """Number of the span's first row in its file, from 0."""


def whole(file: InputFile) -> Span:
    """All rows of a file, as if it were the manifest's only one."""
    return Span(
        file=0,
        first_group=0,
        groups=len(file.row_groups),
        skip=0,
        rows=file.rows,
        first_row=0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """The unit of task, lease, retry and commit."""

    number: int
    spans: tuple[Span, ...]

    @property
    def rows(self) -> int:
        return sum(span.rows for span in self.spans)


def cut(files: Sequence[InputFile], chunk_rows: int = 0) -> tuple[Chunk, ...]:
    """Cut the files into chunks of about ``chunk_rows`` rows (0: planned from sizes).

    Whole row groups go together while they fit, small files share a chunk, a row group that is
    too large becomes several chunks. An input without rows makes one empty chunk, so that an
    empty run is published like any other.
    """
    target = chunk_rows or _target_rows(files)
    pieces = _pieces(files, target, capped=not chunk_rows)
    chunks = tuple(
        Chunk(number=number, spans=spans)
        for number, spans in enumerate(_pack(files, pieces, target))
    )
    if chunks:
        return chunks
    nothing = Span(file=0, first_group=0, groups=0, skip=0, rows=0, first_row=0)
    return (Chunk(number=0, spans=(nothing,)),)


def _target_rows(files: Sequence[InputFile]) -> int:
    rows = sum(file.rows for file in files)
    size = sum(group.bytes for file in files for group in file.row_groups)
    fewest, most = CHUNK_ROWS
    by_count = min(max(-(-rows // CHUNKS_PER_RUN), fewest), most)
    by_bytes = CHUNK_BYTES * rows // size if size else most
    return max(1, min(by_count, by_bytes))


def _pieces(files: Sequence[InputFile], target: int, *, capped: bool) -> Iterator[Span]:
    """Every row group in order, an oversized one as several nearly equal pieces."""
    for file_index, file in enumerate(files):
        first_row = 0
        for group_index, group in enumerate(file.row_groups):
            count = -(-group.rows // target)
            if capped and count > 1:
                count = 1 if group.rows < 2 * target else min(count, PIECES_PER_ROW_GROUP)
            for piece in range(count):
                skip = group.rows * piece // count
                rows = group.rows * (piece + 1) // count - skip
                yield Span(
                    file=file_index,
                    first_group=group_index,
                    groups=1,
                    skip=skip,
                    rows=rows,
                    first_row=first_row + skip,
                )
            first_row += group.rows


def _pack(
    files: Sequence[InputFile], pieces: Iterator[Span], target: int
) -> Iterator[tuple[Span, ...]]:
    """Put pieces together while they fit; a file is never begun in a chunk it does not fit."""
    chunk: list[Span] = []
    rows = 0
    for piece in pieces:
        begins_file = bool(chunk) and piece.file != chunk[-1].file
        needed = files[piece.file].rows if begins_file else piece.rows
        if chunk and (rows + needed > target or len(chunk) == SPANS_PER_CHUNK):
            yield tuple(chunk)
            chunk, rows = [], 0
        if chunk and _continues(chunk[-1], piece):
            chunk[-1] = _joined(chunk[-1], piece)
        else:
            chunk.append(piece)
        rows += piece.rows
    if chunk:
        yield tuple(chunk)


def _continues(last: Span, piece: Span) -> bool:
    """Whether ``piece`` begins, as a whole row group, where ``last`` ends."""
    return (
        piece.file == last.file
        and piece.skip == 0
        and piece.first_group == last.first_group + last.groups
        and piece.first_row == last.first_row + last.rows
    )


def _joined(last: Span, piece: Span) -> Span:
    return Span(
        file=last.file,
        first_group=last.first_group,
        groups=last.groups + piece.groups,
        skip=last.skip,
        rows=last.rows + piece.rows,
        first_row=last.first_row,
    )


def spans_to_json(spans: Sequence[Span]) -> str:
    """The spans of one chunk as the ledger keeps them."""
    return json.dumps([asdict(span) for span in spans], separators=(",", ":"))


def spans_from_json(text: str) -> tuple[Span, ...]:
    return tuple(Span(**fields) for fields in json.loads(text))
