"""The slave daemon with real processes and a scripted master."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from drqueue.channel import Channel, LinkClosed
from drqueue.proto.handshake import Dialler
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Held, Hello, LimitsNow, LogKept, Message, Report, Status, Stop
from drqueue.proto.messages import Done, KillAttempts, LogPart, ReadLog, SetLimits
from drqueue.proto.model import LimitsChange, RunOrder
from drqueue.settings import Address, SlaveSettings
from drqueue.slave.daemon import Daemon
from drqueue.slave.spool import Spool
from drqueue.statefile import StateError, read_json
from drqueue.unixpath import connect_unix
from tests.slave.scripted_master import ScriptedMaster

pytestmark = pytest.mark.slow


def an_order(frame: int = 0, **fields: object) -> RunOrder:
    """An order for one frame of job 1."""
    return RunOrder(**{"key": AttemptKey(1, 0, frame, 1), "start": frame, "cwd": "/", **fields})  # type: ignore[arg-type]


@pytest.fixture
def master(tmp_path: Path) -> Iterator[ScriptedMaster]:
    """A master that listens."""
    made = ScriptedMaster(str(tmp_path / "m.sock"))
    yield made
    made.close()


@asynccontextmanager
async def a_daemon(state_dir: Path, master: ScriptedMaster, **fields: object) -> AsyncIterator[Daemon]:
    """A slave that serves until the block ends; its frames and keeper end with it."""
    settings = SlaveSettings(
        name="s", state_dir=str(state_dir), **{"cores": 4, "grace_s": 2.0, "run_as": "self", **fields}
    )  # type: ignore[arg-type]
    daemon = Daemon(settings, [Address("unix", path=master.path)], kill_frames_on_exit=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: daemon.serve(task_status=task_status))
        try:
            yield daemon
        finally:
            daemon.stop()


class Program:
    """`drqueue-slave` as a process of its own."""

    def __init__(self, state_dir: Path, master: ScriptedMaster, *flags: str) -> None:
        self.state_dir = state_dir
        self._argv = [sys.executable, "-m", "drqueue.slave", "--name", "s", "--cores", "4"]
        self._argv += ["--state-dir", str(state_dir), "--master", f"unix:{master.path}", *flags]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it (again)."""
        assert self._process is None
        self._process = subprocess.Popen(self._argv)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def end(self, number: int) -> int:
        """Send it a signal and wait for its end; the exit status."""
        self.signal(number)
        assert self._process is not None
        status = await trio.to_thread.run_sync(partial(self._process.wait, 30))
        self._process = None
        return status

    def clean_up(self) -> None:
        """End it, its frames and its keeper."""
        if self._process is None:
            self._argv.append("--kill-frames-on-exit")
            self.start()
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(30) == 0


@pytest.fixture
def program(tmp_path: Path, master: ScriptedMaster) -> Iterator[Program]:
    """A slave's program, its frames gone afterwards."""
    made = Program(tmp_path / "s", master, "--kill-frames-on-exit")
    yield made
    made.clean_up()


async def until(condition: Callable[[], object], timeout_s: float = 10) -> None:
    """Wait until something holds."""
    with trio.fail_after(timeout_s):
        while not condition():  # noqa: ASYNC110  (processes and files have no event)
            await trio.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Whether a process is no more."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


async def test_a_frame_runs_and_its_exit_and_log_arrive(tmp_path: Path, master: ScriptedMaster) -> None:
    """Order, start, exit, log, noted: the whole life of one attempt."""
    order = an_order(3, shell="echo hello $DRQUEUE_FRAME {frame:04d} $DRQUEUE_COMPID; exit 4")
    async with a_daemon(tmp_path / "s", master) as daemon, master.link() as link:
        hello = await link.register(slave=5)
        assert hello.held == ()
        assert hello.control == f"unix:{tmp_path}/s/control.sock"
        link.order(order)
        ended = await link.hear_exit(order.key)
        assert (ended.exit.code, ended.exit.reason, ended.exit.log_bytes) == (4, "", 15)
        kept = await link.hear(LogKept)
        assert isinstance(kept, LogKept)
        assert kept.ends.head == b"hello 3 0003 5\n"
        link.order(noted=(order.key,))
        await until(lambda: not daemon._state.held)


