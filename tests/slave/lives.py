"""Lives of one slave's daemon: its frames, and their keeper, outlive each of them."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio

from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Report
from drqueue.settings import Address, SlaveSettings
from drqueue.slave.daemon import Daemon
from tests.slave.scripted_master import MasterLink, ScriptedMaster
from tests.slave.test_daemon import Program, until


@asynccontextmanager
async def a_life(state_dir: Path, master: ScriptedMaster, **fields: object) -> AsyncIterator[Daemon]:
    """A daemon inside the test's process; what it started runs on."""
    settings = SlaveSettings(
        name="s", state_dir=str(state_dir), **{"cores": 4, "grace_s": 2.0, "run_as": "self", **fields}
    )  # type: ignore[arg-type]
    daemon = Daemon(settings, [Address("unix", path=master.path)])
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: daemon.serve(task_status=task_status))
        try:
            yield daemon
        finally:
            daemon.stop()


class Installed(Program):
    """`drqueue-slave` as it is installed in a folder. The `last` of a test takes its frames along."""

    def __init__(self, folder: Path, state_dir: Path, master: ScriptedMaster, *, last: bool = True) -> None:
        super().__init__(state_dir, master, *["--kill-frames-on-exit"] * last)
        self._folder = folder

    def start(self) -> None:
        """Start it (again): what lies in the working directory is what Python finds first."""
        assert self._process is None
        self._process = subprocess.Popen(self._argv, cwd=self._folder)

    async def killed(self) -> None:
        """kill -9."""
        assert await self.end(signal.SIGKILL) == -signal.SIGKILL


@contextmanager
def ended_well(program: Program) -> Iterator[Program]:
    """Its frames and its keeper are gone afterwards, whatever becomes of the test."""
    try:
        yield program
    finally:
        program.clean_up()


async def all_started(link: MasterLink, keys: Iterable[AttemptKey]) -> None:
    """Return once the starts of all of these are told, however many reports they come in."""
    left = set(keys)
    while left:
        report = await link.hear(Report)
        assert isinstance(report, Report)
        left -= {item.key for item in report.started}


def keeper_of(state_dir: Path) -> int:
    """The process id of the keeper that took the lock last."""
    return int((state_dir / "keeper.lock").read_text())


async def kill_keeper(state_dir: Path) -> None:
    """kill -9 of the keeper: for one that has lingered in vain, or was killed together with its daemon."""
    pid = keeper_of(state_dir)
    os.kill(pid, signal.SIGKILL)

    def gone() -> bool:
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        except ChildProcessError:  # another's child
            pass
        return not os.path.exists(f"/proc/{pid}")

    await until(gone)
