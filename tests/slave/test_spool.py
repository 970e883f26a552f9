"""The spool keeps what was accepted through kill -9, full disks and damage, and never invents anything."""

import os
import resource
import signal
import stat
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.slave import spool as module
from drqueue.slave.spool import MAX_RECORD, Spool, encode, framed_all
from drqueue.statefile import StateError

HEADER = 12
values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
journals = st.lists(values, min_size=1, max_size=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spool")


def fresh(folder: Path) -> Path:
    for name in os.listdir(folder):
        (folder / name).unlink()
    return folder / "spool"


@contextmanager
def opened(path: Path) -> Iterator[Spool]:
    spool = Spool(str(path))
    try:
        yield spool
    finally:
        spool.close()


def written(path: Path, records: list[Any]) -> bytes:
    with opened(path) as spool:
        assert spool.load() == []
        spool.append(records)
    return path.read_bytes()


def loaded(path: Path) -> list[object]:
    with opened(path) as spool:
        return spool.load()


@contextmanager
def disk_full_above(size: int) -> Iterator[None]:
    """No file of this process grows above `size` bytes: a write is cut short there, the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@given(journals, journals)
def test_what_is_appended_is_loaded_again(folder: Path, first: list[Any], second: list[Any]) -> None:
    path = fresh(folder)
    written(path, first)
    with opened(path) as spool:
        assert spool.load() == first
        spool.append(second)
        assert spool.cut == 0
        assert spool.damaged is None
    assert loaded(path) == first + second


@given(journals, st.data())
def test_any_cut_yields_a_prefix_and_appending_goes_on(
    folder: Path, records: list[Any], data: st.DataObject
) -> None:
    path = fresh(folder)
    whole = written(path, records)
    at = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:at])
    with opened(path) as spool:
        found = spool.load()
        assert found == records[: len(found)]
        end = HEADER + sum(len(encode(record)) for record in found)
        assert len(found) == len(records) or end + len(encode(records[len(found)])) > at
        assert spool.cut == max(0, at - end)
        assert path.stat().st_size == end
        spool.append(["next"])
    assert loaded(path) == [*found, "next"]
    assert os.listdir(folder) == ["spool"]


@given(journals, st.data(), st.integers(1, 255))
def test_a_flipped_byte_never_yields_a_wrong_record(
    folder: Path, records: list[Any], data: st.DataObject, flip: int
) -> None:
    path = fresh(folder)
    whole = bytearray(written(path, records))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= flip
    path.write_bytes(whole)
    if at < HEADER:
        with pytest.raises(StateError):
            Spool(str(path))
        assert path.read_bytes() == whole
        return
    end, intact = HEADER, 0
    for record in records:
        end += len(encode(record))
        if end > at:
            break
        intact += 1
    with opened(path) as spool:
        assert spool.load() == records[:intact]
        assert spool.cut > 0
        if spool.damaged is not None:
            assert Path(spool.damaged).read_bytes() == whole
    assert loaded(path) == records[:intact]


def test_the_format_is_fixed(tmp_path: Path) -> None:
    """Journals outlive upgrades: these bytes are what version 1 is."""
    assert written(tmp_path / "spool", [{"a": [1, b"x"]}]) == bytes.fromhex(
        "44725173706f6f6c 00000001  00000008 bff100d0 81a1619201c40178"
    )


def test_damage_in_the_middle_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    whole = bytearray(written(path, ["a", "b", "c"]))
    whole[HEADER + len(encode("a")) + 8] ^= 1
    path.write_bytes(whole)
    with opened(path) as spool:
        assert spool.load() == ["a"]
        assert spool.damaged == f"{path}.damaged"
        assert spool.cut == len(encode("b")) + len(encode("c"))
        spool.append(["d"])
    assert loaded(path) == ["a", "d"]
    assert (tmp_path / "spool.damaged").read_bytes() == whole


def test_what_is_written_shorter_after_damage_is_followed_by_what_comes(tmp_path: Path) -> None:
    """Another encoder may have said it at greater length: the new file is shorter than what was good."""
    path = tmp_path / "spool"
    long_72, long_text = b"\xd0\x48", b"\xdb\0\0\0\1x"
    whole = written(path, []) + framed_all([long_72, long_text])
    path.write_bytes(whole + b"\xff" * 9)
    with opened(path) as spool:
        assert spool.load() == [72, "x"]
        assert spool.damaged is not None
        assert spool.size == path.stat().st_size < len(whole)
        spool.append(["next"])
    with opened(path) as spool:
        assert spool.load() == [72, "x", "next"]
        assert spool.cut == 0


def test_zeros_at_the_end_are_no_records(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.write_bytes(written(path, ["a"]) + bytes(5000))
    with opened(path) as spool:
        assert spool.load() == ["a"]
        assert spool.cut == 5000


def test_a_file_of_zeros_starts_empty_and_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.write_bytes(bytes(5000))
    with opened(path) as spool:
        assert spool.load() == []
        assert spool.damaged == f"{path}.damaged"
    assert (tmp_path / "spool.damaged").stat().st_size == 5000


def test_another_format_and_another_file_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.write_bytes(module.MAGIC + struct.pack(">I", 2) + b"future")
    with pytest.raises(StateError, match=r"spool has format 2; this DrQueue reads format 1"):
        Spool(str(path))
    path.write_bytes(b"#!/bin/sh\necho hello\n")
    with pytest.raises(StateError, match=r"spool is damaged or no spool"):
        Spool(str(path))
    assert path.read_bytes().startswith(b"#!")


@pytest.mark.parametrize(
    "body",
    [
        b"\xc1",
        b"\x92\x01",
        b"\x01\x01",
        b"\x81\x01\x02",
        b"\xdd\xff\xff\xff\xff",
        b"\xd4\x05x",
        b"\x91" * 5000 + b"\x01",
        b"\xa1\xff",
    ],
    ids=["never-used", "short", "two", "int key", "huge array", "ext", "deep", "no utf-8"],
)
def test_a_body_with_a_right_checksum_that_is_no_record_ends_the_journal(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "spool"
    whole = written(path, ["a"])
    size = struct.pack(">I", len(body))
    path.write_bytes(whole + size + struct.pack(">I", zlib.crc32(size + body)) + body)
    with opened(path) as spool:
        assert spool.load() == ["a"]
        assert spool.damaged is not None


deep: list[Any] = []
for _ in range(3000):
    deep = [deep]


@pytest.mark.parametrize(
    "record",
    [
        {1: 2},
        {"a": object()},
        "x" * (MAX_RECORD + 1),
        deep,
        2**64,
        "\ud800",
        msgpack.ExtType(5, b"x"),
        [0] * 100_001,
    ],
    ids=["int key", "object", "large", "deep", "number", "surrogate", "ext", "long"],
)
def test_what_could_not_be_read_back_is_not_accepted(tmp_path: Path, record: object) -> None:
    path = tmp_path / "spool"
    whole = written(path, ["a"])
    with opened(path) as spool:
        spool.load()
        with pytest.raises(ValueError, match=r".+"):
            spool.append(["b", record])
        with pytest.raises(ValueError, match=r".+"):
            spool.compact(["b", record])
    assert path.read_bytes() == whole
    assert os.listdir(tmp_path) == ["spool"]


def test_a_batch_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = os.pwrite

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        sizes.append(len(data))
        return real(fd, data, offset)

    with opened(tmp_path / "spool") as spool:
        spool.load()
        monkeypatch.setattr(os, "pwrite", pwrite)
        spool.append([{"n": n} for n in range(100)])
        spool.append([])
    assert sizes == [sum(len(encode({"n": n})) for n in range(100))]


@pytest.mark.parametrize("room", [0, 1, 50, 1500])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, room: int) -> None:
    path = tmp_path / "spool"
    whole = written(path, ["a"])
    with opened(path) as spool:
        spool.load()
        with disk_full_above(len(whole) + room), pytest.raises(OSError, match="File too large"):
            spool.append(["x" * 1000, "y" * 1000])
        assert path.read_bytes() == whole
        spool.append(["b"])
    assert loaded(path) == ["a", "b"]


def test_what_a_full_disk_left_and_could_not_be_cut_is_gone_before_the_next_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused batch never comes back to life behind a later, shorter one."""
    path = tmp_path / "spool"

    def fail(fd: int, size: int) -> None:
        raise OSError(5, "Input/output error")

    with opened(path) as spool:
        spool.load()
        with monkeypatch.context() as patch:
            patch.setattr(os, "ftruncate", fail)
            with (
                disk_full_above(len(encode("lost")) * 2 + HEADER + 3),
                pytest.raises(OSError, match="Input/output"),
            ):
                spool.append(["lost", "lost", "lost"])
            with pytest.raises(OSError, match="Input/output"):
                spool.append(["kept"])
        spool.append(["kept"])
    assert loaded(path) == ["kept"]


def test_compaction_replaces_the_file_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    with opened(path) as spool:
        spool.load()
        spool.append([{"n": n, "fill": "x" * 1000} for n in range(1000)])
        assert not spool.wants_compaction
        spool.append([{"n": n, "fill": "x" * 1000} for n in range(100)])
        assert spool.wants_compaction
        spool.compact([{"n": 1}, {"n": 2}])
        assert not spool.wants_compaction
        assert spool.size == path.stat().st_size < 100
        spool.append([{"n": 3}])
    assert loaded(path) == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert os.listdir(tmp_path) == ["spool"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_journal_of_live_records_is_not_compacted_again_and_again(tmp_path: Path) -> None:
    records = ["x" * 1000] * 2000
    with opened(tmp_path / "spool") as spool:
        spool.load()
        spool.append(records)
        spool.compact(records)
        spool.append(records)
        assert not spool.wants_compaction
        spool.append(records * 3)
        assert spool.wants_compaction


def test_a_failed_compaction_keeps_the_old_journal_and_is_not_tried_at_once(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    with opened(path) as spool:
        spool.load()
        spool.append(["x" * 1000] * 1100)
        with disk_full_above(500), pytest.raises(OSError, match="File too large"):
            spool.compact(["x" * 1000])
        assert not spool.wants_compaction
        spool.append(["y"])
    assert loaded(path) == ["x" * 1000] * 1100 + ["y"]
    assert os.listdir(tmp_path) == ["spool"]


def test_a_leftover_of_a_killed_compaction_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    written(path, ["a"])
    (tmp_path / "spool.new").write_bytes(b"half")
    with opened(path) as spool:
        assert spool.load() == ["a"]
        spool.compact(["a"])
    assert os.listdir(tmp_path) == ["spool"]


def test_set_aside_keeps_every_old_journal(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    with opened(path) as spool:
        spool.load()
        spool.append(["a"])
        assert spool.set_aside("farm1") == f"{path}.farm1"
        assert spool.load() == []
        spool.append(["b"])
        assert spool.set_aside("farm1") == f"{path}.farm1-2"
        spool.append(["c"])
    assert [loaded(tmp_path / name) for name in ("spool.farm1", "spool.farm1-2", "spool")] == [
        ["a"],
        ["b"],
        ["c"],
    ]


def test_the_file_is_private_and_not_inherited(tmp_path: Path) -> None:
    with opened(tmp_path / "spool"):
        assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o600
        (fd,) = [
            fd
            for fd in os.listdir("/proc/self/fd")
            if os.path.realpath(f"/proc/self/fd/{fd}").endswith("/spool")
        ]
        assert not os.get_inheritable(int(fd))


WRITER = """
import sys
from drqueue.slave.spool import Spool
spool = Spool(sys.argv[1])
spool.load()
n = 0
while True:
    spool.append([{"n": n, "fill": "x" * (n % 700)}])
    if spool.wants_compaction:
        spool.compact([{"n": n, "fill": "x" * (n % 700)}])
    print(n, flush=True)
    n += 1
"""


@pytest.mark.slow
@pytest.mark.parametrize("lines", [1, 50, 5000])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, lines: int) -> None:
    """The last record printed as written is there, and those after the last compaction are without a gap."""
    path = tmp_path / "spool"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        seen = [int(writer.stdout.readline()) for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        seen += [int(line) for line in writer.stdout]
    numbers = [record["n"] for record in loaded(path) if isinstance(record, dict)]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert numbers[-1] in (seen[-1], seen[-1] + 1)
