"""F18: the master is killed, and all of a large farm's slaves come back at once.

They are simulated (bench/simslaves.py), on real TLS links from an address each; what they run is no process.
They count what they are ordered to start and what was over, however often they say it.
"""

import math
from pathlib import Path

import pytest
import trio

from bench.simulated import Slaves, simulated
from bench.tls import joined
from drqueue.client import JobSpec, LayerSpec
from tests.e2e.helpers import a_farm, until
from tests.faults import levels
from tests.faults.farm import kill
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(levels.timeout_s())]

#: Generous: how soon all are back is measured by `bench links`, on a machine that does nothing else.
BACK_S = 120.0
#: Seconds that a frame takes on average: many outlast the time without a master.
FRAME_S = 8.0


async def test_f18_i2_i3_all_slaves_come_back_and_every_frame_is_done_once(tmp_path: Path) -> None:
    """Kill -9 while every slave has a frame; they go on, end, and are told once there is a master again."""
    rng = levels.rng("F18")
    kills = levels.count("F18", ci=1, nightly=20, release=50)
    slaves = {"ci": 100, "nightly": 500, "release": 1000}[levels.level()]
    frames = slaves * (kills + 1)
    listen = f"127.0.0.1:{free_port()}"
    async with (
        a_farm(tmp_path, slaves=0, DRQUEUE_LISTEN=listen) as (farm, client),
        trio.open_nursery() as nursery,
    ):
        doors = await joined(client, "slave", slaves)
        sims: Slaves = await nursery.start(simulated, doors, math.ceil(slaves / 500), FRAME_S, 0.0)
        await back(sims, slaves)
        argv = ("/bin/true",)
        job = await client.submit(
            JobSpec(name="storm", layers=(LayerSpec(argv=argv, frames=f"1-{frames}", retries=0),))
        )
        for nth in range(kills):
            await counted(sims, slaves * (2 * nth + 1))
            await trio.sleep(rng.uniform(0, 0.5))
            await kill(farm.master)
            await all_gone(sims)
            await trio.sleep(rng.uniform(0, 2.0))
            await farm.master.start()
            await back(sims, slaves)
            print(f"{sims.failed} dials failed so far")
        with trio.fail_after(BACK_S + FRAME_S * (kills + 1)):
            (view,) = await client.wait([job], patience_s=BACK_S)
        assert view.counts.done == view.counts.total == frames
        attempts = {(frame.attempt, frame.state) for frame in await client.frames(job)}
        print(f"attempts by number and state: {attempts}")
        assert {view.linked for view in await client.slaves()} == {True}
        # A start and an end of each frame, and no more.
        await counted(sims, 2 * frames)
        assert sims.events == 2 * frames
        nursery.cancel_scope.cancel()


async def back(sims: Slaves, wanted: int) -> None:
    """Return once all are registered."""
    with trio.fail_after(BACK_S):
        await sims.until(wanted)


async def all_gone(sims: Slaves) -> None:
    """Return once all links are known to be lost: `back` is to count those that came anew."""

    async def none() -> bool:
        return sims.registered == 0

    await until("all links are lost", none, BACK_S)


async def counted(sims: Slaves, least: int) -> None:
    """Return once so many starts and ends are told, and all that there were until then."""

    async def told() -> bool:
        return sims.events >= least

    await until(f"{least} starts and ends", told, BACK_S)
    used = sims.cpu_s

    async def told_again() -> bool:
        return sims.cpu_s > used

    await until("all are told", told_again, BACK_S)
