"""From an address to a Channel: a Unix socket as it is, TCP by TLS and a pin.

Rules: over TCP nothing is said before the certificate is proven to be the pinned one. All of it, names
looked up, every address of a name, the TLS handshake (but of who may stand in line), has one time limit.
What went wrong is said in a sentence that can follow the address and a colon.
"""

import errno
import os
import socket

import trio

from drqueue.address import Address
from drqueue.channel import Channel, LinkClosed
from drqueue.proto.errors import RemoteProtocolError
from drqueue.tls import TlsSession, client_context
from drqueue.unixpath import connect_unix

CONNECT_S = 5.0


async def open_channel(
    address: Address,
    *,
    pin: str = "",
    label: str = "",
    timeout_s: float = CONNECT_S,
    line_s: float | None = None,
) -> Channel:
    """A link to `address`, before its first message. `pin` is wanted over TCP alone.

    Once there is a connection, `line_s` is the time limit: for whoever may stand in line behind many others.
    Raises PinMismatch, and OSError for everything else: `strerror` is a sentence.
    """
    if address.kind == "unix":
        return Channel(await _unix(address.path, timeout_s), label or str(address))
    if not pin:
        raise PermissionError(errno.EACCES, "its certificate is not known here: log in, or join, first")
    channel, session = await _secured(address, label, timeout_s, line_s)
    try:
        session.check_pin(pin, str(address))
    except BaseException:
        channel.close()
        raise
    return channel


async def open_unproven(
    address: Address, *, label: str = "", timeout_s: float = CONNECT_S
) -> tuple[Channel, str]:
    """A link over TCP to whoever is there, and the pin that it showed: for first use, where none is known.

    Raises OSError.
    """
    channel, session = await _secured(address, label, timeout_s)
    return channel, session.peer_pin()


async def _unix(path: str, timeout_s: float) -> socket.socket:
    with trio.move_on_after(timeout_s):
        while True:
            try:
                return connect_unix(path, blocking=False)
            except BlockingIOError:
                # The listener is alive, its queue is full; the kernel offers no event for room in it.
                await trio.sleep(0.01)
    raise TimeoutError(errno.ETIMEDOUT, f"it takes no new links (tried for {timeout_s:g} s)")


async def _secured(
    address: Address, label: str, timeout_s: float, line_s: float | None = None
) -> tuple[Channel, TlsSession]:
    """A link past its TLS handshake, with a peer that may be anybody."""
    doing = "does not answer"
    with trio.move_on_after(timeout_s) as limit:
        sock = await _tcp(address)
        doing = "says nothing in the TLS handshake"
        if line_s is not None:
            timeout_s = line_s
            limit.deadline = trio.current_time() + line_s
        session = TlsSession(client_context(), server_side=False)
        channel = Channel(sock, label or str(address))
        try:
            await channel.secure(session)
        except RemoteProtocolError as error:
            channel.close()
            raise OSError(errno.EPROTO, str(error)) from error
        except LinkClosed as error:
            channel.close()
            raise ConnectionResetError(
                errno.ECONNRESET, f"the link ended in the TLS handshake ({error})"
            ) from error
        except BaseException:
            channel.close()
            raise
        return channel, session
    raise TimeoutError(errno.ETIMEDOUT, f"it {doing} (tried for {timeout_s:g} s)")


async def _tcp(address: Address) -> socket.socket:
    """A connected socket: all addresses of the name are tried, a later one while an earlier is slow."""
    try:
        stream = await trio.open_tcp_stream(address.host, address.port)
    except socket.gaierror as error:
        raise OSError(errno.EHOSTUNREACH, f"its name is not known ({error.strerror})") from error
    except UnicodeError as error:
        raise OSError(errno.EINVAL, f"{address.host!r} is no name of a host") from error
    except OSError as error:
        raise _first_cause(error) from error
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    return sock


def _first_cause(error: OSError) -> OSError:
    """What the first address that was tried said, in place of trio's summary."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    found = cause if isinstance(cause, OSError) else error
    number = found.errno or errno.EHOSTUNREACH
    return OSError(number, os.strerror(number))
