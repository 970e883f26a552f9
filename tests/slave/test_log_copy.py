"""Copies of logs as the original lays them out: names, headers, and not a byte lost or doubled."""

import errno
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import RunOrder
from drqueue.slave import log_copy
from drqueue.slave.log_copy import CHUNK, LOOK_MAX, Copied, LogCopy, classic_path, safe_name, unfinished
from drqueue.slave.logs import log_path
from tests.slave.test_logs import BLOCK, left_out, punch

UMASK = 0o022


class KilledHere(BaseException):
    """The daemon was killed at this point."""


class Place:
    """A slave's state directory, a shared folder beside it, and one attempt."""

    def __init__(self, folder: Path, **fields: object) -> None:
        self.state = folder / "state"
        self.root = folder / "logs"
        self.state.mkdir()
        self.root.mkdir()
        self.order = an_order(**fields)
        self.log = Path(log_path(str(self.state), self.order.key, create=True))
        self.target = Path(classic_path(str(self.root), self.order))

    def begin(self) -> LogCopy:
        return LogCopy.begin(str(self.state), str(self.root), self.order)

    def resume(self) -> LogCopy:
        (copy,) = unfinished(str(self.state))
        return copy

    def notes(self) -> list[str]:
        return os.listdir(self.state / "copies")

    def body(self) -> bytes:
        """What follows the one header."""
        header, _, body = self.target.read_bytes().partition(b"\n\n")
        assert header.startswith(b"Log started at ")
        return body


def an_order(**fields: object) -> RunOrder:
    """Frame 5 of a job called shot."""
    basis: dict[str, object] = {"key": AttemptKey(7, 0, 4, 1), "start": 5, "job_name": "shot"}
    return RunOrder(**{**basis, **fields})  # type: ignore[arg-type]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def finish(copy: LogCopy) -> None:
    """Copy until all is there."""
    while (state := copy.advance(True, UMASK)) is Copied.MORE:
        pass
    assert state is Copied.COMPLETE


@contextmanager
def writes_end_after(count: int, error: BaseException) -> Iterator[None]:
    """Everything that a copy writes, notes too, is cut off after so many bytes."""
    write, left = log_copy._write, count

    def written(file: int, data: bytes) -> None:
        nonlocal left
        write(file, data[:left])
        if len(data) > left:
            left = 0
            raise error
        left -= len(data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_copy, "_write", written)
        yield


# -- where it lies ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({}, "007.shot/shot.0005"),
        ({"start": 12345}, "007.shot/shot.12345"),
        ({"start": -5}, "007.shot/shot.-005"),
        ({"pad": 8}, "007.shot/shot.0005"),
        ({"key": AttemptKey(12345, 0, 0, 3)}, "12345.shot/shot.0005"),
        ({"key": AttemptKey(7, 1, 0, 1), "layer_name": "comp"}, "007.shot/shot.comp.0005"),
        ({"job_name": "a b: ü.x"}, "007.a b: ü.x/a b: ü.x.0005"),
        ({"job_name": "../../etc/x"}, "007._._.._etc_x/_._.._etc_x.0005"),
        ({"job_name": ""}, "007.DEFAULT/DEFAULT.0005"),
    ],
)
def test_the_layout_is_the_originals(fields: dict[str, object], path: str) -> None:
    assert classic_path("/l", an_order(**fields)) == f"/l/{path}"


@given(st.text(max_size=200), st.text(max_size=200), st.integers(-(2**53), 2**53), st.integers(0, 1))
def test_no_name_leads_elsewhere_or_is_too_long(job: str, layer: str, start: int, index: int) -> None:
    key = AttemptKey(2**53, index, 0, 1)
    path = classic_path("/l", an_order(key=key, job_name=job, layer_name=layer, start=start))
    empty, root, folder, name = path.split("/")
    assert (empty, root) == ("", "l")
    for part in (folder, name):
        assert len(part.encode()) <= 255
        assert not part.startswith(".")
        assert all(ord(char) >= 32 and ord(char) != 127 for char in part)


def test_long_names_are_cut_between_characters() -> None:
    assert safe_name("ü" * 100, 127) == "ü" * 63
    assert safe_name("x" * 127, 127) == "x" * 127


# -- what stands in it -----------------------------------------------------------------------------


