"""F16: two masters over one state directory, over two copies of it, and one over yesterday's backup."""

import shutil
import signal
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from random import Random

import pytest
import trio

from drqueue.client import AsyncClient, connect
from drqueue.client.farm import Daemon, LocalFarm
from drqueue.proto.views import FrameView
from tests.e2e.helpers import Cli, processes_with, until
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
                    both = {second.name: await start_unwatched(second), first.name: await start_unwatched(first)}
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
    async with a_farm_at_work(tmp_path, rng, most_s=4.0) as (farm, client, oracle):
        violations = 0
        for number in range(times):
            found = await restore_once(farm, client, oracle, rng, tmp_path / f"yesterday{number}.db")
            print("\n".join(found))
            violations += len(found)
        print(f"{violations} violations")
        assert not violations
        words = Counter(line.word for line in oracle.lines())
        assert words["start"] - words["end"] >= times, "nothing that ran was stopped"


async def restore_once(
    farm: LocalFarm, client: AsyncClient, oracle: Oracle, rng: Random, backup: Path
) -> list[str]:
    """A backup, some work, the backup again; what is wrong once all is over."""
    cli = Cli(Path(farm.state_dir), backup.parent)

    async def command(*words: object, module: str = "drqueue") -> None:
        await trio.to_thread.run_sync(partial(cli.run, *words, module=module))

    async def have_begun(job: int, wanted: int) -> bool:
        return len(begun(oracle.lines(), job)) >= wanted

    async def some_are_done() -> bool:
        done[:] = [frame.number for frame in await client.frames(old) if frame.state == "DONE"]
        return bool(done)

    # Of their numbers, 8 to 12 are short, one shorter than the other, and 13 to 18 are long.
    old, done = await client.submit(oracle.spec("8-18")), list[int]()
    await until("all slots are taken", partial(have_begun, old, 6), PATIENCE_S)
    await client.stop(old)
    await until("some frames are done", some_are_done, PATIENCE_S)
    await command("backup", backup, module="drqueue.master")
    lost = await client.submit(oracle.spec("13-14"))
    await until("a job began since", partial(have_begun, lost, 1), PATIENCE_S)
    await client.continue_(old)
    await until("others began since", partial(have_begun, old, 8), PATIENCE_S)
    away = rng.choice([None, *farm.slaves])
    if away is not None:
        await kill(away)
    await farm.master.end(rng.choice((signal.SIGTERM, signal.SIGKILL)))
    await command("restore", backup, module="drqueue.master")
    restored_at = len(oracle.lines())
    await farm.master.start()
    await client.continue_(old)
    new = await client.submit(oracle.spec("11-12"))
    assert new > lost
    await client.wait([new])
    if away is not None:
        await away.start()
    await linked(client, 2)
    assert {reason.code for reason in await client.why(old)} == {"restored"}
    held = oracle.lines()[restored_at:]
    await command("farm", "resume")
    await client.wait([old])

    lines = oracle.lines()
    wrong = overlaps(lines)
    times = Counter(line.attempt for line in lines if line.word == "start")
    wrong += [f"{attempt} began {count} times" for attempt, count in times.items() if count > 1]
    wrong += [f"{line.attempt} began while held back" for line in begun(held, old)]
    wrong += [f"{line.attempt}, of a job that is gone, began" for line in begun(lines[restored_at:], lost)]
    again = Counter(line.number for line in begun(lines, old))
    wrong += [f"frame {number} was done, and ran again" for number in done if again[number] > 1]
    for job in (old, new):
        for frame in await client.frames(job):
            wrong += judge(frame, (), [last_life(lines, frame)], ())
    wrong += [f"{line} was stopped, and is there" for line in processes_with(oracle.folder)]
    print(f"{len(again)} frames, of which {sum(count > 1 for count in again.values())} began more than once")
    return wrong


def begun(lines: Iterable[Line], job: int) -> list[Line]:
    """The starts of a job's frames."""
    return [line for line in lines if line.word == "start" and line.attempt.startswith(f"{job}/")]


def last_life(lines: Iterable[Line], frame: FrameView) -> list[Line]:
    """What the attempt wrote whose result a frame has."""
    key = f"{frame.job}/{frame.layer}/{frame.index}/{frame.attempt}"
    return [line for line in lines if line.attempt == key]
