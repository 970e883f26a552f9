"""The gate with real sockets: good callers, and those who are none, by TLS and on a Unix socket."""

import itertools
import math
import os
import select
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from drqueue.address import Address
from drqueue.channel import Channel, LinkClosed
from drqueue.dialling import open_channel
from drqueue.master import doorstep, gate
from drqueue.master.doorstep import FAILURES, MOST, SHARE
from drqueue.master.gate import Caller, Gate, Serve, nothing_more, plain_address
from drqueue.proto.connection import Connection
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.handshake import Dialler, HandshakeRejected
from drqueue.proto.link_messages import Beat, Hi, Join, Joined, Message, Welcome
from drqueue.unixpath import bind_unix
from tests.secured import ANSWERER, BarePeer, pin, server

GOOD = Dialler("client", "test", secret="good")


class AFarm:
    """A gate on a TLS port and a Unix socket whose `admit` knows one secret; served links echo beats."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "s")
        self.tcp = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.tcp.setblocking(False)
        self.unix = bind_unix(self.path)
        self.unix.setblocking(False)
        self.address = Address("tcp", host="127.0.0.1", port=self.tcp.getsockname()[1])
        self.callers: list[Caller] = []
        self.notices: list[tuple[str, str, int]] = []
        self.noticed = trio.Event()
        self.gate = Gate(self.admit, self.notice, server())
        self.judging = 0.0

    async def admit(self, channel: Channel, message: Message, caller: Caller) -> Serve | None:
        self.callers.append(caller)
        await trio.sleep(self.judging)
        if isinstance(message, Join):
            channel.send(Joined(farm="f", account="a", name="n", role="node"))
            return nothing_more
        if isinstance(message, Hi) and message.secret != "good" and caller.kind == "tcp":
            channel.refuse("not-known", "nobody knows this secret", retry=False)
            return None
        assert channel.greet(ANSWERER, message) is not None

        async def serve() -> None:
            while True:
                message = await channel.receive()
                channel.send(message)

        return serve

    def notice(self, address: str, what: str, count: int) -> None:
        self.notices.append((address, what, count))
        self.noticed.set()
        self.noticed = trio.Event()

    async def told(self, words: str) -> str:
        """Wait for a notice with these words; returns its address."""
        with trio.fail_after(10):
            while True:
                for address, what, _ in self.notices:
                    if words in what:
                        return address
                await self.noticed.wait()

    def dialled(self, address: str = "127.0.0.1") -> socket.socket:
        """A bare TCP connection from an address of this machine."""
        sock = socket.create_connection(self.tcp.getsockname(), source_address=(address, 0))
        sock.setblocking(False)
        return sock

    async def good(self) -> Channel:
        """A good caller's link, past its handshake."""
        channel = await open_channel(self.address, pin=pin(), timeout_s=10)
        await channel.dial(GOOD)
        return channel


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncIterator[AFarm]:
    farm = AFarm(tmp_path)
    with farm.tcp, farm.unix:
        async with trio.open_nursery() as links, trio.open_nursery() as nursery:
            nursery.start_soon(farm.gate.accept, farm.tcp, links)
            nursery.start_soon(farm.gate.accept, farm.unix, links)
            nursery.start_soon(farm.gate.tell)
            yield farm
            links.cancel_scope.cancel()


async def ended(sock: socket.socket) -> bytes:
    """What the other side says before it ends the connection."""
    heard = b""
    with trio.fail_after(15):
        while True:
            await trio.lowlevel.wait_readable(sock)
            try:
                data = sock.recv(65536)
            except ConnectionResetError:
                return heard
            if not data:
                return heard
            heard += data


async def echoes(channel: Channel) -> None:
    """The link is served."""
    channel.send(Beat(echo=True))
    with trio.fail_after(10):
        assert await channel.receive() == Beat(echo=True)


# -- good callers ----------------------------------------------------------------------------------------


async def test_a_good_caller_is_served_by_tls(farm: AFarm) -> None:
    async with await farm.good() as channel:
        await echoes(channel)
    assert farm.callers == [Caller("tcp", "127.0.0.1", -1)]
    assert farm.notices == []


async def test_a_caller_at_the_unix_socket_is_known_by_the_kernel(farm: AFarm) -> None:
    async with await open_channel(Address("unix", path=farm.path)) as channel:
        welcome = await channel.dial(Dialler("client", "test"))
        assert isinstance(welcome, Welcome)
        await echoes(channel)
    assert farm.callers == [Caller("unix", f"uid {os.getuid()}", os.getuid())]


