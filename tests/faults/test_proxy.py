"""The proxy itself: what goes through it, what does not, and when."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from drqueue.unixpath import connect_unix
from tests.faults.proxy import Proxy


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that says back what it hears, where it listens, and what its links ended with."""
    ends: list[bytes] = []

    async def echo(stream: trio.SocketStream) -> None:
        try:
            async for data in stream:
                await stream.send_all(data)
            ends.append(b"fin")
            await stream.aclose()
        except trio.BrokenResourceError:
            ends.append(b"rst")

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, echo, [listener])
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}", ends
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def through(at: str = "127.0.0.1:0") -> AsyncIterator[tuple[Proxy, trio.SocketStream, list[bytes]]]:
    """A connection to such a server by way of a proxy."""
    async with echoing() as (target, ends), Proxy(target, at) as proxy, await dialled(proxy) as stream:
        yield proxy, stream, ends


async def dialled(proxy: Proxy) -> trio.SocketStream:
    if proxy.address.startswith("unix:"):
        sock = connect_unix(proxy.address.removeprefix("unix:"), blocking=False)
        return trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    host, _, port = proxy.address.rpartition(":")
    return await trio.open_tcp_stream(host, int(port))


async def hears(stream: trio.SocketStream, size: int) -> bytes:
    heard = b""
    with trio.fail_after(10):
        while len(heard) < size:
            part = await stream.receive_some()
            assert part, f"it ended after {heard!r}"
            heard += part
    return heard


async def hears_nothing(stream: trio.SocketStream, seconds: float = 0.1) -> None:
    with trio.move_on_after(seconds):
        raise AssertionError(await stream.receive_some())


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while True:
            if holds():
                return
            await trio.sleep(0.005)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_it_carries_all_bytes_both_ways(kind: str, tmp_path: Path) -> None:
    at = "127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/proxy.sock"
    data = bytes(range(256)) * 2000
    async with through(at) as (proxy, stream, _), trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, data)
        assert await hears(stream, len(data)) == data
        (session,) = proxy.sessions
        assert session.said_up == session.said_down == data


async def test_what_is_held_comes_later_and_the_other_direction_goes_on() -> None:
    async with through() as (proxy, stream, _):
        await stream.send_all(b"one")
        assert await hears(stream, 3) == b"one"
        proxy.down.hold()
        await stream.send_all(b"two")
        await hears_nothing(stream)
        (session,) = proxy.sessions
        await until(lambda: session.said_down == b"onetwo")  # it came as far as the proxy
        proxy.down.pass_()
        assert await hears(stream, 3) == b"two"


async def test_delays_keep_the_order() -> None:
    waits = iter([0.15, 0.0, 0.0])
    async with through() as (proxy, stream, _):
        proxy.up.delay(lambda: next(waits))
        began = trio.current_time()
        for word in (b"slow", b"fast", b"last"):
            await stream.send_all(word)
            await until(lambda: bytes(proxy.sessions[0].said_up).endswith(word))  # noqa: B023
        assert await hears(stream, 12) == b"slowfastlast"
        assert trio.current_time() - began >= 0.15


async def test_a_throttle_takes_its_time() -> None:
    async with through() as (proxy, stream, _):
        proxy.up.throttle(10_000)
        began = trio.current_time()
        await stream.send_all(b"x" * 2000)
        assert await hears(stream, 2000)
        assert trio.current_time() - began >= 0.2


async def test_a_reset_and_an_end_in_good_order_are_told_apart() -> None:
    async with through() as (proxy, stream, ends):
        await stream.send_all(b"one")
        await hears(stream, 3)
        assert proxy.cut("rst") == 1
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        await until(lambda: ends == [b"rst"])
        async with await dialled(proxy) as stream:
            await stream.send_all(b"two")
            await hears(stream, 3)
            assert proxy.cut("fin") == 1
            assert await stream.receive_some() == b""
        await until(lambda: ends == [b"rst", b"fin"])
        assert proxy.live == []


async def test_a_half_closed_link_goes_on_in_the_other_direction() -> None:
    async with through() as (proxy, stream, _):
        await stream.send_all(b"one")
        await hears(stream, 3)
        proxy.half_close(up=False)
        assert await stream.receive_some() == b""
        await stream.send_all(b"more")
        await until(lambda: proxy.sessions[0].said_up == b"onemore")


async def test_who_is_refused_is_told_so_until_it_heals() -> None:
    async with through() as (proxy, _stream, _):
        proxy.refusing = True
        async with await dialled(proxy) as refused:
            assert await refused.receive_some() == b""
        proxy.heal()
        async with await dialled(proxy) as stream:
            await stream.send_all(b"one")
            assert await hears(stream, 3) == b"one"


async def test_packets_are_whole_whatever_pieces_they_come_in() -> None:
    """Doubled, dropped and changed packets; what is no whole packet yet waits."""
    packets = [size.to_bytes(4, "big") + bytes([size]) * size for size in (3, 2, 5)]
    seen: list[bytes] = []

    def rewrite(packet: bytes) -> list[bytes]:
        seen.append(packet)
        return {3: [packet, packet], 2: []}.get(packet[3], [packet[:-1] + b"!"])

    async with through() as (proxy, stream, _):
        proxy.up.packets = rewrite
        data = b"".join(packets)
        for part in (data[:2], data[2:9], data[9:]):
            await stream.send_all(part)
            await trio.testing.wait_all_tasks_blocked()
        wanted = packets[0] * 2 + packets[2][:-1] + b"!"
        assert await hears(stream, len(wanted)) == wanted
    assert seen == packets


async def test_an_old_session_is_said_again_on_a_connection_of_its_own() -> None:
    async with through() as (proxy, stream, _):
        await stream.send_all(b"once")
        await hears(stream, 4)
        assert await proxy.replay(bytes(proxy.sessions[0].said_up), quiet_s=0.1) == b"once"


async def test_it_can_say_what_another_side_said_before() -> None:
    async with through() as (proxy, _stream, _):
        proxy.impersonating = b"welcome"
        async with await dialled(proxy) as stream:
            assert await hears(stream, 7) == b"welcome"
            await stream.send_all(b"hello")
            await hears_nothing(stream)
        proxy.heal()
        async with await dialled(proxy) as stream:
            await stream.send_all(b"one")
            assert await hears(stream, 3) == b"one"


async def test_a_target_that_is_not_there_is_no_end_of_the_proxy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    async with Proxy(f"127.0.0.1:{port}") as proxy:
        async with await dialled(proxy) as stream:
            assert await stream.receive_some() == b""
        assert proxy.sessions == []
