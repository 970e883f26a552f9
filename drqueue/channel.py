"""A proto Connection over a non-blocking socket, for trio.

Sending is sync and never waits: bytes go to the kernel at once, what it does not take is kept (at
most `OUTBOX_LIMIT` bytes) and written by a task of the channel's own. A peer that reads nothing for
`STALLED_S`, or lets more than the limit pile up, is dropped: nobody waits for a slow peer. Where all
links of a process hold more than `OUTBOXES_LIMIT`, those are dropped that grow beyond `OUTBOX_SHARE`.
Several messages sent in a row may be packed into one write with `send_many`. Nobody starves beside a
link whose peer never stops talking: its reader gives way before every read and between messages.
"""

import contextlib
import socket
from collections.abc import Iterable
from types import TracebackType
from typing import ClassVar, Self

import trio
from msgspec import structs

from drqueue.proto.connection import CLOSED, NEED_DATA, Connection
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.handshake import Answerer, Dialler
from drqueue.proto.link_messages import Hi, Message, Rejected, Welcome

OUTBOX_LIMIT = 8 * 1024 * 1024
OUTBOXES_LIMIT = 256 * 1024 * 1024
OUTBOX_SHARE = 256 * 1024
STALLED_S = 30.0
HANDSHAKE_S = 10.0
#: Bytes in one read or write. A larger buffer is mapped and unmapped anew for every read, which takes
#: several times as long as the read.
_CHUNK = 64 * 1024
#: Messages taken from what was read already, before other tasks have their turn.
_IN_A_ROW = 100
#: Characters of a rejection: it may quote the peer, and has to fit a packet of the handshake.
_SENTENCE = 500


class LinkClosed(Exception):  # noqa: N818  (an event of a link's life, not a fault)
    """The link is gone: the peer closed it, the network dropped it, or this side gave it up."""


class Channel:
    """One link: messages in, messages out. Use as an async context manager, or call `close`."""

    #: Bytes that the kernel has not taken yet, of all links of the process.
    queued_by_all: ClassVar[int] = 0

    def __init__(self, sock: socket.socket, label: str = "") -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            # A peer that is gone by now may have made these impossible; the reader tells.
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.label = label
        self._sock = sock
        self._connection = Connection()
        self._outbox = bytearray()
        self._outbox_wanted = trio.Event()
        self._outbox_empty = trio.Event()
        self._why = ""
        self._closed = False
        self._deaf = ""
        self._in_a_row = 0
        self._reading_since: float | None = None
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
        self._sent(len(self._outbox))
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
        if isinstance(reply, Rejected):
            reply = structs.replace(reply, text=reply.text[:_SENTENCE])
        self.send(reply)
        if hi is not None:
            self._connection.established()
        return hi

    def reject(self, code: str, text: str, *, retry: bool) -> None:
        """Say no (after the handshake, too) and close."""
        self.send(Rejected(code=code, text=text[:_SENTENCE], retry=retry))
        self.close(text)

    async def _receive_soon(self) -> Message:
        with trio.move_on_after(HANDSHAKE_S):
            return await self.receive()
        raise RemoteProtocolError(f"silent for {HANDSHAKE_S:.0f} s in the handshake")

    # -- messages ---------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """The next message. LinkClosed at the end of the link, RemoteProtocolError for nonsense."""
        while True:
            if self._in_a_row >= _IN_A_ROW:
                self._in_a_row = 0
                await trio.lowlevel.checkpoint()
            if self._closed:
                raise LinkClosed(self._why)
            message = self._connection.next_message()
            if message is CLOSED:
                self.close("closed by the peer")
            elif message is NEED_DATA:
                await self._read()
            else:
                assert isinstance(message, Message)
                self._in_a_row += 1
                return message

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

    @property
    def silent_s(self) -> float:
        """Seconds for which this side has been waiting for a word, and none came."""
        if self._reading_since is None:
            return 0.0
        return trio.current_time() - self._reading_since

    async def watch_silence(self, silence_s: float) -> None:
        """Close the link once nothing came for that long; a task of the link's nursery may run this."""
        while not self._closed:
            await trio.sleep(max(0.0, silence_s - self.silent_s))
            if self.silent_s >= silence_s:
                self.close(f"nothing came for {silence_s:g} s")

    async def _read(self) -> None:
        """Feed the connection once; returns without where the link turned out to be closed."""
        self._in_a_row = 0
        self._reading_since = trio.current_time()
        try:
            while not self._closed:
                try:
                    await self._readable()
                    data = self._sock.recv(_CHUNK)
                except trio.ClosedResourceError:
                    continue
                except BlockingIOError:
                    if self._deaf:
                        self.close(self._deaf)
                except OSError as error:
                    self.close(error.strerror or str(error))
                else:
                    self.last_received = trio.current_time()
                    self._connection.receive(data)
                    return
        finally:
            self._reading_since = None

    async def _readable(self) -> None:
        # What a peer said before it stopped listening is heard, but not waited for.
        if self._deaf:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(self._sock)

    def _write(self, data: bytes) -> None:
        if self._closed or self._deaf:
            return
        if not self._outbox:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._peer_is_deaf(error)
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._outbox += data
        Channel.queued_by_all += len(data)
        queued = len(self._outbox)
        if queued > OUTBOX_LIMIT or (queued > OUTBOX_SHARE and Channel.queued_by_all > OUTBOXES_LIMIT):
            self.close("the peer does not read")
            return
        self._outbox_wanted.set()

    def _sent(self, size: int) -> None:
        """So many bytes are off the outbox."""
        del self._outbox[:size]
        Channel.queued_by_all -= size
        if not self._outbox:
            self._outbox_empty.set()

    def _peer_is_deaf(self, error: OSError) -> None:
        """Nothing can be sent any more: the reader, woken, takes what is here and then ends the link."""
        self._deaf = error.strerror or str(error)
        self._sent(len(self._outbox))
        trio.lowlevel.notify_closing(self._sock)

    async def pump(self) -> None:
        """Write what the kernel did not take at once; a task of the link's nursery runs this."""
        while True:
            await self._outbox_wanted.wait()
            while self._outbox:
                with trio.move_on_after(STALLED_S) as patience:
                    try:
                        await trio.lowlevel.wait_writable(self._sock)
                    except trio.ClosedResourceError:
                        break
                before = len(self._outbox)
                if before:
                    self._write_some()
                # A socket is called writable when most of it is free: only a write tells whether nothing is.
                if patience.cancelled_caught and len(self._outbox) == before:
                    self.close(f"the peer read nothing for {STALLED_S:.0f} s")
            if self._closed:
                return
            self._outbox_wanted = trio.Event()

    def _write_some(self) -> None:
        try:
            sent = self._sock.send(self._outbox[:_CHUNK])
        except BlockingIOError:
            return
        except OSError as error:
            self._peer_is_deaf(error)
        else:
            self._sent(sent)

    async def wait_flushed(self, timeout_s: float) -> None:
        """Return once everything is with the kernel, the link is gone, or time is up; `pump` must run."""
        with trio.move_on_after(timeout_s):
            while self._outbox:
                if self._outbox_empty.is_set():
                    self._outbox_empty = trio.Event()
                await self._outbox_empty.wait()
