"""Slaves that join: the daemon and the command, as programs, with a master that answers by hand."""

import json
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from msgspec import structs

from drqueue.access import Access, read_access, write_access
from drqueue.address import Address, parse_address
from drqueue.channel import Channel
from drqueue.dialling import open_channel
from drqueue.proto.handshake import Dialler
from drqueue.proto.lines import Line, encoded, parse_line, secret_hash
from drqueue.proto.link_messages import Acted, LimitsNow, Rejected, TicketKey
from drqueue.proto.messages import Done, KillAttempts, Refusal, Request, SetLimits
from drqueue.proto.model import LimitsChange
from drqueue.proto.roles import Role
from drqueue.proto.tickets import Claim, issue
from drqueue.settings import SlaveSettings
from drqueue.slave.daemon import Daemon
from drqueue.slave.identity import Machine, load_or_create
from tests import secured
from tests.slave.scripted_master import MasterLink, ScriptedMaster, SecureMaster
from tests.slave.test_daemon import an_order, until

pytestmark = pytest.mark.slow

TICKET_KEY = b"k" * 32
NOW = 1_000_000.0


@pytest.fixture
def master() -> Iterator[SecureMaster]:
    """A master on a port of this machine."""
    made = SecureMaster()
    yield made
    made.close()


def a_line(master: SecureMaster) -> str:
    """A line of its farm's."""
    token = encoded(b"t" * 20)
    return str(Line(kind="node", host="127.0.0.1", port=master.port, pin=master.pin, token=token))


def an_access(master: SecureMaster, **fields: object) -> Access:
    """The way into its farm."""
    certificate, key = secured.certificate()
    way = Access(
        host="127.0.0.1",
        port=master.port,
        pin=master.pin,
        farm=master.farm,
        account="acc",
        name="n1",
        role="node",
        secret="s" * 52,
        certificate=certificate,
        key=key,
    )
    return structs.replace(way, **fields)


@asynccontextmanager
async def a_daemon(state_dir: Path, **fields: object) -> AsyncIterator[Daemon]:
    """A slave that looks for its master by itself; its frames and keeper end with it."""
    given = {"cores": 4, "grace_s": 2.0, "run_as": "self", **fields}
    settings = SlaveSettings(name="s", state_dir=str(state_dir), **given)  # type: ignore[arg-type]
    nobody = Address("unix", path=str(state_dir / "nobody.sock"))
    daemon = Daemon(settings, [nobody], kill_frames_on_exit=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: daemon.serve(task_status=task_status))
        try:
            yield daemon
        finally:
            daemon.stop()


class Command:
    """`drqueue-slave join` as a process, or another one."""

    def __init__(self, *words: str, argv: Sequence[str] = (), **env: str) -> None:
        self._process = subprocess.Popen(
            argv or [sys.executable, "-m", "drqueue.slave", "join", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
        )

    async def ended(self, typed: str = "") -> tuple[int, str, str]:
        """Its exit status, stdout and stderr."""
        out, err = await trio.to_thread.run_sync(partial(self._process.communicate, typed, timeout=30))
        return self._process.returncode, out, err

    def shown(self) -> str:
        """What `ps` shows of it."""
        return Path(f"/proc/{self._process.pid}/cmdline").read_text()

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)


# -- the command -------------------------------------------------------------------------------------------


async def test_a_line_joins_and_says_as_what(tmp_path: Path, master: SecureMaster) -> None:
    command = Command(a_line(master), "--state-dir", str(tmp_path / "s"), "--name", "bench")
    asked = await master.asked(master.joined(name="n17"), timeout_s=20)
    assert await command.ended() == (0, f"joined 127.0.0.1:{master.port} as node n17 (in {tmp_path}/s)\n", "")
    assert asked.name == "bench"
    identity = json.loads((tmp_path / "s/identity.json").read_text())
    assert (asked.identity, asked.fingerprint) == (identity["id"], identity["fingerprint"])
    (way,) = read_access(str(tmp_path / "s/access.json"))
    assert secret_hash(way.secret) == asked.secret_hash
    assert {entry.stat().st_mode & 0o777 for entry in (tmp_path / "s").iterdir()} == {0o600}


