"""A farm under attack: real daemons on ports of this machine, hostile peers, and what must not come of them.

`a_site` is a master that listens, a slave `good` that joined by a line, people who logged in, and two jobs of
Anna's: VICTIM, one frame that runs all the time, and BACKGROUND, short frames without end. `Site.siege` is
entered for each case; left, nothing has changed, frames went on being dispatched and no link was dropped.
Every attacker has an address of its own (127.0.0.N), since the audit and the gate tell them apart by that.
"""

import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgpack
import trio

from drqueue.access import Access, read_access
from drqueue.channel import Channel, LinkClosed
from drqueue.client.login import log_in
from drqueue.proto import messages
from drqueue.proto.handshake import Dialler
from drqueue.proto.ids import AttemptKey
from drqueue.proto.lines import parse_line, secret_hash
from drqueue.proto.link_messages import Join, Joined, LinkRole, Message, Rejected
from drqueue.proto.model import JobSpec, LayerSpec
from drqueue.proto.views import AuditView
from drqueue.tls import TlsSession, client_context
from tests import secured
from tests.e2e.helpers import Cli, Running, until, wait_until
from tests.master.guests import Guest
from tests.ports import free_port

HOST = "127.0.0.1"
ATTACKER = Path(__file__).with_name("attacker.py")
WATCHED = Path(__file__).with_name("watched.py")
PEOPLE = {"anna": "artist", "bert": "artist", "vera": "viewer", "sue": "supervisor"}
#: A link is given up after ten seconds of silence: none may be, whatever goes on.
ENV = {
    "DRQUEUE_BEAT_S": "1",
    "DRQUEUE_SILENCE_S": "10",
    "DRQUEUE_BACKOFF_S": "0.05",
    "DRQUEUE_GRACE_S": "0.5",
    "DRQUEUE_RUN_AS": "self",
}


