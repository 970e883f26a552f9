"""A farm on this machine: a master and some slaves as child processes, for `up`, `demo`, benches and tests.

Rules: daemons run in sessions of their own, so that a Ctrl-C reaches only whoever runs the farm, who then
ends them in order: slaves with their frames and keepers first, the master last. A daemon that ends unasked
ends the farm. Sockets only: any number of farms live side by side.
"""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from drqueue.client.async_client import AsyncClient, connect
from drqueue.client.errors import FarmFailed
from drqueue.proto.views import SlaveView
from drqueue.unixpath import connect_unix

START_S = 60.0
END_S = 40.0
LOG_LINES = 5
#: What would give the daemons another place or name than they are meant to have.
_NOT_INHERITED = (
    "STATE_DIR", "SOCKET", "MASTER", "NAME", "CORES", "MEMORY_MB", "DISK_MB", "CONTROL", "ENABLED",
    "MAX_CPUS", "POOL",
)  # fmt: skip
#: What is meant for the machine's services: two farms cannot listen at one port.
_OF_SERVICES = frozenset({"DRQUEUE_LISTEN", "DRQUEUE_ADDRESS", "DRQUEUE_CONTROL_LISTEN"})


@dataclass(eq=False)
class Daemon:
    """One daemon: how it is started, its process while it runs, where it logs."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log_path: str
    state_dir: str
    started: Callable[["Daemon", trio.Process], None]
    process: trio.Process | None = None
    wanted: bool = False
    log_start: int = 0

    @property
    def pid(self) -> int:
        """The running process's number; FarmFailed where there is none."""
        if self.process is None:
            raise FarmFailed(f"{self.name} does not run")
        return self.process.pid

    async def start(self) -> None:
        """Start the process; its output is appended to its log."""
        log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self.log_start = os.lseek(log, 0, os.SEEK_END)
            self.process = await trio.lowlevel.open_process(
                list(self.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self.env),
                start_new_session=True,
            )
        finally:
            os.close(log)
        # Not before: the end of the former process may not have been seen to yet.
        self.wanted = True
        self.started(self, self.process)

    async def end(self, sign: signal.Signals = signal.SIGTERM, patience_s: float = END_S) -> int | None:
        """Send a signal and wait for the end; KILL after `patience_s` seconds. The exit status."""
        self.wanted = False
        process = self.process
        if process is None:
            return None
        process.send_signal(sign)
        with trio.move_on_after(patience_s) as patience:
            await process.wait()
        if patience.cancelled_caught:
            process.kill()
            await process.wait()
        return process.returncode

    def last_words(self) -> str:
        """The last lines of what this process logged."""
        with open(self.log_path, "rb") as file:
            file.seek(max(self.log_start, file.seek(0, os.SEEK_END) - 16_384))
            lines = file.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES:])


