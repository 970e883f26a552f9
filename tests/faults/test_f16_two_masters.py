"""F16: two masters over one state directory, over two copies of it, and one over yesterday's backup."""

import shutil
import signal
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import trio

from drqueue.client import AsyncClient, connect
from drqueue.client.farm import Daemon, LocalFarm
from tests.e2e.helpers import until
from tests.faults import ledger, levels
from tests.faults.farm import (
    PATIENCE_S,
    Sayings,
    a_farm_at_work,
    a_farm_behind_proxies,
    ended,
    kill,
    linked,
    start_with,
)
from tests.faults.oracle import Oracle, overlaps

pytestmark = [pytest.mark.slow, pytest.mark.timeout(levels.timeout_s())]

REFUSED = "is in use by another master, pid "


async def start_unwatched(daemon: Daemon) -> Sayings:
    """Start a daemon whose end is no news; what it says from now on."""
    sayings = Sayings(daemon)
    await daemon.start()
    daemon.wanted = False
    return sayings


async def master_of(farm: LocalFarm, state_dir: Path, name: str) -> Daemon:
    """Another master, not started."""
    return farm._daemon(name, str(state_dir), "drqueue.master", ())


# -- one directory -----------------------------------------------------------------------------------------


async def test_f16_i17_of_two_masters_of_one_directory_one_is_refused(tmp_path: Path) -> None:
    """A second one beside one that runs, and two at once after a kill -9: one serves, and nothing is lost."""
    rng = levels.rng("F16-lock")
    times = levels.count("F16-lock", ci=2, nightly=50, release=50)
    async with a_farm_at_work(tmp_path, rng, slaves=1, cores=2) as (farm, client, oracle):
        async with trio.open_nursery() as feeding:
            feeding.start_soon(oracle.feed)
            for number in range(times):
                second = await master_of(farm, Path(farm.state_dir), f"second{number}")
                first_said = Sayings(farm.master)
                said = await start_unwatched(second)
                if number % 2:
                    # As far as it comes: the lock is free from some moment on.
                    await trio.sleep(rng.uniform(0, 0.3))
                    await kill(farm.master)
                    first_said = await start_unwatched(farm.master)
                    farm.master, second, said, first_said = await the_one(farm.master, second, said, first_said)
                assert await ended(second) == 1
                assert f"{REFUSED}{farm.master.pid}" in said
                assert " is up " not in said
                farm.master.wanted = True
                await linked(client, 1)
            feeding.cancel_scope.cancel()
        assert await oracle.violations() == []


async def the_one(one: Daemon, other: Daemon, said: Sayings, one_said: Sayings) -> tuple:
    raise NotImplementedError
