"""One long-lived farm whose daemons are killed again and again, and its oracle."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random

import trio

from drqueue import failpoints
from drqueue.client import AsyncClient
from drqueue.client.farm import Daemon, LocalFarm
from drqueue.slave import keeper_link
from tests.e2e.helpers import a_farm, processes_with, until
from tests.faults.oracle import Oracle
from tests.faults.proxy import Proxy

#: Frames that fail are meant to: no slave is avoided for them.
ENVIRONMENT = {"DRQUEUE_SICK_AFTER": "0", "DRQUEUE_AVOID_AFTER": "0", "DRQUEUE_LOG_LEVEL": "info"}
PATIENCE_S = 60.0


@asynccontextmanager
async def a_farm_at_work(
    tmp_path: Path, rng: Random, *, slaves: int = 2, cores: int = 3, most_s: float = 0.3, **env: str
) -> AsyncIterator[tuple[LocalFarm, AsyncClient, Oracle]]:
    """A farm that frames are fed to for as long as the block lasts; the block judges."""
    async with a_farm(tmp_path, slaves=slaves, cores=cores, **ENVIRONMENT, **env) as (farm, client):
        oracle = Oracle(tmp_path / "frames", client, rng, most_s)
        try:
            yield farm, client, oracle
        finally:
            # Where a test failed in the midst of it, no daemon may be there to end them.
            for daemon in farm.slaves:
                if daemon.process is None or daemon.process.poll() is not None:
                    with trio.CancelScope(shield=True):
                        await kill_keeper(daemon)


async def kill(daemon: Daemon) -> None:
    """kill -9, and collect it."""
    await daemon.end(signal.SIGKILL)


@contextmanager
def opened(pid: int, word: Path | str) -> Iterator[int]:
    """A descriptor of a process that names `word` in its command line; ProcessLookupError where it does not.

    Numbers of processes are used again: what is signalled through this is no stranger.
    """
    descriptor = os.pidfd_open(pid)
    try:
        if os.fsencode(str(word)) not in Path(f"/proc/{pid}/cmdline").read_bytes():
            raise ProcessLookupError
        yield descriptor
    except FileNotFoundError:
        raise ProcessLookupError from None
    finally:
        os.close(descriptor)


def keeper_of(daemon: Daemon) -> int:
    """The process of a slave's keeper; ProcessLookupError where there is none."""
    if not keeper_link.is_locked(daemon.state_dir):
        raise ProcessLookupError
    return int((Path(daemon.state_dir) / "keeper.lock").read_text() or "0")


async def kill_keeper(daemon: Daemon) -> None:
    """kill -9 of a slave's keeper, also of one that has hardly begun; its daemon is not to run."""
    word = f"{daemon.state_dir}\0"

    async def is_gone() -> bool:
        found = processes_with(word)
        for line in found:
            # Before it is a keeper, it is called as the daemon that made it.
            if "keeper.py" in line:
                with suppress(ProcessLookupError), opened(int(line.split()[0]), word) as descriptor:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return not found

    await until("the keeper is gone", is_gone, PATIENCE_S)


async def start_with(daemon: Daemon, points: str) -> None:
    """Start a daemon, and the keeper that it may start, with these failpoints; its end is no news."""
    former = daemon.env
    daemon.env = {**former, failpoints.VARIABLE: points}
    try:
        await daemon.start()
    finally:
        daemon.env = former
    daemon.wanted = False


async def ended(daemon: Daemon) -> int:
    """The exit status of a daemon that is about to end by itself."""
    process = daemon.process
    assert process is not None
    with trio.move_on_after(PATIENCE_S):
        return await process.wait()
    raise AssertionError(f"{daemon.name} did not end within {PATIENCE_S:g} s")


class Sayings:
    """What a daemon, and the keepers of its state directory, log from now on, or from the very start."""

    def __init__(self, daemon: Daemon, *, since_start: bool = False) -> None:
        self._paths = (Path(daemon.log_path), Path(daemon.state_dir) / "keeper.log")
        self._starts = [0 if since_start else len(_read(path)) for path in self._paths]

    def __contains__(self, words: str) -> bool:
        pairs = zip(self._paths, self._starts, strict=True)
        return any(words.encode() in _read(path)[start:] for path, start in pairs)

    async def come(self, words: str) -> None:
        """Return once these words are said."""
        await until(f"{words!r} is said in {self._paths[0]}", partial(self._has, words), PATIENCE_S)

    async def _has(self, words: str) -> bool:
        return words in self


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


async def linked(client: AsyncClient, wanted: int) -> None:
    """Return once so many slaves are linked."""
    with trio.fail_after(PATIENCE_S):
        while True:
            if sum(slave.linked for slave in await client.slaves()) >= wanted:
                return
            await trio.sleep(0.05)


async def behind(proxy: Proxy, farm: LocalFarm, name: str, cores: int) -> Daemon:
    """Another slave of the farm, on a Unix socket, whose only way to the master is that proxy."""
    daemon = farm._slave(name, ["--cores", str(cores), "--gpus", "none"])
    daemon.argv = [proxy.address if word == farm.address else word for word in daemon.argv]
    farm.slaves.append(daemon)
    await daemon.start()
    return daemon


async def joined(proxy: Proxy, farm: LocalFarm, client: AsyncClient, name: str, cores: int) -> Daemon:
    """The same over TLS; the master's lines name the proxy's address."""
    line = (await client.add_line("node", name=name)).line
    daemon = farm._slave(name, ["--cores", str(cores), "--gpus", "none"])
    daemon.argv = [proxy.address if word == farm.address else word for word in daemon.argv]
    words = ["join", line, "--name", name, "--state-dir", daemon.state_dir]
    with trio.fail_after(PATIENCE_S):
        await trio.run_process([sys.executable, "-m", "drqueue.slave", *words], env=daemon.env)
    farm.slaves.append(daemon)
    await daemon.start()
    return daemon


@asynccontextmanager
async def a_farm_behind_proxies(
    tmp_path: Path, rng: Random, slaves: int, *, most_s: float = 3.0, **env: str
) -> AsyncIterator[tuple[LocalFarm, AsyncClient, Oracle, list[Proxy]]]:
    """A farm at work, each of whose slaves has a network of its own."""
    async with (
        a_farm_at_work(tmp_path, rng, slaves=0, most_s=most_s, **env) as (farm, client, oracle),
        AsyncExitStack() as stack,
    ):
        proxies = []
        for number in range(1, slaves + 1):
            at = f"unix:{tmp_path}/network-{number}"
            proxies.append(await stack.enter_async_context(Proxy(farm.address, at)))
            await behind(proxies[-1], farm, f"s{number}", cores=3)
        await linked(client, slaves)
        yield farm, client, oracle, proxies
