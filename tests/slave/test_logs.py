"""Logs are read while they grow and while their middle is punched out; old ones make room."""

import ctypes
import fcntl
import os
import stat
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import LogEnds
from drqueue.slave import logs
from drqueue.slave.logs import ends, log_path, parse_log_name, purge_logs, read_slice, unpack_ends

BLOCK = 4096
KEEP_SIZE_AND_PUNCH = 0x01 | 0x02


def punch(path: Path, start: int, size: int) -> None:
    """Take a part of a file off the disk, as the keeper does with the middle of a large log."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as file:
        done = libc.fallocate(file.fileno(), KEEP_SIZE_AND_PUNCH, ctypes.c_int64(start), ctypes.c_int64(size))
        if done != 0:
            pytest.skip(f"no holes on this file system: {os.strerror(ctypes.get_errno())}")


def read_all(path: Path, limit: int) -> bytes:
    parts, offset = [], 0
    while True:
        data, following, size = read_slice(str(path), offset, limit)
        parts.append(data)
        if following == size:
            return b"".join(parts)
        assert following > offset
        offset = following


def left_out(size: int) -> bytes:
    return b"\n... %d bytes left out ...\n" % size


def test_the_layout_is_one_directory_for_each_job(tmp_path: Path) -> None:
    path = log_path(str(tmp_path), AttemptKey(7, 1, 23, 4))
    assert path == f"{tmp_path}/logs/7/1.23.4.log"
    assert os.listdir(tmp_path) == []
    assert log_path(str(tmp_path), AttemptKey(7, 1, 23, 4), create=True) == path
    assert log_path(str(tmp_path), AttemptKey(7, 1, 24, 0), create=True).startswith(f"{tmp_path}/logs/7/")
    for folder in ("logs", "logs/7"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700
    assert os.listdir(tmp_path / "logs/7") == []


@given(st.tuples(*[st.integers(0, 10**9)] * 4))
def test_names_are_read_back(numbers: tuple[int, int, int, int]) -> None:
    key = AttemptKey(*numbers)
    path = log_path("", key)
    assert parse_log_name(os.path.basename(os.path.dirname(path)), os.path.basename(path)) == key


@pytest.mark.parametrize(
    "name", ["1.2.log", "1.2.3.4.log", "1.2.3.txt", "a.2.3.log", "-1.2.3.log", "1.٢.3.log", ""]
)
def test_other_names_are_not_ours(name: str) -> None:
    assert parse_log_name("1", name) is None


def test_a_growing_log_is_read_on_from_where_one_was(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"hello ")
    assert read_slice(str(path), 0, 100) == (b"hello ", 6, 6)
    assert read_slice(str(path), 6, 100) == (b"", 6, 6)
    path.write_bytes(b"hello world")
    assert read_slice(str(path), 6, 3) == (b"wor", 9, 11)
    assert read_slice(str(path), -3, 100) == (b"rld", 11, 11)
    assert read_slice(str(path), -300, 2) == (b"he", 2, 11)


def test_a_log_that_its_program_cut_goes_on_at_its_new_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"ab")
    assert read_slice(str(path), 50, 10) == (b"", 2, 2)


def test_links_pipes_and_missing_logs_are_errors(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "link").symlink_to("secret")
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("link", "pipe", "."):
        with pytest.raises(OSError, match=r"not a file|symbolic"):
            read_slice(str(tmp_path / name), 0, 10)
    with pytest.raises(FileNotFoundError):
        ends(str(tmp_path / "missing"))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("limit", [1000, BLOCK, 10 * BLOCK])
def test_a_hole_is_one_line(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a" * BLOCK + b"b" * 3 * BLOCK + b"c" * BLOCK)
    punch(path, BLOCK, 3 * BLOCK)
    assert read_all(path, limit) == b"a" * BLOCK + left_out(3 * BLOCK) + b"c" * BLOCK
    data, following, size = read_slice(str(path), 2 * BLOCK, 10)
    assert (data, following, size) == (left_out(2 * BLOCK) + b"c" * 10, 4 * BLOCK + 10, 5 * BLOCK)


def test_a_hole_at_the_end_is_one_line_too(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a" * 2 * BLOCK)
    punch(path, BLOCK, BLOCK)
    assert read_all(path, 10 * BLOCK) == b"a" * BLOCK + left_out(BLOCK)


def test_a_middle_punched_out_while_reading_is_never_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hole appears between finding data and reading it."""
    path = tmp_path / "log"
    path.write_bytes(b"a" * BLOCK + b"b" * 3 * BLOCK + b"c" * BLOCK)
    real, calls = os.pread, []

    def pread(fd: int, size: int, offset: int) -> bytes:
        if not calls:
            punch(path, 2 * BLOCK, BLOCK)
        calls.append(offset)
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    assert read_slice(str(path), BLOCK, 10 * BLOCK) == (b"b" * BLOCK, 2 * BLOCK, 5 * BLOCK)
    calls.clear()
    data, following, _ = read_slice(str(path), 2 * BLOCK, 10 * BLOCK)
    assert (data, following) == (left_out(BLOCK) + b"b" * BLOCK + b"c" * BLOCK, 5 * BLOCK)