async def test_a_line_may_come_from_stdin(tmp_path: Path, master: SecureMaster) -> None:
    command = Command("-", "--state-dir", str(tmp_path / "s"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(master.asked, Rejected(code="bad-line", text="too old"), 20))
        status, out, err = await command.ended(a_line(master) + "\n")
    assert (status, out) == (3, "")
    assert err == f"drqueue-slave: 127.0.0.1:{master.port} refuses: too old\n"


async def test_a_line_may_be_broken_over_two_rows(tmp_path: Path, master: SecureMaster) -> None:
    """By stdin or as two words; both are not seen in `ps`."""
    line = a_line(master)
    for words, typed in ((("-",), f"{line[:50]}\n{line[50:]}\n"), ((line[:50], line[50:]), "")):
        folder = tmp_path / str(len(words))
        command = Command(*words, "--state-dir", str(folder), "--name", "node2")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(master.asked, master.joined(name="node2-2"), 20))
            status, out, err = await command.ended(typed)
        assert (status, out) == (0, f"joined 127.0.0.1:{master.port} as node node2-2 (in {folder})\n")
        assert err == "drqueue-slave: the name node2 was taken: this is node2-2\n"


async def test_run_beside_a_slave_that_runs_leaves_the_line_alone(
    tmp_path: Path, master: SecureMaster
) -> None:
    async with a_daemon(tmp_path / "s"):
        command = Command(a_line(master), "--state-dir", str(tmp_path / "s"), "--run")
        status, out, err = await command.ended()
    assert (status, out) == (1, "")
    assert err == "drqueue-slave: a slave runs here: join without --run, it notices by itself\n"
    assert not (tmp_path / "s" / "joining.json").exists()


async def test_a_slave_goes_by_its_accounts_name_unless_it_was_named(
    tmp_path: Path, master: SecureMaster
) -> None:
    words = ("--state-dir", str(tmp_path / "s"))
    command = Command(a_line(master), *words, "--name", "bench")
    await master.asked(master.joined(name="node2-2"), timeout_s=20)
    assert (await command.ended())[0] == 0
    slave = [sys.executable, "-m", "drqueue.slave", *words]
    for more, name in (([], "node2-2"), (["--name", "other"], "other")):
        command = Command(argv=[*slave, *more], DRQUEUE_RUN_AS="self")
        async with master.link(timeout_s=20) as link:
            assert (await link.register()).name == name
            command.interrupt()
            await command.ended()


async def test_a_master_in_the_settings_that_is_another_one_is_said(
    tmp_path: Path, master: SecureMaster
) -> None:
    command = Command(a_line(master), "--state-dir", str(tmp_path / "s"), DRQUEUE_MASTER="elsewhere")
    await master.asked(master.joined(), timeout_s=20)
    status, _, err = await command.ended()
    assert status == 0
    assert err == "drqueue-slave: its settings name another master, 'elsewhere': it dials that one alone\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("drqueue1:node:h:1:aa:bb",), "damaged"),
        ((f"drqueue1:user:h:1:{encoded(b'p' * 32)}:{encoded(b't' * 20)}",), "use it with drqueue login"),
        (("http://farm/",), "neither a line"),
        (("unix:/run/x",), "needs no joining"),
    ],
)
async def test_wrong_usage_is_status_2(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    status, _, err = await Command(*words, "--state-dir", str(tmp_path / "s")).ended()
    assert status == 2
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "s").exists()


async def test_ctrl_c_loses_nothing(tmp_path: Path, master: SecureMaster) -> None:
    words = (f"127.0.0.1:{master.port}", "--state-dir", str(tmp_path / "s"))
    pending = Rejected(code="pending", text="wait", retry=True)
    command = Command(*words)
    (await master._accept()).close()
    first = await master.asked(pending)
    command.interrupt()
    status, _, err = await command.ended()
    assert status == 130
    assert "goes on where this one stopped" in err
    command = Command(*words)
    second = await master.asked(master.joined(), timeout_s=20)
    assert (await command.ended())[0] == 0
    assert first.secret_hash == second.secret_hash


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user")
async def test_root_writes_as_whom_the_folder_belongs_to(tmp_path: Path, master: SecureMaster) -> None:
    folder = Path("/tmp") / f"drqueue-join-{os.getpid()}"  # below tmp_path only root may go
    folder.mkdir(0o700)
    try:
        owner = pwd.getpwnam("nobody")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        command = Command(a_line(master), "--state-dir", str(folder))
        await master.asked(master.joined(), timeout_s=20)
        assert (await command.ended())[0] == 0
        assert {entry.stat().st_uid for entry in folder.iterdir()} == {owner.pw_uid}
        assert (folder / "access.json").stat().st_mode & 0o777 == 0o600
    finally:
        for entry in folder.iterdir():
            entry.unlink()
        folder.rmdir()


