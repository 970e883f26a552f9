"""Slaves' links to a master that is nothing else: what they tell the core is kept for a test to look at."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from drqueue.channel import Channel
from drqueue.engine import Inbox
from drqueue.master.core.events import Event, SlaveLinked
from drqueue.master.slaves import SlaveLinks
from drqueue.proto.handshake import Answerer, Dialler
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import (
    Report,
    Started,
    Welcome,
)
from drqueue.proto.roles import Who
from tests.builders import a_hello

SILENCE_S = 30.0
WHO = Who(name="n1", role="node", account="0123456789abcdef", peer="192.0.2.1")


def a_key(frame: int) -> AttemptKey:
    return AttemptKey(1, 0, frame, 1)


def a_report(frame: int) -> Report:
    return Report(started=(Started(a_key(frame), 5.0),))


class Rig:
    """The links, and what they told the core. Links are numbered from 1."""

    def __init__(self, limit: int = 10_000) -> None:
        self.inbox: Inbox[Event] = Inbox(limit)
        self.slaves = SlaveLinks(self.inbox, beat_s=10.0, silence_s=SILENCE_S)
        self.ended: set[int] = set()
        self._number = 0

    async def events(self) -> list[Event]:
        """All that came by now."""
        await trio.testing.wait_all_tasks_blocked()
        return await self.inbox.take(0) or []

    @asynccontextmanager
    async def dialled(self) -> AsyncIterator[Channel]:
        """A slave's end of a link past its handshake."""
        self._number += 1
        number = self._number
        one, two = socket.socketpair()
        near, far = Channel(one), Channel(two, "slave")
        async with far, trio.open_nursery() as nursery:
            async with trio.open_nursery() as shaking:
                shaking.start_soon(near.answer, Answerer(Welcome(version=1), frozenset({"slave"})))
                shaking.start_soon(far.dial, Dialler("slave", "test"))

            async def serve() -> None:
                async with trio.open_nursery() as link:
                    link.start_soon(near.pump)
                    await self.slaves.serve(number, near, WHO, "test 9")
                self.ended.add(number)

            nursery.start_soon(serve)
            nursery.start_soon(far.pump)
            yield far
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def linked(self, name: str = "s1") -> AsyncIterator[Channel]:
        """A slave that said Hello; that is not among the events any more."""
        async with self.dialled() as far:
            far.send(a_hello(name))
            (linked,) = await self.events()
            assert isinstance(linked, SlaveLinked)
            yield far