def test_a_start_punched_out_while_reading_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a" * BLOCK + b"c" * BLOCK)
    real, calls = os.pread, []

    def pread(fd: int, size: int, offset: int) -> bytes:
        if not calls:
            punch(path, 0, BLOCK)
        calls.append(offset)
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    assert read_slice(str(path), 0, 10 * BLOCK) == (left_out(BLOCK) + b"c" * BLOCK, 2 * BLOCK, 2 * BLOCK)


def test_reading_beside_a_writer_and_a_punch_sees_no_zeros(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"")
    done = threading.Event()

    def write() -> None:
        with path.open("ab", buffering=0) as file:
            for n in range(200):
                file.write(b"x" * BLOCK)
                if n > 20 and n % 10 == 0:
                    punch(path, 5 * BLOCK, (n - 15) * BLOCK)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        while True:
            over = done.is_set()
            offset = 0
            while True:
                data, following, size = read_slice(str(path), offset, 7 * BLOCK)
                assert b"\0" not in data
                if following >= size:
                    break
                offset = following
            if over:
                break
    finally:
        thread.join()


@given(st.binary(max_size=60), st.integers(1, 20))
def test_ends_are_the_first_and_last_bytes(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, keep: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "ends"
    path.write_bytes(content)
    kept = ends(str(path), keep)
    head, tail = unpack_ends(kept)
    assert kept.size == len(content)
    if len(content) <= 2 * keep:
        assert head + tail == content
    else:
        assert (head, tail) == (content[:keep], content[-keep:])


def test_ends_are_packed_only_where_that_is_smaller(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"line\n" * 100_000)
    kept = ends(str(path))
    assert kept.packed
    assert len(kept.head) + len(kept.tail) < 2000
    assert unpack_ends(kept) == ((b"line\n" * 13108)[: logs.KEEP], (b"line\n" * 13108)[-logs.KEEP :])
    path.write_bytes(os.urandom(300_000))
    kept = ends(str(path))
    assert not kept.packed
    assert len(kept.head) == len(kept.tail) == logs.KEEP


def test_ends_of_a_log_with_a_hole_in_them_say_so(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a" * BLOCK + b"b" * 6 * BLOCK + b"c" * BLOCK)
    punch(path, BLOCK, 6 * BLOCK)
    head, tail = unpack_ends(ends(str(path), 2 * BLOCK))
    assert head == b"a" * BLOCK + left_out(BLOCK)
    assert tail == left_out(BLOCK) + b"c" * BLOCK


@pytest.mark.parametrize(
    "packed", [b"", b"nonsense", zlib.compress(b"x" * 10)[:-2], zlib.compress(b"x" * 10) + b"y"]
)
def test_ends_that_do_not_unpack_are_an_error(packed: bytes) -> None:
    with pytest.raises(ValueError, match="does not unpack"):
        unpack_ends(LogEnds(size=10, head=packed, tail=zlib.compress(b""), packed=True))


def test_ends_that_unpack_into_too_much_are_an_error() -> None:
    bomb = zlib.compress(bytes(10_000_000))
    with pytest.raises(ValueError, match="too long"):
        unpack_ends(LogEnds(size=10, head=bomb, tail=bomb, packed=True))


def make_log(state: Path, key: AttemptKey, blocks: int, age: int) -> Path:
    path = Path(log_path(str(state), key, create=True))
    path.write_bytes(b"x" * blocks * BLOCK)
    os.utime(path, (1000 - age, 1000 - age))
    return path


def test_the_oldest_logs_make_room_and_those_in_use_stay(tmp_path: Path) -> None:
    ages = {1: 50, 2: 40, 3: 30, 4: 20, 5: 10}
    paths = {job: make_log(tmp_path, AttemptKey(job, 0, 0, 0), 10, age) for job, age in ages.items()}
    assert purge_logs(str(tmp_path), 50 * BLOCK, {AttemptKey(1, 0, 0, 0)}) == 0
    assert purge_logs(str(tmp_path), 30 * BLOCK, {AttemptKey(1, 0, 0, 0)}) == 20 * BLOCK
    assert [job for job, path in paths.items() if path.exists()] == [1, 4, 5]
    assert sorted(os.listdir(tmp_path / "logs")) == ["1", "4", "5"]
    assert purge_logs(str(tmp_path), 0) == 30 * BLOCK
    assert os.listdir(tmp_path / "logs") == []


def test_a_directory_that_a_new_attempt_needs_stays(tmp_path: Path) -> None:
    make_log(tmp_path, AttemptKey(1, 0, 0, 0), 1, 0)
    assert purge_logs(str(tmp_path), 0, {AttemptKey(1, 0, 0, 1)}) == BLOCK
    assert os.listdir(tmp_path / "logs") == ["1"]


def test_more_logs_than_a_batch_are_purged_oldest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_PURGE_BATCH", 3)
    paths = [make_log(tmp_path, AttemptKey(1, 0, frame, 0), 1, 100 - frame) for frame in range(20)]
    assert purge_logs(str(tmp_path), 6 * BLOCK) == 14 * BLOCK
    assert [path.exists() for path in paths] == [False] * 14 + [True] * 6


def test_holes_take_no_room_and_other_files_are_left_alone(tmp_path: Path) -> None:
    path = make_log(tmp_path, AttemptKey(1, 0, 0, 0), 10, 0)
    punch(path, BLOCK, 8 * BLOCK)
    (tmp_path / "logs/1/notes").write_text("mine")
    (tmp_path / "logs/other").write_text("mine")
    assert purge_logs(str(tmp_path), 2 * BLOCK) == 0
    assert purge_logs(str(tmp_path), 0) == 2 * BLOCK
    assert os.listdir(tmp_path / "logs/1") == ["notes"]
    assert purge_logs(str(tmp_path / "nowhere"), 0) == 0


def test_each_jobs_logs_may_lie_elsewhere_on_the_disk(tmp_path: Path) -> None:
    """The flag that spreads folders is set where the file system knows it, and nothing fails elsewhere."""
    logs.log_path(str(tmp_path), AttemptKey(3, 0, 0, 1), create=True)
    folder = os.open(tmp_path / "logs", os.O_RDONLY)
    try:
        flags = bytearray(8)
        try:
            fcntl.ioctl(folder, logs._GET_FLAGS, flags)
        except OSError:
            pytest.skip("this file system has no flags")
    finally:
        os.close(folder)
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True
    ).stdout.strip()
    if kind != "ext2/ext3":
        pytest.skip(f"{kind} spreads folders as it likes")
    assert int.from_bytes(flags[:4], sys.byteorder) & logs._TOP_FLAG
