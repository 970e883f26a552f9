"""What end-to-end tests share: a farm on real processes, jobs whose frames keep a ledger, conditions."""

import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from drqueue.client import AsyncClient, JobSpec, LayerSpec
from drqueue.client.farm import LocalFarm, local_farm
from drqueue.proto.views import JobView

LEDGER = Path(__file__).with_name("ledger.py")


@asynccontextmanager
async def a_farm(
    tmp_path: Path, slaves: int = 2, cores: int = 2, **env: str
) -> AsyncIterator[tuple[LocalFarm, AsyncClient]]:
    """A master and slaves that are linked and enabled; quick back-off unless `env` says otherwise."""
    import os

    variables = {"DRQUEUE_BACKOFF_S": "0.05", "DRQUEUE_GRACE_S": "0.5", **env}
    async with local_farm(
        str(tmp_path / "farm"), slaves=slaves, cores=cores, env={**os.environ, **variables}
    ) as (farm, client):
        await farm.ready(client)
        yield farm, client


def a_ledger_job(ledger: Path, frames: str, seconds: float, **fields: Any) -> JobSpec:
    """A job whose frames live that long and write it down."""
    argv = (sys.executable, "-S", str(LEDGER), str(ledger), str(seconds))
    layer = LayerSpec(argv=argv, frames=frames, cwd="/", **fields)
    return JobSpec(name="ledger", layers=(layer,))


def lives(ledger: Path) -> tuple[Counter[int], Counter[int], int]:
    """How often each frame started and ended, and how many overlaps there were."""
    starts: Counter[int] = Counter()
    ends: Counter[int] = Counter()
    overlaps = 0
    for line in ledger.read_text().splitlines() if ledger.exists() else []:
        word, _attempt, number = line.split()
        if word == "start":
            starts[int(number)] += 1
        elif word == "end":
            ends[int(number)] += 1
        else:
            overlaps += 1
    return starts, ends, overlaps


async def until(what: str, holds: Callable[[], Awaitable[bool]], patience_s: float = 30.0) -> None:
    """Return once a condition holds; it is looked at ten times a second, for what no event announces."""
    with trio.move_on_after(patience_s):
        while not await holds():
            await trio.sleep(0.1)
        return
    raise AssertionError(f"not within {patience_s:.0f} s: {what}")


async def wait_all(client: AsyncClient, job: int, patience_s: float = 60.0) -> JobView:
    """The job's final view; survives restarts of the master."""
    with trio.fail_after(patience_s):
        (view,) = await client.wait([job], patience_s=patience_s)
    return view
