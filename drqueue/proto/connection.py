"""Bytes in, messages out; messages in, bytes out. No IO.

A packet is a 4-byte big-endian length and a msgpack body. One Connection serves one link: feed it
with `receive`, take messages from `next_message` until it says NEED_DATA. After an error it is spent.
"""

from enum import Enum
from typing import Final

from drqueue.proto.codec import MAX_BODY, MAX_BODY_EARLY, decode, encode
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.link_messages import Message

_HEADER = 4


class Signal(Enum):
    """What `next_message` may say instead of a message."""

    NEED_DATA = "need data"
    CLOSED = "closed"


NEED_DATA: Final = Signal.NEED_DATA
CLOSED: Final = Signal.CLOSED


class Connection:
    """One side of a link, as an automaton over bytes.

    `early` (the state of a new connection) allows bodies of 4 kB only; `established()` lifts it.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = 0
        self._eof = False
        self._limit = MAX_BODY_EARLY

    def established(self) -> None:
        """The handshake is over: full-size packets from now on."""
        self._limit = MAX_BODY

    def receive(self, data: bytes) -> None:
        """Bytes from the peer; empty means that it will send no more."""
        if not data:
            self._eof = True
        self._buffer += data

    def next_message(self) -> Message | Signal:
        """The next whole message. RemoteProtocolError: the peer's fault, close the link."""
        while True:
            buffer, start = self._buffer, self._start
            have = len(buffer) - start
            if have >= _HEADER:
                length = int.from_bytes(buffer[start : start + _HEADER], "big")
                if not 0 < length <= self._limit:
                    raise RemoteProtocolError(f"a packet of {length} bytes (allowed: 1 to {self._limit})")
                if have >= _HEADER + length:
                    end = start + _HEADER + length
                    with memoryview(buffer) as view:
                        message = decode(view[start + _HEADER : end])
                    self._start = end
                    if message is None:
                        continue
                    return message
            if start:
                del buffer[:start]
                self._start = 0
            if not self._eof:
                return NEED_DATA
            if buffer:
                raise RemoteProtocolError(f"the link ended inside a packet ({len(buffer)} bytes of it came)")
            return CLOSED

    def send(self, message: Message) -> bytes:
        """The packet to write. LocalProtocolError where it exceeds what the peer accepts."""
        body = encode(message, self._limit)
        return len(body).to_bytes(_HEADER, "big") + body
