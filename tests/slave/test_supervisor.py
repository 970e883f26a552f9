"""The supervisor with real keepers and frames, and what it finds again when daemon or keeper was killed."""

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import msgspec
import pytest
import trio

from drqueue.proto.ids import AttemptKey
from drqueue.slave.core.processes import (
    KEEPER_DIED,
    SPAWN_FAILED,
    LaunchFailed,
    ProcessEnded,
    ProcessStarted,
)
from tests.slave.supervised import K1, K2, K3, Daemon, Known, come, order, passing, running
from tests.slave.tree_harness import HERE, PYTHON, Ward, living, marked, pids_in, stat_state, ward

pytestmark = pytest.mark.slow


@pytest.fixture(name="ward")
def ward_fixture(tmp_path: Path) -> Iterator[Ward]:
    with ward(tmp_path) as it:
        yield it


# --- the daily round


async def test_an_idle_slave_has_no_keeper(ward: Ward) -> None:
    async with passing(ward):
        pass
    assert not (ward.state / "keeper.lock").exists()


async def test_frames_run_and_are_reported(ward: Ward) -> None:
    async with passing(ward) as daemon:
        daemon.supervisor.launch(daemon.order(K1, "/bin/sh", "-c", "echo hello; exit 7"))
        daemon.supervisor.launch(daemon.order(K2, "/bin/sh", "-c", "kill -USR1 $$"))
        daemon.supervisor.launch(daemon.order(K3, "no-such-program"))
        daemon.supervisor.flush()
        ended = await daemon.wait(ProcessEnded, K1)
        assert (ended.code, ended.signal, ended.reason, ended.log_bytes) == (7, None, "", 6)
        assert 0 < ended.cpu_s < 5
        assert ended.peak_bytes > 0
        assert (await daemon.wait(ProcessEnded, K2)).signal == signal.SIGUSR1
        failed = await daemon.wait(LaunchFailed, K3)
        assert (failed.reason, failed.text) == ("no-command", "command not found: no-such-program")
        daemon.supervisor.forget(K1)
        daemon.supervisor.flush()


async def test_names_that_are_no_utf8_travel(ward: Ward) -> None:
    async with passing(ward) as daemon:
        daemon.launch(K1, "/bin/echo", "caf\udce9", "é")
        assert (await daemon.wait(ProcessEnded, K1)).code == 0
    assert ward.log(K1).read_bytes() == b"caf\xe9 \xc3\xa9\n"


async def test_term_then_kill_through_the_keeper(ward: Ward) -> None:
    async with passing(ward) as daemon:
        daemon.launch(K1, *PYTHON, str(HERE / "tree_eleven.py"), "--ignore-term")
        pids = await come(lambda: len(found := pids_in(ward.work / "pids")) == 11 and found)
        daemon.signal(K1, kill=False)
        daemon.signal(K1, kill=True)
        assert (await daemon.wait(ProcessEnded, K1)).signal == signal.SIGKILL
        assert living(pids) == []


async def test_many_orders_in_one_flush(ward: Ward) -> None:
    """More than a socket's buffer holds leaves in parts, and all of it arrives."""
    keys = [AttemptKey(1, 0, number, 1) for number in range(60)]
    async with passing(ward) as daemon:
        for key in keys:
            daemon.supervisor.launch(daemon.order(key, "/bin/true", "x" * 60_000))
        daemon.supervisor.flush()
        for key in keys:
            assert (await daemon.wait(ProcessEnded, key)).code == 0


async def test_shutdown_leaves_nothing(ward: Ward) -> None:
    async with running(ward) as daemon:
        daemon.launch(K1, *PYTHON, str(HERE / "tree_eleven.py"), "--ignore-term")
        pids = await come(lambda: len(found := pids_in(ward.work / "pids")) == 11 and found)
        keeper = ward.keeper_pid()
        with trio.fail_after(30):
            await daemon.supervisor.shutdown(grace_s=0.1)
        assert living([*pids, keeper]) == []
        daemon.launch(K2, "/bin/true")
        assert (await daemon.wait(LaunchFailed, K2)).reason == SPAWN_FAILED


async def test_a_keeper_that_cannot_start_fails_the_launch_with_its_reason(ward: Ward) -> None:
    (ward.state / "keeper.sock").mkdir()
    async with passing(ward) as daemon:
        daemon.launch(K1, "/bin/true")
        failed = await daemon.wait(LaunchFailed, K1)
        assert failed.reason == SPAWN_FAILED
        assert "Is a directory" in failed.text
        (ward.state / "keeper.sock").rmdir()
        daemon.launch(K2, "/bin/true")
        assert (await daemon.wait(ProcessEnded, K2)).code == 0


async def test_a_long_state_directory(tmp_path: Path) -> None:
    root = tmp_path / ("long" * 30)
    root.mkdir()
    with ward(root) as it:
        async with running(it) as daemon:
            daemon.launch(K1, "/bin/sleep", "600")
            started = await daemon.wait(ProcessStarted, K1)
        async with passing(it, {K1: (started.pid, started.birth)}) as daemon:
            assert daemon.events == [started]


# --- the daemon dies


