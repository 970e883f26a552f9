"""The chore that copies logs: it holds up nobody, says what is wrong once, and goes on when it can."""

import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import RunOrder
from drqueue.slave import classic_logs, log_copy
from drqueue.slave.classic_logs import ClassicLogs
from drqueue.slave.logs import log_path


class Bench:
    """A slave's folders, its copies, and which attempts are over."""

    def __init__(self, folder: Path, root: str | None = None) -> None:
        self.state = folder / "state"
        self.root = folder / "logs"
        for path in (self.state, self.root):
            path.mkdir(exist_ok=True)
        self.over: set[AttemptKey] = set()
        wanted = str(self.root) if root is None else root
        self.chore = ClassicLogs(str(self.state), wanted, 0o022, self.over.__contains__)

    def begin(self, job: int = 1, attempt: int = 1, output: bytes | None = None) -> AttemptKey:
        """An attempt at frame 1 of a job, over where it has said all it has to say."""
        key = AttemptKey(job, 0, 0, attempt)
        self.chore.begin(RunOrder(key=key, start=1, job_name="j"))
        if output is not None:
            self.say(key, output)
            self.over.add(key)
        return key

    def say(self, key: AttemptKey, output: bytes) -> None:
        """An attempt prints something."""
        with Path(log_path(str(self.state), key, create=True)).open("ab") as log:
            log.write(output)

    def target(self, job: int = 1) -> Path:
        """The file of a job's frame 1."""
        return self.root / f"{job:03d}.j" / "j.0001"

    def body(self, job: int = 1) -> bytes:
        """What stands below its last header; "" where there is none."""
        path = self.target(job)
        return path.read_bytes().rpartition(b"\n\n")[2] if path.exists() else b""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[None]:
    """The chore runs until the block ends, and ends with it at once."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.chore.run)
        yield
        nursery.cancel_scope.cancel()


async def until(condition: object, timeout_s: float = 10) -> None:
    """Wait until something holds."""
    assert callable(condition)
    with trio.fail_after(timeout_s):
        while not condition():  # noqa: ASYNC110  (files have no event)
            await trio.sleep(0.01)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged, up to the first value."""
    return [record.getMessage().partition(" file=")[0] for record in caplog.records]


async def test_a_log_is_copied_while_it_grows_and_forgotten_when_it_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classic_logs, "LOOK_S", 0.01)
    async with running(bench):
        for job in (1, 2):
            key = bench.begin(job)
            bench.say(key, b"one\n")
            await until(lambda job=job: bench.body(job) == b"one\n")
            bench.say(key, b"two\n")
            bench.over.add(key)
            await until(lambda job=job: bench.body(job) == b"one\ntwo\n")
            await until(lambda: not os.listdir(bench.state / "copies"))


async def test_nothing_is_done_where_no_folder_is_set(tmp_path: Path) -> None:
    bench = Bench(tmp_path, root="")
    bench.begin(output=b"x")
    assert not await bench.chore.look()
    assert not (bench.state / "copies").exists()


async def test_what_was_begun_is_ended_even_where_no_folder_is_set_any_more(
    bench: Bench, tmp_path: Path
) -> None:
    bench.begin(output=b"x")
    again = Bench(tmp_path, root="")
    again.over |= bench.over
    async with running(again):
        await until(lambda: again.body() == b"x")


