"""What a slave's daemon does with frames of another user, run as whoever may change users.

    run_as_scenario.py STATE_DIR WORK_DIR UID SCENARIO

It prints one line per step; a scenario that comes to its end prints "over".
"""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from drqueue.proto.ids import AttemptKey
from drqueue.slave import proctree
from drqueue.slave.core.processes import Launch, LaunchFailed, ProcessEnded, ProcessEvent, ProcessStarted
from drqueue.slave.supervisor import Supervisor

STATE, WORK, UID, SCENARIO = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
OTHER = (UID, UID, ())
K1, K2 = AttemptKey(0, 0, 0, 1), AttemptKey(0, 0, 1, 1)
LEAVE = "(env -i /bin/sleep 600 & echo $! > pids); exec /bin/sleep 600"


class Daemon:
    """A supervisor and what it told."""

    def __init__(self) -> None:
        self.events: list[ProcessEvent] = []
        self.news = trio.Event()
        self.supervisor = Supervisor(STATE, self.deliver, linger_s=20)

    def deliver(self, event: ProcessEvent) -> None:
        self.events.append(event)
        self.news.set()
        self.news = trio.Event()

    async def wait(self, kind: type[ProcessEvent], key: AttemptKey) -> ProcessEvent:
        while True:
            for event in self.events:
                if isinstance(event, kind) and event.key == key:
                    return event
            await self.news.wait()

    def launch(self, key: AttemptKey, text: str) -> None:
        self.supervisor.launch(
            Launch(
                key=key,
                argv=("/bin/sh", "-c", text),
                env={"DRQUEUE_ATTEMPT": str(key), "DRQUEUE_TEST": os.environ["DRQUEUE_TEST"]},
                cwd=str(WORK),
                log_path=f"{STATE}/logs/{key.frame}",
                log_cap=1 << 20,
                user=OTHER,
            )
        )
        self.supervisor.flush()

    def signal(self, key: AttemptKey, kill: bool) -> None:
        self.supervisor.signal_tree(key, kill)
        self.supervisor.flush()


@asynccontextmanager
async def running(known: Mapping[AttemptKey, tuple[int, int] | None], last: bool) -> AsyncIterator[Daemon]:
    """A daemon; its keeper and frames live on unless it is the last one."""
    daemon = Daemon()
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.supervisor.run, known)
        yield daemon
        if last:
            await daemon.supervisor.shutdown()
        nursery.cancel_scope.cancel()


async def come(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - processes and files have no event
        await trio.sleep(0.005)


async def gone(pid: int) -> None:
    await come(lambda: (info := proctree.look(pid)) is None or info.state == "Z")


def written(name: str) -> bool:
    """Whether that file is there, and its line whole."""
    return (WORK / name).exists() and (WORK / name).read_text().endswith("\n")


def where(event: ProcessEvent) -> tuple[int, int]:
    assert isinstance(event, ProcessStarted)
    return event.pid, event.birth


def told(event: ProcessEvent) -> str:
    match event:
        case ProcessEnded():
            return f"ended {event.key.frame} code={event.code} signal={event.signal} {event.reason}"
        case LaunchFailed():
            return f"failed {event.key.frame} {event.text}"
        case _:
            return f"started {event.key.frame}"


def kill_keeper() -> int:
    pid = int(Path(STATE, "keeper.lock").read_text())
    os.kill(pid, signal.SIGKILL)
    return pid


async def restart_of_the_daemon() -> None:
    """The keeper lives: what ended meanwhile is told, what runs goes on and is killed."""
    async with running({}, last=False) as first:
        first.launch(K1, "while [ ! -e go ]; do /bin/sleep 0.02; done; exit 7")
        first.launch(K2, LEAVE)
        pids = {key: where(await first.wait(ProcessStarted, key)) for key in (K1, K2)}
    (WORK / "go").touch()
    await gone(pids[K1][0])
    async with running(pids, last=True) as second:
        print(told(await second.wait(ProcessEnded, K1)))
        assert where(await second.wait(ProcessStarted, K2)) == pids[K2]
        second.signal(K2, kill=True)
        print(told(await second.wait(ProcessEnded, K2)))


async def death_of_keeper_and_daemon() -> None:
    """One is known by process and birth, of the other only that it was accepted; both end by signals."""
    async with running({}, last=False) as first:
        first.launch(K1, LEAVE)
        first.launch(K2, LEAVE.replace("pids", "pids2"))
        pids = {key: where(await first.wait(ProcessStarted, key)) for key in (K1, K2)}
        await come(lambda: written("pids") and written("pids2"))
    await gone(kill_keeper())
    async with running({K1: pids[K1], K2: None}, last=True) as second:
        assert where(await second.wait(ProcessStarted, K2)) == pids[K2]
        print("found", K2.frame)
        second.signal(K1, kill=False)
        print(told(await second.wait(ProcessEnded, K1)))
        second.signal(K2, kill=True)
        print(told(await second.wait(ProcessEnded, K2)))


async def death_of_the_keeper() -> None:
    """The daemon watches what runs; when the main process ends, the rest of its session does."""
    async with running({}, last=True) as daemon:
        daemon.launch(K1, LEAVE)
        pid, _ = where(await daemon.wait(ProcessStarted, K1))
        await come(lambda: written("pids"))
        keeper = kill_keeper()
        await come(lambda: proctree.look(keeper) is None)  # the daemon has noticed
        daemon.launch(K2, "exit 4")
        print(told(await daemon.wait(ProcessEnded, K2)))
        os.kill(pid, signal.SIGKILL)
        print(told(await daemon.wait(ProcessEnded, K1)))


async def removal() -> None:
    """A scratch directory of another user is removed, by a keeper that is started for that."""
    place = WORK / "1.0.1.1"
    async with running({}, last=True) as daemon:
        daemon.supervisor.remove_as([str(place)], OTHER)
        await come(lambda: not place.exists())
        print("removed")


async def main() -> None:
    with trio.fail_after(60):
        await SCENARIOS[SCENARIO]()
    print("over", flush=True)


SCENARIOS = {
    function.__name__: function
    for function in (restart_of_the_daemon, death_of_keeper_and_daemon, death_of_the_keeper, removal)
}
trio.run(main)
