"""A master that a test plays by hand: it listens, shakes hands, and says and hears real messages."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from drqueue.address import Address
from drqueue.channel import Channel
from drqueue.proto.handshake import Answerer
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import (
    PROTOCOL_NEWEST,
    Beat,
    Exited,
    Hello,
    Hi,
    Join,
    Joined,
    Message,
    Orders,
    Registered,
    Rejected,
    Report,
    Started,
    Welcome,
)
from drqueue.proto.model import RunOrder
from drqueue.tls import TlsSession
from drqueue.unixpath import bind_unix
from tests import secured


class MasterLink:
    """One slave's link, as the scripted master sees it. `heard` is every message, in order."""

    def __init__(self, channel: Channel, hi: Hi) -> None:
        self.channel = channel
        self.hi = hi
        self.heard: list[Message] = []
        self.epoch = 1

    async def hear(self, kind: type[Message], timeout_s: float = 10) -> Message:
        """The next message of a kind; others are kept in `heard`."""
        with trio.fail_after(timeout_s):
            while True:
                message = await self.channel.receive()
                self.heard.append(message)
                if isinstance(message, Beat) and message.echo:
                    self.channel.send(Beat())
                if isinstance(message, kind):
                    return message

    async def register(self, slave: int = 0, name: str = "s", **rhythm: float) -> Hello:
        """Hear Hello and take the slave on."""
        hello = await self.hear(Hello)
        assert isinstance(hello, Hello)
        self.channel.send(Registered(slave=slave, name=name, **rhythm))
        return hello

    def order(self, *run: RunOrder, stop: tuple = (), noted: tuple[AttemptKey, ...] = ()) -> None:
        """Send orders."""
        self.channel.send(Orders(epoch=self.epoch, run=run, stop=stop, noted=noted))

    async def hear_exit(self, key: AttemptKey, timeout_s: float = 10) -> Exited:
        """The exit of an attempt, once it is reported."""
        while True:
            report = await self.hear(Report, timeout_s)
            assert isinstance(report, Report)
            for item in report.exited:
                if item.key == key:
                    return item

    async def hear_start(self, key: AttemptKey, timeout_s: float = 10) -> Started:
        """The start of an attempt, once it is reported."""
        while True:
            report = await self.hear(Report, timeout_s)
            assert isinstance(report, Report)
            for item in report.started:
                if item.key == key:
                    return item


class ScriptedMaster:
    """Listens at a path; each link is accepted by `link`."""

    def __init__(self, path: str, farm: str = "farm-a", epoch: int = 1) -> None:
        self.path = path
        self.farm = farm
        self.epoch = epoch
        self._listener = bind_unix(path)
        self._listener.setblocking(False)

    async def _accept(self) -> Channel:
        await trio.lowlevel.wait_readable(self._listener)
        return Channel(self._listener.accept()[0], "slave")

    @asynccontextmanager
    async def link(self, timeout_s: float = 10) -> AsyncIterator[MasterLink]:
        """The next slave that dials, greeted."""
        with trio.fail_after(timeout_s):
            channel = await self._accept()
            welcome = Welcome(
                version=PROTOCOL_NEWEST, software="test", farm=self.farm, epoch=self.epoch, peer="master"
            )
            hi = await channel.answer(Answerer(welcome, {"slave"}))
            assert hi is not None
        link = MasterLink(channel, hi)
        link.epoch = self.epoch
        async with channel, trio.open_nursery() as nursery:
            nursery.start_soon(channel.pump)
            try:
                yield link
            finally:
                nursery.cancel_scope.cancel()

    async def turn_away(self, code: str, text: str = "no", *, retry: bool = False) -> Hi:
        """Reject the next slave that dials; what it said."""
        with trio.fail_after(10):
            channel = await self._accept()
            async with channel:
                hi = await channel.first_message()
                assert isinstance(hi, Hi)
                channel.reject(code, text, retry=retry)
                return hi

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()
        os.unlink(self.path)


class SecureMaster(ScriptedMaster):
    """The same by TLS, on a port of this machine; whoever joins is answered by hand, too."""

    def __init__(self, farm: str = "farm-a", epoch: int = 1) -> None:
        self.farm = farm
        self.epoch = epoch
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.pin = secured.pin()

    @property
    def address(self) -> Address:
        """Where it is."""
        return Address("tcp", host="127.0.0.1", port=self.port)

    async def _accept(self) -> Channel:
        channel = await super()._accept()
        await channel.secure(TlsSession(secured.server(), server_side=True))
        return channel

    async def asked(self, answer: Joined | Rejected | None, timeout_s: float = 10) -> Join:
        """Answer the next who wants to join (None: the link drops); what they said."""
        with trio.fail_after(timeout_s):
            channel = await self._accept()
            async with channel:
                join = await channel.first_message()
                assert isinstance(join, Join)
                if answer is not None:
                    channel.send(answer)
                return join

    def joined(self, account: str = "acc", name: str = "n1") -> Joined:
        """What it says to whom it takes on."""
        certificate, key = secured.certificate()
        return Joined(
            farm=self.farm, account=account, name=name, role="node", certificate=certificate, key=key
        )

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()
