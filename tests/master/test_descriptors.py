"""Out of file descriptors: the master waits for some, as for a full disk, and links leave it enough."""

import os
import resource
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from queue import SimpleQueue

import pytest
import trio
import trio.testing

from drqueue import log
from drqueue.address import Address
from drqueue.channel import LinkClosed
from drqueue.dialling import open_channel
from drqueue.master.core.records import AccountForget, AnyRecord, MetaRecord
from drqueue.master.history import History
from drqueue.master.storage import StorageFull
from drqueue.master.storage.statedir import open_state
from drqueue.master.worker import Worker
from drqueue.proto.handshake import Dialler
from tests.master.test_daemon import a_master
from tests.master.test_gate import AFarm, farm

__all__ = ["farm"]


@contextmanager
def none_left() -> Iterator[None]:
    """No further descriptor for this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("row", [MetaRecord("next_job", "1"), AccountForget("a")])
def test_a_farm_file_that_cannot_be_opened_is_waited_for(tmp_path: Path, row: AnyRecord) -> None:
    with closing(open_state(str(tmp_path / "state"))) as opened:
        with none_left():
            for _ in range(2):
                with pytest.raises(StorageFull, match=r"cannot write .*farm.json: Too many open files"):
                    opened.storage.commit([row, MetaRecord("x", "y")])
            # What is not told there needs none.
            opened.storage.commit([MetaRecord("z", "y")])
        assert "x" not in opened.storage.meta()
        opened.storage.commit([row, MetaRecord("x", "y")])
        assert opened.storage.meta()["x"] == "y"


async def test_a_commit_waits_for_descriptors_and_an_alarm_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = trio.Event()
    monkeypatch.setattr(log, "error", lambda *_, **__: told.set())
    with closing(open_state(str(tmp_path / "state"))) as opened:
        history = History(opened.storage)
        async with trio.open_nursery() as nursery:
            with none_left(), trio.fail_after(20):
                nursery.start_soon(history.commit, [MetaRecord("next_job", "1")])
                await told.wait()
                assert "Too many open files" in history.alarm
                assert "next_job" not in await history.read(lambda _: opened.storage.meta())
        assert history.alarm == ""
        assert opened.storage.meta()["next_job"] == "1"


async def test_where_descriptors_are_short_those_who_ask_a_worker_take_turns() -> None:
    worker = Worker("test")
    go: SimpleQueue[None] = SimpleQueue()
    answers: list[int] = []

    async def ask(number: int) -> None:
        def do() -> int:
            go.get()
            return number

        answers.append(await worker.run(do))

    with none_left(), trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(ask, number)
                await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope() as given_up:
                async with trio.open_nursery() as waiting:
                    waiting.start_soon(ask, 5)
                    await trio.testing.wait_all_tasks_blocked()
                    given_up.cancel()
            for _ in range(5):
                go.put(None)
        assert answers == [0, 1, 2, 3, 4]
        go.put(None)
        await ask(6)
    assert answers[-1] == 6


@pytest.mark.parametrize(
    ("descriptors", "links"), [(64, 32), (512, 256), (1024, 768), (20_256, 20_000), (1 << 20, 20_000)]
)
def test_links_leave_descriptors_for_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, descriptors: int, links: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, 1 << 20))
    farm = AFarm(tmp_path)
    with farm.tcp, farm.unix:
        assert farm.gate.most == links


async def test_links_beyond_what_descriptors_allow_are_closed(farm: AFarm) -> None:
    farm.gate._allowed = 2
    address = Address("unix", path=farm.path)
    async with await open_channel(address) as first, await open_channel(address) as second:
        for channel in (first, second):
            await channel.dial(Dialler("client", "test"))
        async with await open_channel(address) as third:
            with pytest.raises(LinkClosed):
                await third.dial(Dialler("client", "test"))


@pytest.mark.slow
def test_a_master_that_has_no_descriptor_left_lives_and_goes_on(tmp_path: Path) -> None:
    """Its first job needs farm.json to be written anew."""
    with a_master(tmp_path / "state") as master, master.link() as link, ExitStack() as silent:
        resource.prlimit(master.process.pid, resource.RLIMIT_NOFILE, (40, 40))
        for _ in range(60):
            sock = silent.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(tmp_path / "state" / "master.sock"))
        master.logged("cannot accept a link")
        with ThreadPoolExecutor(1) as asking:
            submitted = asking.submit(link.submit)
            assert "farm.json: Too many open files" in master.logged("cannot write, and waits")
            silent.close()
            master.logged("can write again")
            assert submitted.result(20) == 0
        assert link.jobs() == [0]
        assert master.stop() == 0
