"""The slave daemon with real processes and a scripted master."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from drqueue.proto.ids import AttemptKey
from drqueue.proto.messages import LogKept, Stop
from drqueue.proto.model import RunOrder
from drqueue.settings import Address, SlaveSettings
from drqueue.slave.daemon import Daemon
from tests.slave.scripted_master import ScriptedMaster

pytestmark = pytest.mark.slow


def an_order(frame: int = 0, *argv: str, **fields: object) -> RunOrder:
    """An order for frame `frame` of job 1."""
    return RunOrder(key=AttemptKey(1, 0, frame, 1), start=frame, argv=argv, **{"cwd": "/", **fields})  # type: ignore[arg-type]


@asynccontextmanager
async def a_daemon(state_dir: Path, master: str, *, kill: bool = True, **fields: object) -> AsyncIterator[Daemon]:
    """A slave that serves until the block ends; its frames and keeper end with it unless `kill` is False."""
    settings = SlaveSettings(name="s", state_dir=str(state_dir), cores=4, grace_s=2.0, **fields)  # type: ignore[arg-type]
    daemon = Daemon(settings, [Address("unix", path=master)], kill_frames_on_exit=kill)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: daemon.serve(task_status=task_status))
        try:
            yield daemon
        finally:
            daemon.stop()


async def test_a_frame_runs_and_its_exit_and_log_arrive(tmp_path: Path) -> None:
    """Order, start, exit, log, noted: the whole life of one attempt."""
    master = ScriptedMaster(str(tmp_path / "m.sock"))
    order = an_order(3, shell="echo hello $DRQUEUE_FRAME {frame:04d}; exit 4")
    async with a_daemon(tmp_path / "s", master.path) as daemon:
        async with master.link() as link:
            hello = await link.register()
            assert hello.held == ()
            assert hello.control == f"unix:{tmp_path}/s/control.sock"
            link.order(order)
            ended = await link.hear_exit(order.key)
            assert (ended.exit.code, ended.exit.reason) == (4, "")
            kept = await link.hear(LogKept)
            assert isinstance(kept, LogKept)
            assert kept.ends.head == b"hello 3 0003\n"
            link.order(noted=(order.key,))
            with trio.fail_after(5):
                while daemon.view().running or daemon._state.held:
                    await trio.sleep(0.01)
    master.close()
