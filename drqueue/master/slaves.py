"""Slaves' links: bytes to events on the way in, effects to bytes on the way out. Decides nothing.

A link's reader waits while the inbox is full, so a flood of reports slows its sender down. Requests
that the master relays to a slave (log parts, limits, kills) wait here for their answers. Whatever a
slave does, or this side does wrong about it, ends its own link at most.
"""

from collections import Counter
from math import inf

import trio
from msgspec import structs

from drqueue import log
from drqueue.channel import Channel, LinkClosed
from drqueue.engine import Inbox
from drqueue.master.core.effects import Tell, Unlink
from drqueue.master.core.events import Event, SlaveLinked, SlaveSaid, SlaveUnlinked
from drqueue.proto.codec import encode
from drqueue.proto.errors import LocalProtocolError, RemoteProtocolError
from drqueue.proto.link_messages import (
    Acted,
    Beat,
    Exited,
    Held,
    Hello,
    HelloMore,
    LimitsNow,
    LogKept,
    Message,
    Orders,
    Registered,
    Report,
    SecretTaken,
    Status,
)
from drqueue.proto.messages import (
    Done,
    Findings,
    KillAttempts,
    LogPart,
    Refusal,
    Request,
    SetLimits,
    SlaveInfo,
)
from drqueue.proto.model import Exit
from drqueue.proto.roles import Who

#: Attempts one slave may hold; far above what a machine can run.
_HELD_MOST = 20_000
#: Links of one node at once: the one that it has, and some that were cut and are not known to be gone.
_LINKS_OF_ONE = 8
#: Bytes of what a slave says of itself: the master keeps them, and shows several slaves in one packet.
_SELF_MOST = 32 * 1024
#: Of these, of its name: it stands in every frame that it renders, many of which are shown in one packet.
_NAME_MOST = 127
#: Seconds for a whole Hello.
_HELLO_S = 30.0
#: Seconds for a relayed request's answer, and for which a reader of a log may have the slave wait.
_RELAY_S = 30.0
#: The same for what it only has to note: whoever asks waits for no link that nobody knows to be dead.
_DOING_S = 5.0
_WAIT_MOST_S = 60.0
#: In so many steps the beats of all links are sent: all at once, a large farm's would hold up all else.
_BEAT_STEPS = 100


class NotLinked(Exception):  # noqa: N818  (an answer on its way)
    """The slave's link is gone, or went before it answered."""


