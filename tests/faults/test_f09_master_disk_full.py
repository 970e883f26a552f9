"""F9: the master's disk is full, again and again, or fails: what was acknowledged is there."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random

import pytest
import trio
from msgspec import structs

from drqueue.client import AsyncClient, JobChange
from drqueue.client.errors import DiskFull
from drqueue.client.farm import Daemon
from tests.e2e.helpers import fill_up, needs_tmpfs, small_disk, until
from tests.faults import levels
from tests.faults.farm import PATIENCE_S, Sayings, a_farm_at_work, ended, kill, start_with
from tests.faults.oracle import Oracle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(levels.timeout_s())]

DISK_KIB = 8192
#: Of one job's environment: small rows fit into what the database's log has room for from before.
WEIGHT = 60_000


class Refused(Oracle):
    """What is refused is not done, whole or in part, neither at once nor later."""

    refusals = 0

    async def submit(self, frames: int) -> int:
        try:
            return await super().submit(frames)
        except DiskFull:
            self._asked.clear()
            self.refusals += 1
            await trio.sleep(0.1)
            return -1

    async def paper_work(self) -> None:
        papers = self.told.papers
        try:
            if len(papers) < 3:
                papers[await self.client.submit(self.spec("1-3", stopped=True))] = 500
                return
            job = self._rng.choice(sorted(papers))
            if self._rng.random() < 0.5:
                priority = self._rng.randrange(1000)
                await self.client.change_job(job, JobChange(priority=priority))
                papers[job] = priority
            else:
                await self.client.delete(job)
                del papers[job]
                self.told.deleted.add(job)
        except DiskFull:
            self.refusals += 1

    async def feed_until(self, over: trio.Event) -> None:
        """Feed, and leave no request unanswered."""
        while not over.is_set():
            if len(await self.client.jobs()) < 9:
                await self.submit(1 + self._rng.randrange(6))
            await self.paper_work()
            await trio.sleep(0.02 + 0.08 * self._rng.random())

    async def unknown(self) -> list[str]:
        """Jobs that nobody was told of."""
        known = self.told.jobs.keys() | self.told.papers
        views = await self.client.jobs(all=True)
        return [
            f"job {view.id} {view.name!r} was never acknowledged" for view in views if view.id not in known
        ]


class Weights:
    """Large jobs that nobody runs, which meet the full disk for certain; `waiting` is where they wait."""

    def __init__(self, oracle: Refused, waiting: trio.Nursery) -> None:
        self._oracle = oracle
        self._waiting = waiting
        self._accepted: list[int] = []
        self._refused = False

    async def alarm(self) -> bool:
        """Submit one more; whether the master says that it cannot write, and refuses."""
        # The one that meets the full disk first waits for room.
        self._waiting.start_soon(self._submit)
        return self._refused and "cannot write" in (await self._oracle.client.farm_info()).alarm

    async def _submit(self) -> None:
        spec = structs.replace(self._oracle.spec("1", stopped=True), name="weight")
        try:
            job = await self._oracle.client.submit(structs.replace(spec, env={"WEIGHT": "x" * WEIGHT}))
        except DiskFull:
            self._refused = True
            self._oracle.refusals += 1
        else:
            self._accepted.append(job)

    async def remove(self) -> None:
        """Delete those that were accepted."""
        for job in self._accepted:
            await self._oracle.client.delete(job)
            self._oracle.told.deleted.add(job)


class Disk:
    """The one that the farm's state lies on, but for the slaves'."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ballast = folder

    def fill(self, master: Daemon) -> None:
        self._ballast = fill_up(self._folder)

    def free(self, master: Daemon) -> None:
        self._ballast.unlink()


