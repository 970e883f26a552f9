"""A farm on this machine whose slaves and client are linked to the master by TLS, as over a network."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from bench.tls import free_port
from drqueue.client import AsyncClient
from drqueue.client.async_client import connect
from drqueue.client.farm import LocalFarm, local_farm
from drqueue.client.login import log_in

HOST = "127.0.0.1"
_READY_S = 60.0


@asynccontextmanager
async def tls_farm(
    state_dir: str, *, slaves: int, cores: int
) -> AsyncIterator[tuple[LocalFarm, AsyncClient]]:
    """The same as `local_farm`, ready, but for what the links go over."""
    env = {
        **os.environ,
        "DRQUEUE_LISTEN": f"{HOST}:{free_port()}",
        # Nobody asks them; one of them gets it.
        "DRQUEUE_CONTROL_LISTEN": f"{HOST}:{free_port()}",
        "DRQUEUE_ACCESS": os.path.join(state_dir, "access-of-bench.json"),
    }
    async with local_farm(state_dir, slaves=slaves, cores=cores, env=env) as (farm, admin):
        await farm.ready(admin)
        nodes = (await admin.add_line("node", uses=slaves)).line
        for slave in farm.slaves:
            await slave.end()
            own = ["--name", slave.name, "--state-dir", slave.state_dir]
            join = [sys.executable, "-m", "drqueue.slave", "join", nodes, *own]
            await trio.run_process(join, env=slave.env, capture_stdout=True, capture_stderr=True)
            slave.argv = [env["DRQUEUE_LISTEN"] if word == farm.address else word for word in slave.argv]
            await slave.start()
        await log_in((await admin.add_line("user", name="bench")).line, env)
        with trio.fail_after(_READY_S):
            await _linked(admin, slaves)
        async with connect(env["DRQUEUE_LISTEN"], patience_s=_READY_S, env=env) as client:
            yield farm, client


async def _linked(admin: AsyncClient, count: int) -> None:
    """Return once so many slaves are linked by TLS."""
    async with admin.watch(slaves=True) as changes:
        while True:
            views = await admin.slaves()
            if sum(view.linked and not view.control.startswith("unix:") for view in views) == count:
                return
            await anext(changes)
