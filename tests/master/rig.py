"""A master without sockets or files: a real core behind a real engine, a disk that a test may hold up."""

import random
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio
import trio.testing

from drqueue import engine
from drqueue.channel import Channel, LinkClosed
from drqueue.engine import Inbox
from drqueue.lag import LagProbe
from drqueue.master.clients import ClientLinks
from drqueue.master.core.core import Core
from drqueue.master.core.effects import (
    Answer,
    AnswerJoin,
    AskHistory,
    Audited,
    CutClients,
    Effect,
    MailFinished,
    Publish,
    Tell,
    Unlink,
)
from drqueue.master.core.events import Event
from drqueue.master.core.records import AnyRecord
from drqueue.master.core.turn import Policy
from drqueue.master.desk import Desk
from drqueue.master.hub import Hub
from drqueue.master.past import fill_frames
from drqueue.master.slaves import SlaveLinks
from drqueue.master.storage import Storage, StorageError
from drqueue.master.storage.memory import MemoryStorage
from drqueue.proto.handshake import Answerer, Dialler
from drqueue.proto.link_messages import Message, Orders, Registered, TicketKey, Welcome
from drqueue.proto.messages import (
    Request,
    Submit,
    Submitted,
)
from drqueue.proto.roles import Who
from drqueue.proto.views import Finding
from tests.builders import WALL, a_hello, a_job

T = TypeVar("T")

ROOT = Who(name="root", role="admin", peer="uid 0")


class Disk:
    """The history of attempts in memory. `held_up` keeps commits from ending, as a full disk does."""

    def __init__(self, storage: MemoryStorage) -> None:
        self.storage = storage
        self.alarm = ""
        self.may_end = trio.Event()
        self.may_end.set()

    def hold_up(self, alarm: str = "") -> None:
        self.may_end = trio.Event()
        self.alarm = alarm

    def let_go(self) -> None:
        self.alarm = ""
        self.may_end.set()

    async def commit(self, records: Sequence[AnyRecord]) -> None:
        await self.may_end.wait()
        self.storage.commit(records)

    async def read(self, ask: Callable[[Storage], T]) -> T:
        await trio.lowlevel.checkpoint()
        return ask(self.storage)


class Rig:
    """A master without sockets: links are pairs, slave 0 may be linked by hand."""

    def __init__(self) -> None:
        self.disk = Disk(MemoryStorage())
        self.inbox: Inbox[Event] = Inbox()
        policy = Policy(
            farm="f",
            epoch=1,
            software="test",
            line_host="192.0.2.1",
            line_port=1234,
            line_pin="p" * 52,
            ticket_seed=b"s" * 32,
        )
        self.core = Core(
            policy,
            self.disk.storage.load(),
            trio.current_time(),
            WALL,
        )
        self.slaves = SlaveLinks(self.inbox, 10.0, 30.0)
        self.hub = Hub(lambda: self.core.state, lambda views: fill_frames(self.disk, views))
        self.findings: tuple[Finding, ...] = (Finding(what="disk", state="ok", text="there is room"),)
        self.backup_fails: StorageError | None = None
        self.desk = Desk(self.disk, self.look, self.back_up)
        self.clients = ClientLinks(
            self.inbox, self.core, self.slaves, self.hub, self.disk, self.desk, LagProbe()
        )
        self.orders: list[Orders] = []
        self.ended = 0

    async def look(self) -> tuple[Finding, ...]:
        await trio.lowlevel.checkpoint()
        return self.findings

    async def back_up(self) -> tuple[str, int]:
        await trio.lowlevel.checkpoint()
        if self.backup_fails is not None:
            raise self.backup_fails
        return "asked-00000000.db", 4096

    def perform(self, effect: Effect) -> None:
        match effect:
            case Tell(message=Orders() as orders):
                self.orders.append(orders)
                self.slaves.tell(effect)
            case Tell():
                self.slaves.tell(effect)
            case Answer():
                self.clients.answer(effect)
            case Publish():
                self.hub.publish(effect)
            case AskHistory():
                self.clients.ask_history(effect)
            case Unlink():
                self.slaves.unlink(effect)
            case CutClients():
                self.clients.cut(effect)
            case AnswerJoin() | MailFinished():
                raise AssertionError(f"nobody asked for {effect}")
            case Audited():
                self.desk.audited()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.hub.run)
            await engine.run(self.core, self.inbox, self.disk.commit, self.perform)

    @asynccontextmanager
    async def _link(self, role: str, pump: bool = True, who: Who = ROOT) -> AsyncIterator[Channel]:
        one, two = socket.socketpair()
        near, far = Channel(one), Channel(two, role)
        answerer = Answerer(Welcome(version=1), ("client", "slave"))
        async with far, trio.open_nursery() as nursery:

            async def serve() -> None:
                async with trio.open_nursery() as link:
                    link.start_soon(near.pump)
                    hi = await near.answer(answerer)
                    assert hi is not None
                    if role == "slave":
                        await self.slaves.serve(77, near, who)
                    else:
                        await self.clients.serve(near, hi, who)
                self.ended += 1

            nursery.start_soon(serve)
            await far.dial(Dialler(role, "test", "peer"))  # type: ignore[arg-type]
            if pump:
                nursery.start_soon(far.pump)
            yield far
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def client(self, pump: bool = True, who: Who = ROOT) -> AsyncIterator[Channel]:
        async with self._link("client", pump, who) as far:
            yield far

    def audit(self) -> list[tuple[str, str, str]]:
        """Who, what and outcome of all rows of the audit."""
        return [(row.who, row.what, row.outcome) for row in self.disk.storage.audit(-1, 10_000)]

    @asynccontextmanager
    async def slave(self, **hello: Any) -> AsyncIterator[Channel]:
        """Slave s1, registered."""
        async with self._link("slave") as far:
            far.send(a_hello("s1", **hello))
            assert isinstance(await far.receive(), Registered)
            assert isinstance(await far.receive(), TicketKey)
            yield far

    async def submit(self, client: Channel, frames: str = "1-2", **fields: object) -> int:
        token = f"token-{random.getrandbits(60):x}"
        answer = await ask(client, Submit(rq=9999, token=token, spec=a_job(frames, **fields)))  # type: ignore[arg-type]
        assert isinstance(answer, Submitted)
        return answer.job


async def ask(client: Channel, request: Request) -> Message:
    """The next thing said after a request."""
    client.send(request)
    with trio.fail_after(20):
        return await client.receive()


async def listen(far: Channel, found: list[Message]) -> None:
    """Take all that comes until the link ends."""
    try:
        while True:
            found.append(await far.receive())
    except LinkClosed:
        return


async def said(far: Channel) -> list[Message]:
    """All that was said to this peer by now."""
    found: list[Message] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, far, found)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return found


def replaced(message: Request, rq: int) -> Request:
    fields = {name: getattr(message, name) for name in message.__struct_fields__}
    return type(message)(**{**fields, "rq": rq})
