"""One link to a master or to a slave's control port, with many requests in flight.

Rules: every request gets its own number and its answer wakes exactly its asker; when the link ends all
who wait hear `LinkLost`. Changes go into the queue of their watch: at most `BACKLOG` of them, then one that
says "resync". Reconnecting is not done here.
"""

import itertools
from collections import deque
from typing import TypeVar

import msgspec
import trio

from drqueue import __version__
from drqueue.channel import Channel, LinkClosed
from drqueue.client.errors import BadRequest, DrQueueError, refused
from drqueue.dialling import CONNECT_S, open_channel
from drqueue.proto.errors import LocalProtocolError, RemoteProtocolError
from drqueue.proto.handshake import Dialler
from drqueue.proto.link_messages import Beat, Message, Peer, Rejected, Welcome
from drqueue.proto.messages import Changed, Refusal, Request, Unwatch, Watch, Watching
from drqueue.settings import Address

SOFTWARE = f"drqueue {__version__}"
BEAT_S = 10.0
SILENCE_S = 30.0
BACKLOG = 256

A = TypeVar("A", bound=Message)


class LinkLost(Exception):  # noqa: N818  (an event of a link's life)
    """The link ended before the answer came; `sent` is False where the request cannot have left."""

    def __init__(self, why: str, *, sent: bool = True) -> None:
        super().__init__(why)
        self.sent = sent


class ChangeQueue:
    """The changes of one watch that its reader has not fetched yet."""

    def __init__(self) -> None:
        self._changes: deque[Changed] = deque()
        self._news = trio.Event()
        self._lost = ""
        self.number = -1

    def put(self, change: Changed) -> None:
        """Queue a change; a reader too slow for BACKLOG of them gets one `resync` in their place."""
        if len(self._changes) >= BACKLOG:
            self._changes.clear()
            change = Changed(watch=change.watch, resync=True)
        self._changes.append(change)
        self._news.set()

    def end(self, why: str) -> None:
        """No more changes will come: the link is gone."""
        self._lost = why or "closed"
        self._news.set()

    async def get(self) -> Changed:
        """The next change; LinkLost once all are read and the link is gone."""
        while not self._changes:
            if self._lost:
                raise LinkLost(self._lost)
            self._news = trio.Event()
            await self._news.wait()
        return self._changes.popleft()


class _Waiter:
    def __init__(self, changes: ChangeQueue | None) -> None:
        self.answered = trio.Event()
        self.answer: Message | None = None
        self.changes = changes


class Link:
    """Requests out, answers and changes in. `serve` must run in a task as long as the link is used."""

    def __init__(self, channel: Channel, welcome: Welcome, address: Address) -> None:
        self.welcome = welcome
        self.address = address
        self._channel = channel
        self._numbers = itertools.count()
        self._open: dict[int, _Waiter] = {}
        self._watches: dict[int, ChangeQueue] = {}
        self._over = ""

    @property
    def over(self) -> bool:
        """True once the link is gone."""
        return bool(self._over) or self._channel.closed

    @property
    def local(self) -> bool:
        """Whether it is a Unix socket's: then the other side is this machine."""
        return self.address.kind == "unix"

    def close(self) -> None:
        """Give the link up; whoever waits hears LinkLost."""
        self._channel.close()
        self._end("closed")

    async def serve(self) -> None:
        """Read until the link ends, answer and send beats; never raises for what a peer does."""
        why = "closed"
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._channel.pump)
                nursery.start_soon(self._beat)
                why = await self._read()
                nursery.cancel_scope.cancel()
        finally:
            self._channel.close(why)
            self._end(why)

    async def ask(self, request: Request, kind: type[A], changes: ChangeQueue | None = None) -> A:
        """Send a request and wait for its answer of that kind. Raises Refused, LinkLost."""
        if self.over:
            raise LinkLost(self._over or "closed", sent=False)
        number = next(self._numbers)
        waiter = self._open[number] = _Waiter(changes)
        try:
            try:
                self._channel.send(msgspec.structs.replace(request, rq=number))
            except LocalProtocolError as error:
                raise BadRequest("too-large", f"that is too much for one request: {error}") from None
            except UnicodeEncodeError as error:
                raise BadRequest("bad-request", f"{error.object!r:.80} is not valid UTF-8 text") from None
            await waiter.answered.wait()
        finally:
            del self._open[number]
        answer = waiter.answer
        if answer is None:
            raise LinkLost(self._over)
        if isinstance(answer, Refusal):
            raise refused(answer.code, answer.text)
        if not isinstance(answer, kind):
            name = type(request).__name__
            raise DrQueueError(f"the {self.welcome.peer} answered {name} with {type(answer).__name__}")
        return answer

    async def watch(self, request: Watch) -> ChangeQueue:
        """Have changes sent; they are in the queue from the very first on."""
        changes = ChangeQueue()
        await self.ask(request, Watching, changes)
        return changes

    def unwatch(self, changes: ChangeQueue) -> None:
        """End a watch; nobody waits for the answer."""
        if self._watches.pop(changes.number, None) is not None and not self.over:
            self._channel.send(Unwatch(rq=next(self._numbers), watch=changes.number))

    async def _read(self) -> str:
        while True:
            try:
                message = await self._channel.receive()
            except (LinkClosed, RemoteProtocolError) as error:
                return str(error)
            match message:
                case Changed():
                    if message.watch in self._watches:
                        self._watches[message.watch].put(message)
                case Beat():
                    if message.echo:
                        self._channel.send(Beat())
                case Rejected():
                    return message.text
                case Request():
                    self._answered(message)
                case _:
                    return f"the {self.welcome.peer} sent {type(message).__name__} to a client"

    def _answered(self, message: Request) -> None:
        waiter = self._open.get(message.rq)
        if waiter is None:
            # Its asker was cancelled meanwhile; a watch that nobody reads must not stay.
            if isinstance(message, Watching):
                self._channel.send(Unwatch(rq=next(self._numbers), watch=message.watch))
            return
        if isinstance(message, Watching) and waiter.changes is not None:
            waiter.changes.number = message.watch
            self._watches[message.watch] = waiter.changes
        waiter.answer = message
        waiter.answered.set()

    async def _beat(self) -> None:
        while True:
            await trio.sleep(BEAT_S)
            if trio.current_time() - self._channel.last_received > SILENCE_S:
                self._channel.close(f"the {self.welcome.peer} said nothing for {SILENCE_S:.0f} s")
                return
            self._channel.send(Beat(echo=True))

    def _end(self, why: str) -> None:
        self._over = self._over or why
        for waiter in self._open.values():
            waiter.answered.set()
        for changes in self._watches.values():
            changes.end(self._over)
        self._watches.clear()


async def dial(
    address: Address,
    expect: Peer = "master",
    *,
    pin: str = "",
    secret: str = "",
    ticket: bytes = b"",
    timeout_s: float = CONNECT_S,
) -> Link:
    """A new link, past its handshake; over TCP with the pin of the peer's certificate, and what lets in.

    Raises OSError, PinMismatch, LinkClosed, RemoteProtocolError, HandshakeRejected.
    """
    channel = await open_channel(address, pin=pin, timeout_s=timeout_s)
    try:
        welcome = await channel.dial(Dialler("client", SOFTWARE, expect=expect, secret=secret, ticket=ticket))
    except BaseException:
        channel.close()
        raise
    return Link(channel, welcome, address)
