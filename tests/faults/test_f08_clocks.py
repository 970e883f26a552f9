"""F8: wall clocks that are set wrong by an hour or by ten years, forth and back, and right again.

What a suspended machine does is in tests/slave/test_f08_suspend.py; clocks that go at another rate, and
whole hosts that sleep, are simulated (tests/sim).
"""

import sys
import time
from functools import partial
from pathlib import Path
from random import Random

import pytest
import trio
from msgspec import structs

from drqueue.client import AsyncClient, JobSpec, LayerSpec
from drqueue.client.farm import Daemon
from tests.faults import levels, wrong_clock
from tests.faults.farm import Sayings, a_farm_at_work, kill, linked
from tests.faults.oracle import Oracle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(levels.timeout_s())]

HOUR_S, YEARS_S = 3600.0, 10 * 365.25 * 86400.0
WRONG_S = (HOUR_S, -HOUR_S, YEARS_S, -YEARS_S)
#: Far above what a frame of these tests takes, far below what clocks are wrong by.
PATIENCE_S = 120.0
#: Of a frame that never ends by itself.
LIMIT_S = 4.0


class Limited(Oracle):
    """Its frames have a time limit that none of them comes near."""

    def spec(self, frames: str, *, stopped: bool = False) -> JobSpec:
        spec = super().spec(frames, stopped=stopped)
        layers = tuple(structs.replace(layer, timeout_s=PATIENCE_S) for layer in spec.layers)
        return structs.replace(spec, layers=layers)


class Clock:
    """The wall clock of one daemon and its keeper."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self._file = folder / f"clock-{daemon.name}"
        self.daemon = daemon
        self.set(0.0)
        module = daemon.argv.index("-m") + 1
        daemon.argv = [sys.executable, wrong_clock.HERE, str(self._file), *daemon.argv[module:]]

    def set(self, wrong_s: float) -> None:
        """Be wrong by so much, from one moment to the next."""
        new = self._file.with_suffix(".new")
        new.write_text(str(wrong_s))
        new.rename(self._file)

    async def restart(self) -> None:
        """kill -9 and a start, by the clock as it is."""
        sayings = Sayings(self.daemon)
        await kill(self.daemon)
        await self.daemon.start()
        await sayings.come(" is up ")


async def jump(clocks: list[Clock], times: int, rng: Random) -> None:
    """Set so many clocks; every seventh time a daemon meets the new time at its start."""
    waiting: list[tuple[Clock, float]] = []
    for nth in range(times):
        if not waiting:
            waiting = [(clock, wrong_s) for clock in clocks for wrong_s in WRONG_S]
            rng.shuffle(waiting)
        clock, wrong_s = waiting.pop()
        print(f"{clock.daemon.name} is wrong by {wrong_s:.0f} s")
        clock.set(wrong_s)
        if nth % 7 == 0:
            await clock.restart()
        await trio.sleep(rng.uniform(0.05, 0.4))
        if rng.random() < 0.3:
            clock.set(0.0)


async def ends_in_time(client: AsyncClient, job: int, began: float) -> None:
    """A frame that never ends is ended by its limit: not at once, and not in ten years."""
    with trio.fail_after(60.0):
        await client.wait([job])
    took = time.monotonic() - began
    (frame,) = await client.frames(job)
    assert (frame.state, frame.reason) == ("FAILED", "timeout"), frame
    assert took > LIMIT_S, f"it was ended after {took:.1f} s"


async def test_f8_wrong_wall_clocks(tmp_path: Path) -> None:
    """I1-I5, I9, I11: no job, attempt or log is too old, no limit misfires, and nothing waits for a date."""
    rng = levels.rng("F8")
    jumps = levels.count("F8", ci=20, nightly=500, release=2_000)
    async with a_farm_at_work(tmp_path, rng, slaves=1, cores=3) as (farm, client, _):
        oracle = Limited(tmp_path / "limited", client, rng, 1.0)
        clocks = [Clock(daemon, tmp_path) for daemon in farm.daemons]
        for clock in clocks:
            await clock.restart()
        await linked(client, len(farm.slaves))
        # What is there before any clock is wrong would be the first to be too old.
        old = await oracle.submit(5)
        await client.wait([old])
        layer = LayerSpec(argv=("sleep", "86400"), timeout_s=LIMIT_S, cwd="/", retries=0)
        endless, began = await client.submit(JobSpec(name="endless", layers=(layer,))), time.monotonic()
        async with trio.open_nursery() as feeding:
            feeding.start_soon(partial(oracle.feed, live=6))
            async with trio.open_nursery() as jumping:
                jumping.start_soon(ends_in_time, client, endless, began)
                jumping.start_soon(jump, clocks, jumps, rng)
            feeding.cancel_scope.cancel()
        await oracle.finished()
        # Old attempts go soon after a start, and old jobs as soon as the clock is read.
        clocks[0].set(YEARS_S)
        await clocks[0].restart()
        await linked(client, len(farm.slaves))
        assert await oracle.violations(logs=30) == []
        for job in oracle.told.jobs:
            for frame in await client.frames(job):
                assert len(await client.attempts(job, frame.number)) == frame.attempt, frame