class Site:
    """The farm. `folder` holds everything; `anna` and the others are ways in (`Access`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.control = free_port(), free_port()
        folder.joinpath("work").mkdir(parents=True)
        self.cli = Cli(folder / "state", folder / "work", ENV)
        # Nodes are other machines: they find no master's socket.
        self.nodes = Cli(folder / "nodes", folder / "work", ENV)
        self.master_log = folder / "master.log"
        self.steps = folder / "steps"
        self.pin = ""
        self.ways: dict[str, Access] = {}
        self.victim = self.background = -1
        self._hosts = count(2)
        self._running: list[Running] = []

    # -- building it --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the daemons, log everybody in, and submit Anna's jobs."""
        argv = (WATCHED, self.steps, "drqueue.master", "--listen", f"{HOST}:{self.port}")
        self.master = self._daemon(self.cli, *argv, log=self.master_log)
        wait_until("the master is up", lambda: " is up" in self.master_log.read_text())
        trio.run(self._let_in)
        self.start_slave("good", control=f"{HOST}:{self.control}")
        trio.run(self._submit)

    def end(self) -> None:
        """End the slaves with their frames, then the master."""
        for running in reversed(self._running):
            with running:
                running.process.terminate()
                running.finish()

    def _daemon(self, cli: Cli, *words: object, log: Path) -> Running:
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                cwd=cli.cwd,
                env=cli.environ(),
                text=True,
            )
        running = Running(process)
        self._running.append(running)
        return running

    async def _let_in(self) -> None:
        async with self.admin() as admin:
            # Each way once as it is typed; a process takes its time to start.
            await self.join_slave(admin, "good")
            for name, role in PEOPLE.items():
                line = str(await admin.line("user", name=name, role=role))
                if name == "anna":
                    cli = Cli(self.cli.state_dir, self.cli.cwd, self.person(name))
                    await trio.to_thread.run_sync(cli.run, "login", line)
                else:
                    await log_in(line, self.person(name))
                self.ways[name] = read_access(self.person(name)["DRQUEUE_ACCESS"])[0]
        self.pin = self.ways["anna"].pin

    def person(self, name: str) -> dict[str, str]:
        """The environment of somebody's client."""
        return {"DRQUEUE_ACCESS": str(self.folder / name / "access.json"), "HOME": str(self.folder / name)}

    def state_of(self, slave: str) -> Path:
        """A slave's state directory."""
        return self.nodes.state_dir / f"slave-{slave}"

    async def join_slave(self, admin: Guest, name: str) -> None:
        """Have a slave join by a line."""
        line = str(await admin.line("node", name=name))
        join = partial(self.nodes.run, "join", line, "--name", name, module="drqueue.slave")
        await trio.to_thread.run_sync(join)

    def start_slave(self, name: str, *, control: str) -> Running:
        """Start a slave that listens there; it is not waited for."""
        cli = Cli(self.nodes.state_dir, self.nodes.cwd, {**ENV, "DRQUEUE_CONTROL_LISTEN": control})
        words = ("-m", "drqueue.slave", "--name", name, "--cores", 2, "--kill-frames-on-exit")
        return self._daemon(cli, *words, log=self.folder / f"{name}.log")

    async def _submit(self) -> None:
        async with self.dial("anna") as anna:
            self.victim = await anna.submit(a_spec("victim", "1", "sleep", "1000", priority=900))
            self.background = await anna.submit(a_spec("background", "1-100000", "sleep", "0.05"))
        async with self.admin() as admin:

            async def runs() -> bool:
                frames = await admin.ask(messages.ListFrames, job=self.victim)
                job = await admin.ask(messages.GetJob, job=self.background)
                return bool(frames.frames[0].state == "RUNNING" and job.job.counts.done > 0)

            await until("the farm renders", runs)

    # -- links ----------------------------------------------------------------------------------------

    def address(self) -> str:
        """An address of this machine that nobody attacked from yet."""
        return f"127.0.0.{next(self._hosts)}"

    def secret_of_slave(self, name: str) -> str:
        """What lies in a slave's state directory for whoever steals it."""
        return read_access(str(self.state_of(name) / "access.json"))[0].secret

    def connect(self, source: str = HOST, port: int = 0) -> socket.socket:
        """A plain connection to the master's port, or another, from an address of this machine."""
        return socket.create_connection((HOST, port or self.port), timeout=20, source_address=(source, 0))

    @asynccontextmanager
    async def channel(self, source: str = HOST, port: int = 0, pin: str = "") -> AsyncIterator[Channel]:
        """A link past TLS, before its first message, to whoever has that pin (default: the master)."""
        async with pumped(Channel(self.connect(source, port))) as channel:
            session = TlsSession(client_context(), server_side=False)
            await channel.secure(session)
            session.check_pin(pin or self.pin, "there")
            yield channel

    @asynccontextmanager
    async def enter(self, role: LinkRole, secret: str, source: str = HOST) -> AsyncIterator[Guest]:
        """A link that showed a secret. Raises HandshakeRejected."""
        async with self.channel(source) as channel:
            await channel.dial(Dialler(role, "drqueue hostile", "hostile", secret=secret))
            yield Guest(channel)

    @asynccontextmanager
    async def dial(self, name: str, source: str = HOST) -> AsyncIterator[Guest]:
        """A person's link to the master."""
        async with self.enter("client", self.ways[name].secret, source) as guest:
            yield guest

    @asynccontextmanager
    async def by_ticket(self, ticket: messages.Ticket, source: str = HOST) -> AsyncIterator[Guest]:
        """A link to a slave's own port that showed a ticket. Raises HandshakeRejected."""
        port = int(ticket.control.rpartition(":")[2])
        async with self.channel(source, port, ticket.pin) as channel:
            await channel.dial(Dialler("client", "drqueue hostile", expect="slave", ticket=ticket.ticket))
            yield Guest(channel)

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[Guest]:
        """A link over the master's Unix socket, as its own user."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.cli.state_dir / "master.sock"))
        async with pumped(Channel(sock)) as channel:
            await channel.dial(Dialler("client", "drqueue hostile"))
            yield Guest(channel)

    async def join(self, line: str, secret: str, role: LinkRole, source: str = HOST) -> Joined | Rejected:
        """What the master says to whoever uses a line."""
        parsed = parse_line(line, "node" if role == "slave" else "user")
        async with self.channel(source) as channel:
            channel.send(Join(role=role, secret_hash=secret_hash(secret), token=parsed.token, name="joiner"))
            answer = await channel.first_message()
            assert isinstance(answer, Joined | Rejected), answer
            return answer

    # -- the attack -----------------------------------------------------------------------------------

    def attacker(self, source: str, what: str, *words: object, port: int = 0) -> list[str]:
        """The command line of a hostile process."""
        argv = (sys.executable, ATTACKER, port or self.port, source, what, *words)
        return [str(word) for word in argv]

    async def attack(self, source: str, what: str, *words: object, port: int = 0) -> Counter[str]:
        """Let a hostile process do its worst; how what it threw ended."""
        done = await trio.run_process(self.attacker(source, what, *words, port=port), capture_stdout=True)
        return Counter(json.loads(done.stdout))

    def busiest(self) -> dict[str, float]:
        """Milliseconds of the longest step and turn of the master's loop, since this was asked last."""
        longest: dict[str, float] = {}
        for line in self.steps.read_text().splitlines():
            what, milliseconds = line.split()[:2]
            longest[what] = float(milliseconds)
        os.truncate(self.steps, 0)
        return longest

    def forget_peak(self) -> int:
        """Kilobytes of memory that the master has; `grown` counts from here on."""
        process = Path(f"/proc/{self.master.process.pid}")
        (process / "clear_refs").write_text("5")
        return _status(process)["VmRSS"]

    def grown(self, since: int) -> int:
        """Kilobytes by which the master had at most more memory than then."""
        return _status(Path(f"/proc/{self.master.process.pid}"))["VmHWM"] - since

    @asynccontextmanager
    async def siege(self) -> AsyncIterator["Siege"]:
        """An attack comes inside; afterwards nothing has changed and the farm has gone on."""
        async with self.admin() as admin:
            siege = Siege(self, admin)
            await siege.begin()
            yield siege
            await siege.assert_unharmed()


