"""The slave's daemon and its frames of other users: restarts, lost keepers, keepers of an earlier start."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from drqueue.proto.ids import AttemptKey
from drqueue.slave.core.processes import Launch, LaunchFailed, ProcessEnded, ProcessEvent
from drqueue.slave.supervisor import Supervisor
from tests.slave.run_as_harness import (
    KINDS,
    OTHER,
    SLAVE,
    as_slave,
    needs_root,
    open_ward,
    python_env,
    python_for_all,
    start_keeper,
    tree_for_all,
)
from tests.slave.tree_harness import Ward, living, pids_in

pytestmark = [pytest.mark.slow, needs_root, pytest.mark.needs("setpriv")]

K1, K2 = AttemptKey(0, 0, 0, 1), AttemptKey(0, 0, 1, 1)


@pytest.fixture(params=KINDS)
def ward(request: pytest.FixtureRequest) -> Iterator[Ward]:
    with open_ward(SLAVE if request.param == "ambient" else 0) as it:
        yield it


def play(ward: Ward, scenario: str) -> list[str]:
    """The lines of a scenario, as the ward's slave."""
    before = as_slave() if ward.state.stat().st_uid else []
    scenario_file = tree_for_all()[0] / "tests" / "slave" / "run_as_scenario.py"
    words = [python_for_all(), str(scenario_file), str(ward.state), str(ward.work)]
    ended = subprocess.run(
        [*before, *words, str(OTHER[0]), scenario],
        env={**python_env(), "DRQUEUE_TEST": ward.token},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout.splitlines()


def test_a_restart_of_the_daemon_loses_nothing(ward: Ward) -> None:
    assert play(ward, "restart_of_the_daemon") == [
        "ended 0 code=7 signal=None ",
        "ended 1 code=None signal=9 ",
        "over",
    ]
    assert living(pids_in(ward.work / "pids")) == []


def test_frames_are_found_again_without_keeper_and_daemon(ward: Ward) -> None:
    """Also those of which no start was noted; what had left their environment goes with them."""
    assert play(ward, "death_of_keeper_and_daemon") == [
        "found 1",
        "ended 0 code=None signal=None keeper-died",
        "ended 1 code=None signal=None keeper-died",
        "over",
    ]
    assert living(pids_in(ward.work / "pids") + pids_in(ward.work / "pids2")) == []


def test_the_keepers_death_ends_no_frame(ward: Ward) -> None:
    assert play(ward, "death_of_the_keeper") == [
        "ended 1 code=4 signal=None ",
        "ended 0 code=None signal=None keeper-died",
        "over",
    ]
    assert living(pids_in(ward.work / "pids")) == []


def test_a_leftover_is_removed_as_its_owner(ward: Ward) -> None:
    place = ward.work / "1.0.1.1"
    place.mkdir(0o700)
    (place / "file").touch()
    for path in (place, place / "file"):
        os.chown(path, OTHER[0], OTHER[0])
    assert play(ward, "removal") == ["removed", "over"]


# --- a keeper that may not, of an earlier start


class Events:
    """What a supervisor told, in order."""

    def __init__(self) -> None:
        self.all: list[ProcessEvent] = []
        self.news = trio.Event()

    def deliver(self, event: ProcessEvent) -> None:
        self.all.append(event)
        self.news.set()
        self.news = trio.Event()

    async def wait(self, kind: type[ProcessEvent], key: AttemptKey) -> ProcessEvent:
        with trio.fail_after(30):
            while True:
                for event in self.all:
                    if isinstance(event, kind) and event.key == key:
                        return event
                await self.news.wait()


def order(ward: Ward, key: AttemptKey, *argv: str) -> Launch:
    return Launch(
        key=key,
        argv=argv,
        env=ward.env(key),
        cwd=str(ward.work),
        log_path=str(ward.log(key)),
        log_cap=1 << 20,
        user=OTHER,
    )


async def test_frames_wait_for_a_keeper_that_changes_users() -> None:
    """The older keeper's frame goes on to its end; then one is started that may. None ran as the slave."""
    with open_ward(SLAVE) as ward:
        old = start_keeper(ward, as_slave(ambient=False))
        assert old.next()["users"] is False
        assert old.next()["is"] == "held"
        running = old.launch([*K1], "/bin/sh", "-c", "while [ ! -e go ]; do sleep 0.02; done; exit 7")
        events = Events()
        supervisor = Supervisor(str(ward.state), events.deliver, linger_s=1)
        async with trio.open_nursery() as nursery:
            with trio.fail_after(30):
                await nursery.start(supervisor.run, {K1: (running["pid"], running["birth"])})
            supervisor.launch(order(ward, K2, "/usr/bin/id", "-u"))
            stopped = AttemptKey(0, 0, 2, 1)
            supervisor.launch(order(ward, stopped, "/bin/true"))
            supervisor.flush()
            supervisor.signal_tree(stopped, kill=False)
            failed = await events.wait(LaunchFailed, stopped)
            assert isinstance(failed, LaunchFailed)
            assert failed.text == "stopped before it was started"
            assert ward.keeper_pid() == old.child
            (ward.work / "go").touch()
            ended = await events.wait(ProcessEnded, K1)
            assert isinstance(ended, ProcessEnded)
            assert ended.code == 7
            ended = await events.wait(ProcessEnded, K2)
            assert isinstance(ended, ProcessEnded)
            assert ended.code == 0
            assert ward.keeper_pid() != old.child
            assert ward.log(K2).read_text() == f"{OTHER[0]}\n"
            with trio.fail_after(30):
                await supervisor.shutdown()
            nursery.cancel_scope.cancel()
        old.close()
        await trio.to_thread.run_sync(old.wait)


async def test_waiting_frames_are_told_when_the_slave_ends() -> None:
    with open_ward(SLAVE) as ward:
        old = start_keeper(ward, as_slave(ambient=False))
        old.next(), old.next()
        old.launch([*K1], "/bin/sleep", "600")
        events = Events()
        supervisor = Supervisor(str(ward.state), events.deliver, linger_s=1)
        async with trio.open_nursery() as nursery:
            with trio.fail_after(30):
                await nursery.start(supervisor.run, {})
            supervisor.launch(order(ward, K2, "/bin/true"))
            with trio.fail_after(30):
                await supervisor.shutdown()
            failed = await events.wait(LaunchFailed, K2)
            assert isinstance(failed, LaunchFailed)
            assert failed.text == "the slave is shutting down"
            nursery.cancel_scope.cancel()
        old.close()
        await trio.to_thread.run_sync(old.wait)


def test_notes_are_shortened_to_what_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from drqueue.slave import notes, proctree

    monkeypatch.setattr(notes, "MOST", 100)
    book = notes.Notes(str(tmp_path))
    birth = proctree.birth(os.getpid())
    own = f"1/0/1/1 {os.getpid()} {birth - 1} {birth + 1}\n"
    earlier = f"1/0/4/1 {os.getpid()} {birth - 7} {birth - 1}\n"
    os.write(book.ready(), own.encode() + earlier.encode() + b"1/0/3/1 cut short")
    for _ in range(1000):
        os.write(book.ready(), b"\n1/0/2/1 999999 77 78\n")
    assert (tmp_path / "keeper.frames").stat().st_size < 250
    assert notes.running(str(tmp_path)) == [("1/0/1/1", os.getpid(), proctree.birth(os.getpid()))]
    assert (tmp_path / "keeper.frames").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["keeper.frames"]