async def test_the_load_is_told(tmp_path: Path, master: ScriptedMaster) -> None:
    """At once after the registration, or as soon as it is measured."""
    async with a_daemon(tmp_path / "s", master), master.link() as link:
        await link.register()
        status = await link.hear(Status, timeout_s=2)
        assert isinstance(status, Status)
        if not status.load.memory_free_mb:  # linked before it was measured
            status = await link.hear(Status)
            assert isinstance(status, Status)
        assert status.load.memory_free_mb > 0


async def test_a_frame_survives_kill_9_of_its_daemon(
    program: Program, master: ScriptedMaster, tmp_path: Path
) -> None:
    """One ends under the next daemon, one while there is none, one was not started: each is told rightly."""
    ledger = tmp_path / "ledger"
    shell = f"echo {{frame}} >> {ledger}; until [ -e {tmp_path}/go{{frame}} ]; do sleep 0.05; done"
    shell += "; exit {frame}"
    keys = [AttemptKey(1, 0, frame, 1) for frame in range(3)]
    program.start()
    async with master.link() as link:
        await link.register()
        link.order(*[an_order(frame, shell=shell, cores=1) for frame in (0, 1)])
        await until(lambda: ledger.exists() and len(ledger.read_text().split()) == 2)
        assert await program.end(signal.SIGKILL) == -signal.SIGKILL
    (tmp_path / "go1").touch()
    program.start()
    async with master.link() as link:
        hello = await link.register()
        assert {held.key for held in hello.held} == set(keys[:2])
        assert (await link.hear_exit(keys[1])).exit.code == 1
        (tmp_path / "go0").touch()
        ended = (await link.hear_exit(keys[0])).exit
        assert (ended.code, ended.reason) == (0, "")
        link.order(noted=(keys[0], keys[1]))
        link.order(an_order(2, argv=("/bin/true",)))
        await link.hear_exit(keys[2])
        assert await program.end(signal.SIGTERM) == 0
    program.start()
    async with master.link() as link:
        hello = await link.register()
        assert hello.held == (Held(keys[2], True),)
    assert sorted(ledger.read_text().split()) == ["0", "1"]


