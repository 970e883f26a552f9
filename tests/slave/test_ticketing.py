"""The control port on the network: tickets, their keys, and what stands before trust."""

import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from drqueue.access import Access
from drqueue.channel import Channel, LinkClosed
from drqueue.dialling import open_channel
from drqueue.engine import Inbox
from drqueue.master.certificate import make_certificate
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.handshake import Dialler, HandshakeRejected
from drqueue.proto.link_messages import Hi, Rejected, TicketKey
from drqueue.proto.messages import GetSlave, ReadLog, Refusal, Request, SlaveInfo
from drqueue.proto.model import MachineInfo, MachineLoad, Offers, SlaveLimits
from drqueue.proto.tickets import LIFE_S, Claim, TicketError, issue
from drqueue.proto.views import FrameView, SlaveView
from drqueue.settings import parse_address
from drqueue.slave import control as module
from drqueue.slave.control import UNKNOWN_MAX
from drqueue.slave.core.events import Event
from drqueue.slave.core.state import State
from drqueue.slave.offer import Offer
from drqueue.slave.ports import NetworkPort
from drqueue.slave.requests import Requests
from drqueue.slave.ticketing import Tickets
from drqueue.slave.view import slave_view
from drqueue.tls import pin_of_pem
from tests import secured
from tests.ports import free_port
from tests.slave.test_control import KEY as LOG

K1, K2, K3 = (bytes([n]) * 32 for n in (1, 2, 3))
NOW = 1000.0
CLAIM = Claim(name="ann", role="artist", account="acc", slave=7, expires_at=NOW + LIFE_S)


class Clock:
    """Seconds since boot, as a test wants them."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def tickets(clock: Clock, *keys: bytes) -> Tickets:
    """A slave that was told these keys."""
    made = Tickets(clock)
    for key in keys:
        made.take(TicketKey(key=key, now=NOW), "farm")
    return made


def test_a_ticket_of_the_latest_key_or_the_one_before_is_good(clock: Clock) -> None:
    told = tickets(clock, K1, K2)
    assert told.check(issue(CLAIM, K2), 7) == (CLAIM, K2)
    assert told.check(issue(CLAIM, K1), 7) == (CLAIM, K1)
    told.take(TicketKey(key=K3, now=NOW), "farm")
    with pytest.raises(TicketError):
        told.check(issue(CLAIM, K1), 7)


def test_a_key_told_again_does_not_push_the_former_out(clock: Clock) -> None:
    told = tickets(clock, K1, K2, K2)
    assert told.check(issue(CLAIM, K1), 7)[1] == K1


def test_with_only_the_former_key_goes(clock: Clock) -> None:
    told = tickets(clock, K1)
    told.take(TicketKey(key=K2, now=NOW, only=True), "farm")
    assert told.check(issue(CLAIM, K2), 7)[1] == K2
    with pytest.raises(TicketError):
        told.check(issue(CLAIM, K1), 7)


def test_keys_of_another_farm_go(clock: Clock) -> None:
    told = tickets(clock, K1)
    cut: list[int] = []
    told.opened("link", K1, lambda: cut.append(1))
    told.take(TicketKey(key=K2, now=NOW), "other farm")
    assert cut == [1]
    with pytest.raises(TicketError):
        told.check(issue(CLAIM, K1), 7)


def test_time_is_the_masters_as_reckoned_since(clock: Clock) -> None:
    told = tickets(clock, K1)
    assert told.now == NOW
    clock.now += LIFE_S - 1
    assert told.now == NOW + LIFE_S - 1
    assert told.check(issue(CLAIM, K1), 7)
    clock.now += 2
    with pytest.raises(TicketError) as no:
        told.check(issue(CLAIM, K1), 7)
    assert no.value.code == "old-ticket"


def test_an_old_ticket_of_the_former_key_is_refused_too(clock: Clock) -> None:
    told = tickets(clock, K1, K2)
    clock.now += LIFE_S + 1
    with pytest.raises(TicketError):
        told.check(issue(CLAIM, K1), 7)


def test_a_slave_that_met_no_master_takes_none(clock: Clock) -> None:
    assert Tickets(clock).now is None
    with pytest.raises(TicketError, match="has not met its master"):
        Tickets(clock).check(issue(CLAIM, K1), 7)
    with pytest.raises(TicketError, match="has not met its master"):
        tickets(clock, K1).check(issue(CLAIM, K1), None)


@given(st.binary(max_size=200))
def test_whatever_is_shown_opens_nothing(ticket: bytes) -> None:
    with pytest.raises(TicketError):
        tickets(Clock(), K1, K2).check(ticket, 7)


def test_only_links_of_older_keys_are_cut(clock: Clock) -> None:
    told = tickets(clock, K1, K2)
    cut: list[str] = []
    for name, key in (("former", K1), ("latest", K2), ("gone", K1)):
        told.opened(name, key, lambda name=name: cut.append(name))  # type: ignore[misc]
    told.closed("gone")
    told.take(TicketKey(key=K3, now=NOW), "farm")
    assert cut == []
    told.take(TicketKey(key=K3, now=NOW, only=True), "farm")
    assert cut == ["former", "latest"]


# -- the port ----------------------------------------------------------------------------------------------


class Port:
    """A slave's port on the network, number 7."""

    def __init__(self, folder: Path, listen: str) -> None:
        self.clock = Clock()
        self.tickets = tickets(self.clock, K1)
        self.inbox: Inbox[Event] = Inbox()
        self.slave: int | None = 7
        requests = Requests(str(folder), self.inbox, self.view, lambda key: False)
        self.network = NetworkPort(listen, requests, "test", self.tickets, lambda: self.slave)

    def view(self) -> SlaveView:
        view = slave_view(
            State(SlaveLimits()),
            name="s",
            offer=Offer(MachineInfo(hostname="h", os="linux"), 4, 1, Offers()),
            load=MachineLoad(),
            control="",
            last_heard_at=0.0,
        )
        frame = FrameView(
            job=1,
            layer=0,
            layer_name="",
            index=0,
            number=1,
            last=1,
            count=1,
            state="RUNNING",
            activity="secret scene",
        )
        return structs.replace(view, running=(frame,))

    def open(self) -> str:
        """The address told, the port opened."""
        return self.network.address(an_access(), "127.0.0.1")

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Channel]:
        """A link past TLS, before its first word."""
        channel = await open_channel(parse_address(self.open()), pin=secured.pin())
        async with channel:
            yield channel

    @asynccontextmanager
    async def client(self, claim: Claim = CLAIM, key: bytes = K1) -> AsyncIterator[Channel]:
        """A client's link, by a ticket."""
        async with self.connected() as channel:
            await channel.dial(Dialler("client", "test", expect="slave", ticket=issue(claim, key)))
            yield channel


