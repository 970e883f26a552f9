"""Keepers that hang, for which stopped ones stand: their frames are watched without them."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from drqueue.slave import keeper_health, keeper_link, supervisor
from drqueue.slave.core.processes import KEEPER_DIED, SPAWN_FAILED, LaunchFailed, ProcessEnded, ProcessStarted
from tests.slave.supervised import K1, K2, Daemon, come, passing, running
from tests.slave.tree_harness import Client, Ward, living, stat_state, ward

pytestmark = pytest.mark.slow

HOLD = ("/bin/sh", "-c", "exec sleep 600")


@pytest.fixture(name="ward")
def ward_fixture(tmp_path: Path) -> Iterator[Ward]:
    with ward(tmp_path) as it:
        yield it


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a silent keeper asked soon, and waited for briefly."""
    monkeypatch.setattr(keeper_health, "PING_EVERY_S", 0.05)
    monkeypatch.setattr(keeper_health, "PATIENCE_S", 2.0)


async def stopped_keeper(ward: Ward) -> int:
    """Stop the keeper, and return its number once it stands."""
    pid = ward.keeper_pid()
    os.kill(pid, signal.SIGSTOP)
    await come(lambda: stat_state(pid) == "T")
    return pid


async def still_running(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> ProcessStarted:
    """Start a frame, leave its keeper stopped and its daemon gone; the next one awaits a greeting briefly."""
    async with running(ward) as daemon:
        daemon.launch(K1, *HOLD)
        started = await daemon.wait(ProcessStarted, K1)
        await stopped_keeper(ward)
    monkeypatch.setattr(keeper_health, "GREETING_S", 0.3)
    return started


def make_unkillable(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the keeper slept in the kernel."""
    monkeypatch.setattr(keeper_health, "end_keeper", lambda *arguments: None)
    monkeypatch.setattr(keeper_health, "GONE_S", 0.2)


async def ended_without_keeper(daemon: Daemon) -> None:
    assert (await daemon.wait(ProcessEnded, K1)).reason == KEEPER_DIED


async def test_a_kill_reaches_a_frame_whose_keeper_hangs(ward: Ward, hasty: None) -> None:
    """The keeper is ended, the frame adopted, the kill carried out, and the next frame has a new keeper."""
    async with passing(ward) as daemon:
        daemon.launch(K1, *HOLD)
        started = await daemon.wait(ProcessStarted, K1)
        keeper = await stopped_keeper(ward)
        daemon.signal(K1, kill=True)
        await ended_without_keeper(daemon)
        assert living([started.pid, keeper]) == []
        daemon.launch(K2, "/bin/sh", "-c", "exit 4")
        assert (await daemon.wait(ProcessEnded, K2)).code == 4
        assert ward.keeper_pid() != keeper


async def test_a_hung_keepers_frame_runs_on(
    ward: Ward, hasty: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with passing(ward) as daemon:
        daemon.launch(K1, *HOLD)
        started = await daemon.wait(ProcessStarted, K1)
        keeper = await stopped_keeper(ward)
        await come(lambda: living([keeper]) == [])
        assert f"process {keeper}, does not answer: it is killed" in caplog.text
        daemon.launch(K2, "/bin/true")
        assert (await daemon.wait(ProcessEnded, K2)).code == 0
        assert living([started.pid]) == [started.pid]
        daemon.signal(K1, kill=True)
        await ended_without_keeper(daemon)


async def test_a_daemon_that_comes_back_to_a_hung_keeper(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets beyond attaching, and its kills have effect: that is how it enforces leases."""
    started = await still_running(ward, monkeypatch)
    keeper = ward.keeper_pid()
    async with passing(ward, {K1: (started.pid, started.birth)}) as daemon:
        assert daemon.events == []
        assert living([started.pid, keeper]) == [started.pid]
        daemon.signal(K1, kill=True)
        await ended_without_keeper(daemon)


async def test_a_hung_keeper_that_takes_no_connection(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "ATTACH_PATIENCE_S", 0.3)
    started = await still_running(ward, monkeypatch)
    keeper = ward.keeper_pid()
    with ExitStack() as stack:
        while (sock := keeper_link.connect(str(ward.state))) is not None:
            stack.enter_context(sock)
        async with passing(ward, {K1: (started.pid, started.birth)}) as daemon:
            assert living([started.pid, keeper]) == [started.pid]
            daemon.signal(K1, kill=True)
            await ended_without_keeper(daemon)


async def test_a_keeper_that_no_kill_ends(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Frames are adopted all the same; none is launched until it is gone, which is said."""
    started = await still_running(ward, monkeypatch)
    make_unkillable(monkeypatch)
    async with passing(ward, {K1: (started.pid, started.birth)}) as daemon:
        assert "no frame can be started" in caplog.text
        assert daemon.events == []
        assert living([started.pid]) == [started.pid]
        daemon.launch(K2, "/bin/true")
        failed = await daemon.wait(LaunchFailed, K2)
        assert failed.reason == SPAWN_FAILED
        assert "hangs" in failed.text
        daemon.signal(K1, kill=True)
        await ended_without_keeper(daemon)
        assert living([started.pid]) == []
        os.kill(ward.keeper_pid(), signal.SIGKILL)
        await come(lambda: "the keeper that hung is gone" in caplog.text)
        monkeypatch.setattr(keeper_health, "GREETING_S", 30.0)
        daemon.launch(K2, "/bin/sh", "-c", "exit 3")
        assert (await daemon.wait(ProcessEnded, K2)).code == 3


async def test_a_shutdown_ends_the_frames_of_a_keeper_that_no_kill_ends(
    ward: Ward, hasty: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_unkillable(monkeypatch)
    async with passing(ward) as daemon:
        daemon.launch(K1, *HOLD)
        started = await daemon.wait(ProcessStarted, K1)
        keeper = await stopped_keeper(ward)
        await come(lambda: "no frame can be started" in caplog.text)
        assert living([started.pid, keeper]) == [started.pid, keeper]
    assert living([started.pid]) == []
    assert ward.sweep() == [keeper]
    os.waitid(os.P_PID, keeper, os.WEXITED)  # noqa: ASYNC222 - it was killed


async def test_nobody_else_is_killed_for_a_keeper(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The lock names a process that is no keeper of this directory."""
    monkeypatch.setattr(keeper_health, "GONE_S", 0.2)
    monkeypatch.setattr(supervisor, "UNBORN_S", 0.3)  # the lock names nobody, so the keeper counts as a child
    started = await still_running(ward, monkeypatch)
    keeper = ward.keeper_pid()
    stranger = os.posix_spawn("/bin/sleep", ["sleep", "600"], {}, setsid=True)  # noqa: ASYNC221 - it does not wait
    try:
        (ward.state / "keeper.lock").write_text(f"{stranger}\n")
        async with passing(ward, {K1: (started.pid, started.birth)}):
            assert f"process {stranger} is not it" in caplog.text
            assert living([stranger, keeper]) == [stranger, keeper]
    finally:
        (ward.state / "keeper.lock").write_text(f"{keeper}\n")
        assert ward.sweep() == [keeper]
        os.kill(stranger, signal.SIGKILL)
        os.waitid(os.P_PID, stranger, os.WEXITED)  # noqa: ASYNC222 - it was killed


async def test_a_keeper_that_answers_is_left_alone(
    ward: Ward, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing of itself while a frame runs, and is asked again and again."""
    heard: list[int] = []
    hear = keeper_health.Health.hear

    def count(self: keeper_health.Health) -> None:
        heard.append(1)
        hear(self)

    monkeypatch.setattr(keeper_health.Health, "hear", count)
    monkeypatch.setattr(keeper_health, "PATIENCE_S", 30.0)
    async with passing(ward) as daemon:
        daemon.launch(K1, "/bin/sh", "-c", "while [ ! -e go ]; do sleep 0.02; done; exit 6")
        await daemon.wait(ProcessStarted, K1)
        keeper, before = ward.keeper_pid(), len(heard)
        await come(lambda: len(heard) > before + 5)
        assert living([keeper]) == [keeper]
        (ward.work / "go").touch()
        assert (await daemon.wait(ProcessEnded, K1)).code == 6
        assert len(daemon.events) == 2


async def test_a_keeper_of_an_earlier_version_is_not_asked(ward: Ward, hasty: None) -> None:
    """It would take the question for rubbish, and close the connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(ward.state, os.O_PATH)
        listener.bind(f"/proc/self/fd/{folder}/keeper.sock")
        os.close(folder)
        listener.listen()
        listener.settimeout(30)
        async with trio.open_nursery() as nursery:
            it = Daemon(ward)
            nursery.start_soon(it.supervisor.run, {})
            connection, _ = await trio.to_thread.run_sync(listener.accept)
            with connection:
                connection.settimeout(0.5)  # ten times the silence after which others are asked
                greeting = b'{"is":"keeper","v":1,"pid":1,"users":false,"bases":true}\n'
                started = b'{"is":"started","key":[0,0,0,1],"pid":1,"birth":1,"at":1.0}\n'
                connection.sendall(greeting + started + b'{"is":"held"}\n')
                await it.wait(ProcessStarted, K1)
                assert await trio.to_thread.run_sync(connection.recv, 4096) == b'{"v":1}\n'
                with pytest.raises(TimeoutError):
                    await trio.to_thread.run_sync(connection.recv, 4096)
            nursery.cancel_scope.cancel()


def test_a_ping_is_answered(keeper: Client) -> None:
    keeper.send({"do": "ping"})
    assert keeper.next() == {"is": "pong"}
