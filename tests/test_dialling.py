"""From addresses to channels: pins, impostors, other services, silence, names with several addresses."""

import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from drqueue.address import Address
from drqueue.channel import Channel, LinkClosed
from drqueue.dialling import open_channel, open_unproven
from drqueue.proto import lines
from drqueue.proto.handshake import Dialler
from drqueue.tls import PinMismatch, TlsSession
from drqueue.unixpath import bind_unix
from tests.secured import ANSWERER, certificate, pin, server

OTHER = lines.pin_of(b"another")
Handler = Callable[[socket.socket], Awaitable[None]]


@asynccontextmanager
async def a_port(serve: Handler, host: str = "127.0.0.1") -> AsyncIterator[Address]:
    """A TCP port whose connections are handed, one after the other, to `serve`, which need not close them."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        listener.setblocking(False)

        async def accept() -> None:
            while True:
                await trio.lowlevel.wait_readable(listener)
                sock, _ = listener.accept()
                with sock:
                    sock.setblocking(False)
                    await serve(sock)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            yield Address("tcp", host=host, port=listener.getsockname()[1])
            nursery.cancel_scope.cancel()


def a_farm(context: ssl.SSLContext) -> Handler:
    """A farm's port: TLS, then Hi and Welcome, until the other side ends."""

    async def serve(sock: socket.socket) -> None:
        async with Channel(sock) as channel:
            try:
                await channel.secure(TlsSession(context, server_side=True))
                await channel.answer(ANSWERER)
                await channel.receive()
            except LinkClosed:
                pass

    return serve


def saying(data: bytes) -> Handler:
    """Another service, that says something and waits for the other side's end."""

    async def serve(sock: socket.socket) -> None:
        sock.send(data)
        while True:
            await trio.lowlevel.wait_readable(sock)
            try:
                if not sock.recv(65536):
                    return
            except ConnectionResetError:
                return

    return serve


async def hang_up(sock: socket.socket) -> None:
    """Close at once."""


async def test_a_farm_with_the_right_pin_is_spoken_to() -> None:
    async with a_port(a_farm(server())) as address, await open_channel(address, pin=pin()) as channel:
        assert channel.label == str(address)
        assert (await channel.dial(Dialler("client", "test"))).farm == "f"


async def test_ipv6_is_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_port(a_farm(server()), "::1") as address, await open_channel(address, pin=pin()) as channel:
        assert (await channel.dial(Dialler("client", "test"))).farm == "f"


async def test_another_certificate_hears_no_word() -> None:
    heard: list[bytes] = []
    over = trio.Event()

    async def impostor(sock: socket.socket) -> None:
        async with Channel(sock) as channel:
            await channel.secure(TlsSession(server(), server_side=True))
            heard.append(await channel.read())
            over.set()

    async with a_port(impostor) as address:
        with pytest.raises(PinMismatch, match=f"{address.host}:{address.port} shows the certificate {pin()}"):
            await open_channel(address, pin=OTHER)
        with trio.fail_after(5):
            await over.wait()
    assert heard == [b""]


async def test_without_a_pin_nobody_is_dialled() -> None:
    with pytest.raises(PermissionError, match="not known here"):
        await open_channel(Address("tcp", host="127.0.0.1", port=1))


async def test_for_first_use_the_pin_is_learned() -> None:
    async with a_port(a_farm(server())) as address:
        channel, seen = await open_unproven(address)
        async with channel:
            assert seen == pin()
            assert (await channel.dial(Dialler("client", "test"))).farm == "f"


