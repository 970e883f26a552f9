"""Keepers that are killed at bad moments: nothing that runs is called failed."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from drqueue.slave import keeper_health, keeper_link, supervisor
from drqueue.slave.core.processes import KEEPER_DIED, SPAWN_FAILED, LaunchFailed, ProcessEnded, ProcessStarted
from drqueue.slave.logs import log_path
from drqueue.slave.orphans import unborn
from tests.slave.supervised import K1, K2, K3, come, passing
from tests.slave.tree_harness import Ward, living, marked, ward

pytestmark = pytest.mark.slow

#: Stands for a keeper that the kernel kills after its second start, in the turn in which it was greeted.
KILLED = """
import os, signal, sys
sys.path.append({folder!r})
import frames, keeper, keeper_loop
add = frames.Frames.add
def add_and_die(self, attempt):
    add(self, attempt)
    if len(self.leaders) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
frames.Frames.add = add_and_die
{more}
keeper.main()
"""
#: As keepers of earlier versions: the greeting leaves at the end of the turn.
GREETS_LATE = "keeper_loop.Keeper.flush = lambda self, caller: None"


@pytest.fixture(name="ward")
def ward_fixture(tmp_path: Path) -> Iterator[Ward]:
    with ward(tmp_path) as it:
        yield it


def use_keeper(ward: Ward, monkeypatch: pytest.MonkeyPatch, text: str, more: str = "") -> None:
    """Have keepers started from another file; it is taken for the keeper by its name."""
    path = ward.work / "slave" / "keeper.py"
    path.parent.mkdir()
    path.write_text(text.format(folder=os.path.dirname(keeper_link.KEEPER), more=more))
    monkeypatch.setattr(keeper_link, "KEEPER", str(path))


async def test_killed_before_its_greeting_left(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had started is found and watched; only what it had not is failed."""
    real = keeper_link.KEEPER
    use_keeper(ward, monkeypatch, KILLED, GREETS_LATE)
    async with passing(ward) as daemon:
        for key in (K1, K2, K3):
            daemon.supervisor.launch(daemon.order(key, "/bin/sh", "-c", "exec sleep 600"))
        daemon.supervisor.flush()
        failed = await daemon.wait(LaunchFailed, K3)
        assert failed.reason == SPAWN_FAILED
        first, second = await daemon.wait(ProcessStarted, K1), await daemon.wait(ProcessStarted, K2)
        assert sorted(marked(ward.token)) == sorted([first.pid, second.pid])
        assert len(daemon.events) == 3
        monkeypatch.setattr(keeper_link, "KEEPER", real)
        daemon.launch(K3, "/bin/sh", "-c", "exit 5")
        assert (await daemon.wait(ProcessEnded, K3)).code == 5
        daemon.signal(K1, kill=True)
        assert (await daemon.wait(ProcessEnded, K1)).reason == KEEPER_DIED
        assert living([first.pid, second.pid]) == [second.pid]


async def test_a_kill_meant_for_a_frame_whose_keeper_dies_comes_to_it(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was sent to the keeper, which did not live to obey it."""
    use_keeper(ward, monkeypatch, KILLED, GREETS_LATE)
    async with passing(ward) as daemon:
        for key in (K1, K2):
            daemon.supervisor.launch(daemon.order(key, "/bin/sh", "-c", "exec sleep 600"))
        daemon.supervisor.signal_tree(K1, kill=True)
        daemon.supervisor.flush()
        assert (await daemon.wait(ProcessEnded, K1)).reason == KEEPER_DIED
        second = await daemon.wait(ProcessStarted, K2)
        assert marked(ward.token) == [second.pid]


async def test_the_greeting_leaves_before_anything_is_started(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a keeper that is killed after it was one is never mistaken for one that could not be started."""
    use_keeper(ward, monkeypatch, KILLED)
    async with passing(ward) as daemon:
        for key in (K1, K2, K3):
            daemon.supervisor.launch(daemon.order(key, "/bin/sh", "-c", "exec sleep 600"))
        daemon.supervisor.flush()
        assert (await daemon.wait(ProcessEnded, K3)).reason == KEEPER_DIED
        assert not any(isinstance(event, LaunchFailed) for event in daemon.events)
        assert {event.key for event in daemon.events if isinstance(event, ProcessStarted)} == {K1, K2}


# --- killed while a child of it was not yet the command

#: The child stands before its session and log, then before its command, until files say that it may go on.
HALF_BORN = """
import os, signal, sys, time
sys.path.append({folder!r})
import keeper, keeper_loop, spawning
def wait(name):
    while not os.path.exists(name):
        if not os.path.exists(os.path.dirname(name)):
            os._exit(1)
        time.sleep(0.01)
def spawn(argv, env, cwd, log, umask, scratch):
    if os.fork():
        os.kill(os.getpid(), signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    wait(cwd + "/to-its-log")
    os.setsid()
    os.dup2(log, 1)
    os.dup2(log, 2)
    wait(cwd + "/to-its-command")
    os.execve(argv[0], argv, env)
spawning.spawn = spawn
keeper.main()
"""


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon hears of the keeper's death late: the child holds the connection. Have it ask soon."""
    for name, value in {"PING_EVERY_S": 0.05, "PATIENCE_S": 0.5, "GONE_S": 0.2}.items():
        monkeypatch.setattr(keeper_health, name, value)


async def test_a_command_that_is_being_started_is_known_by_its_log(
    ward: Ward, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its environment is the keeper's still."""
    use_keeper(ward, monkeypatch, HALF_BORN)
    (ward.work / "to-its-log").touch()
    async with passing(ward) as daemon:
        path = log_path(str(ward.state), K1, create=True)
        daemon.launch(K1, "/bin/sh", "-c", "exec sleep 600", log_path=path)
        started = await daemon.wait(ProcessStarted, K1)
        assert marked(ward.token) == []
        (ward.work / "to-its-command").touch()
        await come(lambda: marked(ward.token) == [started.pid])
        assert daemon.events == [started]


async def test_nothing_is_given_up_while_a_child_may_become_it(
    ward: Ward, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[bool] = []

    def look(state_dir: str) -> bool:
        looks.append(unborn(state_dir))
        return looks[-1]

    monkeypatch.setattr(supervisor, "unborn", look)
    use_keeper(ward, monkeypatch, HALF_BORN)
    async with passing(ward) as daemon:
        path = log_path(str(ward.state), K1, create=True)
        daemon.launch(K1, "/bin/sh", "-c", "exec sleep 600", log_path=path)
        await come(lambda: len(looks) > 3)
        assert all(looks)
        (ward.work / "to-its-log").touch()
        started = await daemon.wait(ProcessStarted, K1)
        (ward.work / "to-its-command").touch()
        await come(lambda: marked(ward.token) == [started.pid])
        assert daemon.events == [started]


async def test_a_child_that_becomes_nothing_is_not_awaited_for_ever(
    ward: Ward, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "UNBORN_S", 0.3)
    use_keeper(ward, monkeypatch, HALF_BORN)
    async with passing(ward) as daemon:
        daemon.launch(K1, "/bin/sh", "-c", "exec sleep 600")
        assert (await daemon.wait(ProcessEnded, K1)).reason == KEEPER_DIED
        (ward.work / "to-its-log").touch()
        (ward.work / "to-its-command").touch()
        (pid,) = await come(lambda: marked(ward.token))
        os.kill(pid, signal.SIGKILL)