class _Relay:
    """A relayed request that waits for its answer."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.answer: Request | None = None


class _Link:
    def __init__(self, channel: Channel, host: str, software: str) -> None:
        self.channel = channel
        self.host = host
        self.software = software
        self.asked: dict[int, _Relay] = {}
        self.next_rq = 1
        self.registered = False
        #: The latest moment (its own) at which the slave said something that came.
        self.seen = 0.0
        self.orders = 0

    def beat(self, *, echo: bool = False) -> None:
        """Say that this side is there, and, once the core took the slave on, which of its words came."""
        self.channel.send(Beat(echo=echo, seen=self.seen if self.registered else 0))


class SlaveLinks:
    """All linked slaves."""

    def __init__(self, inbox: Inbox[Event], beat_s: float, silence_s: float) -> None:
        self._inbox = inbox
        self._beat_s = beat_s
        self._silence_s = silence_s
        self._links: dict[int, _Link] = {}
        self._links_of: Counter[str] = Counter()

    # -- in -----------------------------------------------------------------------------------------

    async def serve(self, number: int, channel: Channel, who: Who, software: str = "") -> None:
        """One slave's link, from after the handshake to its end."""
        if who.account and self._links_of[who.account] >= _LINKS_OF_ONE:
            channel.reject("too-many", f"node {who.name} has {_LINKS_OF_ONE} links already", retry=True)
            return
        link: _Link | None = None
        if who.account:
            # Until it is registered: by the name that was proven, not by the one that it wants.
            channel.label = who.name
        self._links_of[who.account] += 1
        try:
            hello, held = await self._hear_hello(channel)
            if not who.account:
                channel.label = hello.name
            link = self._links[number] = _Link(channel, hello.machine.hostname, software)
            link.seen = hello.at
            self._inbox.put(SlaveLinked(number, hello, held, who))
            while True:
                await self._hear(number, link, await channel.receive())
        except LinkClosed as end:
            if link is not None and link.registered:
                log.event("slave unlinked", slave=channel.label, why=end)
            else:
                log.event("a slave's link ended unregistered", slave=channel.label, why=end)
        except RemoteProtocolError as error:
            log.warning("slave broke the protocol", slave=channel.label, error=error)
        except Exception as error:  # noqa: BLE001  (a bug met on one link must not take the farm down)
            log.error("a bug ended a slave's link", slave=channel.label, exc=error)
        finally:
            self._links_of[who.account] -= 1
            if not self._links_of[who.account]:
                del self._links_of[who.account]
            heard = channel.last_received
            channel.close()
            if link is not None:
                del self._links[number]
                for relay in link.asked.values():
                    relay.over.set()
                self._inbox.put(SlaveUnlinked(number, heard))

    async def _hear_hello(self, channel: Channel) -> tuple[Hello, tuple[Held, ...]]:
        with trio.move_on_after(_HELLO_S):
            return await self._hear_all_of_hello(channel)
        raise RemoteProtocolError(f"no whole Hello within {_HELLO_S:.0f} s")

    async def _hear_all_of_hello(self, channel: Channel) -> tuple[Hello, tuple[Held, ...]]:
        hello = await channel.receive()
        if not isinstance(hello, Hello):
            raise RemoteProtocolError(f"expected Hello, got {type(hello).__name__}")
        if not hello.identity or not hello.name:
            raise RemoteProtocolError("a Hello without an identity or a name")
        if len(hello.name.encode(errors="replace")) > _NAME_MOST or not hello.name.isprintable():
            raise RemoteProtocolError("a Hello with a name that nobody could be called by")
        _check_size(structs.replace(hello, held=()))
        held, more = list(hello.held), hello.more
        while more:
            part = await channel.receive()
            if not isinstance(part, HelloMore):
                raise RemoteProtocolError(f"expected HelloMore, got {type(part).__name__}")
            held += part.held
            more = part.more
            if len(held) > _HELD_MOST:
                raise RemoteProtocolError(f"holds more than {_HELD_MOST} attempts")
        return hello, tuple(held)

    async def _hear(self, number: int, link: _Link, message: Message) -> None:
        match message:
            case Status():
                _check_size(message)
                self._inbox.put_if_room(SlaveSaid(number, message))
            case Report(started=(), exited=(), nth=0):
                self._inbox.put_if_room(SlaveSaid(number, message))
            case Report() | LimitsNow() | LogKept() | Acted() | SecretTaken():
                if isinstance(message, LimitsNow | Acted):
                    _check_size(message)
                self._inbox.put(SlaveSaid(number, message))
                await self._inbox.wait_room()
            case Beat(echo=echo, at=at):
                link.seen = max(link.seen, at)
                if echo:
                    link.beat()
            case Done() | Refusal() | LogPart() | SlaveInfo() | Findings():
                relay = link.asked.pop(message.rq, None)
                if relay is not None:
                    relay.answer = message
                    relay.over.set()
            case _:
                raise RemoteProtocolError(f"a slave does not say {type(message).__name__}")

    def __len__(self) -> int:
        """How many are linked."""
        return len(self._links)

    def software(self, number: int) -> str:
        """What a slave said, in the handshake, that it runs."""
        link = self._links.get(number)
        return "" if link is None else link.software

    # -- out ----------------------------------------------------------------------------------------

    def tell(self, effect: Tell) -> None:
        """Say something to a slave; a link that is gone swallows it, the next Hello sorts it out."""
        link = self._links.get(effect.link)
        if link is None:
            return
        if isinstance(effect.message, Orders):
            self._send_orders(effect.link, link, effect.message)
            return
        if isinstance(effect.message, Registered):
            # From here on the log calls it by the name that it was given, not the one that it wanted.
            link.channel.label = effect.message.name
            link.registered = True
            log.event("slave linked", id=effect.message.slave, slave=link.channel.label, host=link.host)
        try:
            link.channel.send(effect.message)
        except LocalProtocolError as error:
            # Closing the link would not help: the same would be said again on the next.
            log.error("a message to a slave was left out", slave=link.channel.label, error=error)

    def _send_orders(self, number: int, link: _Link, orders: Orders) -> None:
        """In one packet where it fits, else in several; an order that fits into none fails its attempt."""
        try:
            link.channel.send(structs.replace(orders, nth=link.orders + 1))
            link.orders += 1
        except LocalProtocolError as error:
            parts = max(len(orders.run), len(orders.stop), len(orders.noted))
            if parts > 1:
                half = (parts + 1) // 2
                for begin, end in ((0, half), (half, parts)):
                    part = structs.replace(
                        orders,
                        run=orders.run[begin:end],
                        stop=orders.stop[begin:end],
                        noted=orders.noted[begin:end],
                    )
                    self._send_orders(number, link, part)
                return
            log.error("an order was too large", slave=link.channel.label, error=error)
            rest = structs.replace(orders, run=())
            if rest.stop or rest.noted:
                self._send_orders(number, link, rest)
            for order in orders.run:
                text = "the order is too large for a packet: shorten the command or the environment"
                failed = Exited(order.key, Exit(reason="bad-order", text=text))
                self._inbox.put(SlaveSaid(number, Report(exited=(failed,))))

    def unlink(self, effect: Unlink) -> None:
        """Turn a slave away."""
        link = self._links.get(effect.link)
        if link is not None:
            log.warning("slave turned away", slave=link.channel.label, why=effect.text)
            link.channel.reject(effect.code, effect.text, retry=effect.retry)

    async def ask(self, number: int, request: Request, wait_s: float = 0.0) -> Request:
        """Relay a request to a linked slave and return its answer (with the asker's own `rq`)."""
        link = self._links.get(number)
        if link is None:
            raise NotLinked
        rq = link.next_rq
        link.next_rq += 1
        relay = link.asked[rq] = _Relay()
        patience_s = _DOING_S if isinstance(request, SetLimits | KillAttempts) else _RELAY_S
        try:
            link.channel.send(structs.replace(request, rq=rq))
            with trio.move_on_after(patience_s + min(wait_s, _WAIT_MOST_S)):
                await relay.over.wait()
        except LocalProtocolError as error:
            return Refusal(rq=request.rq, code="too-large", text=f"it cannot be passed on: {error}")
        finally:
            link.asked.pop(rq, None)
        if relay.answer is not None:
            return structs.replace(relay.answer, rq=request.rq)
        if link.channel.closed:
            raise NotLinked
        return Refusal(
            rq=request.rq, code="not-linked", text=f"the slave did not answer within {patience_s:g} s"
        )

    async def beat(self) -> None:
        """Keep every link warm, and close the silent ones: a few at a time, each once in `beat_s`."""
        while True:
            start = trio.current_time()
            links = list(self._links.items())
            step = -(-len(links) // _BEAT_STEPS) or 1
            for at in range(0, len(links), step):
                part = links[at : at + step]
                await trio.sleep_until(start + self._beat_s * (at + len(part)) / len(links))
                for number, link in part:
                    if self._links.get(number) is link:
                        self._beat(link)
            if not links:
                await trio.sleep(self._beat_s)

    def _beat(self, link: _Link) -> None:
        silent = link.channel.silent_s
        if silent > self._silence_s:
            log.warning("slave is silent", slave=link.channel.label, seconds=round(silent))
            link.channel.close(f"silent for {silent:.0f} s")
        else:
            # A slave that reports rarely is asked for a sign of life well before it is dropped.
            link.beat(echo=silent > self._beat_s)

    async def flush(self, timeout_s: float) -> None:
        """Return once the last words are with the kernel."""
        with trio.move_on_after(timeout_s):
            for link in list(self._links.values()):
                await link.channel.wait_flushed(inf)


def _check_size(message: Message) -> None:
    try:
        encode(message, _SELF_MOST)
    except LocalProtocolError as error:
        raise RemoteProtocolError(f"it says too much of itself: {error}") from None
