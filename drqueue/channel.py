"""A proto Connection over a wire: the handshake, and messages in and out.

Sending never waits; what a slow peer does is the wire's business. Several messages sent in a row may be
packed into one write with `send_many`. Nobody starves beside a link whose peer never stops talking: its
reader gives way before every read and between messages.
"""

import socket
from collections.abc import Iterable

import trio
from msgspec import structs

from drqueue.proto.connection import CLOSED, NEED_DATA, Connection
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.handshake import Answerer, Dialler
from drqueue.proto.link_messages import Hi, Message, Rejected, Welcome
from drqueue.wire import CLOSED_BY_PEER, OUTBOX_LIMIT, STALLED_S, LinkClosed, Wire

__all__ = ["CLOSED_BY_PEER", "HANDSHAKE_S", "OUTBOX_LIMIT", "STALLED_S", "Channel", "LinkClosed"]

HANDSHAKE_S = 10.0
#: Messages taken from what was read already, before other tasks have their turn.
_IN_A_ROW = 100
#: Characters of a rejection: it may quote the peer, and has to fit a packet of the handshake.
_SENTENCE = 500


class Channel(Wire):
    """One link: messages in, messages out. Use as an async context manager, or call `close`."""

    def __init__(self, sock: socket.socket, label: str = "") -> None:
        super().__init__(sock, label)
        self._connection = Connection()
        self._in_a_row = 0

    # -- handshake --------------------------------------------------------------------------------

    async def dial(self, dialler: Dialler) -> Welcome:
        """Introduce this side; HandshakeRejected, RemoteProtocolError or LinkClosed otherwise."""
        self.send(dialler.hi)
        welcome = dialler.answered(await self.first_message())
        self.established()
        return welcome

    async def answer(self, answerer: Answerer) -> Hi | None:
        """Hear the dialling side out and answer it; None where it was rejected."""
        return self.greet(answerer, await self.first_message())

    def greet(self, answerer: Answerer, message: Message) -> Hi | None:
        """Answer the dialling side's first message; None where it is rejected. RemoteProtocolError: no Hi."""
        hi, reply = answerer.greeted(message)
        if isinstance(reply, Rejected):
            reply = structs.replace(reply, text=reply.text[:_SENTENCE])
        self.send(reply)
        if hi is not None:
            self.established()
        return hi

    async def first_message(self) -> Message:
        """The peer's first message, which has to come soon and be short. RemoteProtocolError, LinkClosed."""
        with trio.move_on_after(HANDSHAKE_S):
            return await self.receive()
        raise RemoteProtocolError(f"silent for {HANDSHAKE_S:.0f} s in the handshake")

    def established(self) -> None:
        """The handshake is over: full-size packets both ways from now on."""
        self._connection.established()
        self.trust()

    def refuse(self, code: str, text: str, *, retry: bool) -> None:
        """Say no and leave the link open, for whoever flushes and closes it."""
        self.send(Rejected(code=code, text=text[:_SENTENCE], retry=retry))

    def reject(self, code: str, text: str, *, retry: bool) -> None:
        """Say no (after the handshake, too) and close."""
        self.refuse(code, text, retry=retry)
        self.close(text)

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
                self.close(CLOSED_BY_PEER)
            elif message is NEED_DATA:
                self._in_a_row = 0
                data = await self.read()
                if data or not self._closed:
                    self._connection.receive(data)
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
        self.write(self._connection.send(message))

    def send_many(self, messages: Iterable[Message]) -> None:
        """Several messages in one write."""
        self.write(b"".join([self._connection.send(message) for message in messages]))