async def test_a_first_message_may_be_all(farm: AFarm) -> None:
    async with await open_channel(farm.address, pin=pin()) as channel:
        channel.send(Join(role="slave", secret_hash="0" * 64))
        assert isinstance(await channel.first_message(), Joined)
        with pytest.raises(LinkClosed):
            await channel.receive()
    assert farm.notices == []


async def test_a_refused_caller_hears_why_and_is_counted(farm: AFarm) -> None:
    async with await open_channel(farm.address, pin=pin()) as channel:
        with pytest.raises(HandshakeRejected, match="nobody knows this secret"):
            await channel.dial(Dialler("client", "test", secret="bad"))
        with pytest.raises(LinkClosed):
            await channel.receive()
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert farm.notices == [], "whoever refused it tells of it"
    assert len(farm.gate._doorstep._culprits["127.0.0.1"].failures) == 1


async def test_a_busy_master_says_so_and_holds_it_against_nobody(
    farm: AFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "JUDGING_S", 0.05)
    farm.judging = math.inf
    async with await open_channel(farm.address, pin=pin()) as channel:
        with pytest.raises(HandshakeRejected, match="too busy") as caught:
            await channel.dial(GOOD)
        assert caught.value.retry
    assert farm.notices == []


async def test_a_bug_on_one_link_ends_that_link_alone(
    farm: AFarm, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with await farm.good() as before:
        monkeypatch.setattr(farm.gate, "_admit", None)
        async with await open_channel(farm.address, pin=pin()) as channel:
            with pytest.raises((LinkClosed, RemoteProtocolError)):
                await channel.dial(GOOD)
        monkeypatch.undo()
        await echoes(before)
        async with await farm.good() as after:
            await echoes(after)


@pytest.mark.slow
async def test_many_good_callers_from_one_address_get_in_beside_its_failures(farm: AFarm) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(FAILURES + 5):
            with farm.dialled() as sock:
                sock.send(b"garbage")
                await ended(sock)
        served: list[Channel] = []

        async def come() -> None:
            # Beyond its places an address is turned away, and comes again.
            while True:
                try:
                    served.append(await stack.enter_async_context(await farm.good()))
                except OSError:
                    await trio.sleep(0.05)
                else:
                    return

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(150):
                    nursery.start_soon(come)
        for channel in served:
            await echoes(channel)
        assert len(served) == 150


# -- bad callers -----------------------------------------------------------------------------------------


def packet(length: int, body: bytes) -> bytes:
    """A packet that may lie about its length."""
    return length.to_bytes(4, "big") + body


BOMBS = {
    "4 GB": packet(2**32 - 1, b"x"),
    "nesting": packet(4096, b"\x91" * 4096),
    "array": packet(4096, b"\xdd\xff\xff\xff\xff" + bytes(4091)),
    "map": packet(1024, b"\xdf\xff\xff\xff\xff" + bytes(1019)),
    "bin": packet(9, b"\x81\xa1t\xc6\xff\xff\xff\xff\x00"),
    "not a message": packet(1, b"\x01"),
    "no first word": Connection().send(Beat()),
}


@pytest.mark.parametrize("bomb", list(BOMBS))
@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_bombs_go_off_at_the_gate(farm: AFarm, kind: str, bomb: str) -> None:
    """One notice, and everybody else is served as before."""
    async with await farm.good() as good:
        if kind == "tcp":
            with farm.dialled() as sock:
                peer = BarePeer(sock)
                sock.send(await peer.shake() + peer.tls.seal(BOMBS[bomb]))
                await ended(sock)
        else:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(farm.path)
                sock.setblocking(False)
                sock.send(BOMBS[bomb])
                await ended(sock)
        expected = "127.0.0.1" if kind == "tcp" else f"uid {os.getuid()}"
        assert await farm.told("") == expected
        assert len(farm.notices) == 1
        await echoes(good)


async def test_a_plain_caller_at_the_tls_port_is_let_go(farm: AFarm) -> None:
    with farm.dialled("127.0.0.5") as sock:
        sock.send(Connection().send(Hi(role="client", secret="good")))
        await ended(sock)
    assert await farm.told("does not speak TLS") == "127.0.0.5"
    assert farm.callers == []


@pytest.mark.parametrize("held", [False, True])
async def test_to_come_for_the_certificate_alone_fails_only_who_holds_a_place(
    farm: AFarm, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    monkeypatch.setattr(gate, "SILENT_S", 0.0 if held else 60.0)
    with farm.dialled("127.0.0.6") as sock:
        sock.send(await BarePeer(sock).shake())
        sock.shutdown(socket.SHUT_WR)
        await ended(sock)
    assert [what for _, what, _ in farm.notices] == (["closed by the peer"] if held else [])


async def test_a_silent_caller_is_cut_off_in_time(farm: AFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    """By TLS and on the Unix socket, before the handshake and after it."""
    monkeypatch.setattr(gate, "HANDSHAKE_S", 0.3)
    with farm.dialled() as mute, farm.dialled() as shaken, socket.socket(socket.AF_UNIX) as local:
        local.connect(farm.path)
        local.setblocking(False)
        shaken.send(await BarePeer(shaken).shake())
        for sock in (mute, shaken, local):
            await ended(sock)
    await farm.told("did not say who it is within")
    assert farm.callers == []


async def test_repeated_failures_are_told_together(farm: AFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorstep, "WINDOW_S", 1.0)
    for data in (b"garbage", b"garbage", b"GET / HTTP/1.0\r\n\r\n"):
        with farm.dialled() as sock:
            sock.send(data)
            await ended(sock)
    await farm.told("speaks HTTP")
    assert [count for _, _, count in farm.notices] == [1, 2]


async def test_links_beyond_the_bound_are_closed(farm: AFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_LINKS_MOST", 1)
    async with await farm.good() as first:
        async with await open_channel(Address("unix", path=farm.path)) as second:
            with pytest.raises(LinkClosed):
                await second.dial(Dialler("client", "test"))
        await echoes(first)


async def test_silent_links_of_one_local_user_leave_room_for_others(
    farm: AFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root and the master's own user are not counted."""
    monkeypatch.setattr(gate, "LOCAL_MOST", 2)
    uids = itertools.chain([1000, 1000, 1000, 1001, 0, 0, 0, 1000])
    monkeypatch.setattr(gate, "_local", lambda _sock: Caller("unix", f"uid {(uid := next(uids))}", uid))
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(7)]
        for sock in socks:
            sock.connect(farm.path)
            sock.setblocking(False)
        assert await ended(socks[2]) == b""
        assert await farm.told("links that say nothing") == "uid 1000"
        for sock in (*socks[:2], *socks[3:]):
            with pytest.raises(BlockingIOError):
                sock.recv(1)
        socks[0].close()
        await trio.testing.wait_all_tasks_blocked(0.05)
        async with await open_channel(Address("unix", path=farm.path)) as welcome:
            await welcome.dial(Dialler("client", "test"))
            # Who has spoken is no stranger any more.
            assert farm.gate._of_uid == {1000: 1, 1001: 1}
            await echoes(welcome)


# -- crowds ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def a_crowd(
    farm: AFarm, size: int, address: str = "127.0.0.2", *, dripping: bool = False
) -> AsyncIterator[list[socket.socket]]:
    """So many callers who began a handshake and say nothing more, or a byte now and then."""
    with ExitStack() as stack:
        socks = [stack.enter_context(farm.dialled(address)) for _ in range(size)]
        for sock in socks:
            sock.send(b"\x16\x03\x01\x0f\xff\x01")
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                while True:
                    for sock in socks:
                        with suppress(OSError):
                            sock.send(b"\x01")
                    await trio.sleep(0.05)

            if dripping:
                nursery.start_soon(drip)
            with trio.fail_after(10):
                while len(farm.gate._waiting) < min(size, MOST):  # noqa: ASYNC110
                    await trio.sleep(0.01)
            yield socks
            nursery.cancel_scope.cancel()


async def test_a_good_caller_gets_in_beside_silent_ones(farm: AFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorstep, "SILENT_S", 0.2)
    async with await farm.good() as before, a_crowd(farm, MOST + 30):
        with trio.fail_after(5):
            async with await farm.good() as channel:
                await echoes(channel)
        assert len(farm.gate._waiting) <= MOST
        await echoes(before)
    assert await farm.told("silent while others waited") == "127.0.0.2"


async def test_a_good_caller_gets_in_beside_dripping_ones(
    farm: AFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their time runs out; after that their address has few places."""
    monkeypatch.setattr(gate, "HANDSHAKE_S", 1.0)
    async with await farm.good() as before, a_crowd(farm, MOST + 30, dripping=True):
        with trio.fail_after(8):
            async with await farm.good() as channel:
                await echoes(channel)
        with trio.fail_after(8):
            # Those that came before it was known for its failures run out of time, too.
            while sum(c.label == "127.0.0.2" for c in farm.gate._waiting.values()) > SHARE:  # noqa: ASYNC110
                await trio.sleep(0.01)
        await echoes(before)


async def test_where_all_places_are_taken_the_next_waits_for_one(farm: AFarm) -> None:
    async with a_crowd(farm, MOST, dripping=True) as socks, trio.open_nursery() as nursery:
        got_in = trio.Event()

        async def come() -> None:
            async with await farm.good():
                got_in.set()

        nursery.start_soon(come)
        with trio.move_on_after(0.5):
            await got_in.wait()
        assert not got_in.is_set()
        assert len(farm.gate._waiting) == MOST
        socks[5].close()
        with trio.fail_after(5):
            await got_in.wait()


async def test_the_unix_socket_is_open_while_all_places_are_taken(farm: AFarm) -> None:
    async with (
        a_crowd(farm, MOST, dripping=True),
        await open_channel(Address("unix", path=farm.path)) as channel,
    ):
        await channel.dial(Dialler("client", "test"))
        await echoes(channel)


async def test_what_a_busy_master_has_not_read_is_no_silence(farm: AFarm) -> None:
    async with a_crowd(farm, 2) as socks:
        await trio.testing.wait_all_tasks_blocked(0.05)
        (oldest, talking), later = sorted(farm.gate._waiting), trio.current_time() + 100
        socks[1].send(b"\x01")
        # No other task may run here: it would read.
        assert select.select([farm.gate._waiting[talking]._sock], [], [], 5)[0]
        now = farm.gate._listen()
        assert farm.gate._doorstep.silent_at() < now + doorstep.SILENT_S
        farm.gate._doorstep.left(oldest)
        assert farm.gate._doorstep.silent_at() == now + doorstep.SILENT_S < later


async def test_who_is_being_judged_is_not_turned_out(farm: AFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorstep, "SILENT_S", 0.05)
    farm.judging = 0.5
    served = 0

    async def come() -> None:
        nonlocal served
        async with await farm.good():
            served += 1

    async with trio.open_nursery() as nursery:
        for _ in range(MOST + 10):
            nursery.start_soon(come)
    assert served == MOST + 10
    assert farm.notices == []


async def test_who_gave_up_while_standing_in_line_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their handshakes are not begun, and nobody is told of what was nobody's fault."""
    monkeypatch.setattr(gate, "IN_LINE_MS", 50)
    begun: list[str] = []

    async def secure(channel: Channel, session: object) -> None:
        begun.append(channel.label)
        raise LinkClosed("only counted")

    farm = AFarm(tmp_path)
    with farm.tcp, farm.unix, farm.dialled("127.0.0.4") as patient:
        for _ in range(5):
            with farm.dialled("127.0.0.3") as sock:
                sock.send(b"words that waited too long")
        patient.send(b"words that wait")
        with trio.move_on_after(0.2):
            await trio.sleep_forever()
        monkeypatch.setattr(Channel, "secure", secure)
        async with trio.open_nursery() as links, trio.open_nursery() as nursery:
            nursery.start_soon(farm.gate.accept, farm.tcp, links)
            await ended(patient)
            nursery.cancel_scope.cancel()
            links.cancel_scope.cancel()
    assert begun == ["127.0.0.4"]
    assert {address for address, _, _ in farm.notices} <= {"127.0.0.4"}


async def test_an_address_beyond_its_places_is_turned_away_and_told_of(
    farm: AFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorstep, "WINDOW_S", 2.0)
    for _ in range(FAILURES + 1):
        with farm.dialled("127.0.0.2") as sock:
            sock.send(b"garbage")
            await ended(sock)
    async with a_crowd(farm, SHARE, dripping=True):
        with farm.dialled("127.0.0.2") as sock:
            assert await ended(sock) == b""
        async with await farm.good() as channel:
            await echoes(channel)
        await farm.told("too many links at once")


@pytest.mark.parametrize("held", [False, True])
async def test_only_who_took_a_place_for_a_while_fails_by_going(
    farm: AFarm, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    """A good caller that gives up on a slow master is not held to be bad."""
    monkeypatch.setattr(gate, "SILENT_S", 0.0 if held else 60.0)
    for _ in range(FAILURES + 1):
        with farm.dialled("127.0.0.2") as sock:
            sock.shutdown(socket.SHUT_WR)
            await ended(sock)
    await farm.told("closed by the peer")
    async with a_crowd(farm, SHARE, dripping=True):
        with farm.dialled("127.0.0.2") as sock, trio.fail_after(10):
            if held:
                assert await ended(sock) == b""
            else:
                while len(farm.gate._waiting) <= SHARE:  # noqa: ASYNC110
                    await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fd00::1", "fd00::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("?", "?"),
    ],
)
def test_addresses_are_shown_as_people_write_them(host: str, shown: str) -> None:
    assert plain_address(host) == shown
