"""The link to the master: the slave dials, and dials again for ever.

Rules: a link that drops ends no frame. Messages go to the core as events, in order; what the core wants
sent goes out in one write for each batch, and only on the link that it was meant for. Silence ends a
link, also one that the machine slept through, in which trio's clock stands still: what lay in the socket
meanwhile is old news. What goes wrong is logged once, not at every try.
"""

import random
import socket
import time
from collections.abc import Callable, Sequence

import trio

from drqueue import log
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
    Orders,
    Registered,
    Rejected,
)
from drqueue.proto.messages import Request
from drqueue.settings import Address
from drqueue.slave.core.events import Event, Granted, Heard, Linked, OrdersCame, RegisteredAs, Unlinked
from drqueue.slave.requests import LinkRequests, Requests
from drqueue.unixpath import connect_unix

BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.2, 10.0
#: Pause after a no that another try can hardly turn into a yes.
REJECTED_S = 60.0
#: Attempts in one part of a Hello.
HELD_PART = 1000
#: Before Registered names the farm's own rhythm.
BEAT_S, SILENCE_S = 10.0, 30.0


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Link:
    """Dials the first of `addresses` that answers; `hello` introduces the slave with the first part held."""

    def __init__(
        self,
        addresses: Sequence[Address],
        inbox: Inbox[Event],
        requests: Requests,
        hello: Callable[[tuple[Held, ...], bool], Hello],
        *,
        software: str,
        name: str,
        on_registered: Callable[[], None] = lambda: None,
        rng: Callable[[], float] = random.random,
        boottime: Callable[[], float] = _boottime,
    ) -> None:
        self._addresses = addresses
        self._inbox = inbox
        self._requests = requests
        self._hello = hello
        self._software = software
        self._name = name
        self._on_registered = on_registered
        self._rng = rng
        self.boottime = boottime
        self._number = 0
        self._channel: Channel | None = None
        self._out: list[Message] = []
        self._backoff_s = BACKOFF_FIRST_S
        self._said = ""
        self.address = ""
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

    def send(self, link: int, message: Message) -> None:
        """Queue a message for a link until `flush`; where that link is gone, nothing happens."""
        if link == self.number:
            self._out.append(message)

    def say_hello(self, link: int, held: tuple[Held, ...]) -> None:
        """Introduce the slave, in as many parts as it takes."""
        if link != self.number:
            return
        parts = [held[at : at + HELD_PART] for at in range(0, len(held), HELD_PART)] or [()]
        self._out.append(self._hello(parts[0], len(parts) > 1))
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
            except HandshakeRejected as no:
                self._say(f"the master refuses this slave: {no}")
                pause_s = 0.0 if no.retry else REJECTED_S
            except RemoteProtocolError as error:
                self._say(f"the master spoke nonsense: {error}")
            except LinkClosed as error:
                self._say(f"the link to the master is gone: {error}")
            except OSError as error:
                self._say(f"no master answers: {error.strerror or error}")
            except Exception as error:  # noqa: BLE001  (frames run on, whatever is wrong about the link)
                self._say(f"a bug ended the link to the master: {error!r}", error)
            # Jitter: a thousand slaves do not come back in the same instant.
            await trio.sleep(max(pause_s, self._backoff_s) * (0.5 + self._rng()))
            self._backoff_s = min(2 * self._backoff_s, BACKOFF_MOST_S)

    def _say(self, text: str, bug: Exception | None = None) -> None:
        if text == self._said:
            return
        self._said = text
        if bug is None:
            log.warning(text, address=self.address)
        else:
            log.error(text, address=self.address, exc=bug)

    def _dial(self) -> socket.socket:
        """A socket to the first master that answers; raises the first address's OSError otherwise."""
        failure: OSError | None = None
        for address in self._addresses:
            if address.kind != "unix":
                continue
            self.address = str(address)
            try:
                return connect_unix(address.path, blocking=False)
            except OSError as error:
                failure = failure or error
        raise failure or OSError("its address is no Unix socket")

    async def _one_link(self) -> None:
        async with Channel(self._dial(), "master") as channel:
            dialled_at = self.boottime()
            welcome = await channel.dial(Dialler("slave", self._software, self._name))
            if self.boottime() - dialled_at > SILENCE_S:
                raise LinkClosed("the machine slept during the handshake")
            self._number += 1
            self._channel = channel
            self._out.clear()
            try:
                self._inbox.put(Linked(self._number, welcome.farm, welcome.epoch))
                await self._converse(channel)
            finally:
                self._channel = None
                self.registered = False
                self._inbox.put(Unlinked(self._number))

    async def _converse(self, channel: Channel) -> None:
        ended: LinkClosed | RemoteProtocolError | HandshakeRejected | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.pump)
            reader = _Reader(self, channel, self._inbox, self._requests.for_link(nursery, channel.send))
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
        self._on_registered()


class _Reader:
    """Reads one link's messages, and watches over its silence."""

    def __init__(self, link: Link, channel: Channel, inbox: Inbox[Event], requests: LinkRequests) -> None:
        self._link = link
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
            heard = False
            while message is not None:
                heard = self._take(message) or heard
                message = channel.receive_nowait()
            if heard:
                inbox.put(Heard())
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
                self._inbox.put(RegisteredAs(slave, name))
                return False
            case Grant(lease_s=lease_s):
                self._inbox.put(Granted(lease_s))
                return False
            case Rejected(code=code, text=text, retry=retry):
                raise HandshakeRejected(code, text, retry)
            case Beat(echo=echo):
                if echo:
                    self._channel.send(Beat())
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
                channel.send(Beat())
                beat_at = now + self._beat_s
