"""Channels by TLS over real TCP sockets: large, many, slow, rude, cut off."""

import os
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from drqueue.channel import OUTBOX_LIMIT, STALLED_S, Channel, LinkClosed
from drqueue.proto.connection import Connection
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.link_messages import Beat, Hi, Message
from drqueue.proto.messages import LogPart
from tests.secured import ANSWERER, BarePeer, a_bare_peer, a_secured_pair, sessions, tcp_pair

LARGE = 250_000


@pytest.fixture(autouse=True)
def nothing_left_queued() -> Iterator[None]:
    """Whatever became of a test's links, the process-wide count of unsent bytes is back where it was."""
    before = Channel.queued_by_all
    yield
    assert Channel.queued_by_all == before


def a_part(rq: int, size: int = LARGE) -> LogPart:
    """A large message."""
    return LogPart(rq=rq, data=os.urandom(16) * (size // 16), next=0, size=0)


def packets(*messages: Message) -> bytes:
    """What an established peer writes."""
    peer = Connection()
    peer.established()
    return b"".join(peer.send(message) for message in messages)


async def test_large_messages_go_both_ways_at_once() -> None:
    async with a_secured_pair() as (near, far), trio.open_nursery() as nursery:
        said = [a_part(n) for n in range(20)]

        async def hear(channel: Channel) -> None:
            assert [await channel.receive() for _ in said] == said

        nursery.start_soon(hear, near)
        nursery.start_soon(hear, far)
        for message in said:
            near.send(message)
            far.send(message)
        assert near.queued > 0


async def test_thousands_of_small_messages_keep_their_order() -> None:
    async with a_secured_pair() as (near, far), trio.open_nursery() as nursery:

        async def say() -> None:
            for n in range(3000):
                far.send(a_part(n, 16 * (n % 5)))
                if n % 100 == 0:
                    await trio.lowlevel.checkpoint()

        nursery.start_soon(say)
        for n in range(3000):
            message = await near.receive()
            assert isinstance(message, LogPart)
            assert (message.rq, len(message.data)) == (n, 16 * (n % 5))


async def test_many_in_one_write_come_as_many() -> None:
    async with a_secured_pair() as (near, far):
        near.send_many([Beat(), a_part(1), Beat(echo=True)])
        assert await far.receive() == Beat()
        assert isinstance(await far.receive(), LogPart)
        assert await far.receive() == Beat(echo=True)
        assert far.receive_nowait() is None


async def test_nothing_of_it_is_readable_on_the_wire() -> None:
    async with a_bare_peer() as (near, peer):
        near.send(Hi(role="client", secret="a-very-telling-secret"))
        await trio.lowlevel.wait_readable(peer.sock)
        assert b"telling" not in peer.sock.recv(65536)


async def test_a_cancelled_reader_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with a_bare_peer(tcp=False) as (near, peer):
        sealed = peer.tls.seal(packets(Hi(role="client"), Beat()))
        hi = None
        for at in range(0, len(sealed), 7):
            peer.sock.send(sealed[at : at + 7])
            with trio.move_on_after(0.1):
                hi = await near.receive()
        assert hi == Hi(role="client")
        assert await near.receive() == Beat()


# -- slow peers ------------------------------------------------------------------------------------------


async def test_a_peer_that_never_reads_is_dropped_when_too_much_piles_up() -> None:
    async with a_secured_pair() as (near, _far):
        most = 0
        while not near.closed:
            most = max(most, near.queued)
            near.send(a_part(0))
        assert OUTBOX_LIMIT - 2 * LARGE < most <= OUTBOX_LIMIT
        assert near.queued == 0
        with pytest.raises(LinkClosed, match="does not read"):
            await near.receive()


async def test_a_peer_that_reads_nothing_is_dropped_in_time(autojump_clock: trio.testing.MockClock) -> None:
    async with a_bare_peer(tcp=False) as (near, peer):
        peer.sock.send(peer.tls.seal(packets(Hi(role="client"))))
        await near.answer(ANSWERER)
        for n in range(30):
            near.send(a_part(n))
        start = trio.current_time()
        with pytest.raises(LinkClosed, match="read nothing for 30 s"):
            await near.receive()
        assert trio.current_time() - start == pytest.approx(STALLED_S, abs=1)


# -- the end of a link -----------------------------------------------------------------------------------


async def test_a_link_cut_without_a_farewell_is_closed_by_the_peer() -> None:
    async with a_secured_pair() as (near, far):
        far.send(Beat())
        far.close()
        assert await near.receive() == Beat()
        for _ in range(2):
            with pytest.raises(LinkClosed, match="closed by the peer"):
                await near.receive()
        near.send(Beat())


async def test_a_farewell_ends_a_link_though_the_socket_stands() -> None:
    async with a_bare_peer() as (near, peer):
        peer.sock.send(peer.tls.seal(packets(Hi(role="client"))))
        await near.answer(ANSWERER)
        peer.tls.unseal(peer.sock.recv(65536))
        with pytest.raises(Exception, match="did not complete"):
            peer.tls._ssl.unwrap()
        peer.sock.send(peer.tls.to_send())
        with pytest.raises(LinkClosed, match="closed by the peer"):
            await near.receive()


@pytest.mark.parametrize("whole_record", [True, False])
async def test_a_link_cut_inside_a_packet_or_a_record_is_an_end(whole_record: bool) -> None:
    async with a_bare_peer() as (near, peer):
        data = packets(Hi(role="client"))
        peer.sock.send(peer.tls.seal(data[:-1]) if whole_record else peer.tls.seal(data)[:-1])
        peer.sock.close()
        with pytest.raises((RemoteProtocolError, LinkClosed)):
            await near.receive()


async def test_a_forged_record_ends_the_link_and_says_so() -> None:
    async with a_bare_peer() as (near, peer):
        peer.sock.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(RemoteProtocolError, match="TLS failed"):
            await near.receive()
        near.send(Beat())
        near.close()
        with pytest.raises(RemoteProtocolError, match="alert"):
            await peer.hear()


async def test_links_leave_no_descriptors_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        async with a_secured_pair() as (near, _far):
            near.send(a_part(1))
    assert len(os.listdir("/proc/self/fd")) == before


# -- before trust ----------------------------------------------------------------------------------------


async def test_the_first_message_may_come_with_the_end_of_the_handshake() -> None:
    one, two = tcp_pair()
    async with Channel(two) as near, trio.open_nursery() as nursery:
        peer = BarePeer(one)

        async def speak() -> None:
            last = await peer.shake()
            peer.sock.send(last + peer.tls.seal(packets(Hi(role="slave", name="s1"))))

        nursery.start_soon(speak)
        await near.secure(sessions()[1])
        assert await near.first_message() == Hi(role="slave", name="s1")
    one.close()


async def test_a_handshake_that_never_ends_is_cut_at_four_kilobytes() -> None:
    one, two = tcp_pair()
    async with Channel(two) as near, trio.open_nursery() as nursery:
        one.setblocking(False)

        async def babble() -> None:
            # A handshake message of 100,000 bytes, in whole records.
            one.send(b"\x16\x03\x01\x10\x00" + b"\x01\x01\x86\xa0\x03\x03" + bytes(4090))
            one.send((b"\x16\x03\x03\x10\x00" + bytes(4096)) * 3)

        nursery.start_soon(babble)
        with trio.fail_after(5), pytest.raises(RemoteProtocolError, match="too many words"):
            await near.secure(sessions()[1])
    one.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        (4097).to_bytes(4, "big"),
        b"\x00\x00\x10\x00" + b"\x91" * 4096,
        b"\x00\x00\x10\x00" + b"\xdd\xff\xff\xff\xff" + bytes(4091),
        b"\x00\x00\x00\x00",
    ],
    ids=["4 GB", "4097 bytes", "nesting", "a promised array", "nothing"],
)
async def test_bombs_for_a_first_message_are_the_peers_fault(data: bytes) -> None:
    async with a_bare_peer() as (near, peer):
        peer.sock.send(peer.tls.seal(data))
        with pytest.raises(RemoteProtocolError):
            await near.first_message()


async def test_messages_that_nobody_knows_do_not_go_on_for_ever_before_trust() -> None:
    body = b"\x81\xa1t\xa5dunno"
    async with a_bare_peer() as (near, peer):
        peer.sock.send(peer.tls.seal((len(body).to_bytes(4, "big") + body) * 1000))
        with pytest.raises(RemoteProtocolError, match="too many words"):
            await near.first_message()


async def test_records_of_one_byte_are_counted_too() -> None:
    async with a_bare_peer() as (near, peer):
        body = bytes([0xDA, 0x0F, 0xF0]) + b"x" * 1000
        for byte in (4000).to_bytes(4, "big") + body:
            peer.sock.send(peer.tls.seal(bytes([byte])))
        with pytest.raises(RemoteProtocolError, match="too many words"):
            await near.first_message()