class Standing(NamedTuple):
    """Everything of a farm that an attack must leave as it is."""

    jobs: tuple[object, ...]
    victim: tuple[object, ...]
    accounts: tuple[object, ...]
    slaves: tuple[object, ...]


class Siege:
    """One case: an admin who looks on."""

    def __init__(self, site: Site, admin: Guest) -> None:
        self.site = site
        self.admin = admin

    async def begin(self) -> None:
        """Remember how things stand."""
        self._cursor = (await self.admin.ask(messages.ListAudit, latest=1)).next
        self._log = self.site.master_log.stat().st_size
        self._before = await self.standing()
        self._done = await self.done()

    async def standing(self) -> Standing:
        """How things stand."""
        jobs = (await self.admin.ask(messages.ListJobs, all=True)).jobs
        frames = (await self.admin.ask(messages.ListFrames, job=self.site.victim)).frames
        accounts = [
            account
            for kind in ("node", "user")
            for pending in (False, True)
            for account in (await self.admin.ask(messages.ListAccounts, kind=kind, pending=pending)).accounts
        ]
        slaves = (await self.admin.ask(messages.ListSlaves)).slaves
        return Standing(
            tuple((j.id, j.name, j.submitter, j.priority, j.pool, j.counts.total) for j in jobs),
            tuple((f.state, f.attempt, f.slave, f.progress, f.activity) for f in frames),
            tuple(accounts),
            tuple((s.id, s.name, s.linked, s.limits, s.control, s.machine) for s in slaves),
        )

    async def done(self) -> int:
        """Frames of the background job that are done."""
        job = await self.admin.ask(messages.GetJob, job=self.site.background)
        done: int = job.job.counts.done
        return done

    async def dispatched(self) -> None:
        """Return once further frames are done."""
        before = await self.done()

        async def more() -> bool:
            return await self.done() > before

        await until("further frames are done", more)

    async def since(self) -> list[AuditView]:
        """All rows of the audit that were written since the beginning."""
        found: list[AuditView] = []
        cursor = self._cursor
        while True:
            page = await self.admin.ask(messages.ListAudit, cursor=cursor, limit=1000)
            if not page.rows:
                return found
            cursor = page.next
            found += page.rows

    async def rows(self, outcome: str, *words: str, **fields: str) -> list[AuditView]:
        """Those of them with this outcome, these words and fields."""
        return [
            row
            for row in await self.since()
            if row.outcome == outcome
            and all(word in row.what for word in words)
            and all(getattr(row, name) == value for name, value in fields.items())
        ]

    async def audited(self, outcome: str, *words: str, **fields: str) -> AuditView:
        """The one row that tells of it, however often it was tried."""
        rows: list[AuditView] = []

        async def found() -> bool:
            rows[:] = await self.rows(outcome, *words, **fields)
            return bool(rows)

        try:
            await until("it is audited", found)
        except AssertionError:
            told = await self.since()
            raise AssertionError(f"no {outcome} of {words} {fields} in {told}") from None
        assert len(rows) == 1, rows
        return rows[0]

    async def refused(self, guest: Guest, kind: type[messages.Request], /, **fields: Any) -> messages.Refusal:
        """Ask twice for what somebody may not do; the refusal."""
        first = await guest.ask(kind, **fields)
        second = await guest.ask(kind, **fields)
        assert isinstance(first, messages.Refusal), first
        assert (second.code, second.text) == (first.code, first.text)
        return first

    async def victims_key(self) -> AttemptKey:
        """The attempt that runs of Anna's frame."""
        place = await self.admin.ask(messages.FindLog, job=self.site.victim, number=1)
        key: AttemptKey = place.key
        return key

    async def assert_unharmed(self) -> None:
        """Nothing changed, frames went on, the good slave's link stood throughout, nobody met a bug."""
        now = await self.standing()
        for what, before, after in zip(Standing._fields, self._before, now, strict=True):
            assert after == before, f"{what}: {before} became {after}"
        assert await self.done() >= self._done
        await self.dispatched()
        with self.site.master_log.open() as file:
            file.seek(self._log)
            said = file.read()
        assert "bug" not in said, said
        gone = [
            line
            for line in said.splitlines()
            if "slave=good" in line
            and ("slave unlinked" in line or "silent" in line or "turned away" in line)
            # Somebody else on a link of their own, who came with its secret.
            and "says it is the same one" not in line
        ]
        assert gone == [], gone


