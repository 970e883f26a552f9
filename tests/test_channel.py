"""One link over a real socket pair, against peers that are slow, rude, deaf or gone. Time is virtual."""

import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from drqueue import wire
from drqueue.channel import OUTBOX_LIMIT, STALLED_S, Channel, LinkClosed
from drqueue.proto.connection import Connection
from drqueue.proto.errors import LocalProtocolError, RemoteProtocolError
from drqueue.proto.handshake import Answerer, Dialler
from drqueue.proto.link_messages import Beat, Hi, Message, Rejected, Welcome
from drqueue.proto.messages import LogPart, Refusal

ANSWERER = Answerer(Welcome(version=1, farm="f", epoch=3), ("client", "slave"))


def packets(*messages: Message) -> bytes:
    """What an established peer writes."""
    peer = Connection()
    peer.established()
    return b"".join(peer.send(message) for message in messages)


def a_part(rq: int, size: int = 100_000) -> LogPart:
    """A large message."""
    return LogPart(rq=rq, data=os.urandom(16) * (size // 16), next=0, size=0)


@pytest.fixture(autouse=True)
def nothing_left_queued() -> Iterator[None]:
    """Whatever became of a test's links, the process-wide count of unsent bytes is back where it was."""
    before = Channel.queued_by_all
    yield
    assert Channel.queued_by_all == before


@asynccontextmanager
async def a_pair() -> AsyncIterator[tuple[Channel, Channel]]:
    """Both ends of a link, past the handshake; only the first one's pump runs."""
    one, two = socket.socketpair()
    near, far = Channel(one, "near"), Channel(two, "far")
    async with near, far, trio.open_nursery() as nursery:
        async with trio.open_nursery() as shaking:
            shaking.start_soon(near.answer, ANSWERER)
            shaking.start_soon(far.dial, Dialler("client", "test"))
        nursery.start_soon(near.pump)
        yield near, far
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def a_raw_peer() -> AsyncIterator[tuple[Channel, socket.socket]]:
    """A channel that nobody has greeted, and the peer's bare socket."""
    one, two = socket.socketpair()
    two.setblocking(False)
    near = Channel(one, "near")
    async with near, trio.open_nursery() as nursery:
        nursery.start_soon(near.pump)
        yield near, two
        nursery.cancel_scope.cancel()
    two.close()


@asynccontextmanager
async def a_greeted_peer() -> AsyncIterator[tuple[Channel, socket.socket]]:
    """A channel past its handshake, and the peer's bare socket, with nothing to read on it."""
    async with a_raw_peer() as (near, peer):
        peer.send(Connection().send(Hi(role="client")))
        assert await near.answer(ANSWERER) is not None
        assert peer.recv(4096)
        yield near, peer


# -- messages -------------------------------------------------------------------------------------------


@given(cuts=st.lists(st.integers(0, 400), max_size=20), sizes=st.lists(st.integers(0, 90), max_size=6))
def test_messages_come_whole_and_in_order_however_their_bytes_are_cut(
    cuts: list[int], sizes: list[int]
) -> None:
    said: list[Message] = [LogPart(rq=n, data=b"x" * size, next=0, size=0) for n, size in enumerate(sizes)]
    data = packets(*said, Beat())

    async def main() -> None:
        async with a_greeted_peer() as (near, peer), trio.open_nursery() as nursery:

            async def write() -> None:
                start = 0
                for cut in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
                    peer.send(data[start:cut])
                    start = cut
                    await trio.testing.wait_all_tasks_blocked()

            nursery.start_soon(write)
            assert [await near.receive() for _ in range(len(said) + 1)] == [*said, Beat()]

    trio.run(main)


async def test_a_cancelled_reader_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    data = packets(a_part(1, 1000), Beat())
    async with a_greeted_peer() as (near, peer):
        for at in range(0, len(data), 100):
            peer.send(data[at : at + 100])
            with trio.move_on_after(1) as patience:
                first = await near.receive()
            if not patience.cancelled_caught:
                assert isinstance(first, LogPart)
                break
        else:
            pytest.fail("the message never came")
        assert await near.receive() == Beat()


async def test_many_messages_go_out_in_order_whatever_the_kernel_takes_at_once() -> None:
    """Those that are pumped and those that are written directly keep their places."""
    async with a_pair() as (near, far):
        said = [a_part(n, 100_000 if n % 3 else 10) for n in range(40)]
        for message in said[:30]:
            near.send(message)
        assert near.queued > 0
        near.send_many(said[30:35])
        heard = [await far.receive() for _ in range(35)]
        for message in said[35:]:
            near.send(message)
        heard += [await far.receive() for _ in range(5)]
        assert heard == said
        await near.wait_flushed(5)
        assert near.queued == 0


async def test_nothing_overtakes_what_waits_though_the_kernel_has_room_again() -> None:
    async with a_greeted_peer() as (near, peer):
        for n in range(10):
            near.send(a_part(n))
        heard = Connection()
        heard.established()
        heard.receive(peer.recv(10_000_000))
        near.send(Beat())
        found: list[object] = []
        while not found or found[-1] != Beat():
            message = heard.next_message()
            if isinstance(message, Message):
                found.append(message)
            else:
                await trio.testing.wait_all_tasks_blocked()
                heard.receive(peer.recv(10_000_000))
        assert [message.rq for message in found if isinstance(message, LogPart)] == list(range(10))


async def test_what_is_here_already_can_be_had_without_waiting() -> None:
    async with a_pair() as (near, far):
        near.send_many([Beat(), Beat(echo=True)])
        assert far.receive_nowait() is None
        assert await far.receive() == Beat()
        assert far.receive_nowait() == Beat(echo=True)
        assert far.receive_nowait() is None


async def test_a_message_too_large_is_the_senders_fault_and_leaves_the_link_alone() -> None:
    async with a_pair() as (near, far):
        with pytest.raises(LocalProtocolError):
            near.send(Refusal(rq=1, code="x", text="y" * 300_000))
        with pytest.raises(LocalProtocolError):
            near.send_many([Beat(), Refusal(rq=1, code="x", text="y" * 300_000)])
        near.send(Beat(echo=True))
        assert await far.receive() == Beat(echo=True)


async def test_garbage_after_the_handshake_is_the_peers_fault() -> None:
    async with a_greeted_peer() as (near, peer):
        peer.send(packets(Beat()) + b"\x00\x00\x00\x02\xc1\xc1")
        assert await near.receive() == Beat()
        with pytest.raises(RemoteProtocolError):
            await near.receive()


# -- the end of a link ----------------------------------------------------------------------------------


async def test_the_peers_end_is_heard_after_its_last_words() -> None:
    async with a_greeted_peer() as (near, peer):
        peer.send(packets(Beat()))
        peer.close()
        assert await near.receive() == Beat()
        for _ in range(2):
            with pytest.raises(LinkClosed, match="closed by the peer"):
                await near.receive()


async def test_an_end_inside_a_packet_is_no_good_end() -> None:
    async with a_greeted_peer() as (near, peer):
        peer.send(packets(Beat())[:-1])
        peer.close()
        with pytest.raises(RemoteProtocolError, match="inside a packet"):
            await near.receive()


async def test_closing_wakes_a_waiting_reader_with_the_cause() -> None:
    async with a_pair() as (near, _far), trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(LinkClosed, match="enough"):
                await near.receive()

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        near.close("enough")
        near.close("again")


async def test_a_closed_link_says_nothing_more() -> None:
    """Neither what came before, nor does writing to it fail."""
    async with a_pair() as (near, far):
        near.send_many([Beat(), Beat()])
        assert await far.receive() == Beat()
        far.close("enough")
        with pytest.raises(LinkClosed, match="enough"):
            await far.receive()
        far.send(Beat())
        assert far.queued == 0


async def test_links_leave_no_descriptors_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        async with a_pair() as (near, _far):
            near.send(a_part(1, 260_000))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("parked", [False, True])
async def test_a_peer_that_stopped_listening_is_heard_out_and_then_given_up(parked: bool) -> None:
    """Its last words may say why; but what is meant for it must not vanish on a link that seems to stand."""
    async with a_greeted_peer() as (near, peer), trio.open_nursery() as nursery:
        heard: list[Message] = []

        async def read() -> None:
            heard.append(await near.receive())
            with pytest.raises(LinkClosed, match="Broken pipe"):
                await near.receive()

        peer.send(packets(Rejected(code="c", text="t")))
        if parked:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
        peer.shutdown(socket.SHUT_RD)
        near.send(Beat())
        near.send(Beat())
        if not parked:
            nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert near.closed
        assert heard == [Rejected(code="c", text="t")]


async def test_a_peer_that_goes_while_bytes_wait_for_it_ends_the_link() -> None:
    async with a_greeted_peer() as (near, peer):
        for n in range(20):
            near.send(a_part(n))
        await trio.testing.wait_all_tasks_blocked()
        assert near.queued
        peer.close()
        with trio.fail_after(5), pytest.raises(LinkClosed):
            await near.receive()
        assert near.queued == 0


# -- slow peers -----------------------------------------------------------------------------------------


async def test_a_peer_that_never_reads_is_dropped(autojump_clock: trio.testing.MockClock) -> None:
    async with a_pair() as (near, _far):
        start = trio.current_time()
        for n in range(20):
            near.send(a_part(n))
        with pytest.raises(LinkClosed, match="read nothing for 30 s"):
            await near.receive()
        assert trio.current_time() - start == pytest.approx(STALLED_S)


async def test_a_peer_that_reads_a_little_is_not(autojump_clock: trio.testing.MockClock) -> None:
    async with a_pair() as (near, far):
        for n in range(20):
            near.send(a_part(n))
        for n in range(20):
            await trio.sleep(STALLED_S - 1)
            message = await far.receive()
            assert isinstance(message, LogPart)
            assert message.rq == n
        assert not near.closed


async def test_a_peer_for_whom_too_much_piles_up_is_dropped_at_once() -> None:
    async with a_pair() as (near, _far):
        most = 0
        while not near.closed:
            most = max(most, near.queued)
            near.send(a_part(0))
        assert OUTBOX_LIMIT - 200_000 < most <= OUTBOX_LIMIT
        assert near.queued == 0
        with pytest.raises(LinkClosed, match="does not read"):
            await near.receive()


async def test_where_all_links_together_hold_too_much_the_large_ones_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "OUTBOXES_LIMIT", 2_000_000)
    async with a_pair() as (greedy, _), a_pair() as (modest, far):
        while Channel.queued_by_all < 1_900_000:
            greedy.send(a_part(0))
        for n in range(4):
            modest.send(a_part(n))
        assert 0 < modest.queued < 256 * 1024
        assert Channel.queued_by_all > 2_000_000
        assert not modest.closed
        greedy.send(a_part(0))
        assert greedy.closed
        for n in range(4):
            message = await far.receive()
            assert isinstance(message, LogPart)
            assert message.rq == n


async def test_wait_flushed_ends_when_all_is_with_the_kernel() -> None:
    """For everybody who waits, and while the pump waits for the very same socket."""
    async with a_pair() as (near, far), trio.open_nursery() as nursery:
        for n in range(20):
            near.send(a_part(n))
        flushed = 0

        async def wait() -> None:
            nonlocal flushed
            await near.wait_flushed(60)
            assert near.queued == 0
            flushed += 1

        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert flushed == 0
        for _ in range(20):
            await far.receive()
        await trio.testing.wait_all_tasks_blocked()
        assert flushed == 2
        near.send(a_part(1, 10))
        await near.wait_flushed(60)


async def test_wait_flushed_gives_up_in_time_and_waits_without_turning(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with a_pair() as (near, _far):
        for n in range(20):
            near.send(a_part(n))
        start = trio.current_time()
        # Virtual time only goes on while nobody has anything to do.
        await near.wait_flushed(3)
        assert trio.current_time() - start == pytest.approx(3)


async def test_wait_flushed_ends_with_the_link() -> None:
    async with a_pair() as (near, _far), trio.open_nursery() as nursery:
        for n in range(20):
            near.send(a_part(n))
        nursery.start_soon(near.wait_flushed, 60)
        await trio.testing.wait_all_tasks_blocked()
        near.close()
        nursery.cancel_scope.deadline = trio.current_time() + 5
    assert not nursery.cancel_scope.cancelled_caught


# -- talkative and silent peers ---------------------------------------------------------------------------


async def test_others_have_their_turn_beside_a_peer_that_never_stops() -> None:
    """Two tasks take turns; one of them reads a flood of tiny messages that is always there already."""
    async with a_greeted_peer() as (near, peer), trio.open_nursery() as nursery:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        beats = packets(*[Beat()] * 1000)
        sent = peer.send(beats)
        nursery.start_soon(other)
        for _ in range(sent // len(packets(Beat()))):
            await near.receive()
        assert turns >= 9
        nursery.cancel_scope.cancel()


async def test_others_have_their_turn_at_every_read() -> None:
    async with a_greeted_peer() as (near, peer), trio.open_nursery() as nursery:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        nursery.start_soon(other)
        for n in range(10):
            peer.send(packets(Beat()))
            await near.receive()
            assert turns >= n
        nursery.cancel_scope.cancel()


async def test_silence_is_counted_while_somebody_listens(autojump_clock: trio.testing.MockClock) -> None:
    async with a_pair() as (near, far), trio.open_nursery() as nursery:
        await trio.sleep(1000)
        assert near.silent_s == 0
        nursery.start_soon(near.receive)
        await trio.sleep(7)
        assert near.silent_s == pytest.approx(7)
        far.send(Beat())
        await trio.testing.wait_all_tasks_blocked()
        assert near.silent_s == 0


async def test_a_watched_link_is_closed_after_silence_and_not_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with a_pair() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(near.watch_silence, 30)
        for _ in range(5):
            await trio.sleep(29)
            far.send(Beat())
            await near.receive()
        start = trio.current_time()
        with pytest.raises(LinkClosed, match="nothing came for 30 s"):
            await near.receive()
        assert trio.current_time() - start == pytest.approx(30)