def test_a_header_stands_before_the_output(place: Place) -> None:
    copy = place.begin()
    place.log.write_bytes(b"hello\n")
    before = int(time.time()) - 60
    finish(copy)
    lines = place.target.read_text().split("\n")
    started = time.mktime(time.strptime(lines[0].removeprefix("Log started at ")))
    assert before <= started <= time.time()
    assert lines[1:] == [
        f"Computer: {socket.gethostname()}",
        f"Log filename: {place.target}",
        "",
        "hello",
        "",
    ]
    assert place.notes() == []


def test_it_can_be_read_while_the_frame_runs(place: Place) -> None:
    copy = place.begin()
    assert copy.advance(False, UMASK) is Copied.WAITING
    assert not place.target.exists()
    place.log.touch()
    assert copy.advance(False, UMASK) is Copied.WAITING
    assert place.body() == b""
    for part in (b"one\n", b"tw", b"o\n"):
        with place.log.open("ab") as log:
            log.write(part)
        assert copy.advance(False, UMASK) is Copied.WAITING
        assert place.body() == place.log.read_bytes()
    assert place.notes() == ["7.0.4.1"]
    assert copy.advance(True, UMASK) is Copied.COMPLETE
    assert place.notes() == []


def test_another_run_is_appended_below_its_own_header(place: Place) -> None:
    """On a line of its own, where the former output did not end with one."""
    for output in (b"first", b"second\n", b""):
        place.log.write_bytes(output)
        finish(place.begin())
    text = place.target.read_bytes()
    assert text.count(b"Log started at ") == 3
    assert text.count(b"\nLog started at ") == 2
    assert b"\n\nfirst\nLog started" in text
    assert b"\n\nsecond\nLog started" in text
    assert text.endswith(b"\n\n")


def test_a_command_that_never_ran_makes_no_file(place: Place) -> None:
    assert place.begin().advance(True, UMASK) is Copied.COMPLETE
    assert list(place.root.iterdir()) == []
    assert place.notes() == []


def test_a_log_that_was_deleted_meanwhile_ends_its_copy(place: Place) -> None:
    copy = place.begin()
    place.log.write_bytes(b"some")
    copy.advance(False, UMASK)
    place.log.unlink()
    assert copy.advance(True, UMASK) is Copied.CUT_SHORT
    assert place.body() == b"some"
    assert place.notes() == []


def test_what_was_punched_out_is_told(place: Place) -> None:
    place.log.write_bytes(b"a" * BLOCK + b"b" * BLOCK + b"c" * BLOCK)
    punch(place.log, BLOCK, BLOCK)
    finish(place.begin())
    assert place.body() == b"a" * BLOCK + left_out(BLOCK) + b"c" * BLOCK


def test_a_large_log_is_copied_a_part_at_a_time(place: Place) -> None:
    """So that the others have their turn."""
    output = os.urandom(LOOK_MAX + 3 * CHUNK + 5)
    place.log.write_bytes(output)
    copy = place.begin()
    assert copy.advance(True, UMASK) is Copied.MORE
    assert len(place.body()) == LOOK_MAX
    assert copy.advance(True, UMASK) is Copied.COMPLETE
    assert place.body() == output


