"""Files that are damaged, that are no Parquet, that may not be read, or that change meanwhile."""

from __future__ import annotations

import base64
import gzip
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from scoring.data import source
from scoring.errors import InputError, JobFileInvalid, ScoringError
from scoring.plan import whole
from tests.integration.bad_inputs import Bench, write

pytestmark = pytest.mark.slow

PLAIN = {"compression": "none", "use_dictionary": False}
"""Each value lies in the file as it is."""
ROWS = {"id": np.arange(1_000), "x": np.arange(1_000) / 4}
FIRST = {"id": [1, 2], "x": [1.0, 2.0]}
LATER = {"id": [3, 4], "x": [3.0, 4.0]}
"""As many bytes as `FIRST`."""

Damage = Callable[[bytes], bytes]


def in_the_middle(content: bytes) -> bytes:
    """Bytes of the first page turned round."""
    return content[:100] + bytes(byte ^ 255 for byte in content[100:140]) + content[140:]


def footer_length(length: int) -> Damage:
    return lambda content: content[:-8] + length.to_bytes(4, "little") + content[-4:]


def footer(change: Callable[[bytes], bytes]) -> Damage:
    def damage(content: bytes) -> bytes:
        length = int.from_bytes(content[-8:-4], "little")
        changed = change(content[-8 - length : -8])
        return content[: -8 - length] + changed + len(changed).to_bytes(4, "little") + b"PAR1"

    return damage


def one_row_more(thrift: bytes) -> bytes:
    """1,000 rows, which Thrift writes as d0 0f, become 1,001."""
    return thrift.replace(b"\xd0\x0f", b"\xd2\x0f")


def as_lzo(thrift: bytes) -> bytes:
    """Column x, in which the codec follows the path, is said to be compressed by number 3."""
    return re.sub(rb"(\x01x\x15)\x00(\x16)", b"\\1\x06\\2", thrift)


NO_PARQUET = "Parquet magic bytes not found in footer"
DAMAGED_FOOTERS: dict[str, tuple[Damage, str]] = {
    "the end is missing": (lambda content: content[:-20], NO_PARQUET),
    "half is missing": (lambda content: content[: len(content) // 2], NO_PARQUET),
    "the last magic is another": (lambda content: content[:-4] + b"PAR2", NO_PARQUET),
    "the footer has no length": (footer_length(0), "Couldn't deserialize thrift"),
    "the footer is cut short": (footer_length(10), "Couldn't deserialize thrift"),
    "the footer is longer than the file": (footer_length(2**31 - 1), "smaller than the size"),
    "the footer is as long as can be": (footer_length(2**32 - 1), "smaller than the size"),
    "the footer is noise": (footer(lambda thrift: b"\xff" * len(thrift)), "Couldn't deserialize"),
    "nothing is in it": (lambda _: b"", "file size is 0 bytes"),
    "only a magic is in it": (lambda _: b"PAR1", "file size is 4 bytes"),
    "zeros are in it": (lambda content: bytes(len(content)), NO_PARQUET),
    "it is CSV": (lambda _: b"id,x\n1,2.5\n" * 9, NO_PARQUET),
    "it is JSON": (lambda _: b'{"id": 1, "x": 2.5}\n' * 9, NO_PARQUET),
    "it is text": (lambda _: "ünïcode\n".encode() * 9, NO_PARQUET),
    "it is compressed as a whole": (gzip.compress, NO_PARQUET),
}
DAMAGED_PAGES: dict[str, tuple[Damage, dict[str, object], str]] = {
    "a compressed page is corrupt": (in_the_middle, {}, "Corrupt snappy compressed data"),
    "a page does not match its checksum": (
        in_the_middle,
        {**PLAIN, "write_page_checksum": True},
        "CRC checksum verification failed",
    ),
    "the header of a page is noise": (
        lambda content: content[:4] + b"\xff" * 16 + content[20:],
        {},
        "Deserializing page header failed",
    ),
    "the footer promises a row more": (
        footer(one_row_more),
        PLAIN,
        "its footer promises 1001 rows and 1 of them are not there",
    ),
    "a codec that is not there": (footer(as_lzo), PLAIN, "LZO"),
}


@pytest.mark.parametrize("case", DAMAGED_FOOTERS)
def test_a_damaged_file_is_refused_before_the_run(bench: Bench, tmp_path: Path, case: str) -> None:
    damage, told = DAMAGED_FOOTERS[case]
    path = write(tmp_path / "in" / "a.parquet", ROWS)
    write(tmp_path / "in" / "b.parquet", FIRST)
    path.write_bytes(damage(path.read_bytes()))

    bench.run(tmp_path).assert_refused(f"input file {path} cannot be read as Parquet: ", told)


@pytest.mark.parametrize("case", DAMAGED_PAGES)
def test_damage_that_only_reading_shows_fails_the_run_at_once(
    bench: Bench, tmp_path: Path, case: str
) -> None:
    damage, how, told = DAMAGED_PAGES[case]
    path = write(tmp_path / "in" / "a.parquet", ROWS, **how)
    before = path.read_bytes()
    path.write_bytes(damage(before))
    assert path.read_bytes() != before

    ended = bench.run(tmp_path)

    ended.assert_refused(f"input file {path} cannot be read as Parquet: ", told, state="failed")


def test_a_first_magic_that_is_another_harms_nobody(bench: Bench, tmp_path: Path) -> None:
    path = write(tmp_path / "in" / "a.parquet", FIRST)
    path.write_bytes(b"NOPE" + path.read_bytes()[4:])

    bench.run(tmp_path).assert_published([1.0, 2.0])


# Encryption


class OpenKeys(pe.KmsClient):  # type: ignore[misc]  # pyarrow has no types
    """Keys that lie beside the data."""

    def wrap_key(self, key_bytes: bytes, _: str) -> bytes:
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key: bytes, _: str) -> bytes:
        return base64.b64decode(wrapped_key)


@pytest.mark.parametrize(
    ("plain", "told"), [(False, "Could not read encrypted metadata"), (True, "are encrypted")]
)
def test_an_encrypted_file_is_refused_and_does_not_end_the_process(
    bench: Bench, tmp_path: Path, plain: bool, told: str
) -> None:
    """pyarrow aborts at the first look into the footer of an encrypted column."""
    keys = pe.EncryptionConfiguration(
        footer_key="k", column_keys={"k": ["x"]}, plaintext_footer=plain
    )
    factory = pe.CryptoFactory(lambda _: OpenKeys())
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), keys)
    path, table = tmp_path / "in" / "a.parquet", pa.table(FIRST)
    path.parent.mkdir()
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)

    bench.run(tmp_path).assert_refused(str(path), told)