def killed_daemon(ward: Ward, *orders: dict[str, Any], started: int) -> dict[str, tuple[int, int]]:
    """Run a daemon, kill it when so many frames have started; return where they are."""
    argv = [sys.executable, str(HERE / "tree_daemon.py"), str(ward.state), *map(json.dumps, orders)]
    with Popen(argv, stdout=PIPE, text=True) as process:
        where: dict[str, tuple[int, int]] = {}
        assert process.stdout is not None
        while len(where) < started:
            kind, key, pid, birth = process.stdout.readline().split()
            if kind == "ProcessStarted":
                where[key] = (int(pid), int(birth))
        process.kill()
    return where


async def test_kill_9_of_the_daemon_loses_nothing(ward: Ward) -> None:
    """One frame ends while nobody is attached, one runs on: both exit codes and both logs are whole."""
    wait = "i=0; while [ ! -e {0} ]; do sleep 0.02; done; for i in 1 2 3 4 5; do echo line $i; done; exit 7"
    orders = [
        order(ward, K1, "/bin/sh", "-c", wait.format("go1")),
        order(ward, K2, "/bin/sh", "-c", wait.format("go2")),
    ]
    where = await trio.to_thread.run_sync(lambda: killed_daemon(ward, *orders, started=2))
    (ward.work / "go1").touch()
    await come(lambda: stat_state(where[str(K1)][0]) == "")
    async with passing(ward, {K1: where[str(K1)], K2: where[str(K2)]}) as daemon:
        first = await daemon.wait(ProcessEnded, K1)
        running_on = await daemon.wait(ProcessStarted, K2)
        assert (running_on.pid, running_on.birth) == where[str(K2)]
        (ward.work / "go2").touch()
        second = await daemon.wait(ProcessEnded, K2)
        assert (first.code, second.code, first.reason, second.reason) == (7, 7, "", "")
    for key in (K1, K2):
        assert ward.log(key).read_text() == "".join(f"line {number}\n" for number in range(1, 6))


async def test_results_are_told_again_until_forgotten(ward: Ward) -> None:
    async with running(ward) as daemon:
        daemon.launch(K1, "/bin/sh", "-c", "exit 3")
        ended = await daemon.wait(ProcessEnded, K1)
    async with running(ward, {K1: None}) as daemon:
        assert daemon.events == [ended]
        daemon.supervisor.forget(K1)
        daemon.supervisor.flush()
        daemon.launch(K2, "/bin/true")
        await daemon.wait(ProcessEnded, K2)
    async with passing(ward) as daemon:
        assert [event.key for event in daemon.events] == [K2]


async def test_accepted_but_never_launched_is_told_as_unknown(ward: Ward) -> None:
    async with running(ward) as daemon:
        daemon.launch(K1, "/bin/sleep", "600")
        await daemon.wait(ProcessStarted, K1)
    async with passing(ward, {K1: None, K2: None}) as daemon:
        lost = await daemon.wait(ProcessEnded, K2)
        assert (lost.code, lost.signal, lost.reason) == (None, None, KEEPER_DIED)
        assert not any(isinstance(event, ProcessEnded) and event.key == K1 for event in daemon.events)


# --- the keeper dies


async def test_kill_9_of_the_keeper_while_the_daemon_runs(ward: Ward) -> None:
    """The running frame is adopted, the next launch gets a new keeper, and the adopted one's end is told."""
    async with passing(ward) as daemon:
        daemon.launch(K1, "/bin/sh", "-c", "while [ ! -e go ]; do sleep 0.02; done")
        started = await daemon.wait(ProcessStarted, K1)
        old = ward.keeper_pid()
        os.kill(old, signal.SIGKILL)
        await come(lambda: stat_state(old) == "")  # the daemon has reaped it
        daemon.launch(K2, "/bin/sh", "-c", "exit 4")
        assert (await daemon.wait(ProcessEnded, K2)).code == 4
        assert ward.keeper_pid() != old
        assert living([started.pid]) == [started.pid]
        (ward.work / "go").touch()
        lost = await daemon.wait(ProcessEnded, K1)
        assert (lost.code, lost.signal, lost.reason) == (None, None, KEEPER_DIED)
        assert abs(lost.started_at - started.at) < 1
        assert len([event for event in daemon.events if event.key == K1]) == 2


async def test_keeper_and_daemon_both_dead(ward: Ward) -> None:
    """Known by process and birth, known only by key, ended meanwhile, and a number that went to another."""
    keys = [K1, K2, K3]
    orders = [order(ward, key, "/bin/sh", "-c", "exec sleep 600") for key in keys]
    where = await trio.to_thread.run_sync(lambda: killed_daemon(ward, *orders, started=3))
    keeper = ward.keeper_pid()
    os.kill(keeper, signal.SIGKILL)
    os.kill(where[str(K3)][0], signal.SIGKILL)
    await come(lambda: living([keeper, where[str(K3)][0]]) == [])
    reused = AttemptKey(0, 0, 3, 1)
    known: Known = {K1: where[str(K1)], K2: None, K3: where[str(K3)], reused: (os.getpid(), 1)}
    async with passing(ward, known) as daemon:
        found = await daemon.wait(ProcessStarted, K2)
        assert (found.pid, found.birth) == where[str(K2)]
        for key in (K3, reused):
            assert (await daemon.wait(ProcessEnded, key)).reason == KEEPER_DIED
        assert sorted(marked(ward.token)) == sorted([where[str(K1)][0], where[str(K2)][0]])
        daemon.signal(K1, kill=False)
        assert (await daemon.wait(ProcessEnded, K1)).reason == KEEPER_DIED
        daemon.signal(K2, kill=True)
        assert (await daemon.wait(ProcessEnded, K2)).reason == KEEPER_DIED
        assert marked(ward.token) == []


