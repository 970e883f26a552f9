"""The link to the master: the slave dials, and dials again for ever.

Rules: a link that drops ends no frame. Messages go to the core as events, in order; what the core wants
sent goes out in one write for each batch, and only on the link that it was meant for. Silence ends a
link, also one that the machine slept through, in which trio's clock stands still: what lay in the socket
meanwhile is old news. What goes wrong is logged once, not at every try. A way in that is kept while the
daemon runs is taken at once. A new secret is on the disk before its hash is told.
"""

import random
import time
from collections.abc import Callable

import trio
from msgspec import structs

from drqueue import log
from drqueue.access import Access, AccessError
from drqueue.channel import Channel, LinkClosed
from drqueue.engine import Inbox
from drqueue.proto.errors import LocalProtocolError, RemoteProtocolError
from drqueue.proto.handshake import Dialler, HandshakeRejected
from drqueue.proto.link_messages import (
    Beat,
    Grant,
    Held,
    Hello,
    HelloMore,
    Message,
    NewSecret,
    Orders,
    Registered,
    Rejected,
    Report,
    SecretTaken,
    TicketKey,
    Welcome,
)
from drqueue.proto.messages import Request
from drqueue.slave import credentials
from drqueue.slave.core.events import Event, Granted, Heard, Linked, OrdersCame, RegisteredAs, Unlinked
from drqueue.slave.requests import LinkRequests, Requests
from drqueue.slave.routes import HOW, NotJoined, Route, Routes
from drqueue.unixpath import connect_unix

BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.2, 10.0
#: Where a whole farm comes back at once, whoever gives up soon makes the line longer.
LINE_S = 20.0
#: Pause after a no that another try can hardly turn into a yes.
REJECTED_S = 60.0
#: Between dials, access.json is looked at this often.
LOOK_S = 1.0
#: A master that does not know a secret says so; one that was kept before it may still be good.
NO_ACCOUNT, REVOKED = "no-account", "revoked"
#: Attempts in one part of a Hello.
HELD_PART = 1000
#: Before Registered names the farm's own rhythm.
BEAT_S, SILENCE_S = 10.0, 30.0


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Untrusted(Exception):  # noqa: N818  (what was found, not a fault)
    """Whoever answers there is not the master that this slave joined."""