@pytest.mark.parametrize("what", ["pipe", "a file as folder"])
async def test_what_cannot_be_written_is_said_once_and_holds_up_no_other(
    bench: Bench, what: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is written as soon as it can be."""
    caplog.set_level("INFO")
    monkeypatch.setattr(classic_logs, "RETRY_S", 0.0)
    if what == "pipe":
        bench.target(1).parent.mkdir()
        os.mkfifo(bench.target(1))
    else:
        bench.target(1).parent.touch()
    for job in (1, 2):
        bench.begin(job, output=b"x")
    for _ in range(3):
        await bench.chore.look()
    assert bench.body(2) == b"x"
    assert told(caplog) == ["logs cannot be copied; it is tried again"]
    assert str(bench.root / "001.j") in caplog.text
    (bench.target(1) if what == "pipe" else bench.target(1).parent).unlink()
    await bench.chore.look()
    assert bench.body(1) == b"x"
    assert told(caplog)[1:] == [f"logs are copied again folder={bench.root}"]


async def test_what_failed_rests_before_it_is_tried_again(bench: Bench) -> None:
    """A disk that is down is not asked by thousands of copies every second."""
    bench.root.rmdir()
    bench.begin(output=b"x")
    await bench.chore.look()
    bench.root.mkdir()
    await bench.chore.look()
    assert not bench.target().exists()
    (copy,) = bench.chore._copies.values()
    copy.retry_at -= classic_logs.RETRY_S
    await bench.chore.look()
    assert bench.body() == b"x"


async def test_two_attempts_at_one_frame_are_copied_one_after_the_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the disk did not take the first one for a while."""
    bench.target().parent.touch()
    bench.begin(attempt=1, output=b"first\n")
    await bench.chore.look()
    bench.target().parent.unlink()
    bench.begin(attempt=2, output=b"second\n")
    await bench.chore.look()
    assert not bench.target().exists()
    for copy in bench.chore._copies.values():
        copy.retry_at = 0.0
    await bench.chore.look()
    text = bench.target().read_bytes()
    assert 0 < text.index(b"first\n") < text.index(b"second\n")


async def test_a_disk_that_hangs_holds_up_nobody(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither whoever begins a copy, nor the loop, nor the end of the daemon; it is said once."""
    monkeypatch.setattr(classic_logs, "HANGS_S", 0.02)
    monkeypatch.setattr(classic_logs, "LOOK_S", 0.01)
    hangs, goes_on = threading.Event(), threading.Event()
    open_target = log_copy._open

    def opened(path: str, umask: int) -> int:
        hangs.set()
        assert goes_on.wait(30)
        return open_target(path, umask)

    monkeypatch.setattr(log_copy, "_open", opened)
    try:
        async with running(bench):
            bench.begin(1, output=b"one")
            await until(hangs.is_set)
            bench.begin(2, output=b"two")
            await until(lambda: "does not answer" in caplog.text)
            assert await trio.to_thread.run_sync(lambda: "other threads go on") == "other threads go on"
            with trio.move_on_after(0.1) as scope:
                await bench.chore.look()
            assert scope.cancelled_caught
        assert told(caplog) == ["logs cannot be copied; it is tried again"]
    finally:
        goes_on.set()


async def test_a_disk_that_answers_again_gets_all_of_it(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(classic_logs, "HANGS_S", 0.02)
    monkeypatch.setattr(classic_logs, "LOOK_S", 0.01)
    goes_on = threading.Event()
    open_target = log_copy._open

    def opened(path: str, umask: int) -> int:
        assert goes_on.wait(30)
        return open_target(path, umask)

    monkeypatch.setattr(log_copy, "_open", opened)
    async with running(bench):
        try:
            for job in (1, 2):
                bench.begin(job, output=b"x" * 1000)
            await until(lambda: "does not answer" in caplog.text)
        finally:
            goes_on.set()
        await until(lambda: bench.body(1) == bench.body(2) == b"x" * 1000)
        await until(lambda: "logs are copied again" in caplog.text)


async def test_beyond_a_number_of_waiting_copies_there_are_none(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classic_logs, "COPIES_MAX", 2)
    for job in range(4):
        bench.begin(job, output=b"x")
    await bench.chore.look()
    assert [bench.body(job) for job in range(4)] == [b"x", b"x", b"", b""]
    assert len(told(caplog)) == 1
    bench.begin(4, output=b"x")
    await bench.chore.look()
    assert bench.body(4) == b"x"


async def test_a_full_state_directory_leaves_copies_out_and_no_frame(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    (bench.state / "copies").touch()
    bench.begin(1, output=b"x")
    bench.begin(2, output=b"x")
    assert told(caplog) == ["logs cannot be copied; it is tried again"]
    assert not await bench.chore.look()


async def test_notes_that_cannot_be_read_keep_no_slave_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state" / "copies" / "1.0.0.1").mkdir(parents=True)
    Bench(tmp_path)
    assert told(caplog) == ["logs cannot be copied; it is tried again"]


async def test_a_log_that_was_deleted_first_is_told(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    key = bench.begin()
    bench.say(key, b"x")
    await bench.chore.look()
    os.unlink(log_path(str(bench.state), key))
    bench.over.add(key)
    await bench.chore.look()
    assert told(caplog) == ["logs were deleted before they were copied count=1"]
    assert os.listdir(bench.state / "copies") == []