def an_access() -> Access:
    """A slave's way in, with the certificate of its port."""
    certificate, key = secured.certificate()
    return Access(
        host="m",
        port=1,
        pin="p",
        farm="f",
        account="a",
        name="n",
        role="node",
        secret="s",
        certificate=certificate,
        key=key,
    )


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Port]:
    """A port that is served."""
    made = Port(tmp_path, "127.0.0.1:" + str(free_port()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.network.run)
        yield made
        nursery.cancel_scope.cancel()


async def ask(channel: Channel, request: Request) -> Request:
    """The answer to a request."""
    channel.send(request)
    with trio.fail_after(10):
        answer = await channel.receive()
    assert isinstance(answer, Request)
    return answer


async def until(condition: Callable[[], object]) -> None:
    """Return once something holds."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110  (counts have no event)
            await trio.sleep(0.01)


async def test_a_ticket_opens_the_port(port: Port) -> None:
    async with port.client() as client:
        answer = await ask(client, GetSlave(rq=1))
        assert isinstance(answer, SlaveInfo)
        assert answer.slave.running[0].activity == "secret scene"


async def test_viewers_are_shown_less(port: Port) -> None:
    async with port.client(structs.replace(CLAIM, role="viewer")) as client:
        answer = await ask(client, GetSlave(rq=1))
        assert isinstance(answer, SlaveInfo)
        assert answer.slave.running[0].activity == ""
        refusal = await ask(client, ReadLog(rq=2, key=LOG))
        assert isinstance(refusal, Refusal)
        assert (refusal.code, refusal.text) == ("not-allowed", "this takes an artist, you are a viewer")


@pytest.mark.parametrize(
    ("claim", "key", "code"),
    [
        (CLAIM, K2, "bad-ticket"),
        (structs.replace(CLAIM, slave=8), K1, "bad-ticket"),
        (structs.replace(CLAIM, expires_at=NOW - 1), K1, "old-ticket"),
        (structs.replace(CLAIM, role="node"), K1, "bad-ticket"),
    ],
)
async def test_a_bad_ticket_is_refused_before_a_word_more(
    port: Port, claim: Claim, key: bytes, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(HandshakeRejected) as no:
        async with port.client(claim, key):
            pass
    assert no.value.code == code
    assert any("a link to the control port was refused" in record.getMessage() for record in caplog.records)


async def test_no_ticket_and_other_roles_are_refused(port: Port) -> None:
    async with port.connected() as channel:
        with pytest.raises(HandshakeRejected) as no:
            await channel.dial(Dialler("client", "test", expect="slave"))
        assert no.value.code == "bad-ticket"
    async with port.connected() as channel:
        with pytest.raises(HandshakeRejected) as no:
            await channel.dial(Dialler("slave", "test", expect="slave", ticket=issue(CLAIM, K1)))
        assert no.value.code == "wrong-role"


async def test_somebody_revoked_is_cut_off(port: Port) -> None:
    async with port.client() as old:
        port.tickets.take(TicketKey(key=K2, now=NOW), "farm")
        async with port.client(key=K2) as new:
            assert isinstance(await ask(old, GetSlave(rq=1)), SlaveInfo)
            port.tickets.take(TicketKey(key=K2, now=NOW, only=True), "farm")
            with trio.fail_after(5):
                said = await old.receive()
            assert isinstance(said, Rejected)
            assert (said.code, said.retry) == ("old-ticket", True)
            assert isinstance(await ask(new, GetSlave(rq=1)), SlaveInfo)


async def test_a_link_that_is_gone_is_not_kept(port: Port) -> None:
    async with port.client():
        assert len(port.tickets._opened) == 1
    await until(lambda: not port.tickets._opened)


async def test_large_first_words_are_refused(port: Port) -> None:
    async with port.connected() as channel:
        channel._connection.established()
        channel.send(Hi(role="client", software="x" * 5000, ticket=issue(CLAIM, K1)))
        with trio.fail_after(5), pytest.raises((LinkClosed, RemoteProtocolError)):
            await channel.receive()


async def test_silence_before_trust_is_not_waited_for(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HANDSHAKE_S", 0.2)
    port.open()
    stream = await trio.open_tcp_stream("127.0.0.1", parse_address(port.open()).port)
    with trio.fail_after(5):
        assert await stream.receive_some(1) == b""
    await stream.aclose()


async def test_those_who_say_nothing_make_room_and_take_no_clients_place(
    port: Port, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    port.open()
    async with AsyncExitStack() as stack:
        for _ in range(UNKNOWN_MAX):
            stream = await trio.open_tcp_stream("127.0.0.1", parse_address(port.open()).port)
            await stack.enter_async_context(stream)
        # All of them came just now: none has to leave for the next one.
        with pytest.raises(OSError, match="TLS handshake"):
            async with port.client():
                pass
        monkeypatch.setattr(module, "UNKNOWN_S", 0.0)
        async with port.client() as client:
            assert isinstance(await ask(client, GetSlave(rq=1)), SlaveInfo)
        caplog.set_level(logging.WARNING)
    refused = [record for record in caplog.records if "control port was refused" in record.getMessage()]
    assert len(refused) == 1


# -- where it listens ---------------------------------------------------------------------------------------


async def test_it_is_opened_once_it_is_known_how_to_get_in(tmp_path: Path) -> None:
    port = Port(tmp_path, "")
    assert port.network.address(None, "10.0.0.1") == ""
    assert port.network.address(structs.replace(an_access(), certificate="", key=""), "10.0.0.1") == ""
    first = port.network.address(an_access(), "10.0.0.1")
    second = Port(tmp_path, "")
    other = second.network.address(an_access(), "fd00::1")
    try:
        assert parse_address(first).host == "10.0.0.1"
        assert parse_address(other).host == "fd00::1"
        # The second finds the port of the first (or of a stranger) taken.
        assert parse_address(first).port != parse_address(other).port
        assert port.network.address(an_access(), "10.0.0.2").startswith("10.0.0.2:")
    finally:
        for made in (port, second):
            assert made.network._listener is not None
            made.network._listener.close()


async def test_a_slave_that_joined_anew_shows_its_new_certificate(port: Port) -> None:
    """The master hands its pin to clients from then on."""
    told = port.open()
    text, key = make_certificate("anew")
    assert port.network.address(structs.replace(an_access(), certificate=text, key=key), "127.0.0.1") == told
    async with await open_channel(parse_address(told), pin=pin_of_pem(text)):
        pass


async def test_a_port_that_was_named_and_is_taken_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        port = Port(tmp_path, place)
        assert port.open() == ""
        assert port.open() == ""
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"cannot listen at {place}: Address already in use" in said


async def test_a_host_that_was_named_is_told(tmp_path: Path) -> None:
    port = Port(tmp_path, f"localhost:{free_port()}")
    told = port.network.address(an_access(), "10.0.0.1")
    assert told.startswith("localhost:")
    assert port.network._listener is not None
    port.network._listener.close()
