"""F1: kill -9 of the master at any moment while frames run and jobs come in."""

from pathlib import Path

import pytest
import trio

from tests.faults import levels
from tests.faults.farm import Sayings, a_farm_at_work, kill, linked

pytestmark = [pytest.mark.slow, pytest.mark.timeout(levels.timeout_s())]


async def test_f1_kill_the_master(tmp_path: Path) -> None:
    """I1-I5, I13: nothing acknowledged is lost, and no frame runs twice."""
    rng = levels.rng("F1")
    kills = levels.count("F1", ci=50, nightly=1_000, release=10_000)
    async with a_farm_at_work(tmp_path, rng, slaves=3, cores=2) as (farm, client, oracle):
        sayings = Sayings(farm.master, since_start=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(oracle.feed)
            for _ in range(kills):
                # In the midst of its work with slaves, with clients, or of its start.
                when = rng.random()
                if when < 0.35:
                    await linked(client, 1)
                    await trio.sleep(rng.uniform(0.005, 0.3))
                elif when < 0.75:
                    await sayings.come(" is up ")
                    await trio.sleep(rng.uniform(0.005, 0.3))
                else:
                    await trio.sleep(rng.uniform(0.05, 0.5))
                await kill(farm.master)
                sayings = Sayings(farm.master)
                await farm.master.start()
            nursery.cancel_scope.cancel()
        assert await oracle.violations() == []
