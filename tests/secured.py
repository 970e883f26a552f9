"""What tests of TLS share: a certificate, contexts, and links over real sockets."""

import functools
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from drqueue import tls
from drqueue.channel import Channel
from drqueue.master.certificate import make_certificate
from drqueue.proto.handshake import Answerer, Dialler
from drqueue.proto.link_messages import Welcome
from drqueue.tls import TlsSession

ANSWERER = Answerer(Welcome(version=1, farm="f", epoch=3), ("client", "slave"))


@functools.cache
def certificate() -> tuple[str, str]:
    """Certificate and key, both PEM."""
    return make_certificate("test")


def pin() -> str:
    """That certificate's."""
    return tls.pin_of_pem(certificate()[0])


@functools.cache
def server() -> ssl.SSLContext:
    """The listening side's context with that certificate."""
    return tls.server_context_from(*certificate())


def sessions() -> tuple[TlsSession, TlsSession]:
    """(who dialled, who was dialled), before the handshake."""
    return (
        TlsSession(tls.client_context(), server_side=False),
        TlsSession(server(), server_side=True),
    )


def shaken() -> tuple[TlsSession, TlsSession]:
    """The same past the handshake."""
    near, far = sessions()
    near.shake(b"")
    far.shake(near.to_send())
    assert near.shake(far.to_send())
    assert far.shake(near.to_send())
    assert not far.to_send()
    return near, far


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dialled = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    return dialled, accepted


@asynccontextmanager
async def a_secured_pair() -> AsyncIterator[tuple[Channel, Channel]]:
    """(who dialled, who was dialled) past TLS and Hi; both pumps run."""
    one, two = tcp_pair()
    near, far = Channel(one, "near"), Channel(two, "far")
    mine, yours = sessions()

    async def dial() -> None:
        await near.secure(mine)
        await near.dial(Dialler("client", "test"))

    async def answer() -> None:
        await far.secure(yours)
        await far.answer(ANSWERER)

    async with near, far, trio.open_nursery() as nursery:
        async with trio.open_nursery() as shaking:
            shaking.start_soon(dial)
            shaking.start_soon(answer)
        nursery.start_soon(near.pump)
        nursery.start_soon(far.pump)
        yield near, far
        nursery.cancel_scope.cancel()


class BarePeer:
    """A peer that speaks TLS by hand over a bare socket, for what no Channel would do. Dials."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.tls = TlsSession(tls.client_context(), server_side=False)

    async def shake(self) -> bytes:
        """Up to this side's last words of the handshake, which are returned and not sent yet."""
        data, done = b"", False
        while True:
            done = self.tls.shake(data)
            if done:
                return self.tls.to_send()
            self.sock.send(self.tls.to_send())
            await trio.lowlevel.wait_readable(self.sock)
            data = self.sock.recv(65536)

    async def hear(self) -> bytes:
        """Everything that the other side says until it ends."""
        heard = b""
        while True:
            await trio.lowlevel.wait_readable(self.sock)
            data = self.sock.recv(65536)
            if not data:
                return heard
            heard += self.tls.unseal(data)


@asynccontextmanager
async def a_bare_peer(*, tcp: bool = True) -> AsyncIterator[tuple[Channel, BarePeer]]:
    """A channel past TLS (and not yet past Hi), and the peer that dialled it.

    Bytes on TCP take real time, also to the same machine: not `tcp` where time is virtual.
    """
    one, two = tcp_pair() if tcp else socket.socketpair()
    peer = BarePeer(one)
    channel = Channel(two, "near")
    async with channel, trio.open_nursery() as nursery:
        nursery.start_soon(channel.pump)

        async def shake() -> None:
            peer.sock.send(await peer.shake())

        with one:
            async with trio.open_nursery() as shaking:
                shaking.start_soon(shake)
                shaking.start_soon(channel.secure, sessions()[1])
            yield channel, peer
        nursery.cancel_scope.cancel()