# -- killed, full, in the way ----------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 800) | st.integers(0, 3 * CHUNK), max_size=5),
    st.sampled_from([b"", b"x\n", b"ab" * 500, bytes(range(256)) * (CHUNK // 128)]),
    st.booleans(),
)
def test_a_daemon_killed_at_any_point_neither_loses_nor_doubles_a_byte(
    tmp_path_factory: pytest.TempPathFactory, kills: list[int], output: bytes, earlier: bool
) -> None:
    place = Place(tmp_path_factory.mktemp("copy"))
    if earlier:
        place.log.write_bytes(b"an earlier run\n")
        finish(place.begin())
    before = place.target.read_bytes() if earlier else b""
    place.log.write_bytes(output)
    copy = place.begin()
    for count in kills:
        with writes_end_after(count, KilledHere()):
            try:
                finish(copy)
                break
            except KilledHere:
                copy = place.resume()
    else:
        finish(copy)
    text = place.target.read_bytes()
    assert text.startswith(before)
    header, _, body = text[len(before) :].partition(b"\n\n")
    assert header.count(b"\n") == 2
    assert body == output
    assert place.notes() == []


def test_a_daemon_killed_after_the_last_byte_adds_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: LogCopy) -> None:
        raise KilledHere

    place.log.write_bytes(b"all of it")
    with monkeypatch.context() as patch:
        patch.setattr(LogCopy, "forget", killed)
        with pytest.raises(KilledHere):
            finish(place.begin())
    whole = place.target.read_bytes()
    finish(place.resume())
    assert place.target.read_bytes() == whole


def test_what_was_copied_before_a_hole_was_punched_is_not_doubled(place: Place) -> None:
    """The note holds the bytes, for the log may not have them any more."""
    place.log.write_bytes(b"a" * BLOCK + b"b" * BLOCK)
    copy = place.begin()
    header = len(os.fspath(place.target)) + 200
    with writes_end_after(header + 2 * BLOCK + header + BLOCK, KilledHere()), pytest.raises(KilledHere):
        copy.advance(False, UMASK)
    arrived = place.target.stat().st_size
    assert BLOCK < arrived < 2 * BLOCK
    punch(place.log, 0, BLOCK)
    finish(place.resume())
    assert place.body() == b"a" * BLOCK + b"b" * BLOCK


@given(st.lists(st.integers(0, 3 * CHUNK), max_size=4))
def test_a_full_disk_neither_loses_nor_doubles_a_byte(
    tmp_path_factory: pytest.TempPathFactory, room: list[int]
) -> None:
    """The same copy goes on where it stopped."""
    place = Place(tmp_path_factory.mktemp("copy"))
    output = bytes(range(256)) * (CHUNK // 128)
    place.log.write_bytes(output)
    copy = place.begin()
    for count in room:
        with writes_end_after(count, OSError(errno.ENOSPC, "full")):
            try:
                finish(copy)
                break
            except OSError:
                continue
    else:
        finish(copy)
    assert place.body() == output


def test_a_note_that_is_damaged_is_thrown_away(place: Place) -> None:
    place.begin()
    folder = place.state / "copies"
    (folder / "7.0.4.1").write_bytes(b"\0" * 100)
    (folder / "7.0.4.2.new").write_bytes(b'["/l/')
    (folder / "whatever").touch()
    assert unfinished(str(place.state)) == []
    assert place.notes() == []


def test_unfinished_copies_come_back_in_the_order_in_which_they_began(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [AttemptKey(7, 0, 4, attempt) for attempt in (10, 2, 1, 30)]
    for number, key in enumerate(keys):
        monkeypatch.setattr(time, "time", lambda number=number: 1000.0 + number)
        LogCopy.begin(str(place.state), str(place.root), an_order(key=key))
    assert [copy.key for copy in unfinished(str(place.state))] == keys


def in_the_way(place: Place, what: str) -> None:
    """Something else lies where the file, or its folder, should be."""
    if what == "root":
        place.root.rmdir()
    elif what == "folder":
        place.target.parent.touch()
    elif what == "linked folder":
        (place.root / "elsewhere").mkdir()
        place.target.parent.symlink_to(place.root / "elsewhere")
    else:
        place.target.parent.mkdir()
        if what == "pipe":
            os.mkfifo(place.target)
        elif what == "directory":
            place.target.mkdir()
        else:
            (place.root / "theirs").touch()
            place.target.symlink_to(place.root / "theirs")


@pytest.mark.parametrize("what", ["root", "folder", "linked folder", "pipe", "directory", "link"])
def test_what_lies_in_the_way_is_an_error_at_once_and_left_alone(place: Place, what: str) -> None:
    """No pipe is waited for, no link followed, no root folder made: its disk may not be mounted."""
    in_the_way(place, what)
    seen = sorted(place.root.rglob("*"))
    place.log.write_bytes(b"x")
    copy = place.begin()
    for _ in range(2):
        with pytest.raises(OSError) as caught:  # noqa: PT011  (which one is the system's business)
            copy.advance(True, UMASK)
        assert caught.value.strerror
    assert sorted(place.root.rglob("*")) == seen
    assert place.notes() == ["7.0.4.1"]


@pytest.mark.parametrize("own", [0o022, 0o077])
@pytest.mark.parametrize(("wanted", "mode"), [(0o022, 0o755), (0o002, 0o775), (0o077, 0o700)])
def test_others_may_read_it_as_the_frames_umask_says(place: Place, own: int, wanted: int, mode: int) -> None:
    """A service's own umask keeps all to itself."""
    before = os.umask(own)
    try:
        place.log.write_bytes(b"x")
        assert place.begin().advance(True, wanted) is Copied.COMPLETE
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.target.parent.stat().st_mode) & mode == mode
    assert stat.S_IMODE(place.target.stat().st_mode) & mode == mode & 0o666
    assert stat.S_IMODE(place.target.stat().st_mode) & 0o666 & ~mode == 0
