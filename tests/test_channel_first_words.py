"""The first words on a link: who may say them, how long they may take, how much they may be."""

import socket

import pytest
import trio
import trio.testing

from drqueue.channel import HANDSHAKE_S, Channel, LinkClosed
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.handshake import Answerer, Dialler, HandshakeRejected
from drqueue.proto.link_messages import Hi, Rejected, Welcome
from drqueue.proto.messages import LogPart
from tests.test_channel import ANSWERER, a_pair, a_part, a_raw_peer, packets


async def test_both_sides_know_each_other_after_the_handshake() -> None:
    one, two = socket.socketpair()
    async with Channel(one) as near, Channel(two) as far:
        near.send(Hi(role="slave", name="s1"))
        hi = await far.answer(ANSWERER)
        assert hi is not None
        assert hi.name == "s1"
        assert await near.receive() == Welcome(version=1, farm="f", epoch=3)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x00\x00\x0a\x81\xa1t"])
async def test_a_handshake_has_ten_seconds(data: bytes, autojump_clock: trio.testing.MockClock) -> None:
    async with a_raw_peer() as (near, peer):
        if data:
            peer.send(data)
        start = trio.current_time()
        with pytest.raises(RemoteProtocolError, match="silent"):
            await near.answer(ANSWERER)
        assert trio.current_time() - start == pytest.approx(HANDSHAKE_S)


async def test_a_byte_now_and_then_does_not_prolong_the_handshake(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with a_raw_peer() as (near, peer), trio.open_nursery() as nursery:

        async def drip() -> None:
            for byte in packets(Hi(role="client")):
                peer.send(bytes([byte]))
                await trio.sleep(1)

        nursery.start_soon(drip)
        start = trio.current_time()
        with pytest.raises(RemoteProtocolError):
            await near.answer(ANSWERER)
        assert trio.current_time() - start == pytest.approx(HANDSHAKE_S)
        nursery.cancel_scope.cancel()


async def test_before_the_handshake_four_kilobytes_are_the_limit() -> None:
    async with a_raw_peer() as (near, peer):
        peer.send((4097).to_bytes(4, "big"))
        with pytest.raises(RemoteProtocolError, match="4097"):
            await near.answer(ANSWERER)


async def test_a_rejection_that_quotes_a_long_winded_peer_still_fits_the_handshake() -> None:
    one, two = socket.socketpair()
    async with Channel(one) as near, Channel(two) as far:
        near.send(Hi(role="client", oldest=99, newest=99, software="x" * 4000))
        assert await far.answer(ANSWERER) is None
        rejected = await near.receive()
        assert isinstance(rejected, Rejected)
        assert rejected.code == "version"


async def test_a_rejection_after_the_handshake_is_cut_too() -> None:
    async with a_pair() as (near, far):
        near.reject("no", "x" * 1_000_000, retry=True)
        assert near.closed
        rejected = await far.receive()
        assert isinstance(rejected, Rejected)
        assert (rejected.code, rejected.retry) == ("no", True)
        with pytest.raises(LinkClosed):
            await far.receive()


async def test_the_dialling_side_hears_why_it_is_rejected() -> None:
    one, two = socket.socketpair()
    async with Channel(one) as near, Channel(two) as far, trio.open_nursery() as nursery:
        nursery.start_soon(far.answer, Answerer(Welcome(version=1), ("slave",)))
        with pytest.raises(HandshakeRejected, match="no port for a client"):
            await near.dial(Dialler("client", "test"))


async def test_the_first_message_can_be_had_and_judged_before_it_is_answered() -> None:
    one, two = socket.socketpair()
    async with Channel(one) as near, Channel(two) as far:
        near.send(Hi(role="slave", name="s1"))
        first = await far.first_message()
        assert first == Hi(role="slave", name="s1")
        assert far.greet(ANSWERER, first) == first
        assert await near.first_message() == Welcome(version=1, farm="f", epoch=3)
        near.established()
        said = a_part(1, 10_000)
        far.send(said)
        assert await near.receive() == said


async def test_a_refused_peer_hears_why_before_the_link_is_closed() -> None:
    one, two = socket.socketpair()
    async with Channel(one) as near, Channel(two) as far:
        near.refuse("no", "x" * 1_000_000, retry=False)
        assert not near.closed
        rejected = await far.first_message()
        assert isinstance(rejected, Rejected)
        assert len(rejected.text) == 500


async def test_messages_that_nobody_knows_do_not_go_on_for_ever_before_trust() -> None:
    body = b"\x81\xa1t\xa5dunno"
    async with a_raw_peer() as (near, peer):
        peer.send((len(body).to_bytes(4, "big") + body) * 1000)
        with pytest.raises(RemoteProtocolError, match="too many words"):
            await near.first_message()


async def test_no_more_is_taken_before_trust_than_first_words_need_and_nothing_is_lost() -> None:
    async with a_raw_peer() as (near, peer):
        said = packets(
            Hi(role="client"), *[LogPart(rq=n, data=b"x" * 1000, next=0, size=0) for n in range(9)]
        )
        peer.send(said)
        assert await near.answer(ANSWERER) is not None
        assert near.unread
        for n in range(9):
            message = await near.receive()
            assert isinstance(message, LogPart)
            assert message.rq == n
        assert not near.unread