async def test_an_orphaned_tree_is_killed_whole(ward: Ward) -> None:
    async with passing(ward) as daemon:
        daemon.launch(K1, *PYTHON, str(HERE / "tree_eleven.py"), "--ignore-term")
        pids = await come(lambda: len(found := pids_in(ward.work / "pids")) == 11 and found)
        os.kill(ward.keeper_pid(), signal.SIGKILL)
        await come(lambda: not daemon.supervisor._held)
        daemon.signal(K1, kill=False)
        daemon.signal(K1, kill=True)
        await daemon.wait(ProcessEnded, K1)
        assert living(pids) == []


async def test_leftovers_of_an_orphan_end_with_it(ward: Ward) -> None:
    leave = (
        "import os,time\nif os.fork(): os.wait(); time.sleep(600)\nos.setsid()\nif os.fork(): os._exit(0)\n"
    )
    async with passing(ward) as daemon:
        daemon.launch(
            K1, *PYTHON, "-c", leave + "open('pids','w').write(f'{os.getpid()}\\n'); time.sleep(600)"
        )
        (helper,) = await come(lambda: pids_in(ward.work / "pids"))
        os.kill(ward.keeper_pid(), signal.SIGKILL)
        await come(lambda: not daemon.supervisor._held)
        os.kill((await daemon.wait(ProcessStarted, K1)).pid, signal.SIGKILL)
        await daemon.wait(ProcessEnded, K1)
        assert living([helper]) == []


async def test_another_farms_frame_of_the_same_number_is_left_alone(ward: Ward) -> None:
    stranger = os.posix_spawn("/bin/sleep", ["sleep", "600"], ward.env(K1), setsid=True)  # noqa: ASYNC221 - it does not wait
    async with passing(ward, {K1: None}) as daemon:
        assert (await daemon.wait(ProcessEnded, K1)).reason == KEEPER_DIED
    assert living([stranger]) == [stranger]
    os.kill(stranger, signal.SIGKILL)
    os.waitid(os.P_PID, stranger, os.WEXITED)  # noqa: ASYNC222 - it was killed


async def test_a_keeper_that_drops_the_daemon_is_found_again(ward: Ward) -> None:
    """Somebody else attaches: the daemon comes back, adopts nothing and loses nothing."""
    async with passing(ward) as daemon:
        daemon.launch(K1, "/bin/sh", "-c", "while [ ! -e go ]; do sleep 0.02; done; exit 6")
        await daemon.wait(ProcessStarted, K1)
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(str(ward.state / "keeper.sock"))
            other.sendall(b'{"v":1}\n')
            with trio.fail_after(30):
                while len(daemon.events) < 2:
                    await daemon.news.wait()
        (ward.work / "go").touch()
        assert (await daemon.wait(ProcessEnded, K1)).code == 6


async def test_what_launches_have_in_common_is_told_again_on_each_connection(ward: Ward) -> None:
    """Their own goes over it, and a keeper that somebody else spoke to is told all of it anew."""
    common = {**ward.env(K1), "OF_LAYER": "layer", "OF_FRAME": "none"}
    keys = [AttemptKey(3, 0, number, 1) for number in range(4)]
    hold = "while [ ! -e go ]; do sleep 0.02; done"

    def launch(daemon: Daemon, key: AttemptKey, script: str, **more: Any) -> None:
        order = daemon.order(key, "/bin/sh", "-c", f"{script}; echo $OF_LAYER $OF_FRAME; umask", **more)
        daemon.supervisor.launch(
            msgspec.structs.replace(order, base_env=common, env={"OF_FRAME": f"{key.frame}"})
        )
        daemon.supervisor.flush()

    async with passing(ward) as daemon:
        launch(daemon, keys[0], hold)
        await daemon.wait(ProcessStarted, keys[0])
        launch(daemon, keys[1], "true", umask=0o077)
        launch(daemon, keys[2], "true")
        await daemon.wait(ProcessEnded, keys[2])
        told = len(daemon.events)
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(str(ward.state / "keeper.sock"))
            other.sendall(b'{"v":1}\n')
            with trio.fail_after(30):
                while len(daemon.events) == told:
                    await daemon.news.wait()
        launch(daemon, keys[3], "true")
        (ward.work / "go").touch()
        for key in keys:
            assert (await daemon.wait(ProcessEnded, key)).code == 0
    said = [ward.log(key).read_text().split() for key in keys]
    assert said == [["layer", f"{n}", "0077" if n == 1 else "0022"] for n in range(4)]
