"""Copies of logs and handed-on variables, with real daemons, keepers and frames."""

import os
import signal
from pathlib import Path

import pytest
import trio

from drqueue.proto.ids import AttemptKey
from drqueue.slave import classic_logs
from tests.slave.scripted_master import ScriptedMaster
from tests.slave.test_daemon import Program, a_daemon, an_order, until
from tests.slave.test_daemon import master as master_fixture
from tests.slave.test_daemon import program as program_fixture

pytestmark = pytest.mark.slow

master = master_fixture
program = program_fixture


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for copies; programs find it in their environment."""
    folder = tmp_path / "logs"
    folder.mkdir()
    monkeypatch.setenv("DRQUEUE_LOGS", str(folder))
    monkeypatch.setattr(classic_logs, "LOOK_S", 0.05)
    return folder


def copy_of(logs: Path, frame: int, job: int = 1, name: str = "shot") -> Path:
    """The file of a frame."""
    return logs / f"{job:03d}.{name}" / f"{name}.{frame:04d}"


def body(path: Path) -> bytes:
    """What follows the last header; "" where there is no file."""
    return path.read_bytes().rpartition(f"Log filename: {path}\n\n".encode())[2] if path.exists() else b""


async def test_even_the_shortest_frame_gets_its_file(
    tmp_path: Path, master: ScriptedMaster, logs: Path
) -> None:
    """With what its slave hands on in its environment; complete although the slave ends at once."""
    orders = [an_order(frame, shell="echo $DRQUEUE_LOGS {frame}", job_name="shot") for frame in range(20)]
    async with a_daemon(tmp_path / "s", master, logs=str(logs), cores=1) as daemon, master.link() as link:
        await link.register()
        link.order(*orders)
        await until(lambda: len(daemon._state.ended) == len(orders))
    for frame in range(20):
        assert body(copy_of(logs, frame)) == f"{logs} {frame}\n".encode()
    assert os.listdir(tmp_path / "s" / "copies") == []


async def test_a_job_may_name_another_root(tmp_path: Path, master: ScriptedMaster, logs: Path) -> None:
    """The slave's variables are a basis; where a frame's own log goes is not the job's to say."""
    shell = "echo $DRQUEUE_ROOT $DRQUEUE_TMP $DRQUEUE_ETC $DRQUEUE_BIN $DRQUEUE_DB $DRQUEUE_FRAME"
    handed_on = {"root": "/r", "tmp": "/t", "etc": "/e", "bin": "/b", "logs": str(logs)}
    env = {"DRQUEUE_ROOT": "/mine", "DRQUEUE_LOGS": "/nowhere", "DRQUEUE_FRAME": "99"}
    async with a_daemon(tmp_path / "s", master, **handed_on) as daemon, master.link() as link:
        await link.register()
        link.order(an_order(3, shell=shell, env=env, job_name="shot"))
        await until(lambda: daemon._state.ended)
    assert body(copy_of(logs, 3)) == b"/mine /t /e /b 3\n"


async def test_kill_9_of_the_daemon_neither_loses_nor_doubles_a_line(
    program: Program, master: ScriptedMaster, tmp_path: Path, logs: Path
) -> None:
    """A frame that prints all the while, a daemon that is killed again and again below it."""
    shell = f"n=0; until [ -e {tmp_path}/go ]; do n=$((n+1)); echo line $n; sleep 0.002; done"
    order = an_order(4, shell=shell, job_name="shot")
    target = copy_of(logs, 4)
    size = -1
    for kill in range(4):
        program.start()
        async with master.link() as link:
            await link.register()
            if not kill:
                link.order(order)
            await until(lambda size=size: target.exists() and target.stat().st_size > size)
            assert await program.end(signal.SIGKILL) == -signal.SIGKILL
            size = target.stat().st_size
    (tmp_path / "go").touch()
    own = tmp_path / "s" / "logs" / "1" / "0.4.1.log"
    program.start()
    async with master.link() as link:
        await link.register()
        assert (await link.hear_exit(order.key)).exit.code == 0
        await until(lambda: os.listdir(tmp_path / "s" / "copies") == [])
        link.order(noted=(order.key,))
    text = target.read_bytes()
    assert text.count(b"Log started at") == 1
    assert body(target) == own.read_bytes()
    assert body(target).splitlines()[:2] == [b"line 1", b"line 2"]


async def test_a_copy_goes_on_although_its_attempt_is_forgotten(
    program: Program, master: ScriptedMaster, tmp_path: Path, logs: Path
) -> None:
    """The disk was away while the frame ran, and until the next daemon; the spool knows nothing of it."""
    os.rmdir(logs)
    order = an_order(4, shell="echo hello", job_name="shot")
    program.start()
    async with master.link() as link:
        await link.register()
        link.order(order)
        await link.hear_exit(order.key)
        link.order(noted=(order.key,))
        another = an_order(5, shell="true", job_name="other", key=AttemptKey(2, 0, 5, 1))
        link.order(another)
        await link.hear_exit(another.key)
        assert await program.end(signal.SIGKILL) == -signal.SIGKILL
    os.mkdir(logs)
    program.start()
    async with master.link() as link:
        hello = await link.register()
        assert [held.key for held in hello.held] == [another.key]
        await until(lambda: body(copy_of(logs, 4)) == b"hello\n")


async def test_a_pipe_in_its_place_holds_up_neither_frames_nor_other_copies(
    tmp_path: Path, master: ScriptedMaster, logs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor the end of the slave; there is one line about it."""
    stuck = copy_of(logs, 1)
    stuck.parent.mkdir()
    os.mkfifo(stuck)
    async with a_daemon(tmp_path / "s", master, logs=str(logs), cores=1) as daemon, master.link() as link:
        await link.register()
        for frame in (1, 2, 3):
            link.order(an_order(frame, shell="echo {frame}", job_name="shot"))
        await until(lambda: len(daemon._state.ended) == 3)
        await until(lambda: body(copy_of(logs, 3)) == b"3\n")
        with trio.fail_after(10):
            link.order(an_order(4, shell="echo 4", job_name="shot"))
            await link.hear_exit(AttemptKey(1, 0, 4, 1))
    assert body(copy_of(logs, 2)) == b"2\n"
    assert sum("logs cannot be copied" in record.getMessage() for record in caplog.records) == 1


async def test_the_slaves_own_log_is_as_ever(tmp_path: Path, master: ScriptedMaster, logs: Path) -> None:
    """The copy takes nothing from it, and without a folder there is none."""
    async with a_daemon(tmp_path / "s", master) as daemon, master.link() as link:
        await link.register()
        link.order(an_order(1, shell="echo own", job_name="shot"))
        await until(lambda: daemon._state.ended)
    assert (tmp_path / "s" / "logs" / "1" / "0.1.1.log").read_bytes() == b"own\n"
    assert os.listdir(logs) == []
    assert not (tmp_path / "s" / "copies").exists()
