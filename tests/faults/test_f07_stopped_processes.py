"""F7: SIGSTOP and SIGCONT of the master, slave daemons, keepers and frames."""

import signal
from pathlib import Path

import pytest
import trio

from drqueue.client import AsyncClient
from tests.faults import levels
from tests.faults.farm import a_farm_at_work, keeper_of, opened

pytestmark = [pytest.mark.slow, pytest.mark.timeout(levels.timeout_s())]

#: A stop may be longer than the silence that ends a link.
HASTY = {"DRQUEUE_BEAT_S": "0.3", "DRQUEUE_SILENCE_S": "0.9"}


async def stop(pid: int, word: Path | str, seconds: float) -> None:
    """Let a process stand still for so long, if it is still there; it names `word` in its command line."""
    try:
        with opened(pid, word) as descriptor:
            signal.pidfd_send_signal(descriptor, signal.SIGSTOP)
            try:
                await trio.sleep(seconds)
            finally:
                signal.pidfd_send_signal(descriptor, signal.SIGCONT)
    except ProcessLookupError:
        return  # it ended just then


async def of_a_frame(client: AsyncClient, name: str) -> int:
    """The process of some frame that runs on a slave."""
    with trio.fail_after(30):
        while True:
            for frame in (await client.slave(name)).running:
                if frame.pid:
                    return frame.pid
            await trio.sleep(0.05)


async def test_f7_stopped_processes(tmp_path: Path) -> None:
    """I3, I11: nobody takes who stands still for dead while a lease runs, and all goes on afterwards."""
    rng = levels.rng("F7")
    stops = levels.count("F7", ci=10, nightly=200, release=1_000)
    longest_s = {"ci": 2.0, "nightly": 20.0, "release": 120.0}[levels.level()]
    # A keeper that says nothing for much longer is killed, and its frames are looked after without it.
    keeper_s = min(longest_s, 40.0)
    async with a_farm_at_work(tmp_path, rng, **HASTY) as (farm, client, oracle):
        async with trio.open_nursery() as feeding:
            feeding.start_soon(oracle.feed)
            await of_a_frame(client, "s1")
            await of_a_frame(client, "s2")

            async def one_after_another(whose: str, times: int) -> None:
                for _ in range(times):
                    await trio.sleep(rng.uniform(0, 0.3))
                    match whose:
                        case "master":
                            await stop(farm.master.pid, farm.state_dir, rng.uniform(0.1, longest_s))
                        case "slave":
                            slave = rng.choice(farm.slaves)
                            await stop(slave.pid, slave.state_dir, rng.uniform(0.1, longest_s))
                        case "keeper":
                            slave = rng.choice(farm.slaves)
                            await stop(keeper_of(slave), slave.state_dir, rng.uniform(0.1, keeper_s))
                        case "frame":
                            frame = await of_a_frame(client, rng.choice(("s1", "s2")))
                            await stop(frame, oracle.folder, rng.uniform(0.1, longest_s))

            async with trio.open_nursery() as stopping:
                for nth, whose in enumerate(("frame", "keeper", "slave", "master")):
                    stopping.start_soon(one_after_another, whose, (stops + nth) // 4)
            feeding.cancel_scope.cancel()
        assert await oracle.violations() == []