def a_spec(name: str, frames: str, *argv: str, **fields: Any) -> JobSpec:
    """A job of one command."""
    return JobSpec(name=name, layers=(LayerSpec(argv=argv, frames=frames, cwd="/"),), **fields)


@asynccontextmanager
async def pumped(channel: Channel) -> AsyncIterator[Channel]:
    """A channel that works, closed at the end; what goes wrong meanwhile is raised bare, in no group."""
    failure: Exception | None = None
    async with channel, trio.open_nursery() as nursery:
        nursery.start_soon(channel.pump)
        try:
            yield channel
        except Exception as error:  # noqa: BLE001  (raised again below)
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


@contextmanager
def a_site(folder: Path) -> Iterator[Site]:
    """The farm, ended at the end."""
    site = Site(folder)
    try:
        site.start()
        yield site
    finally:
        site.end()


def packet(message: object) -> bytes:
    """Anything as it goes over a link."""
    body: bytes = msgpack.packb(message)
    return struct.pack(">I", len(body)) + body


async def ends(channel: Channel) -> list[Message]:
    """What a link says until it ends, which must be soon."""
    heard: list[Message] = []
    with trio.fail_after(20):
        try:
            while True:
                heard.append(await channel.receive())
        except LinkClosed:
            return heard


class Impostor:
    """Listens with a certificate of its own, and keeps every word that is said to it inside TLS."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.met = 0
        self.heard = b""
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            plain.settimeout(10)
            try:
                with secured.server().wrap_socket(plain, server_side=True) as link:
                    while part := link.recv(65536):
                        self.heard += part
            except (ssl.SSLError, OSError):
                # Whoever saw through it may leave as they like.
                pass
            self.met += 1


def _status(process: Path) -> dict[str, int]:
    """The sizes in /proc/PID/status, in kilobytes."""
    lines = (line.split() for line in (process / "status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words[-1] == "kB"}
