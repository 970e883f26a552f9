"""Messages to packet bodies and back.

msgpack does the bytes, under hard limits; msgspec then checks every field against the message's
struct. Whatever hostile bytes can raise becomes RemoteProtocolError, in `decode` alone. Unknown keys
are ignored (the future's), an unknown message type is `None` (a newer peer's), wrong types are the
peer's fault.
"""

from typing import Any, cast

import msgpack
import msgspec

from drqueue.proto.errors import LocalProtocolError, RemoteProtocolError
from drqueue.proto.link_messages import Message
from drqueue.proto.messages import BY_TAG

#: A packet's body in bytes: at most this, and before the handshake is over at most that.
MAX_BODY = 256 * 1024
MAX_BODY_EARLY = 4096

_HOSTILE = (ValueError, TypeError, OverflowError, RecursionError, MemoryError, msgpack.UnpackException)
_pack = msgpack.Packer(use_bin_type=True, autoreset=True).pack


def encode(message: Message, limit: int = MAX_BODY) -> bytes:
    """The body of one packet; LocalProtocolError where it would be larger than `limit` bytes."""
    body = cast(bytes, _pack(msgspec.to_builtins(message, builtin_types=(bytes,))))
    if len(body) > limit:
        raise LocalProtocolError(f"{type(message).__name__} of {len(body)} bytes exceeds {limit}")
    return body


def decode(body: bytes | bytearray | memoryview) -> Message | None:
    """The message in one packet's body; None for a type this side does not know."""
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
    except (msgspec.ValidationError, *_HOSTILE) as error:
        raise RemoteProtocolError(f"{tag}: {error}"[:200]) from error