# What is at the path


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)  # a path to bind must be short, and pytest's are long


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to(path.parent / "gone")


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def a_name_that_is_not_utf8(path: Path) -> None:
    write(path, FIRST)
    os.rename(path, os.fsencode(path.parent) + b"/\xff.parquet")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (a_folder, "no Parquet files at"),
        (a_pipe, "a pipe, a socket or a device"),
        (a_socket, "a pipe, a socket or a device"),
        (a_link_to_nothing, "No such file or directory"),
        (a_link_to_itself, "Too many levels of symbolic links"),
        (a_name_that_is_not_utf8, "its name is not UTF-8"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("source", ["in", "in/*.parquet", "in/a.parquet"])
def test_what_is_no_file_is_named_however_it_was_found(
    bench: Bench, tmp_path: Path, make: Callable[[Path], None], told: str, source: str
) -> None:
    (tmp_path / "in").mkdir()
    make(tmp_path / "in" / "a.parquet")
    if make is a_name_that_is_not_utf8 and source == "in/a.parquet":
        told = "no Parquet files at"

    bench.run(tmp_path, source=source).assert_refused(told, str(tmp_path / "in"))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("in/*.parquet", "no Parquet files at"),
        ("in/[", "no Parquet files at"),
        ("~nobody-here/in", "no Parquet files at"),
        ("in/" + "a" * 300, "File name too long"),
        ("in/{hour}", "of braces only {date}, {slot}"),
        ("in/a\0b", "must be a file, folder or glob"),
    ],
)
def test_a_path_that_means_nothing_is_refused(
    bench: Bench, tmp_path: Path, source: str, told: str
) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ScoringError) as refused:
        bench.prepare(tmp_path, source=source)

    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("in", "in"),
        ("in", "in/../in/."),
        ("in", "in/scores"),
        ("in/*.parquet", "in"),
        ("in/deep", "in"),
    ],
)
def test_an_output_that_is_the_input_is_a_fault_of_the_job(
    bench: Bench, tmp_path: Path, source: str, output: str
) -> None:
    path = write(tmp_path / "in" / "a.parquet", FIRST)

    with pytest.raises(JobFileInvalid, match="must be a folder apart from the input"):
        bench.prepare(tmp_path, source=source, output=output)

    assert path.exists()