class Quota:
    """No file of the master's can grow: what anybody may do to a process of theirs."""

    def fill(self, master: Daemon) -> None:
        files = [Path(master.state_dir, name) for name in ("master.db", "master.db-wal")]
        largest = max(file.stat().st_size for file in files if file.exists())
        _, hard = resource.prlimit(master.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(master.pid, resource.RLIMIT_FSIZE, (largest, hard))

    def free(self, master: Daemon) -> None:
        _, hard = resource.prlimit(master.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(master.pid, resource.RLIMIT_FSIZE, (hard, hard))


@contextmanager
def room(tmp_path: Path, how: str) -> Iterator[Disk | Quota]:
    """What is to be full, for a farm whose slaves have another disk."""
    if how == "quota":
        yield Quota()
        return
    with small_disk(tmp_path / "farm", DISK_KIB):
        for name in ("slave-s1", "slave-s2"):
            (tmp_path / name).mkdir(mode=0o700)
            (tmp_path / "farm" / name).symlink_to(tmp_path / name)
        yield Disk(tmp_path / "farm")


async def no_alarm(client: AsyncClient) -> bool:
    return (await client.farm_info()).alarm == ""


async def fill_and_free(master: Daemon, oracle: Refused, full: Disk | Quota, times: int, rng: Random) -> None:
    """So often; each time until the master says that it is full, and until it says no longer so."""
    for _ in range(times):
        await trio.sleep(rng.uniform(0, 0.5))
        async with trio.open_nursery() as waiting:
            weights = Weights(oracle, waiting)
            full.fill(master)
            try:
                await until("the alarm", weights.alarm, PATIENCE_S)
                # Reads are answered; frames that end meanwhile end well, which the ledger shows.
                assert await oracle.client.jobs()
                await trio.sleep(rng.uniform(0, 0.5))
            finally:
                full.free(master)
            await until("the end of the alarm", partial(no_alarm, oracle.client), PATIENCE_S)
        await weights.remove()


@pytest.mark.parametrize("how", ["disk", "quota"])
async def test_f9_master_disk_full(tmp_path: Path, how: str) -> None:
    """I1-I4, P1: the acknowledged is kept, the refused is not done, frames run on, no restart is needed."""
    if how == "disk":
        needs_tmpfs()
    rng = levels.rng(f"F9-{how}")
    fills = levels.count(f"F9-{how}", ci=3, nightly=100, release=500)
    with room(tmp_path, how) as full:
        async with a_farm_at_work(tmp_path, rng) as (farm, client, _):
            oracle = Refused(tmp_path / "ledgers", client, rng)
            pid = farm.master.pid
            async with trio.open_nursery() as feeding:
                over = trio.Event()
                feeding.start_soon(oracle.feed_until, over)
                await fill_and_free(farm.master, oracle, full, fills, rng)
                over.set()
            assert await oracle.violations(logs=30) == []
            assert await oracle.unknown() == []
            assert farm.master.pid == pid
            assert oracle.refusals >= fills
            print(f"{oracle.refusals} refusals")
            # And all of it is on the disk, not in memory alone.
            await kill(farm.master)
            await farm.master.start()
            assert await oracle.violations(logs=0) == []
            assert await oracle.unknown() == []


async def test_f9_master_disk_fails(tmp_path: Path) -> None:
    """I1-I4: a disk that cannot be written ends the master in a sentence; nothing acknowledged is lost."""
    rng = levels.rng("F9-eio")
    failures = levels.count("F9-eio", ci=2, nightly=50, release=200)
    async with a_farm_at_work(tmp_path, rng) as (farm, _client, oracle):
        async with trio.open_nursery() as feeding:
            feeding.start_soon(partial(oracle.feed, live=6))
            for _ in range(failures):
                await trio.sleep(rng.uniform(0, 0.5))
                await kill(farm.master)
                sayings = Sayings(farm.master)
                place = rng.choice(("commit-before", "commit-within"))
                await start_with(farm.master, f"{place}=eio@{rng.randrange(3, 40)}")
                assert await ended(farm.master) == 1
                assert "Input/output error" in sayings
                assert "Traceback" not in sayings
                await farm.master.start()
            feeding.cancel_scope.cancel()
        assert await oracle.violations(logs=30) == []