@pytest.mark.parametrize(
    "data",
    [b"SSH-2.0-OpenSSH_9.2p1\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(4) + b"\x0a", b"\xff" * 9000],
)
async def test_another_service_is_told_from_a_farm(data: bytes) -> None:
    async with a_port(saying(data)) as address:
        with pytest.raises(OSError, match="does not speak TLS") as caught:
            await open_channel(address, pin=pin())
        assert caught.value.errno == errno.EPROTO


async def test_an_old_server_is_told_from_a_farm(tmp_path: Path) -> None:
    (tmp_path / "both.pem").write_text("".join(certificate()))
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.load_cert_chain(tmp_path / "both.pem")
    old.maximum_version = ssl.TLSVersion.TLSv1_2

    async def serve(sock: socket.socket) -> None:
        session = TlsSession(old, server_side=True)
        await trio.lowlevel.wait_readable(sock)
        with pytest.raises(Exception, match=r"TLS 1\.3"):
            session.shake(sock.recv(65536))
        sock.send(session.to_send())
        await trio.lowlevel.wait_readable(sock)

    async with a_port(serve) as address:
        with pytest.raises(OSError, match=r"it speaks no TLS 1\.3"):
            await open_channel(address, pin=pin())


async def test_whoever_hangs_up_is_no_farm() -> None:
    async with a_port(hang_up) as address:
        with pytest.raises(ConnectionResetError, match="ended in the TLS handshake"):
            await open_channel(address, pin=pin())


async def test_a_silent_port_is_given_up_in_time() -> None:
    async with a_port(saying(b"")) as address:
        with pytest.raises(TimeoutError, match=r"says nothing in the TLS handshake \(tried for 0\.2 s\)"):
            await open_channel(address, pin=pin(), timeout_s=0.2)


async def test_a_dripping_port_is_given_up_in_time() -> None:
    async def drip(sock: socket.socket) -> None:
        sock.send(b"\x16\x03\x03\x0f\xff")
        while True:
            try:
                sock.send(b"\x02")
            except OSError:
                return
            await trio.sleep(0.01)

    async with a_port(drip) as address:
        with pytest.raises(TimeoutError):
            await open_channel(address, pin=pin(), timeout_s=0.2)


async def test_a_closed_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address("tcp", host="127.0.0.1", port=listener.getsockname()[1])
    with pytest.raises(ConnectionRefusedError) as caught:
        await open_channel(address, pin=pin())
    assert caught.value.strerror == "Connection refused"


class Names(trio.abc.HostnameResolver):
    """A name service of one name."""

    def __init__(self, name: str, *addresses: str) -> None:
        self.name = name
        self.addresses = addresses

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[
        tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int]]
    ]:
        """Those addresses, or an unknown name."""
        if host != self.name.encode():
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        assert isinstance(port, int)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (a, port)) for a in self.addresses
        ]

    async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
        """Nobody asks."""
        raise NotImplementedError


async def test_every_address_of_a_name_is_tried() -> None:
    trio.socket.set_custom_hostname_resolver(Names("farm.test", "127.0.0.9", "127.0.0.1"))
    async with a_port(a_farm(server())) as port:
        address = Address("tcp", host="farm.test", port=port.port)
        async with await open_channel(address, pin=pin()) as channel:
            assert (await channel.dial(Dialler("client", "test"))).farm == "f"


async def test_where_no_address_answers_the_first_one_says_why() -> None:
    trio.socket.set_custom_hostname_resolver(Names("farm.test", "127.0.0.9", "127.0.0.8"))
    with pytest.raises(ConnectionRefusedError):
        await open_channel(Address("tcp", host="farm.test", port=1), pin=pin())


async def test_an_unknown_name_is_said_to_be_one() -> None:
    trio.socket.set_custom_hostname_resolver(Names("farm.test"))
    with pytest.raises(OSError, match=r"its name is not known \(Name or service not known\)"):
        await open_channel(Address("tcp", host="fram.test", port=1234), pin=pin())


@pytest.mark.parametrize("host", ["x" * 70, "a..b", "\N{SNOWMAN}" * 70])
async def test_a_name_that_cannot_be_one_is_an_error_like_others(host: str) -> None:
    with pytest.raises(OSError, match=r"\w"):
        await open_channel(Address("tcp", host=host, port=1234), pin=pin())


async def test_failures_leave_no_descriptor_behind() -> None:
    over = trio.Event()

    async def serve(sock: socket.socket) -> None:
        await a_farm(server())(sock)
        over.set()

    async with a_port(serve) as address:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(PinMismatch):
            await open_channel(address, pin=OTHER)
        await over.wait()
        assert len(os.listdir("/proc/self/fd")) == before


# -- Unix sockets ----------------------------------------------------------------------------------------


async def test_a_unix_socket_needs_no_pin(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with bind_unix(path) as listener:
        async with await open_channel(Address("unix", path=path), label="mine") as channel:
            channel.send(Dialler("client", "test").hi)
            accepted, _ = listener.accept()
            async with Channel(accepted) as far:
                assert await far.answer(ANSWERER) is not None
            assert channel.label == "mine"


async def test_a_unix_socket_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await open_channel(Address("unix", path=str(tmp_path / "none")))


async def test_a_full_queue_is_waited_for_but_not_for_ever(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    path = str(tmp_path / "s")
    with bind_unix(path, backlog=0) as listener:
        address = Address("unix", path=path)
        async with await open_channel(address):
            with pytest.raises(TimeoutError, match=r"takes no new links \(tried for 5 s\)"):
                await open_channel(address)
            listener.accept()[0].close()
            async with await open_channel(address):
                pass