class Link:
    """Dials the first of `routes` that answers; `hello` introduces the slave with the first part held.

    `on_ticket_key` is given each key for tickets, with the farm that it is of.
    """

    def __init__(
        self,
        routes: Routes,
        inbox: Inbox[Event],
        requests: Requests,
        hello: Callable[[tuple[Held, ...], bool], Hello],
        *,
        software: str,
        name: str,
        on_registered: Callable[[], None] = lambda: None,
        on_ticket_key: Callable[[TicketKey, str], None] = lambda key, farm: None,
        rng: Callable[[], float] = random.random,
        boottime: Callable[[], float] = _boottime,
    ) -> None:
        self._routes = routes
        self._inbox = inbox
        self._requests = requests
        self._hello = hello
        self._software = software
        self._name = name
        self._on_registered = on_registered
        self.on_ticket_key = on_ticket_key
        self._rng = rng
        self.boottime = boottime
        self._number = 0
        self._channel: Channel | None = None
        self._out: list[Message] = []
        self._reports = 0
        self._backoff_s = BACKOFF_FIRST_S
        self._said = ""
        self._stamp: tuple[int, ...] = ()
        self._rotating = trio.Lock()
        self._untold = ""
        self.address = ""
        self.access: Access | None = None
        self.welcome: Welcome | None = None
        self.registered = False

    # -- for the core's effects: sync -------------------------------------------------------------

    @property
    def queued(self) -> int:
        """Bytes that the master has not taken yet."""
        return self._channel.queued if self._channel is not None else 0

    @property
    def number(self) -> int:
        """The number of the link that stands, 0 for none."""
        return self._number if self._channel is not None else 0

    @property
    def own_host(self) -> str:
        """This machine's address on the link that stands; "" where it is a Unix socket, or there is none."""
        return self._channel.own_host if self._channel is not None else ""

    def send(self, link: int, message: Message) -> None:
        """Queue a message for a link until `flush`; where that link is gone, nothing happens."""
        if link == self.number:
            if isinstance(message, Report) and (message.started or message.exited):
                self._reports += 1
                message = structs.replace(message, nth=self._reports)
            self._out.append(message)

    def say_hello(self, link: int, held: tuple[Held, ...]) -> None:
        """Introduce the slave, in as many parts as it takes."""
        if link != self.number:
            return
        parts = [held[at : at + HELD_PART] for at in range(0, len(held), HELD_PART)] or [()]
        hello = self._hello(parts[0], len(parts) > 1)
        self._out.append(structs.replace(hello, at=self.boottime()))
        for at, part in enumerate(parts[1:], start=2):
            self._out.append(HelloMore(held=part, more=at < len(parts)))

    def flush(self) -> None:
        """One write for all that was queued."""
        if self._out:
            out, self._out = self._out, []
            if self._channel is not None:
                try:
                    self._channel.send_many(out)
                except LocalProtocolError as error:
                    # A bug of ours, and what is held is told again on the next link.
                    log.error("a message to the master was too large", error=error)
                    self._channel.close(str(error))

    def drop(self, link: int, why: str) -> None:
        """Give the link up and try again after a while."""
        if link == self.number and self._channel is not None:
            self._channel.close(why)

    # -- lifetime ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep a link up until cancelled."""
        while True:
            pause_s = 0.0
            try:
                await self._one_link()
            except NotJoined as error:
                self._say(str(error))
            except AccessError as error:
                self._say(f"this slave cannot get into its farm: {error}")
            except Untrusted as error:
                self._say(f"NOT LINKED: {error}", grave=True)
                pause_s = REJECTED_S
            except HandshakeRejected as no:
                text = f"the master refuses this slave: {no}"
                if no.code in (NO_ACCOUNT, REVOKED):
                    text = f"{text.removesuffix(': join again')}; join again: {HOW}"
                self._say(text)
                pause_s = 0.0 if no.retry else REJECTED_S
            except RemoteProtocolError as error:
                self._say(f"the master spoke nonsense: {error}")
            except LinkClosed as error:
                self._say(f"the link to the master is gone: {error}")
            except OSError as error:
                self._say(self._routes.silence() or f"no master answers: {error.strerror or error}")
            except Exception as error:  # noqa: BLE001  (frames run on, whatever is wrong about the link)
                self._say(f"a bug ended the link to the master: {error!r}", bug=error)
            # Jitter: a thousand slaves do not come back in the same instant.
            await self._pause(max(pause_s, self._backoff_s) * (0.5 + self._rng()))
            self._backoff_s = min(2 * self._backoff_s, BACKOFF_MOST_S)

    async def _pause(self, seconds: float) -> None:
        """Wait that long, or until there may be another way in."""
        until = trio.current_time() + seconds
        while (left := until - trio.current_time()) > 0:
            await trio.sleep(min(LOOK_S, left))
            if self._routes.stamp() != self._stamp:
                self._backoff_s = BACKOFF_FIRST_S
                return

    def look(self) -> None:
        """Give the link up where the slave joined another farm, or anew, since it was dialled."""
        if self._channel is None or self._routes.stamp() == self._stamp:
            return
        self._stamp = self._routes.stamp()
        try:
            first = self._routes.now()[0]
        except (NotJoined, AccessError):
            return  # the link that stands needs neither
        former = self.access
        same = first.access is former or (
            first.access is not None and former is not None and credentials.same_door(first.access, former)
        )
        if not same and first.access is not None:
            self._channel.close(f"this slave joined {first.address} as {first.access.name}")

    def _say(self, text: str, *, grave: bool = False, bug: Exception | None = None) -> None:
        if text == self._said:
            return
        self._said = text
        if bug is not None or grave:
            log.error(text, address=self.address, exc=bug)
        elif self.address:
            log.warning(text, address=self.address)
        else:
            log.warning(text)  # nothing was dialled yet

    async def _open(self, route: Route) -> Channel:
        """A channel to whoever answers there. Raises OSError, Untrusted."""
        address, access = route
        self.address = str(address)
        if access is None:
            return Channel(connect_unix(address.path, blocking=False), "master")
        # Late: a slave whose master is on its own machine does without TLS.
        from drqueue.dialling import open_channel
        from drqueue.tls import PinMismatch

        try:
            return await open_channel(address, pin=access.pin, label="master", line_s=LINE_S)
        except PinMismatch as error:
            raise Untrusted(str(error)) from None

    async def _one_link(self) -> None:
        """One link, from the dial to its end: by the first route that answers and whose secret is taken."""
        self._stamp = self._routes.stamp()
        routes = self._routes.now()
        failure: OSError | None = None
        for at, route in enumerate(routes):
            former = any(other.address == route.address for other in routes[at + 1 :])
            dialled_at = self.boottime()
            try:
                channel = await self._open(route)
            except OSError as error:
                failure = failure or error
                continue
            async with channel:
                secret = route.access.secret if route.access is not None else ""
                try:
                    welcome = await channel.dial(Dialler("slave", self._software, self._name, secret=secret))
                except HandshakeRejected as no:
                    if former and no.code == NO_ACCOUNT:
                        continue
                    raise
                if self.boottime() - dialled_at > SILENCE_S:
                    raise LinkClosed("the machine slept during the handshake")
                await self._linked(channel, route, welcome)
                return
        raise failure or OSError("no address to dial is known")

    async def _linked(self, channel: Channel, route: Route, welcome: Welcome) -> None:
        self._untold = await self._accepted(route.access)
        self._number += 1
        self._channel, self.access, self.welcome = channel, route.access, welcome
        self._out.clear()
        self._reports = 0
        try:
            self._inbox.put(Linked(self._number, welcome.farm, welcome.epoch, welcome.life))
            await self._converse(channel)
        finally:
            self._channel = self.access = self.welcome = None
            self.registered = False
            self._inbox.put(Unlinked(self._number))

    async def _accepted(self, access: Access | None) -> str:
        """The master took this secret: forget older ones. The hash of a newer one that it does not know."""
        if access is None:
            return ""
        try:
            return await trio.to_thread.run_sync(credentials.accepted, self._routes.state_dir, access)
        except AccessError as error:
            self._say(str(error))
            return ""

    async def _converse(self, channel: Channel) -> None:
        ended: LinkClosed | RemoteProtocolError | HandshakeRejected | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.pump)
            requests = self._requests.for_link(nursery, channel.send)
            reader = _Reader(self, channel, self._inbox, requests, nursery)
            nursery.start_soon(reader.watch)
            try:
                await reader.read()
            except (LinkClosed, RemoteProtocolError, HandshakeRejected) as error:
                ended = error
            nursery.cancel_scope.cancel()
        if ended is not None:
            raise ended

    def is_registered(self, message: Registered) -> None:
        """The master took this slave on."""
        self.registered = True
        self._backoff_s = BACKOFF_FIRST_S
        self._said = ""
        log.event("linked to the master", address=self.address, slave=message.slave, name=message.name)
        if self._untold and self._channel is not None:
            self._channel.send(SecretTaken(secret_hash=self._untold))
        self._on_registered()

    async def rotate(self, channel: Channel) -> None:
        """Make a new secret, keep it, then tell its hash."""
        access = self.access
        if access is None:
            log.warning("the master wants a new secret, but this link needs none")
            return
        async with self._rotating:
            try:
                taken = await trio.to_thread.run_sync(credentials.rotate, self._routes.state_dir, access)
            except AccessError as error:
                log.error("a new secret could not be kept: the old one stays", error=error)
                return
        log.event("took a new secret, as the master asked", address=self.address)
        channel.send(SecretTaken(secret_hash=taken))


