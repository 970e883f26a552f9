"""Messages to packet bodies and back.

Every field is checked against the message's struct. Whatever hostile bytes can raise becomes
RemoteProtocolError, in `decode` alone. Unknown keys are ignored (the future's), an unknown message type is
`None` (a newer peer's), wrong types are the peer's fault. Small bodies of a known type are read in one go;
all others, and those with which something is wrong, by msgpack under hard limits, which has the last word.
"""

from collections.abc import Callable
from typing import Any

import msgpack
import msgspec

from drqueue.proto.errors import LocalProtocolError, RemoteProtocolError
from drqueue.proto.link_messages import Message
from drqueue.proto.tags import BY_TAG

#: A packet's body in bytes: at most this, and before the handshake is over at most that.
MAX_BODY = 256 * 1024
MAX_BODY_EARLY = 4096
#: Bytes of a body in which nothing can stand that needs a limit of its own.
_SMALL = 8192

_HOSTILE = (
    *(ValueError, TypeError, OverflowError, RecursionError, MemoryError),
    *(msgpack.UnpackException, msgspec.MsgspecError),
)
_encode = msgspec.msgpack.Encoder().encode

#: How bodies go on after their first byte where the type is the first key: then a byte that says, less this
#: much, how long the tag is, then the tag.
_TAG_FIRST, _SHORT = b"\xa1t", 0xA0
_KINDS = {tag.encode(): kind for tag, kind in BY_TAG.items()}
#: Made as they are needed: few processes meet many types.
_readers: dict[bytes, Callable[[bytes | bytearray | memoryview], Message]] = {}


def encode(message: Message, limit: int = MAX_BODY) -> bytes:
    """The body of one packet; LocalProtocolError where it would be larger than `limit` bytes."""
    body = _encode(message)
    if len(body) > limit:
        raise LocalProtocolError(f"{type(message).__name__} of {len(body)} bytes exceeds {limit}")
    return body


def decode(body: bytes | bytearray | memoryview) -> Message | None:
    """The message in one packet's body; None for a type this side does not know."""
    if 4 < len(body) <= _SMALL and body[1:3] == _TAG_FIRST:
        tag = bytes(body[4 : 4 + max(0, body[3] - _SHORT)])
        read = _readers.get(tag)
        if read is None and tag in _KINDS:
            read = _readers[tag] = msgspec.msgpack.Decoder(_KINDS[tag]).decode
        if read is not None:
            try:
                return read(body)
            except _HOSTILE:
                return _decode_carefully(body)
    return _decode_carefully(body)


def _decode_carefully(body: bytes | bytearray | memoryview) -> Message | None:
    size = len(body)
    try:
        raw: Any = msgpack.unpackb(
            body,
            use_list=False,
            strict_map_key=True,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=min(size, 20_000),
            max_map_len=min(size, 2_000),
            max_ext_len=0,
        )
    except _HOSTILE as error:
        raise RemoteProtocolError(f"not msgpack: {type(error).__name__} {error}"[:200]) from error
    if type(raw) is not dict:
        raise RemoteProtocolError("a message must be a map")
    tag = raw.get("t")
    if type(tag) is not str:
        raise RemoteProtocolError('a message must name its type in "t"')
    cls = BY_TAG.get(tag)
    if cls is None:
        return None
    try:
        # bytes travel as bytes: a text must not be taken for base64
        return msgspec.convert(raw, cls, builtin_types=(bytes,))
    except _HOSTILE as error:
        raise RemoteProtocolError(f"{tag}: {error}"[:200]) from error
