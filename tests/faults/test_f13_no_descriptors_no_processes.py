"""F13: no descriptor is left to a daemon or a keeper, or no process and no thread can be made."""

import os
import resource
import secrets
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio
from msgspec import structs

from drqueue.client import AsyncClient, JobSpec
from drqueue.client.errors import Refused
from drqueue.client.farm import Daemon, LocalFarm
from tests.faults import levels
from tests.faults.farm import PATIENCE_S, Sayings, a_farm_at_work, keeper_of
from tests.faults.oracle import Oracle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(levels.timeout_s())]

#: Descriptors that each of them may have at all.
FEW = 64
V1_PIDS = Path("/sys/fs/cgroup/pids")


class Patient(Oracle):
    """Its frames never fail of themselves, and are tried again where they cannot be started."""

    def spec(self, frames: str, *, stopped: bool = False) -> JobSpec:
        first, _, last = frames.partition("-")
        start = int(first) // 7 * 7 + 1
        spec = super().spec(f"{start}-{start + int(last) - int(first)}", stopped=stopped)
        layers = tuple(structs.replace(layer, retries=1000) for layer in spec.layers)
        return structs.replace(spec, layers=layers)

    async def begun_and_not(self) -> tuple[list[str], int]:
        """Attempts of which the farm says that they were never started, and which ran; how many did not."""
        began = {line.attempt for line in self.lines()}
        wrong, failed = [], 0
        for job in self.told.jobs:
            for frame in await self.client.frames(job):
                for attempt in await self.client.attempts(job, frame.number) if frame.attempt != 1 else ():
                    if attempt.reason == "spawn-failed":
                        failed += 1
                        key = f"{attempt.job}/{attempt.layer}/{attempt.frame}/{attempt.attempt}"
                        if key in began:
                            wrong.append(f"{key} was not started ({attempt.text}), and ran")
        return wrong, failed


def no_descriptor(pid: int) -> None:
    """Leave a process none but those that it has: what it closes is gone, too."""
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, FEW))


def few_descriptors(pid: int) -> None:
    """Leave it as many as it is to have at all."""
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (FEW, FEW))


async def with_few(daemon: Daemon) -> None:
    """Start it anew with few descriptors."""
    sayings = Sayings(daemon)
    await daemon.end()
    daemon.argv = ["/bin/sh", "-c", f'ulimit -n {FEW} && exec "$0" "$@"', *daemon.argv]
    await daemon.start()
    await sayings.come(" is up ")


async def keepers_of(farm: LocalFarm) -> list[int]:
    """The slaves' keepers, once each has one."""
    found: list[int] = []
    with trio.fail_after(PATIENCE_S):
        for slave in farm.slaves:
            pid = 0
            while not pid:
                await trio.sleep(0.05)
                with suppress(ProcessLookupError):
                    pid = keeper_of(slave)
            found.append(pid)
    return found


async def ask_much(client: AsyncClient, jobs: Collection[int]) -> None:
    """Read several logs at a time, each of which wants a thread, again and again; a refusal is an answer."""

    async def ask(job: int, number: int) -> None:
        with suppress(Refused):
            await client.read_log(job, number)

    while True:
        await trio.sleep(0.2)
        async with trio.open_nursery() as asking:
            for job in list(jobs)[-6:]:
                for frame in (await client.frames(job))[:2]:
                    asking.start_soon(ask, job, frame.number)


async def test_f13_no_descriptors(tmp_path: Path) -> None:
    """I2-I4, I11: nobody ends for want of descriptors, and all goes on once there are some."""
    rng = levels.rng("F13-files")
    times = levels.count("F13-files", ci=4, nightly=100, release=100)
    async with a_farm_at_work(tmp_path, rng, slaves=1, cores=4) as (farm, client, _):
        oracle = Patient(tmp_path / "patient", client, rng)
        for daemon in farm.daemons:
            await with_few(daemon)
        async with trio.open_nursery() as feeding:
            feeding.start_soon(partial(oracle.feed, live=6))
            pids = [daemon.pid for daemon in farm.daemons] + await keepers_of(farm)
            victims: list[int] = []
            for _ in range(times):
                victims = victims or rng.sample(pids, len(pids))
                pid = victims.pop()
                no_descriptor(pid)
                await trio.sleep(rng.uniform(0.1, 1.0))
                few_descriptors(pid)
                await trio.sleep(rng.uniform(0, 0.3))
            feeding.cancel_scope.cancel()
        assert await oracle.violations(logs=30, lost={"spawn-failed"}) == []
        wrong, failed = await oracle.begun_and_not()
        assert wrong == []
        assert failed
        print(f"{failed} launches failed")
        assert [daemon.pid for daemon in farm.daemons] + await keepers_of(farm) == pids


@contextmanager
def a_group_of_processes() -> Iterator[Path]:
    """A cgroup v1 of this test's own that can limit how many processes and threads there are."""
    folder = V1_PIDS / f"test-{secrets.token_hex(8)}"
    try:
        folder.mkdir()
    except OSError as error:
        why = f"no cgroup v1 for processes can be made here: {error}"
        if "pids" in os.environ.get("DRQUEUE_REQUIRE", "").split(","):
            pytest.fail(f"{why}, and DRQUEUE_REQUIRE names pids", pytrace=False)
        pytest.skip(why)
    try:
        yield folder
    finally:
        folder.rmdir()


async def test_f13_no_processes(tmp_path: Path) -> None:
    """I2-I4, I11: neither a fork nor a thread is to be had; who wants one waits, or says so, and lives."""
    rng = levels.rng("F13-processes")
    times = levels.count("F13-processes", ci=4, nightly=100, release=100)
    with ExitStack() as stack:
        groups = [stack.enter_context(a_group_of_processes()) for _ in range(2)]
        async with a_farm_at_work(tmp_path, rng, slaves=1) as (farm, client, _):
            oracle = Patient(tmp_path / "patient", client, rng)
            for daemon, group in zip(farm.daemons, groups, strict=True):
                (group / "cgroup.procs").write_text(str(daemon.pid))
            async with trio.open_nursery() as feeding:
                feeding.start_soon(partial(oracle.feed, live=6))
                feeding.start_soon(ask_much, client, oracle.told.jobs)
                pids = [daemon.pid for daemon in farm.daemons] + await keepers_of(farm)
                for nth in range(times):
                    group = groups[nth % 2 - 1]
                    (group / "pids.max").write_text("0")
                    await trio.sleep(rng.uniform(0.1, 1.0))
                    (group / "pids.max").write_text("max")
                    await trio.sleep(rng.uniform(0, 0.3))
                feeding.cancel_scope.cancel()
            assert await oracle.violations(logs=30, lost={"spawn-failed"}) == []
            wrong, failed = await oracle.begun_and_not()
            assert wrong == []
            assert failed
            print(f"{failed} launches failed")
            assert [daemon.pid for daemon in farm.daemons] + await keepers_of(farm) == pids
