"""F3: kill -9 of slave daemons while their frames run and end."""

import time
from pathlib import Path

import pytest
import trio

from drqueue.client.farm import Daemon
from tests.faults import levels
from tests.faults.farm import Sayings, a_farm_at_work, kill

pytestmark = [pytest.mark.slow, pytest.mark.timeout(levels.timeout_s())]


async def test_f3_kill_the_slave(tmp_path: Path) -> None:
    """I3, I4: frames live on without their daemon, each once, with its own exit code and its whole log."""
    rng = levels.rng("F3")
    kills = levels.count("F3", ci=50, nightly=1_000, release=5_000)
    slaves = 3
    async with a_farm_at_work(tmp_path, rng, slaves=slaves, cores=2) as (farm, _client, oracle):
        moments: list[float] = []

        async def kill_one(daemon: Daemon, times: int) -> None:
            for _ in range(times):
                moments.append(time.clock_gettime(time.CLOCK_BOOTTIME))
                await kill(daemon)
                # What ends meanwhile, nobody sees but the keeper.
                await trio.sleep(rng.uniform(0, 0.4))
                sayings = Sayings(daemon)
                await daemon.start()
                if rng.random() < 0.75:
                    await sayings.come("linked to the master")
                await trio.sleep(rng.uniform(0, 0.5))

        async with trio.open_nursery() as feeding:
            feeding.start_soon(oracle.feed)
            async with trio.open_nursery() as killing:
                for nth, daemon in enumerate(farm.slaves):
                    killing.start_soon(kill_one, daemon, (kills + nth) // slaves)
            feeding.cancel_scope.cancel()
        assert await oracle.violations() == []
        struck = sum(oracle.living(moment) for moment in moments)
        print(f"{struck} frames ran as a daemon was killed")
        assert struck >= kills / 4
