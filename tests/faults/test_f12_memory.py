"""F12: frames that take more memory than there is, beside others, on a slave that is short of it, too.

How the kernel's counts are read is in tests/slave/test_oom.py. Here slave, keeper and frames share a small
cgroup v1, which needs root; where frames have cgroups v2 with a limit of their own, the slave is not at risk.
"""

import signal
from functools import partial
from pathlib import Path

import pytest
import trio

from drqueue.client import AsyncClient, JobSpec, LayerSpec
from drqueue.client.farm import Daemon
from drqueue.proto.views import FrameView
from tests.faults import levels
from tests.faults.farm import PATIENCE_S, a_farm_at_work, keeper_of, linked
from tests.slave.cgroup_harness import eat, little_memory, within

pytestmark = [pytest.mark.slow, pytest.mark.timeout(levels.timeout_s())]

MOST = 192 << 20


def eater(most: int) -> list[str]:
    """A command that takes so much memory once the keeper has looked at the kernel's count in its life.

    Of what is killed sooner, that memory ran out is no more than likely: that is what is told then.
    """
    *words, text = eat(most)
    return [*words, f"import time; time.sleep(0.6); {text}"]


async def the_frame(client: AsyncClient, *argv: str) -> FrameView:
    """What became of a frame."""
    layer = LayerSpec(argv=argv, cwd="/", retries=0)
    job = await client.submit(JobSpec(name="eater", layers=(layer,)))
    with trio.fail_after(PATIENCE_S):
        await client.wait([job])
    (frame,) = await client.frames(job)
    return frame


async def confine(daemon: Daemon, group: Path) -> None:
    """Start it anew, with all that comes of it, in a cgroup."""
    await daemon.end()
    daemon.argv = [*within(group), *daemon.argv]
    await daemon.start()


async def test_f12_out_of_memory(tmp_path: Path) -> None:
    """I2-I4, I15: only the frame dies that takes too much, and the farm says why; its peak is no guess."""
    rng = levels.rng("F12")
    eaters = levels.count("F12", ci=5, nightly=100, release=500)
    with little_memory(MOST) as group:
        async with a_farm_at_work(tmp_path, rng, slaves=1, cores=3) as (farm, client, oracle):
            (slave,) = farm.slaves
            await confine(slave, group)
            await linked(client, 1)
            async with trio.open_nursery() as feeding:
                feeding.start_soon(partial(oracle.feed, live=6))
                # Told apart: nothing has been killed for want of memory yet.
                frame = await the_frame(client, "/bin/sh", "-c", "kill -KILL $$")
                assert (frame.state, frame.signal, frame.reason) == ("FAILED", signal.SIGKILL, "")
                pids = slave.pid, keeper_of(slave)
                for _ in range(eaters):
                    await trio.sleep(rng.uniform(0, 0.3))
                    shell = rng.random() < 0.5
                    before = ("/bin/sh", "-c", '"$0" "$@"; exit $?') if shell else ()
                    frame = await the_frame(client, *before, *eater(rng.randrange(2, 10) * MOST))
                    died = (frame.code, frame.signal)
                    assert (frame.state, frame.reason) == ("FAILED", "oom"), frame
                    assert died == ((137, None) if shell else (None, signal.SIGKILL)), frame
                    (attempt,) = await client.attempts(frame.job, frame.number)
                    assert MOST / 4 < attempt.peak_mb * 2**20 <= 1.05 * MOST, attempt
                feeding.cancel_scope.cancel()
            assert await oracle.violations(logs=30) == []
            assert (slave.pid, keeper_of(slave)) == pids