class _Reader:
    """Reads one link's messages, and watches over its silence."""

    def __init__(
        self,
        link: Link,
        channel: Channel,
        inbox: Inbox[Event],
        requests: LinkRequests,
        nursery: trio.Nursery,
    ) -> None:
        self._link = link
        self._nursery = nursery
        self._channel = channel
        self._inbox = inbox
        self._requests = requests
        self._beat_s, self._silence_s = BEAT_S, SILENCE_S
        self._rhythm_changed = trio.Event()
        self._received_at = link.boottime()

    async def read(self) -> None:
        """Hand messages on until the link ends: LinkClosed, RemoteProtocolError or HandshakeRejected."""
        channel, inbox = self._channel, self._inbox
        while True:
            message: Message | None = await channel.receive()
            self._refuse_old_news()
            with inbox:
                heard, seen = False, 0.0
                while message is not None:
                    heard = self._take(message) or heard
                    if isinstance(message, Beat):
                        seen = max(seen, message.seen)
                    message = channel.receive_nowait()
                if heard:
                    inbox.put(Heard(seen))
            await inbox.wait_room()

    def _refuse_old_news(self) -> None:
        before, self._received_at = self._received_at, self._link.boottime()
        quiet_s = self._received_at - before
        if quiet_s > self._silence_s:
            raise LinkClosed(f"nothing was read for {quiet_s:.0f} s: this machine slept, or was too busy")

    def _take(self, message: Message) -> bool:
        """Hand one message on; whether nothing but its coming counts for the core."""
        match message:
            case Orders():
                self._inbox.put(OrdersCame(message))
                return False
            case Registered(slave=slave, name=name):
                self._beat_s, self._silence_s = max(0.1, message.beat_s), max(0.2, message.silence_s)
                self._rhythm_changed.set()
                self._link.is_registered(message)
                self._inbox.put(RegisteredAs(slave, name, message.seen))
                return False
            case Grant(lease_s=lease_s):
                self._inbox.put(Granted(lease_s))
                return False
            case Rejected(code=code, text=text, retry=retry):
                raise HandshakeRejected(code, text, retry)
            case Beat(echo=echo):
                if echo:
                    self._channel.send(Beat(at=self._link.boottime()))
            case TicketKey():
                welcome = self._link.welcome
                self._link.on_ticket_key(message, welcome.farm if welcome is not None else "")
            case NewSecret():
                self._nursery.start_soon(self._link.rotate, self._channel)
            case Request():
                self._requests.handle(message)
            case _:
                log.debug("ignored a message of the master", message=type(message).__name__)
        return True

    async def watch(self) -> None:
        """Say a word every `beat_s`; give the link up after `silence_s` without one."""
        channel = self._channel
        beat_at = trio.current_time() + self._beat_s
        while True:
            quiet_until = channel.last_received + self._silence_s
            with trio.move_on_at(min(beat_at, quiet_until)):
                await self._rhythm_changed.wait()
                self._rhythm_changed = trio.Event()
                beat_at = trio.current_time() + self._beat_s
                continue
            now = trio.current_time()
            if now >= channel.last_received + self._silence_s:
                channel.close(f"the master was silent for {self._silence_s:g} s")
                return
            if now >= beat_at:
                channel.send(Beat(at=self._link.boottime()))
                beat_at = now + self._beat_s