class LocalFarm:
    """The daemons of one farm; `local_farm` makes, watches and ends it."""

    def __init__(
        self, state_dir: str, slaves: int, cores: int | None, env: Mapping[str, str], nursery: trio.Nursery
    ) -> None:
        self.state_dir = os.path.abspath(state_dir)
        self.address = f"unix:{os.path.join(self.state_dir, 'master.sock')}"
        self.env = daemon_env(env)
        self.ended_unasked = trio.Event()
        self.obituary = ""
        self._nursery = nursery
        self.master = self._daemon("master", self.state_dir, "drqueue.master", ())
        offered = ["--cores", str(cores or max(1, len(os.sched_getaffinity(0)) // max(1, slaves)))]
        if slaves > 1:
            memory_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
            offered += ["--memory", str(max(1, memory_mb // slaves))]
            offered += ["--disk", str(_disk_free_mb(self.state_dir) // slaves)]
        # A GPU is one slave's: the first has them all.
        self.slaves = [
            self._slave(f"s{number}", [*offered, *(("--gpus", "none") if number > 1 else ())])
            for number in range(1, slaves + 1)
        ]

    @property
    def daemons(self) -> list[Daemon]:
        """All of them, in the order in which they are started."""
        return [self.master, *self.slaves]

    async def start(self) -> None:
        """Start every daemon. FarmFailed where another master lives in the state directory."""
        os.makedirs(self.state_dir, mode=0o700, exist_ok=True)
        try:
            connect_unix(self.address.removeprefix("unix:"), blocking=False).close()
        except BlockingIOError:
            taken = True
        except OSError:
            taken = False
        else:
            taken = True
        if taken:
            raise FarmFailed(f"a master runs in {self.state_dir} already")
        for daemon in self.daemons:
            await daemon.start()

    async def ready(self, client: AsyncClient) -> list[SlaveView]:
        """Return once every slave is linked and enabled; those that somebody had disabled are enabled."""
        mine = {os.path.join(slave.state_dir, "") for slave in self.slaves if slave.wanted}
        views: list[SlaveView] = []
        with trio.move_on_after(START_S):
            async with client.watch(slaves=True) as changes:
                while True:
                    views = [view for view in await client.slaves() if _home(view) in mine and view.linked]
                    for view in views:
                        if not view.limits.enabled:
                            await client.enable_slave(view.name)
                    if len(views) == len(mine) and all(view.limits.enabled for view in views):
                        return views
                    await anext(changes)
        linked = ", ".join(view.name for view in views) or "none"
        raise FarmFailed(f"of {len(mine)} slaves only these were ready within {START_S:.0f} s: {linked}")

    async def end(self) -> None:
        """End slaves (with their frames and keepers), then the master."""
        async with trio.open_nursery() as nursery:
            for slave in self.slaves:
                nursery.start_soon(slave.end)
        await self.master.end()

    def _daemon(self, name: str, state_dir: str, module: str, options: Sequence[str]) -> Daemon:
        argv = [sys.executable, "-m", module, "--state-dir", state_dir, *options]
        log_path = os.path.join(self.state_dir, f"{name}.log")
        return Daemon(name, argv, self.env, log_path, state_dir, self._started)

    def _slave(self, name: str, offered: Sequence[str]) -> Daemon:
        state_dir = os.path.join(self.state_dir, f"slave-{name}")
        options = ["--name", name, "--master", self.address, *offered, "--kill-frames-on-exit"]
        return self._daemon(f"slave-{name}", state_dir, "drqueue.slave", options)

    def _started(self, daemon: Daemon, process: trio.Process) -> None:
        self._nursery.start_soon(self._attend, daemon, process)

    async def _attend(self, daemon: Daemon, process: trio.Process) -> None:
        await process.wait()
        if daemon.process is process and daemon.wanted and not self.obituary:
            self.obituary = _obituary(daemon, process.returncode)
            self.ended_unasked.set()


@asynccontextmanager
async def local_farm(
    state_dir: str,
    *,
    slaves: int = 1,
    cores: int | None = None,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[LocalFarm, AsyncClient]]:
    """A running farm (its slaves perhaps not linked yet, see `ready`) and a client of it.

    `cores` are those that each slave offers (default: the machine's, divided). `env` is the daemons'
    (default: this process's, but for where services listen). All is ended at the end.
    FarmFailed where a daemon ends unasked; `Daemon.end` and `Daemon.start` are for those who mean it.
    """
    if env is None:
        env = {key: value for key, value in os.environ.items() if key not in _OF_SERVICES}
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        farm = LocalFarm(state_dir, slaves, cores, env, nursery)
        with trio.CancelScope() as body:
            nursery.start_soon(_cancel_after, farm.ended_unasked, body)
            try:
                await farm.start()
                async with connect(farm.address, patience_s=START_S) as client:
                    yield farm, client
            except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (raised again below)
                failure = error
            finally:
                with trio.CancelScope(shield=True):
                    await farm.end()
        nursery.cancel_scope.cancel()
    # A daemon's end explains whatever else went wrong.
    if farm.obituary:
        raise FarmFailed(farm.obituary) from failure
    if failure is not None:
        raise failure


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def daemon_env(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a local farm's daemons: frames get the PATH of whoever starts the farm."""
    kept = {key: value for key, value in env.items() if key != "NOTIFY_SOCKET"}
    for field_name in _NOT_INHERITED:
        kept.pop(f"DRQUEUE_{field_name}", None)
    # Whoever types is trusted with what the frames may do: they are theirs.
    kept.setdefault("DRQUEUE_RUN_AS", "self")
    if kept.get("PATH"):
        kept.setdefault("DRQUEUE_PATH", kept["PATH"])
    return kept


def _disk_free_mb(folder: str) -> int:
    """Room where a folder lies, or will lie once it is made (MB)."""
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    info = os.statvfs(folder)
    return info.f_bavail * info.f_frsize // 2**20


def _home(view: SlaveView) -> str:
    """The state directory of a slave on this machine, as its control socket tells."""
    return os.path.join(os.path.dirname(view.control.removeprefix("unix:")), "")


def _obituary(daemon: Daemon, status: int | None) -> str:
    how = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
    words = daemon.last_words()
    said = f"; its last words:\n{words}" if words else ""
    return f"{daemon.name} ended with {how} (log: {daemon.log_path}){said}"
