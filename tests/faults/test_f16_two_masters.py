"""F16: two masters over one state directory, over two copies of it, and one over yesterday's backup."""

import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from random import Random

import pytest
import trio
from msgspec import structs

from drqueue.client import AsyncClient, JobSpec, connect
from drqueue.client.farm import Daemon, LocalFarm
from drqueue.master.storage.restoring import restore
from drqueue.proto.views import FrameView
from tests.e2e.helpers import processes_with, until
from tests.faults import levels
from tests.faults.farm import PATIENCE_S, Sayings, a_farm_at_work, a_farm_behind_proxies, ended, kill, linked
from tests.faults.oracle import Line, Oracle, judge, overlaps

pytestmark = [pytest.mark.slow, pytest.mark.timeout(levels.timeout_s())]

IN_USE = "is in use by another master"


def a_master(farm: LocalFarm, state_dir: Path | str, name: str) -> Daemon:
    """Another master, not started."""
    return farm._daemon(name, str(state_dir), "drqueue.master", ())


async def start_unwatched(daemon: Daemon) -> Sayings:
    """Start a daemon whose end is no news; what it says."""
    sayings = Sayings(daemon)
    await daemon.start()
    daemon.wanted = False
    return sayings


# -- one directory -----------------------------------------------------------------------------------------


async def test_f16_i1_i2_of_two_masters_of_one_directory_one_is_refused(tmp_path: Path) -> None:
    """A second beside one that runs, and two at once after a kill -9: one serves, and nothing is lost."""
    rng = levels.rng("F16-lock")
    times = levels.count("F16-lock", ci=2, nightly=50, release=50)
    async with a_farm_at_work(tmp_path, rng, slaves=1, cores=2) as (farm, client, oracle):
        async with trio.open_nursery() as feeding:
            feeding.start_soon(partial(oracle.feed, live=5, frames=4))
            for number in range(times):
                first, second = farm.master, a_master(farm, farm.state_dir, f"master{number}")
                if number % 2:
                    await kill(first)
                    both = {
                        second.name: await start_unwatched(second),
                        first.name: await start_unwatched(first),
                    }
                    refused = await first_to_end(first, second)
                    said = both[refused.name]
                    farm.master = first if refused is second else second
                    farm.master.wanted = True
                else:
                    refused, said = second, await start_unwatched(second)
                assert await ended(refused) == 1
                assert IN_USE in said
                assert " is up " not in said
                if not number % 2:
                    assert f"{IN_USE}, pid {farm.master.pid}" in said
                await linked(client, 1)
            feeding.cancel_scope.cancel()
        assert await oracle.violations() == []


async def first_to_end(one: Daemon, other: Daemon) -> Daemon:
    """Whichever of the two ends by itself."""
    found: list[Daemon] = []

    async def is_over() -> bool:
        found[:] = [each for each in (one, other) if each.process is None or each.process.poll() is not None]
        return bool(found)

    await until("one of two masters is refused", is_over, PATIENCE_S)
    (refused,) = found
    return refused


# -- two copies --------------------------------------------------------------------------------------------


def copy_master(farm: LocalFarm, to: Path) -> None:
    """A copy of what a master that is stopped, or was killed, has in its directory."""
    to.mkdir(mode=0o700)
    for path in Path(farm.state_dir).iterdir():
        if path.is_file() and path.suffix != ".log":
            shutil.copy(path, to / path.name)


async def test_f16_i3_i17_of_two_masters_on_copies_a_slave_obeys_the_one_it_knew(tmp_path: Path) -> None:
    """Both have the same epoch and give out the same names. The other's way is the network's: it starts
    nothing, and what ran and ended meanwhile is told to the one that asked for it."""
    rng = levels.rng("F16-copies")
    times = levels.count("F16-copies", ci=1, nightly=20, release=50)
    async with a_farm_behind_proxies(tmp_path, rng, 2, most_s=2.0) as (farm, client, oracle, proxies):
        for number in range(times):
            await oracle.submit(12)
            await until("frames run", partial(some_run, oracle))
            await farm.master.end(rng.choice((signal.SIGTERM, signal.SIGKILL)))
            folder = tmp_path / f"copy{number}"
            copy_master(farm, folder)
            other = a_master(farm, folder, f"other{number}")
            await farm.master.start()
            await linked(client, 2)
            await oracle.submit(6)
            said = await start_unwatched(other)
            await said.come(" is up ")
            try:
                slaves = [Sayings(daemon) for daemon in farm.slaves]
                for proxy in proxies:
                    proxy.target = f"unix:{folder}/master.sock"
                    proxy.cut("rst")
                async with connect(proxies[0].target, patience_s=PATIENCE_S) as stranger:
                    for sayings in slaves:
                        await sayings.come("another master had epoch")
                    assert not any(view.linked for view in await stranger.slaves())
            finally:
                await kill(other)
            for proxy in proxies:
                proxy.target = farm.address
            await linked(client, 2)
        assert await oracle.violations() == []


