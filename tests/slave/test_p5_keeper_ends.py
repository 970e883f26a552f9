"""P5: a daemon that comes when the keeper is gone learns how its frames ended all the same."""

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from drqueue.proto.ids import AttemptKey
from drqueue.slave import unheard
from drqueue.slave.core.processes import KEEPER_DIED, LaunchFailed, ProcessEnded, ProcessStarted
from drqueue.slave.keeper_ends import KeeperEnds
from tests.slave.supervised import K1, K2, K3, Daemon, Known, come, passing, running
from tests.slave.tree_harness import Ward, living, ward

K4 = AttemptKey(0, 0, 3, 1)
UNTIL_GO = "while [ ! -e go ]; do sleep 0.02; done; "


@pytest.fixture(name="ward")
def ward_fixture(tmp_path: Path) -> Iterator[Ward]:
    with ward(tmp_path) as it:
        yield it


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keepers that end as soon as they are alone and have nothing to do."""
    from tests.slave import supervised

    def short(*arguments: object, linger_s: float) -> supervised.Supervisor:
        return made(*arguments, linger_s=0.0)  # type: ignore[arg-type]

    made = supervised.Supervisor
    monkeypatch.setattr(supervised, "Supervisor", short)


async def run_and_leave(daemon: Daemon) -> Known:
    """Frames that end once the daemon is gone, and one that could not be started; where they are."""
    for key, script in ((K1, "exit 7"), (K2, "kill -USR1 $$"), (K4, "echo end")):
        daemon.launch(key, "/bin/sh", "-c", UNTIL_GO + script)
    daemon.launch(K3, "no-such-program")
    await daemon.wait(LaunchFailed, K3)
    where: Known = {K3: None}
    for key in (K1, K2, K4):
        started = await daemon.wait(ProcessStarted, key)
        where[key] = (started.pid, started.birth)
    return where


def told(daemon: Daemon) -> dict[AttemptKey, tuple[int | None, int | None, str]]:
    """The ends that were delivered."""
    ends = [event for event in daemon.events if isinstance(event, ProcessEnded)]
    assert len(ends) == len({end.key for end in ends})
    return {end.key: (end.code, end.signal, end.reason) for end in ends}


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
async def test_p5_ends_are_known_though_daemon_and_keeper_are_gone(
    ward: Ward, brief: None, killed: bool
) -> None:
    """The keeper lingered in vain, or was killed too: exit statuses are exact, told before it is ready."""
    async with running(ward) as daemon:
        where = await run_and_leave(daemon)
    keeper = ward.keeper_pid()
    (ward.work / "go").touch()
    if killed:
        await come(lambda: len(unheard.read(str(ward.state))[0]) == 4)
        os.kill(keeper, signal.SIGKILL)
    await come(lambda: living([keeper]) == [])
    async with passing(ward, where) as daemon:
        assert told(daemon) == {K1: (7, None, ""), K2: (None, signal.SIGUSR1, ""), K4: (0, None, "")}
        failed = await daemon.wait(LaunchFailed, K3)
        assert failed.text == "command not found: no-such-program"
        assert len(daemon.events) == 4
    os.waitpid(keeper, 0)  # noqa: ASYNC222 - it has ended


@pytest.mark.slow
async def test_p5_only_what_nobody_knows_is_lost(ward: Ward) -> None:
    """The keeper is killed while one of its frames runs: that one is adopted, the others' ends are known."""
    async with running(ward) as daemon:
        where = await run_and_leave(daemon)
        daemon.launch(AttemptKey(9, 9, 9, 9), "/bin/sleep", "600")
        started = await daemon.wait(ProcessStarted, AttemptKey(9, 9, 9, 9))
        where[started.key] = (started.pid, started.birth)
    (ward.work / "go").touch()
    await come(lambda: len(unheard.read(str(ward.state))[0]) == 4)
    os.kill(ward.keeper_pid(), signal.SIGKILL)
    async with passing(ward, where) as daemon:
        assert {end[2] for end in told(daemon).values()} == {""}
        daemon.signal(started.key, kill=True)
        assert (await daemon.wait(ProcessEnded, started.key)).reason == KEEPER_DIED


# --- the file


def end_of(key: AttemptKey, code: int) -> str:
    """A result as keepers write it."""
    return (
        f'{{"is":"ended","key":{[*key]},"code":{code},"signal":null,"cpu":0.1,"peak":1,"start":1.0,"end":2.0,'
        '"log":0,"reason":""}'
    )


def written(tmp_path: Path, *lines: str) -> KeeperEnds:
    assert unheard.Unheard(str(tmp_path)).keep(lines)
    return KeeperEnds(str(tmp_path))


def test_only_what_is_asked_for_is_told(tmp_path: Path) -> None:
    ends = written(tmp_path, end_of(K1, 1), end_of(K2, 2))
    assert ends
    assert [(end.key, getattr(end, "code", None)) for end in ends.of({K2: None, K3: (1, 1)})] == [(K2, 2)]
    assert ends.of({}) == []


def test_p4_what_still_runs_has_not_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the file says."""
    from drqueue.slave import proctree

    here = (os.getpid(), proctree.birth(os.getpid()))
    ends = written(tmp_path, end_of(K1, 1))
    assert ends.of({K1: here}) == []
    assert "which still runs" in caplog.text
    assert len(ends.of({K1: (here[0], here[1] + 1)})) == 1


def test_the_file_goes_once_all_of_it_is_safe(tmp_path: Path) -> None:
    ends = written(tmp_path, end_of(K1, 1), end_of(K2, 2))
    ends.drop(lambda key: key == K1)
    assert len(ends.of({K1: None, K2: None})) == 2
    ends.drop(lambda key: True)
    assert not ends
    assert ends.of({K1: None}) == []
    ends.drop(lambda key: True)  # nothing to do


def test_a_file_that_cannot_be_read_is_told_once_and_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / unheard.NAME).mkdir()
    ends = KeeperEnds(str(tmp_path))
    for _ in range(3):
        assert ends.of({K1: None}) == []
        ends.drop(lambda key: True)
    assert ends
    assert caplog.text.count("cannot be read: Is a directory") == 1


def test_damage_is_told_once_and_costs_no_more_than_it_hit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also what no keeper writes."""
    ends = written(tmp_path, end_of(K1, 1), '{"is":"dance"}', end_of(K2, 2))
    path = tmp_path / unheard.NAME
    path.write_bytes(path.read_bytes()[:-5])
    for _ in range(3):
        assert [end.key for end in ends.of({K1: None, K2: None})] == [K1]
    assert caplog.text.count("is damaged in 2 places") == 1
    ends.drop(lambda key: True)
    assert not ends


async def ready(context: AbstractAsyncContextManager[Daemon]) -> list[object]:
    async with context as daemon:
        return list(daemon.events)


@pytest.mark.slow
async def test_p5_nobody_elses_ends_are_told(ward: Ward) -> None:
    """Of attempts that the spool does not know: another identity's, another farm's."""
    written(ward.state, end_of(K1, 1), end_of(K2, 2))
    assert await ready(passing(ward)) == []
    (event,) = await ready(passing(ward, {K2: None}))
    assert isinstance(event, ProcessEnded)
    assert (event.key, event.code) == (K2, 2)