async def test_run_goes_on_as_the_slave(tmp_path: Path, master: SecureMaster) -> None:
    command = Command(
        a_line(master), "--state-dir", str(tmp_path / "s"), "--name", "bench", "--run", DRQUEUE_RUN_AS="self"
    )
    await master.asked(master.joined(), timeout_s=20)
    async with master.link(timeout_s=20) as link:
        assert (await link.register()).name == "bench"
        command.interrupt()
        status, out, _ = await command.ended()
    assert (status, out) == (0, f"joined 127.0.0.1:{master.port} as node n1 (in {tmp_path}/s)\n")


async def test_run_with_the_line_it_came_by_asks_no_more(tmp_path: Path, master: SecureMaster) -> None:
    """A service or a container starts by the same command each time; its line is good for once."""
    line = a_line(master)
    words = (line, "--state-dir", str(tmp_path / "s"), "--name", "bench")
    command = Command(*words)
    await master.asked(master.joined(), timeout_s=20)
    assert (await command.ended())[0] == 0
    command = Command(*words, "--run", DRQUEUE_RUN_AS="self")
    # A Join, in place of Hi, would fail here.
    async with master.link(timeout_s=20) as link:
        assert (await link.register()).name == "bench"
        assert line.rpartition(":")[2] not in command.shown(), "its frames, and everybody else, can read it"
        command.interrupt()
        assert (await command.ended())[:2] == (0, "")
    # Another line is another matter.
    other = str(structs.replace(parse_line(line, "node"), token=encoded(b"u" * 20)))
    command = Command(other, *words[1:], "--run")
    await master.asked(Rejected(code="bad-line", text="too old"), timeout_s=20)
    assert (await command.ended())[0] == 3


async def test_what_a_master_says_cannot_steer_the_terminal(tmp_path: Path, master: SecureMaster) -> None:
    command = Command(a_line(master), "--state-dir", str(tmp_path / "s"))
    await master.asked(Rejected(code="bad-line", text="\x1b[2Jno\njoined x as node y"), timeout_s=20)
    status, out, err = await command.ended()
    assert (status, out) == (3, "")
    assert err == (f"drqueue-slave: 127.0.0.1:{master.port} refuses: \\x1b[2Jno joined x as node y\n")


# -- the daemon --------------------------------------------------------------------------------------------


async def test_a_slave_is_joined_while_it_runs(tmp_path: Path, master: SecureMaster) -> None:
    async with a_daemon(tmp_path / "s"):
        command = Command(a_line(master), "--state-dir", str(tmp_path / "s"), "--name", "s")
        asked = await master.asked(master.joined(), timeout_s=20)
        assert (await command.ended())[0] == 0
        async with master.link(timeout_s=5) as link:
            hello = await link.register()
            assert secret_hash(link.hi.secret) == asked.secret_hash
            assert (hello.identity, hello.fingerprint) == (asked.identity, asked.fingerprint)
            assert parse_address(hello.control).host == "127.0.0.1"


@asynccontextmanager
async def a_client(control: str, role: Role, name: str = "ann") -> AsyncIterator[Channel]:
    """A client's link to slave 5, by a ticket."""
    claim = Claim(name=name, role=role, account="a", slave=5, expires_at=NOW + 200)
    async with await open_channel(parse_address(control), pin=secured.pin()) as channel:
        ticket = issue(claim, TICKET_KEY)
        await channel.dial(Dialler("client", "test", expect="slave", ticket=ticket))
        yield channel


async def ask(channel: Channel, request: Request) -> Request:
    """The answer to a request."""
    channel.send(request)
    with trio.fail_after(10):
        answer = await channel.receive()
    assert isinstance(answer, Request)
    return answer


async def heard_act(link: MasterLink) -> Acted:
    """The next act that the master hears of."""
    act = await link.hear(Acted)
    assert isinstance(act, Acted)
    return act