async def some_run(oracle: Oracle) -> bool:
    """Whether some frame began that has not ended."""
    words = Counter(line.word for line in oracle.lines())
    return words["start"] > words["end"]


# -- yesterday's backup ------------------------------------------------------------------------------------


async def test_f16_i3_p4_a_restored_master_lets_nothing_run_twice_at_a_time(tmp_path: Path) -> None:
    """What slaves run that the backup does not know is stopped before its frames begin anew, and what they
    run that it knows goes on; what was done, is; jobs that come later run at once."""
    rng = levels.rng("F16-restored")
    times = levels.count("F16-restored", ci=2, nightly=30, release=50)
    async with a_farm_at_work(tmp_path, rng, most_s=0.1) as (farm, client, oracle):
        found: list[str] = []
        for _ in range(times):
            found += await restored_once(farm, client, oracle, rng)
        print(f"{len(found)} violations")
        assert found == []


async def restored_once(farm: LocalFarm, client: AsyncClient, oracle: Oracle, rng: Random) -> list[str]:
    """A backup, some work, the backup again; what is wrong once all is over."""
    go = oracle.folder / "go"
    go.unlink(missing_ok=True)

    async def all_began(job: int, wanted: int) -> bool:
        return len(begun(oracle.lines(), job)) == wanted

    past = await client.submit(oracle.spec("1-3"))
    await client.wait([past])
    known = await client.submit(held("1-2", oracle))
    unknown = await client.submit(structs.replace(held("3-4", oracle), stopped=True))
    await until("two frames run", partial(all_began, known, 2), PATIENCE_S)
    backup = await backed_up(farm)
    gone = await client.submit(held("5", oracle))
    await client.continue_(unknown)
    await until("two others run", partial(all_began, unknown, 2), PATIENCE_S)
    await until("and one more", partial(all_began, gone, 1), PATIENCE_S)
    away = rng.choice([None, *farm.slaves])
    if away is not None:
        await kill(away)
    await farm.master.end(rng.choice((signal.SIGTERM, signal.SIGKILL)))
    restore(farm.state_dir, str(backup))
    await farm.master.start()

    await client.continue_(unknown)
    new = await client.submit(oracle.spec("6-7"))
    assert new > gone
    await client.wait([new])
    if away is not None:
        await away.start()
    await linked(client, 2)
    assert {reason.code for reason in await client.why(unknown)} == {"restored"}
    await client.resume_farm()
    await until("what was stopped runs anew", partial(all_began, unknown, 4), PATIENCE_S)
    go.touch()
    await client.wait([known, unknown])

    lines = oracle.lines()
    wrong = overlaps(lines)
    for job, wanted in ((past, 3), (known, 2), (unknown, 4), (gone, 1), (new, 2)):
        names = [line.attempt for line in begun(lines, job)]
        if len(names) != wanted or len({*names}) != wanted:
            wrong.append(f"of job {job} began {names}, and it should be {wanted}")
    stopped = [line for job in (gone, unknown) for line in begun(lines, job)[: 1 if job == gone else 2]]
    ends = {line.attempt for line in lines if line.word == "end"}
    wrong += [
        f"{line.attempt}, which the backup did not know, went on" for line in stopped if line.attempt in ends
    ]
    for job in (past, known, unknown, new):
        for frame in await client.frames(job):
            wrong += judge(frame, (), [last_life(lines, frame)], ())
    wrong += [f"{line} was stopped, and is there" for line in processes_with(oracle.folder)]
    return wrong


def held(frames: str, oracle: Oracle) -> JobSpec:
    """A job whose frames live until they may go."""
    spec = oracle.spec(frames)
    (layer,) = spec.layers
    return structs.replace(spec, layers=(structs.replace(layer, argv=(*layer.argv, "held")),))


async def backed_up(farm: LocalFarm) -> Path:
    """A backup that the running master makes now."""
    folder = Path(farm.state_dir) / "backups"
    before = {*folder.glob("master-*.db")}
    os.kill(farm.master.pid, signal.SIGUSR1)
    made: list[Path] = []

    async def is_made() -> bool:
        made[:] = {*folder.glob("master-*.db")} - before
        return bool(made)

    await until("a backup is made", is_made, PATIENCE_S)
    return made[0]


def begun(lines: Iterable[Line], job: int) -> list[Line]:
    """The starts of a job's frames."""
    return [line for line in lines if line.word == "start" and line.attempt.startswith(f"{job}/")]


def last_life(lines: Iterable[Line], frame: FrameView) -> list[Line]:
    """What the attempt wrote whose result a frame has."""
    key = f"{frame.job}/{frame.layer}/{frame.index}/{frame.attempt}"
    return [line for line in lines if line.attempt == key]
