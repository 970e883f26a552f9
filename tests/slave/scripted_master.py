"""A master that a test plays by hand: it listens, shakes hands, and says and hears real messages."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from drqueue.channel import Channel
from drqueue.proto.handshake import Answerer
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import (
    PROTOCOL_NEWEST,
    Beat,
    Exited,
    Hello,
    Message,
    Orders,
    Registered,
    Report,
    Started,
    Welcome,
)
from drqueue.proto.model import RunOrder
from drqueue.unixpath import bind_unix


class MasterLink:
    """One slave's link, as the scripted master sees it. `heard` is every message, in order."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
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

    @asynccontextmanager
    async def link(self, timeout_s: float = 10) -> AsyncIterator[MasterLink]:
        """The next slave that dials, greeted."""
        with trio.fail_after(timeout_s):
            await trio.lowlevel.wait_readable(self._listener)
            sock, _ = self._listener.accept()
            channel = Channel(sock, "slave")
            welcome = Welcome(
                version=PROTOCOL_NEWEST, software="test", farm=self.farm, epoch=self.epoch, peer="master"
            )
            assert await channel.answer(Answerer(welcome, {"slave"})) is not None
        link = MasterLink(channel)
        link.epoch = self.epoch
        async with channel, trio.open_nursery() as nursery:
            nursery.start_soon(channel.pump)
            try:
                yield link
            finally:
                nursery.cancel_scope.cancel()

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()
        os.unlink(self.path)
