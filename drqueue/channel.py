"""A proto Connection over a non-blocking socket, for trio.

Sending is sync and never waits: bytes go to the kernel at once, what it does not take is kept (at
most `OUTBOX_LIMIT` bytes) and written by a task of the channel's own. A peer that reads nothing for
`STALLED_S`, or lets more than the limit pile up, is dropped: nobody waits for a slow peer.
Several messages sent in a row may be packed into one write with `send_many`.
"""

import socket
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import trio

from drqueue.proto.connection import CLOSED, NEED_DATA, Connection
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.handshake import Answerer, Dialler
from drqueue.proto.messages import Hi, Message, Rejected, Welcome

OUTBOX_LIMIT = 8 * 1024 * 1024
STALLED_S = 30.0
HANDSHAKE_S = 10.0
_READ = 256 * 1024


class LinkClosed(Exception):  # noqa: N818  (an event of a link's life, not a fault)
    """The link is gone: the peer closed it, the network dropped it, or this side gave it up."""


class Channel:
    """One link: messages in, messages out. Use as an async context manager, or call `close`."""

    def __init__(self, sock: socket.socket, label: str = "") -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.label = label
        self._sock = sock
        self._connection = Connection()
        self._outbox = bytearray()
        self._outbox_wanted = trio.Event()
        self._why = ""
        self._closed = False
        self.last_received = trio.current_time()

    # -- lifetime ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """True once this side gave the link up."""
        return self._closed

    def close(self, why: str = "closed") -> None:
        """Give the link up; waiting readers and writers wake with LinkClosed. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._why = why
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()
        self._outbox_wanted.set()

    # -- handshake --------------------------------------------------------------------------------

    async def dial(self, dialler: Dialler) -> Welcome:
        """Introduce this side; HandshakeRejected, RemoteProtocolError or LinkClosed otherwise."""
        self.send(dialler.hi)
        welcome = dialler.answered(await self._receive_soon())
        self._connection.established()
        return welcome

    async def answer(self, answerer: Answerer) -> Hi | None:
        """Hear the dialling side out and answer it; None where it was rejected."""
        hi, reply = answerer.greeted(await self._receive_soon())
        self.send(reply)
        if hi is not None:
            self._connection.established()
        return hi

    def reject(self, code: str, text: str, *, retry: bool) -> None:
        """Say no (after the handshake, too) and close."""
        self.send(Rejected(code=code, text=text, retry=retry))
        self.close(text)

    async def _receive_soon(self) -> Message:
        with trio.move_on_after(HANDSHAKE_S):
            return await self.receive()
        raise RemoteProtocolError(f"silent for {HANDSHAKE_S:.0f} s in the handshake")

    # -- messages ---------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """The next message. LinkClosed at the end of the link, RemoteProtocolError for nonsense."""
        while True:
            message = self._connection.next_message()
            if message is CLOSED:
                self.close("closed by the peer")
                raise LinkClosed(self._why)
            if message is not NEED_DATA:
                assert isinstance(message, Message)
                return message
            await self._read()

    def receive_nowait(self) -> Message | None:
        """The next message that is here already, else None."""
        message = self._connection.next_message()
        return message if isinstance(message, Message) else None

    def send(self, message: Message) -> None:
        """Write, or queue, one message. A dead link swallows it: its reader hears LinkClosed."""
        self._write(self._connection.send(message))

    def send_many(self, messages: Iterable[Message]) -> None:
        """Several messages in one write."""
        self._write(b"".join([self._connection.send(message) for message in messages]))

    @property
    def queued(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return len(self._outbox)

    async def _read(self) -> None:
        while True:
            if self._closed:
                raise LinkClosed(self._why)
            try:
                data = self._sock.recv(_READ)
            except BlockingIOError:
                try:
                    await trio.lowlevel.wait_readable(self._sock)
                except trio.ClosedResourceError:
                    raise LinkClosed(self._why) from None
                continue
            except OSError as error:
                self.close(str(error))
                raise LinkClosed(self._why) from None
            self.last_received = trio.current_time()
            self._connection.receive(data)
            return

    def _write(self, data: bytes) -> None:
        if self._closed:
            return
        if not self._outbox:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                # The reader meets the same end of the link and tells it once, with its cause.
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._outbox += data
        if len(self._outbox) > OUTBOX_LIMIT:
            self.close("the peer does not read")
            return
        self._outbox_wanted.set()

    async def pump(self) -> None:
        """Write what the kernel did not take at once; a task of the link's nursery runs this."""
        while True:
            await self._outbox_wanted.wait()
            if self._closed:
                return
            while self._outbox:
                with trio.move_on_after(STALLED_S) as patience:
                    try:
                        await trio.lowlevel.wait_writable(self._sock)
                    except trio.ClosedResourceError:
                        return
                if patience.cancelled_caught:
                    self.close(f"the peer read nothing for {STALLED_S:.0f} s")
                    return
                try:
                    sent = self._sock.send(self._outbox[:_READ])
                except BlockingIOError:
                    continue
                except OSError as error:
                    self.close(str(error))
                    return
                del self._outbox[:sent]
            self._outbox_wanted = trio.Event()

    async def wait_flushed(self, timeout_s: float) -> None:
        """Return once everything is with the kernel, the link is gone, or time is up."""
        with trio.move_on_after(timeout_s):
            while self._outbox and not self._closed:
                try:
                    await trio.lowlevel.wait_writable(self._sock)
                except trio.ClosedResourceError:
                    return
                await trio.lowlevel.checkpoint()
