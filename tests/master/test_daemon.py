"""The master as a process: what it says to whoever started it, and to peers who misbehave."""

import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
import trio
import trio.testing

from drqueue.channel import HANDSHAKE_S, Channel, LinkClosed
from drqueue.master.daemon import _Master, serve
from drqueue.master.hub import WATCHES_MOST
from drqueue.master.storage.statedir import OpenState, open_state
from drqueue.proto.connection import CLOSED, NEED_DATA, Connection
from drqueue.proto.handshake import Answerer, Dialler
from drqueue.proto.link_messages import Hi, Message, Rejected, Welcome
from drqueue.proto.messages import Jobs, ListJobs, Refusal, Submit, Submitted, Watch, Watching
from drqueue.settings import MasterSettings
from drqueue.unixpath import bind_unix, connect_unix
from tests.builders import a_job

PATIENCE_S = 20.0


class Link:
    """A raw link to a master, with its own idea of the protocol."""

    def __init__(self, path: Path) -> None:
        self.sock = connect_unix(str(path))
        self.sock.settimeout(PATIENCE_S)
        self._connection = Connection()
        self._rq = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def hear(self) -> Message | None:
        """The next message, None at the end of the link."""
        while True:
            message = self._connection.next_message()
            if message is CLOSED:
                return None
            if message is not NEED_DATA:
                assert isinstance(message, Message)
                return message
            try:
                self._connection.receive(self.sock.recv(65536))
            except ConnectionResetError:
                return None

    def greet(self, **hi: Any) -> Message | None:
        """Shake hands."""
        self.sock.sendall(self._connection.send(Hi(**{"role": "client", **hi})))
        answer = self.hear()
        self._connection.established()
        return answer

    def packed(self, kind: type[Message], **fields: Any) -> bytes:
        """A request with a number of its own."""
        self._rq += 1
        return self._connection.send(kind(rq=self._rq, **fields))

    def ask(self, kind: type[Message], **fields: Any) -> Message | None:
        """Ask, and hear the answer."""
        self.sock.sendall(self.packed(kind, **fields))
        return self.hear()

    def submit(self) -> int:
        """The number of a new job."""
        answer = self.ask(Submit, token=f"token-{os.urandom(8).hex()}", spec=a_job("1-3"))
        assert isinstance(answer, Submitted), answer
        return answer.job

    def jobs(self) -> list[int]:
        """The numbers of all jobs."""
        answer = self.ask(ListJobs, all=True)
        assert isinstance(answer, Jobs), answer
        return [view.id for view in answer.jobs]


class Running:
    """A master process, and what systemd would hear of it."""

    def __init__(self, state: Path, words: Sequence[str], env: dict[str, str]) -> None:
        self.state = state
        self.socket = state / "master.sock"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.settimeout(PATIENCE_S)
        path = state.with_name(f"{state.name}.notify")
        path.unlink(missing_ok=True)
        self._notify.bind(str(path))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "drqueue.master", "--state-dir", str(state), *words],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NOTIFY_SOCKET": str(path), **env},
        )

    def notified(self, line: str) -> None:
        """Return once systemd was told that."""
        while line not in self._notify.recv(4096).decode().splitlines():
            pass

    def logged(self, words: str) -> str:
        """The next line of its log that holds these words."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if words in line:
                return line
        raise AssertionError(f"it ended without saying {words!r}")

    def link(self) -> Link:
        """A greeted client's link."""
        link = Link(self.socket)
        assert isinstance(link.greet(), Welcome)
        return link

    def epoch(self) -> int:
        """The epoch that it says."""
        with Link(self.socket) as link:
            answer = link.greet()
        assert isinstance(answer, Welcome)
        return answer.epoch

    def stop(self) -> int:
        """TERM; its exit status."""
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        """End it by all means."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        self._notify.close()


@contextmanager
def a_master(state: Path, *words: str, **env: str) -> Iterator[Running]:
    """A master that is up."""
    with closing(Running(state, words, env)) as master:
        master.notified("READY=1")
        yield master


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One master for all tests that leave it as it was; it must live on through all of them."""
    with a_master(tmp_path_factory.mktemp("up")) as master:
        yield master
        assert master.stop() == 0