async def test_a_frame_that_ignores_term_is_killed(tmp_path: Path, master: ScriptedMaster) -> None:
    """And told with the signal that ended it, and why."""
    order = an_order(shell=f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.1; done")
    pid = tmp_path / "pid"
    async with a_daemon(tmp_path / "s", master), master.link() as link:
        await link.register()
        link.order(order)
        await until(lambda: pid.exists() and pid.read_text().strip())
        link.order(stop=(Stop(order.key, "an operator said so", 0.3),))
        ended = (await link.hear_exit(order.key)).exit
        assert (ended.reason, ended.signal, ended.text) == ("stopped", 9, "an operator said so")
        assert is_gone(int(pid.read_text()))


async def test_a_time_limit_ends_a_frame(tmp_path: Path, master: ScriptedMaster) -> None:
    """With a reason that counts as its failure."""
    async with a_daemon(tmp_path / "s", master), master.link() as link:
        await link.register()
        order = an_order(argv=("sleep", "1000"), timeout_s=0.3)
        link.order(order)
        ended = (await link.hear_exit(order.key)).exit
        assert (ended.reason, ended.signal) == ("timeout", 15)


@pytest.mark.parametrize(
    ("fields", "reason", "word"),
    [
        ({"argv": ("/no/such/command",)}, "no-command", "/no/such/command"),
        ({"argv": ("true",), "cwd": "/no/such/folder"}, "no-cwd", "/no/such/folder"),
        ({"argv": ("echo", "{frame:zz}")}, "bad-order", "{frame:zz}"),
        ({"argv": ("true",), "outputs": ("{nonsense}",)}, "bad-order", "{nonsense}"),
        ({"argv": ("true",), "outputs": ("never-written.png",)}, "missing-output", "never-written.png"),
    ],
)
async def test_what_cannot_be_done_is_told_in_a_sentence(
    tmp_path: Path, master: ScriptedMaster, fields: dict[str, object], reason: str, word: str
) -> None:
    async with a_daemon(tmp_path / "s", master), master.link() as link:
        await link.register()
        order = an_order(**fields)
        link.order(order)
        ended = (await link.hear_exit(order.key)).exit
        assert ended.reason == reason
        assert word in ended.text


async def test_an_output_counts_only_where_it_was_written(tmp_path: Path, master: ScriptedMaster) -> None:
    """What lay there before the start does not."""
    old, new = tmp_path / "f0001.txt", tmp_path / "f0002.txt"
    old.write_text("left over")
    async with a_daemon(tmp_path / "s", master), master.link() as link:
        await link.register()
        fields = {"cwd": str(tmp_path), "outputs": ("f{frame:04d}.txt",)}
        stale = an_order(1, argv=("true",), **fields)
        fresh = an_order(2, shell="echo x > $DRQUEUE_OUTPUT", **fields)
        link.order(stale, fresh)
        assert (await link.hear_exit(fresh.key)).exit.reason == ""
        link.order(an_order(3, argv=("true",)))
        told = {
            item.key: item.exit.reason
            for report in link.heard
            if isinstance(report, Report)
            for item in report.exited
        }
        if stale.key not in told:
            told[stale.key] = (await link.hear_exit(stale.key)).exit.reason
        assert told[stale.key] == "missing-output"
        assert new.exists()


async def test_scratch_is_made_and_removed(tmp_path: Path, master: ScriptedMaster) -> None:
    """A directory of the attempt's own, gone once its exit is noted."""
    async with a_daemon(tmp_path / "s", master), master.link() as link:
        await link.register()
        order = an_order(shell=f"pwd > {tmp_path}/where; touch x", cwd="scratch")
        link.order(order)
        assert (await link.hear_exit(order.key)).exit.code == 0
        where = Path((tmp_path / "where").read_text().strip())
        assert (where / "x").exists()
        link.order(noted=(order.key,))
        await until(lambda: not where.exists())


async def test_progress_is_read_from_the_output(tmp_path: Path, master: ScriptedMaster) -> None:
    """While the frame runs."""
    order = an_order(shell=f"echo 'Progress: 50%'; until [ -e {tmp_path}/go ]; do sleep 0.05; done")
    async with a_daemon(tmp_path / "s", master), master.link() as link:
        await link.register()
        link.order(order)
        with trio.fail_after(10):
            while not (isinstance(report := await link.hear(Report), Report) and report.progressed):
                pass
        assert report.progressed[0].done == 0.5
        (tmp_path / "go").touch()
        await link.hear_exit(order.key)


async def test_a_client_at_the_control_port(tmp_path: Path, master: ScriptedMaster) -> None:
    """Limits are kept and told; a log is followed; a frame is killed."""
    order = an_order(shell="echo begun; exec sleep 1000")
    async with a_daemon(tmp_path / "s", master), master.link() as link:
        await link.register()
        link.order(order)
        await link.hear_start(order.key)
        async with Channel(connect_unix(str(tmp_path / "s" / "control.sock"))) as client:

            async def ask(request: Message) -> Message:
                client.send(request)
                with trio.fail_after(10):
                    return await client.receive()

            await client.dial(Dialler("client", "test", expect="slave"))
            assert await ask(SetLimits(rq=1, change=LimitsChange(enabled=False))) == Done(rq=1, count=1)
            told = await link.hear(LimitsNow)
            assert isinstance(told, LimitsNow)
            assert not told.limits.enabled
            kept = read_json(str(tmp_path / "s" / "limits.json"))
            assert kept is not None
            assert kept["enabled"] is False
            part = await ask(ReadLog(rq=2, key=order.key, wait_s=10))
            assert isinstance(part, LogPart)
            assert (part.data, part.over) == (b"begun\n", False)
            assert await ask(KillAttempts(rq=3, job=1)) == Done(rq=3, count=1)
            assert (await link.hear_exit(order.key)).exit.reason == "killed"


async def test_a_full_disk_holds_back_reports_but_no_kill(
    tmp_path: Path, master: ScriptedMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is told that is not kept; the frame that fills the disk can still be stopped."""
    append = Spool.append_encoded
    full = False
    tries = 0

    def appended(self: Spool, records: Iterable[bytes]) -> None:
        nonlocal tries
        if full:
            tries += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, records)

    monkeypatch.setattr(Spool, "append_encoded", appended)
    monkeypatch.setattr("drqueue.slave.daemon.RETRY_S", 0.05)
    order = an_order(argv=("sleep", "1000"))
    other = an_order(1, argv=("true",))
    async with a_daemon(tmp_path / "s", master) as daemon, master.link() as link:
        await link.register()
        link.order(order)
        await link.hear_start(order.key)
        pid = daemon._state.held[order.key].pid
        full = True
        link.order(other, stop=(Stop(order.key, "full"),))
        await until(lambda: is_gone(pid))
        await until(lambda: order.key in daemon._state.ended)
        seen = tries
        await until(lambda: tries > seen + 3)
        while (message := link.channel.receive_nowait()) is not None:
            assert not isinstance(message, Report)
        full = False
        assert (await link.hear_exit(order.key)).exit.reason == "stopped"
        assert (await link.hear_exit(other.key)).exit.code == 0


async def test_another_farm_gets_a_new_identity_and_an_empty_spool(
    tmp_path: Path, master: ScriptedMaster
) -> None:
    """The former farm's frames are ended first; nobody there is told of them."""
    order = an_order(argv=("sleep", "1000"))
    async with a_daemon(tmp_path / "s", master) as daemon:
        async with master.link() as link:
            first = await link.register()
            link.order(order)
            await link.hear_start(order.key)
            pid = daemon._state.held[order.key].pid
        master.farm = "farm-b"
        second: Message | None = None
        with trio.fail_after(20):
            while second is None:
                async with master.link() as link:
                    with contextlib.suppress(LinkClosed):
                        second = await link.register()
        assert is_gone(pid)
        assert isinstance(second, Hello)
        assert (second.held, second.name) == ((), first.name)
        assert second.identity != first.identity
        assert list((tmp_path / "s").glob("spool.farm-*"))


async def test_leaving_takes_frames_and_keeper_along(tmp_path: Path, master: ScriptedMaster) -> None:
    """As `drqueue up` wants it."""
    async with a_daemon(tmp_path / "s", master) as daemon, master.link() as link:
        await link.register()
        order = an_order(shell=f"echo $PPID > {tmp_path}/keeper; exec sleep 1000")
        link.order(order)
        await link.hear_start(order.key)
        await until(lambda: (tmp_path / "keeper").exists() and (tmp_path / "keeper").read_text().strip())
        keeper, frame = int((tmp_path / "keeper").read_text()), daemon._state.held[order.key].pid
        daemon.stop()
        assert (await link.hear_exit(order.key)).exit.reason == "shutdown"
    await until(lambda: is_gone(frame) and is_gone(keeper))


async def test_a_state_directory_serves_one_slave(tmp_path: Path, master: ScriptedMaster) -> None:
    """The second is told by whom it is used, and ends with 1."""
    async with a_daemon(tmp_path / "s", master):
        with pytest.raises(StateError, match=f"in use by another slave, pid {os.getpid()}"):
            async with a_daemon(tmp_path / "s", master):
                pass
        argv = [sys.executable, "-m", "drqueue.slave", "--state-dir", str(tmp_path / "s")]
        done = await trio.run_process(argv, capture_stderr=True, check=False)
        assert done.returncode == 1
        assert done.stderr.decode().count("\n") == 1
        assert "is in use by another slave" in done.stderr.decode()


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--cores", "none"], "--cores"),
        (["--nonsense"], "--nonsense"),
        (["--master", "host:1:2"], "host:1:2"),
        (["--config", "/no/such.toml"], "/no/such.toml"),
    ],
)
def test_wrong_usage_is_told_in_a_sentence(tmp_path: Path, flags: list[str], word: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "drqueue.slave", "--state-dir", str(tmp_path / "s"), *flags],
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2
    assert word in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


