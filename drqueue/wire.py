"""Bytes both ways over a non-blocking socket, plain or by TLS, for trio.

Sending is sync and never waits: bytes go to the kernel at once, what it does not take is kept (at
most `OUTBOX_LIMIT` bytes) and written by a task of the wire's own. A peer that reads nothing for
`STALLED_S`, or lets more than the limit pile up, is dropped: nobody waits for a slow peer. Where all
wires of a process hold more than `OUTBOXES_LIMIT`, those are dropped that grow beyond `OUTBOX_SHARE`.
Until a wire is trusted no more is taken from the peer than its first words may need.
"""

import contextlib
import socket
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self

import trio

from drqueue import failpoints
from drqueue.proto.codec import MAX_BODY_EARLY
from drqueue.proto.errors import RemoteProtocolError

if TYPE_CHECKING:
    # Whoever speaks no TLS does not load it.
    from drqueue.tls import TlsSession

OUTBOX_LIMIT = 8 * 1024 * 1024
OUTBOXES_LIMIT = 256 * 1024 * 1024
OUTBOX_SHARE = 256 * 1024
STALLED_S = 30.0
#: Why a link ended that the other side closed in good order.
CLOSED_BY_PEER = "closed by the peer"
#: Bytes in one read or write. A larger buffer is mapped and unmapped anew for every read, which takes
#: several times as long as the read.
_CHUNK = 64 * 1024
#: Bytes taken before the wire is trusted: of the first message with what goes around it, and before that
#: of a TLS handshake: from whoever dialled, and from whoever was dialled (it may show many certificates).
_FIRST = MAX_BODY_EARLY + 256
_DIALLED = 4096
_ANSWERED = 64 * 1024


class LinkClosed(Exception):  # noqa: N818  (an event of a link's life, not a fault)
    """The link is gone: the peer closed it, the network dropped it, or this side gave it up."""


class Wire:
    """One connected socket. Use as an async context manager, or call `close`."""

    #: Bytes that the kernel has not taken yet, of all wires of the process.
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
        self._tls: TlsSession | None = None
        self._unread = b""
        self._allowed: int | None = _FIRST
        self._outbox = bytearray()
        self._outbox_wanted = trio.Event()
        self._outbox_empty = trio.Event()
        self._why = ""
        self._closed = False
        self._deaf = ""
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

    @property
    def own_host(self) -> str:
        """This side's address on the link; "" on a Unix socket, or once the link is gone."""
        if self._closed or self._sock.family == socket.AF_UNIX:
            return ""
        with contextlib.suppress(OSError):
            return str(self._sock.getsockname()[0])
        return ""

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

    def trust(self) -> None:
        """Take as much from the peer as it has to say, from now on."""
        self._allowed = None

    async def secure(self, tls: "TlsSession") -> None:
        """Do the TLS handshake, before anything else; it has no time limit of its own.

        RemoteProtocolError where the peer does it wrong, LinkClosed where it goes.
        """
        self._allowed = _DIALLED if tls.server_side else _ANSWERED
        data, done = b"", False
        while not done:
            try:
                done = tls.shake(data)
            finally:
                # Where it fails, the peer is told so.
                self._write(tls.to_send())
            if not done:
                data = await self._read()
                if not data:
                    self.close(CLOSED_BY_PEER)
                    raise LinkClosed(self._why)
        self._tls = tls
        self._allowed = _FIRST
        # The peer's first message may have come with the end of its handshake.
        self._unread = tls.unseal(b"")

    # -- reading ----------------------------------------------------------------------------------

    @property
    def silent_s(self) -> float:
        """Seconds for which this side has been waiting for a word, and none came."""
        if self._reading_since is None:
            return 0.0
        return trio.current_time() - self._reading_since

    @property
    def unread(self) -> bool:
        """Whether something came that nobody has fetched yet."""
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    async def watch_silence(self, silence_s: float) -> None:
        """Close the link once nothing came for that long; a task of the link's nursery may run this."""
        while not self._closed:
            await trio.sleep(max(0.0, silence_s - self.silent_s))
            if self.silent_s >= silence_s:
                self.close(f"nothing came for {silence_s:g} s")

    async def read(self) -> bytes:
        """What the peer says next; nothing where it ended, or the link is closed. RemoteProtocolError."""
        data, self._unread = self._unread, b""
        if data:
            return data
        tls = self._tls
        if tls is None:
            return await self._read()
        while not data and not tls.ended:
            sealed = await self._read()
            if not sealed:
                return b""
            try:
                data = tls.unseal(sealed)
            finally:
                # Seldom: a changed key is acknowledged, a broken record complained of.
                self._write(tls.to_send())
        return data

    async def _read(self) -> bytes:
        """The same as it stands on the wire."""
        room = _CHUNK if self._allowed is None else min(_CHUNK, self._allowed)
        if room <= 0:
            raise RemoteProtocolError("too many words before it is known who speaks")
        self._reading_since = trio.current_time()
        try:
            while not self._closed:
                try:
                    await self._readable()
                    data = self._sock.recv(room)
                except trio.ClosedResourceError:
                    continue
                except BlockingIOError:
                    if self._deaf:
                        self.close(self._deaf)
                except OSError as error:
                    self.close(error.strerror or str(error))
                else:
                    self.last_received = trio.current_time()
                    if self._allowed is not None:
                        self._allowed -= len(data)
                    return data
            return b""
        finally:
            self._reading_since = None

    async def _readable(self) -> None:
        # What a peer said before it stopped listening is heard, but not waited for.
        if self._deaf:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(self._sock)

    # -- writing ----------------------------------------------------------------------------------

    @property
    def deaf(self) -> bool:
        """Whether the peer hears nothing any more, though what it said before may still be heard."""
        return bool(self._deaf)

    @property
    def queued(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return len(self._outbox)

    def write(self, data: bytes) -> None:
        """Write, or queue, bytes. A dead link swallows them: its reader hears of it."""
        self._write(data if self._tls is None else self._tls.seal(data))

    def _write(self, data: bytes) -> None:
        if not data or self._closed or self._deaf:
            return
        if not self._outbox:
            try:
                if failpoints.ACTIVE:
                    failpoints.hit("send-before")
                    failpoints.hit("send-half", lambda: self._sock.send(data[: len(data) // 2]))
                sent = self._sock.send(data)
                if failpoints.ACTIVE:
                    failpoints.hit("send-after")
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._peer_is_deaf(error)
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._outbox += data
        Wire.queued_by_all += len(data)
        queued = len(self._outbox)
        if queued > OUTBOX_LIMIT or (queued > OUTBOX_SHARE and Wire.queued_by_all > OUTBOXES_LIMIT):
            self.close("the peer does not read")
            return
        self._outbox_wanted.set()

    def _sent(self, size: int) -> None:
        """So many bytes are off the outbox."""
        del self._outbox[:size]
        Wire.queued_by_all -= size
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
