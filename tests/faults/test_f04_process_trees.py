"""F4: frames whose processes get away by double forks, new sessions, ignored TERM, emptied environments."""

import os
import sys
import time
import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import trio

from drqueue.client import AsyncClient
from drqueue.proto.model import JobSpec, LayerSpec
from tests.e2e.helpers import a_farm, until
from tests.faults import levels
from tests.slave.cgroup_harness import needs_cgroups
from tests.slave.supervised import come
from tests.slave.tree_harness import HERE, living, marked

pytestmark = [pytest.mark.slow, pytest.mark.timeout(levels.timeout_s())]

#: From the order to kill a frame to the end of the last of its processes, the grace below included (s).
DEAD_S = 2.0
SETTINGS = {"DRQUEUE_GRACE_S": "0.05", "DRQUEUE_SICK_AFTER": "0", "DRQUEUE_AVOID_AFTER": "0"}
PYTHON = (sys.executable, "-I", "-S")
#: Frames by their number of processes, and where these are told.
TREES = (
    (11, "pids", ("tree_escape.py",)),
    (11, "pids", ("tree_eleven.py", "--ignore-term")),
    (300, "count", ("tree_bomb.py", "300")),
)


def a_job(script: Sequence[str], folder: Path, token: str) -> JobSpec:
    argv = (*PYTHON, str(HERE / script[0]), *script[1:])
    layer = LayerSpec(argv=argv, frames="1", cwd=str(folder), env={"DRQUEUE_TEST": token}, retries=0)
    return JobSpec(name=script[0], layers=(layer,))


def survivors(token: str, folder: Path) -> list[int]:
    """What was started with the token, or names the folder: who emptied their environment were given it."""
    named = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.fsencode(folder) in Path(f"/proc/{name}/cmdline").read_bytes():
                named.append(int(name))
        except OSError:
            continue
    return sorted({*marked(token), *living(named)})


def born(told: Path, size: int) -> bool:
    """Whether so many of a tree have noted that they are there, by a line or a byte each."""
    data = told.read_bytes() if told.exists() else b""
    return (data.count(b"\n") or len(data)) >= size


async def its_state_is(client: AsyncClient, job: int, state: str) -> None:
    """Return once the job's one frame is in that state."""

    async def it_is() -> bool:
        return (await client.frames(job))[0].state == state

    await until(f"the frame of job {job} is {state}", it_is)


async def all_dead(token: str, folder: Path) -> float:
    """How long it took until nothing was left."""
    began = time.monotonic()
    while left := survivors(token, folder):
        assert time.monotonic() - began < DEAD_S, f"{len(left)} live on: {left}"
        await trio.sleep(0.01)
    return time.monotonic() - began


@pytest.mark.parametrize("cgroups", ["auto", "off"])
async def test_f4_process_trees(tmp_path: Path, cgroups: str) -> None:
    """I12: nothing of a killed frame is alive two seconds later, whole or half born, and no other frame dies.

    Where frames have no cgroups, no other one runs: some of these trees cannot be told from it.
    """
    rng = levels.rng(f"F4 {cgroups}")
    trees = levels.count("F4", ci=6, nightly=500, release=5_000)
    took: list[float] = []
    async with a_farm(tmp_path, slaves=1, cores=4, DRQUEUE_CGROUPS=cgroups, **SETTINGS) as (_, client):
        neighbour = uuid.uuid4().hex
        if cgroups == "auto":
            needs_cgroups()
            layer = LayerSpec(argv=("sleep", "86400"), cwd="/", env={"DRQUEUE_TEST": neighbour})
            await its_state_is(client, await client.submit(JobSpec(name="b", layers=(layer,))), "RUNNING")
        for number in range(trees):
            size, told, script = TREES[number % len(TREES)]
            folder, token = tmp_path / f"tree-{number}", uuid.uuid4().hex
            folder.mkdir()
            job = await client.submit(a_job(script, folder, token))
            await come(partial(born, folder / told, size if rng.random() < 0.5 else 1))
            await trio.sleep(rng.uniform(0, 0.2))
            await client.frame_kill(job, "1")
            took.append(await all_dead(token, folder))
            await its_state_is(client, job, "FAILED")
            assert survivors(token, folder) == []
            await client.delete(job)
        if cgroups == "auto":
            assert len(marked(neighbour)) == 1
            await client.hard_stop((await client.jobs())[0].id)
    print(f"{trees} trees; the slowest was gone after {max(took):.2f} s")