async def test_a_second_signal_kills_at_once(tmp_path: Path, master: ScriptedMaster) -> None:
    """Frames that ignore TERM do not hold up somebody who asks twice."""
    program = Program(tmp_path / "s", master, "--kill-frames-on-exit")
    order = an_order(shell=f"trap '' TERM; touch {tmp_path}/up; while :; do sleep 0.1; done")
    program.start()
    async with master.link() as link:
        await link.register()
        link.order(order)
        await until((tmp_path / "up").exists)
        program.signal(signal.SIGTERM)
        link.order(an_order(1, argv=("true",)))
        with trio.fail_after(8):  # less than the grace of 10 s
            await link.hear_exit(AttemptKey(1, 0, 1, 1))  # it is leaving already
            assert await program.end(signal.SIGTERM) == 0


async def test_scratch_of_a_forgotten_attempt_is_removed_at_the_start(
    tmp_path: Path, master: ScriptedMaster
) -> None:
    """And nothing else."""
    forgotten = tmp_path / "s" / "scratch" / "1.0.3.1"
    async with a_daemon(tmp_path / "s", master):
        pass
    forgotten.mkdir(parents=True)
    (forgotten / "x").touch()
    async with a_daemon(tmp_path / "s", master):
        await until(lambda: not forgotten.exists())
    assert (tmp_path / "s" / "spool").exists()