def run_master(state: Path, *words: str) -> tuple[int, str]:
    """Exit status and stderr of a master that is expected not to run."""
    ended = subprocess.run(
        [sys.executable, "-m", "drqueue.master", "--state-dir", str(state), *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return ended.returncode, ended.stderr


# -- lifetime ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_says_when_it_is_up_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """READY once the socket answers, STOPPING at TERM, status 0, no socket left; the mode as asked."""
    with a_master(tmp_path / "state", DRQUEUE_SOCKET_MODE="660", WATCHDOG_USEC="60000000") as master:
        info = master.socket.stat()
        assert stat.S_ISSOCK(info.st_mode)
        assert stat.S_IMODE(info.st_mode) == 0o660
        assert master.epoch() == 1
        master.notified("WATCHDOG=1")
        master.process.terminate()
        master.notified("STOPPING=1")
        assert master.process.wait(PATIENCE_S) == 0
        assert not master.socket.exists()


@pytest.mark.slow
def test_a_second_master_in_the_same_folder_is_refused(up: Running) -> None:
    """In one sentence that names the first one's process; the first one does not notice."""
    before = up.epoch()
    status, said = run_master(up.state)
    assert status == 1
    assert said.count("\n") == 1
    assert f"{up.state} is in use by another master, pid {up.process.pid}" in said
    assert up.epoch() == before


@pytest.mark.slow
def test_an_unknown_key_in_its_file_is_wrong_usage(tmp_path: Path) -> None:
    config = tmp_path / "m.toml"
    config.write_text("lease = 5")
    status, said = run_master(tmp_path / "state", "--config", str(config))
    assert (status, said.count("\n")) == (2, 1)
    assert f"{config}: unknown key 'lease' (did you mean 'lease_s'?)" in said
    assert not (tmp_path / "state").exists()


# -- backup and restore ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_backup_on_demand_can_be_restored(tmp_path: Path) -> None:
    """As the operations page tells: what was there is back, under a new epoch, and no id comes twice."""
    state = tmp_path / "state"
    with a_master(state) as master, master.link() as link:
        kept = [link.submit() for _ in range(3)]
        master.process.send_signal(signal.SIGUSR1)
        master.logged("backup made")
        (backup,) = (state / "backups").iterdir()
        lost = [link.submit() for _ in range(2)]
        assert link.jobs() == [*kept, *lost]
        epoch = master.epoch()
        assert master.stop() == 0
    shutil.copy(backup, state / "master.db")
    (state / "master.db-wal").unlink(missing_ok=True)
    with a_master(state) as master, master.link() as link:
        master.logged("the database was restored")
        assert master.epoch() > epoch
        assert link.jobs() == kept
        new = [link.submit() for _ in range(2)]
        assert new[1] == new[0] + 1 > max(lost) + 1
        assert master.stop() == 0
    with a_master(state) as master, master.link() as link:
        assert link.jobs() == [*kept, *new]
        assert link.submit() == new[1] + 1


@pytest.mark.slow
def test_a_backup_that_cannot_be_made_ends_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with a_master(state) as master, master.link() as link:
        (state / "backups").write_text("in the way")
        master.process.send_signal(signal.SIGUSR1)
        assert "File exists" in master.logged("backup failed")
        (state / "backups").unlink()
        link.submit()
        master.process.send_signal(signal.SIGUSR1)
        master.logged("backup made")
        assert len(list((state / "backups").iterdir())) == 1
        assert master.stop() == 0


# -- peers -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_client_of_a_protocol_to_come_is_told_so(up: Running) -> None:
    with Link(up.socket) as link:
        answer = link.greet(oldest=7, newest=9, software="drqueue 9")
        assert isinstance(answer, Rejected)
        assert (answer.code, answer.retry) == ("version", False)
        assert answer.text.endswith("the client (drqueue 9) speaks 7 to 9: upgrade the master")
        assert link.hear() is None


GARBAGE = {
    "a web browser": b"GET / HTTP/1.1\r\nHost: farm\r\n\r\n",
    "zeros": bytes(64),
    "a huge packet": b"\xff\xff\xff\xff" + b"x" * 100,
    "no msgpack": b"\x00\x00\x00\x03\xc1\xc1\xc1",
    "no map": b"\x00\x00\x00\x01\x05",
    "a request of wrong types": b"\x00\x00\x00\x10\x82\xa1t\xa8listjobs\xa2rq\xa1x",
    "a second Hi": Connection().send(Hi(role="client")),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "greeted"),
    [*((what, True) for what in GARBAGE), *((what, False) for what in GARBAGE if what != "a second Hi")],
)
def test_garbage_ends_that_link_alone(up: Running, what: str, greeted: bool) -> None:
    with up.link() as good, Link(up.socket) as bad:
        if greeted:
            bad.greet()
        bad.sock.sendall(GARBAGE[what])
        assert bad.hear() is None
        assert good.jobs() == []


@pytest.mark.slow
def test_watches_beyond_the_bound_are_refused(up: Running) -> None:
    """With a code and a sentence; the link lives on, and the next one begins at none."""
    with up.link() as link:
        for _ in range(WATCHES_MOST):
            assert isinstance(link.ask(Watch, jobs=True), Watching)
        answer = link.ask(Watch, slaves=True)
        assert isinstance(answer, Refusal)
        assert answer.code == "too-many"
        assert "at once" in answer.text
        assert link.jobs() == []
    with up.link() as link:
        assert isinstance(link.ask(Watch, jobs=True), Watching)


def flood(link: Link) -> int:
    """Ask for all jobs without hearing, until no more is taken; how many times that went well."""
    link.sock.setblocking(False)
    asked = 0
    while asked < 20_000:
        rest = b"".join(link.packed(ListJobs, all=True) for _ in range(100))
        while rest:
            _, writable, _ = select.select([], [link.sock], [], 2)
            if not writable:
                return asked
            try:
                rest = rest[link.sock.send(rest) :]
            except (BrokenPipeError, ConnectionResetError):
                return asked
        asked += 100
    return asked


@pytest.mark.slow
def test_a_client_that_asks_and_never_reads_is_bounded(tmp_path: Path) -> None:
    """It is not read any longer, or dropped; little is kept for it, and others are answered."""
    with a_master(tmp_path / "state") as master, master.link() as calm, master.link() as wild:
        jobs = [calm.submit() for _ in range(100)]
        process = psutil.Process(master.process.pid)
        before = process.memory_info().rss
        assert flood(wild) < 20_000
        assert calm.jobs() == jobs
        assert process.memory_info().rss - before < 32 << 20
        assert master.stop() == 0


# -- in this process, on a virtual clock -------------------------------------------------------------------


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[OpenState]:
    with closing(open_state(str(tmp_path / "state"))) as opened:
        yield opened


async def test_links_that_say_nothing_are_dropped_in_time(
    tmp_path: Path, opened: OpenState, mock_clock: trio.testing.MockClock
) -> None:
    path = str(tmp_path / "sock")
    links: list[socket.socket] = []
    with closing(bind_unix(path, backlog=256)) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, MasterSettings(state_dir=str(tmp_path)), opened, [listener])
            try:
                links += [connect_unix(path, blocking=False) for _ in range(200)]
                await trio.testing.wait_all_tasks_blocked(0.05)
                mock_clock.jump(HANDSHAKE_S - 0.5)
                await trio.testing.wait_all_tasks_blocked(0.05)
                for link in links:
                    with pytest.raises(BlockingIOError):
                        link.recv(1)
                mock_clock.jump(1)
                for link in links:
                    await trio.lowlevel.wait_readable(link)
                    assert link.recv(1) == b""
            finally:
                for link in links:
                    link.close()
                nursery.cancel_scope.cancel()