def test_an_output_that_is_input_by_way_of_a_link_is_found_when_it_is_read(
    bench: Bench, tmp_path: Path
) -> None:
    write(tmp_path / "in" / "a.parquet", FIRST)
    (tmp_path / "link").symlink_to(tmp_path / "in")

    ended = bench.run(tmp_path, source="link", output="in/scores")

    ended.assert_refused(
        f"output.path is {tmp_path}/in/scores; it holds {tmp_path}/link/scores/part-00000.parquet"
    )


# Permission


@contextmanager
def as_nobody() -> Iterator[None]:
    """Read as another user does; root may read everything."""
    if os.geteuid() == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(os.getuid())


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that everybody may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)
        for path in Path(folder).rglob("*"):
            path.chmod(0o755)


@pytest.mark.parametrize("path", ["", "open", "*/a.parquet", "**/*.parquet", "*", "shut"])
def test_a_folder_that_may_not_be_listed_is_an_error_and_not_an_empty_one(
    shared_folder: Path, path: str
) -> None:
    write(shared_folder / "open" / "a.parquet", FIRST)
    write(shared_folder / "open" / "deep" / "shut" / "a.parquet", FIRST)
    write(shared_folder / "shut" / "a.parquet", FIRST)
    (shared_folder / "shut").chmod(0)
    (shared_folder / "open" / "deep" / "shut").chmod(0)

    with as_nobody(), pytest.raises(InputError, match=r"shut cannot .*: Permission denied\. Not"):
        source.scan(str(shared_folder / path), [])


def test_a_file_that_may_not_be_read_is_named(shared_folder: Path) -> None:
    path = write(shared_folder / "a.parquet", FIRST)
    (planned,) = source.scan(str(path), [])
    path.chmod(0)

    with as_nobody():
        for asked in (
            lambda: source.scan(str(path), []),
            lambda: next(source.read(planned.file, whole(planned.file), ["x"], 9)),
        ):
            with pytest.raises(InputError, match=r"a\.parquet cannot .*: Permission denied\. Not"):
                asked()


# Changes between planning and scoring


def replaced(path: Path) -> None:
    size = path.stat().st_size
    write(path.with_suffix(".new"), LATER)
    os.replace(path.with_suffix(".new"), path)
    assert path.stat().st_size == size


def rewritten_in_place(path: Path) -> None:
    path.write_bytes(path.read_bytes())


def rewritten_larger_at_the_old_time(path: Path) -> None:
    before = path.stat()
    write(path, ROWS)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def appended_to(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\n")


def cut_off(path: Path) -> None:
    os.truncate(path, 100)


def a_folder_now(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe_now(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "change",
    [
        replaced,
        rewritten_in_place,
        rewritten_larger_at_the_old_time,
        appended_to,
        cut_off,
        a_folder_now,
        a_pipe_now,
        Path.unlink,
    ],
    ids=lambda change: change.__name__,
)
def test_a_file_that_changed_after_planning_fails_the_run(
    bench: Bench, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = write(tmp_path / "in" / "a.parquet", FIRST)

    ended = bench.run(tmp_path, meanwhile=lambda: change(path))

    told = f"input file {path} changed after the run was planned: planned "
    ended.assert_refused(told, "start a new run", state="failed")


def test_a_file_that_comes_after_planning_waits_for_the_next_run(
    bench: Bench, tmp_path: Path
) -> None:
    write(tmp_path / "in" / "a.parquet", FIRST)
    write_more = lambda: write(tmp_path / "in" / "b.parquet", LATER)  # noqa: E731

    bench.run(tmp_path, meanwhile=write_more).assert_published([1.0, 2.0])
    bench.run(tmp_path).assert_published([1.0, 2.0, 3.0, 4.0])


# What writers leave beside the data


@pytest.mark.parametrize(
    "name",
    [
        *("_SUCCESS", "_metadata", "._a.parquet", ".a.parquet.crc", "a.parquet.crc"),
        *("_temporary/b.parquet", ".hidden/b.parquet", "a.parquet.tmp", "a.parquet~", "b.csv"),
    ],
)
def test_what_is_hidden_or_not_finished_is_not_input(
    bench: Bench, tmp_path: Path, name: str
) -> None:
    write(tmp_path / "in" / "a.parquet", FIRST)
    beside = tmp_path / "in" / name
    beside.parent.mkdir(exist_ok=True)
    beside.write_bytes(b"not finished")

    bench.run(tmp_path).assert_published([1.0, 2.0])


def test_a_suffix_in_capitals_is_not_left_out(bench: Bench, tmp_path: Path) -> None:
    write(tmp_path / "in" / "A.PARQUET", FIRST)

    bench.run(tmp_path).assert_published([1.0, 2.0])
