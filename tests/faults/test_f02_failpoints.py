"""F2: both daemons and the keeper die, or meet errors, at every named place around disk and sockets.

Each place is reached for real in one farm that works on: the master, and each slave, is started with one
failpoint after another. Every place must have been reached in the end.
"""

import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from drqueue import failpoints
from drqueue.client.farm import Daemon
from tests.faults import levels
from tests.faults.farm import PATIENCE_S, Sayings, a_farm_at_work, ended, kill, kill_keeper, start_with

pytestmark = [pytest.mark.slow, pytest.mark.timeout(levels.timeout_s())]

#: Before anything else has been done in the state directory.
FIRST = ("migration-step", "epoch-within")
#: Of the first job; ids are reserved by the thousand.
BOUNDS = ("bounds-before=kill", "bounds-after=kill")
#: One life each; a life may have several errors before it is ended from outside.
MASTER = (
    "commit-before=kill", "commit-within=kill", "commit-after=kill", "state-write=kill", "state-renamed=kill",
    "turn-committed=kill", "effect-done=kill", "send-before=kill", "send-half=kill", "send-after=kill",
    "backup-step=kill", "backup-rename=kill", "commit-before=eio",
    "commit-within=enospc,send-before=eio,send-after=eio,send-before=eagain",
)  # fmt: skip
SLAVE = (
    "append-before=kill", "append-half=kill", "append-after=kill", "compact-before=kill",
    "compact-after=kill", "turn-committed=kill", "effect-done=kill", "order-before=kill", "order-after=kill",
    "send-before=kill", "send-half=kill", "send-after=kill",
    "append-before=enospc,append-half=enospc,send-half=eio,order-before=eagain",
)  # fmt: skip
#: What a slave does when it meets a master that was started since.
AT_A_NEW_EPOCH = ("state-write=kill", "state-renamed=kill", "identity-save=kill", "state-write=enospc")
KEEPER = ("keeper-born=kill", "frame-spawned=kill", "frame-reaped=kill", "frame-forgotten=kill")
#: Places that are passed once in a daemon's life.
ONCE = frozenset({"state-write", "state-renamed", "identity-save", "compact-before", "compact-after"})
ONCE |= {"backup-step", "backup-rename", "bounds-before", "bounds-after", "keeper-born"}


class Visits:
    """Daemons' ways through their failpoints, and those that were reached."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.reached: set[str] = set()

    async def visit(self, daemon: Daemon, life: str) -> None:
        """Start a daemon that does not run with failpoints, until all are reached and it ended."""
        points = [point.partition("=") for point in life.split(",")]
        # An error in the midst of a start may well end it.
        times = self._rng.sample(range(1, 9), len(points))
        counted = [
            1 if name in ONCE else nth + 5 * (action != "kill")
            for (name, _, action), nth in zip(points, times, strict=True)
        ]
        text = ",".join(f"{''.join(point)}@{nth}" for point, nth in zip(points, counted, strict=True))
        sayings = Sayings(daemon)
        await start_with(daemon, text)
        async with trio.open_nursery() as nursery:
            if life.startswith("backup"):
                nursery.start_soon(_ask_for_backups, daemon, sayings)
            for name, _, action in points:
                await sayings.come(f"failpoint {name}: {action}")
                self.reached.add(name)
            if life == "commit-before=eio":
                assert await ended(daemon) == 1
            elif action == "kill" and life not in KEEPER[1:]:
                assert await ended(daemon) == -signal.SIGKILL
            nursery.cancel_scope.cancel()
        # What it makes of an error is seen for a while.
        await trio.sleep(self._rng.uniform(0, 0.2))
        await kill(daemon)

    async def all(self, daemon: Daemon, lives: Sequence[str]) -> None:
        """One after another; then the daemon works as ever."""
        await kill(daemon)
        for life in lives:
            if life in KEEPER:
                await kill_keeper(daemon)  # the next one is started with the failpoint
            await self.visit(daemon, life)
        if not set(KEEPER).isdisjoint(lives):
            await kill_keeper(daemon)
        await daemon.start()


async def _ask_for_backups(daemon: Daemon, sayings: Sayings) -> None:
    await sayings.come("master is up")
    while True:
        os.kill(daemon.pid, signal.SIGUSR1)
        await trio.sleep(0.2)


async def _first_start(folder: Path, point: str) -> str:
    """A master in an empty folder that dies there; what it says."""
    process = await trio.run_process(
        [sys.executable, "-m", "drqueue.master", "--state-dir", str(folder)],
        env={**os.environ, failpoints.VARIABLE: f"{point}=kill@{1 if point == 'epoch-within' else 9}"},
        capture_stderr=True,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL
    return process.stderr.decode()


async def test_f2_every_failpoint(tmp_path: Path) -> None:
    """I1-I5, I13, I17: wherever a process ends, the others and its next life make good what it was doing."""
    rng = levels.rng("F2")
    rounds = levels.count("F2", ci=1, nightly=20, release=200)
    visits = Visits(rng)
    for point in FIRST:
        with trio.fail_after(PATIENCE_S):
            assert f"failpoint {point}: kill" in await _first_start(tmp_path / "farm", point)
        visits.reached.add(point)
    async with a_farm_at_work(tmp_path, rng, slaves=3) as (farm, _client, oracle):

        async def all_slaves(points: Sequence[str]) -> None:
            points = rng.sample(points, len(points))
            async with trio.open_nursery() as nursery:
                for at, daemon in enumerate(farm.slaves):
                    nursery.start_soon(visits.all, daemon, points[at :: len(farm.slaves)])

        async with trio.open_nursery() as feeding:
            feeding.start_soon(oracle.feed)
            await visits.all(farm.master, BOUNDS)
            for _ in range(rounds):
                await visits.all(farm.master, rng.sample(MASTER, len(MASTER)))
                waiting = rng.sample(AT_A_NEW_EPOCH, len(AT_A_NEW_EPOCH))
                while waiting:
                    # None may see the new master before it has its failpoint.
                    for daemon in (*farm.slaves, farm.master):
                        await kill(daemon)
                    sayings = Sayings(farm.master)
                    await farm.master.start()
                    await sayings.come(" is up ")
                    await all_slaves(waiting[: len(farm.slaves)])
                    del waiting[: len(farm.slaves)]
                await all_slaves((*SLAVE, *KEEPER))
            feeding.cancel_scope.cancel()
        assert set(failpoints.NAMES) - visits.reached == set()
        # A keeper that is killed knows not how its frames ended: they are tried again, never beside one.
        assert await oracle.violations(lost={"keeper-died"}) == []