async def test_people_with_tickets_change_limits_and_kill_their_own(
    tmp_path: Path, master: SecureMaster
) -> None:
    write_access(str(tmp_path / "s/access.json"), [an_access(master)])
    mine = an_order(0, shell="sleep 60", submitter="ann")
    yours = an_order(1, shell="sleep 60", submitter="bob")
    async with a_daemon(tmp_path / "s") as daemon, master.link() as link:
        control = (await link.register(slave=5)).control
        link.channel.send(TicketKey(key=TICKET_KEY, now=NOW))
        link.order(mine, yours)
        await until(lambda: daemon._tickets.now is not None and len(daemon._state.alive()) == 2)
        async with a_client(control, "artist") as client:
            refusal = await ask(client, KillAttempts(rq=1, keys=(yours.key,)))
            assert isinstance(refusal, Refusal)
            assert refusal.code == "not-allowed"
            assert await ask(client, KillAttempts(rq=2, keys=(mine.key,))) == Done(rq=2, count=1)
            assert (await link.hear_exit(mine.key)).exit.reason == "killed"
            act = await heard_act(link) if not _acts(link) else _acts(link)[0]
            assert (act.who, act.role, act.outcome) == ("ann", "artist", "not-allowed")
            assert NOW <= act.at < NOW + 60
        async with a_client(control, "supervisor", "sue") as client:
            disable = SetLimits(rq=3, change=LimitsChange(enabled=False))
            assert await ask(client, disable) == Done(rq=3, count=1)
            limits = await link.hear(LimitsNow)
            assert isinstance(limits, LimitsNow)
            assert not limits.limits.enabled
        await until_act(link, "set enabled=no")
        assert len(daemon._state.alive()) == 1


def _acts(link: MasterLink) -> list[Acted]:
    return [message for message in link.heard if isinstance(message, Acted)]


async def until_act(link: MasterLink, what: str) -> None:
    """Return once the master heard of that."""
    while not any(act.what == what for act in _acts(link)):
        await link.hear(Acted)


async def test_without_control_there_is_no_port_at_all(tmp_path: Path, master: SecureMaster) -> None:
    write_access(str(tmp_path / "s/access.json"), [an_access(master)])
    async with a_daemon(tmp_path / "s", control=False) as daemon, master.link() as link:
        assert (await link.register()).control == ""
        assert daemon._network._listener is None
        assert not (tmp_path / "s/control.sock").exists()


async def test_a_cloned_disk_is_another_slave_that_waits_to_be_approved(
    tmp_path: Path, master: SecureMaster, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "s").mkdir(0o700)
    former = load_or_create(str(tmp_path / "s"), "s", Machine("another machine's"))
    write_access(str(tmp_path / "s/access.json"), [an_access(master)])
    async with a_daemon(tmp_path / "s"):
        pending = Rejected(code="pending", text="wait", retry=True)
        asked = await master.asked(pending)
        assert (asked.token, asked.identity != former.id) == ("", True)
        assert asked.secret_hash != secret_hash("s" * 52)
        again = await master.asked(master.joined(account="new"), timeout_s=20)
        assert again.secret_hash == asked.secret_hash
        async with master.link(timeout_s=10) as link:
            hello = await link.register()
            assert hello.identity == asked.identity
            assert secret_hash(link.hi.secret) == asked.secret_hash
    assert any("drqueue node approve" in record.getMessage() for record in caplog.records)
    assert read_access(str(tmp_path / "s/access.json.cloned")) == [an_access(master)]


async def test_a_slave_of_this_machines_master_does_without_tls(tmp_path: Path) -> None:
    """It is the many that stay small: what speaks TLS is loaded once it is needed."""
    master = ScriptedMaster(str(tmp_path / "m.sock"))
    argv = [sys.executable, "-X", "importtime", "-m", "drqueue.slave", "--name", "s"]
    argv += ["--state-dir", str(tmp_path / "s"), "--master", f"unix:{master.path}", "--kill-frames-on-exit"]
    slave = Command(argv=argv, DRQUEUE_RUN_AS="self")
    async with master.link(timeout_s=30) as link:
        await link.register()
        slave.interrupt()
        _, _, err = await slave.ended()
    master.close()
    loaded = {line.rpartition("|")[2].strip() for line in err.splitlines() if line.startswith("import time")}
    assert "drqueue.slave.link" in loaded
    assert not loaded & {"drqueue.tls", "drqueue.dialling", "drqueue.slave.examine", "drqueue.checkup"}