async def test_a_bug_met_in_a_handshake_ends_that_link_alone(
    tmp_path: Path, opened: OpenState, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    greet = Channel.greet

    def broken(channel: Channel, answerer: Answerer, message: Message) -> Hi | None:
        monkeypatch.setattr(Channel, "greet", greet)
        raise ZeroDivisionError("somebody's bug")

    monkeypatch.setattr(Channel, "greet", broken)
    path = str(tmp_path / "sock")
    with closing(bind_unix(path)) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, MasterSettings(state_dir=str(tmp_path)), opened, [listener])
            with trio.fail_after(10):
                async with Channel(connect_unix(path)) as first:
                    first.send(Hi(role="client"))
                    with pytest.raises(LinkClosed):
                        await first.receive()
                async with Channel(connect_unix(path)) as second:
                    await second.dial(Dialler("client", "test"))
            nursery.cancel_scope.cancel()
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert record.exc_info


async def test_systemd_is_pinged_while_the_engine_turns_and_no_longer(
    tmp_path: Path,
    opened: OpenState,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
) -> None:
    """Every 15 s of 30; an engine that hangs is told by silence, a full disk is no reason for one."""
    pings: list[str] = []
    monkeypatch.setattr("drqueue.sdnotify.notify", pings.append)
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    master = _Master(MasterSettings(state_dir=str(tmp_path)), opened)
    nursery.start_soon(master.watchdog)
    await trio.sleep(1)
    for count in range(1, 5):
        assert pings == ["WATCHDOG=1"] * count
        master._after_turn()
        await trio.sleep(15)
    await trio.sleep(100)
    assert len(pings) == 5
    master._history.alarm = "the disk is full"
    await trio.sleep(30)
    assert len(pings) == 7
