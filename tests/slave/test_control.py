"""The slave's own port, spoken to as a client does."""

import os
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from drqueue.channel import Channel, LinkClosed
from drqueue.engine import Inbox
from drqueue.proto.handshake import Dialler, HandshakeRejected
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Beat, Message
from drqueue.proto.messages import (
    Done,
    FarmInfo,
    GetSlave,
    LogPart,
    ReadLog,
    Refusal,
    Request,
    SetLimits,
    SlaveInfo,
)
from drqueue.proto.model import LimitsChange, MachineInfo, MachineLoad, Offers, SlaveLimits
from drqueue.proto.views import SlaveView
from drqueue.slave import logs
from drqueue.slave.control import MAX_CLIENTS, Control
from drqueue.slave.core.events import Asked, Event
from drqueue.slave.core.state import State
from drqueue.slave.offer import Offer
from drqueue.slave.requests import PART_MAX, WAITING_MAX, Requests
from drqueue.slave.view import slave_view
from drqueue.unixpath import bind_unix, connect_unix

KEY = AttemptKey(1, 0, 3, 1)


class Port:
    """A control port in a folder; `over` holds attempts that are over, `silent` those that wrote nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inbox: Inbox[Event] = Inbox()
        self.over: set[AttemptKey] = set()
        self.path = str(folder / "control.sock")
        self.log = Path(logs.log_path(str(folder), KEY, create=True))
        self.silent: set[AttemptKey] = set()
        requests = Requests(
            str(folder),
            self.inbox,
            self.view,
            lambda key: key in self.over,
            wrote_nothing=lambda key: key in self.silent,
        )
        self.control = Control(bind_unix(self.path), requests, "test")

    def view(self) -> SlaveView:
        return slave_view(
            State(SlaveLimits()),
            name="s",
            offer=Offer(MachineInfo(hostname="h", os="linux"), 4, 1, Offers()),
            load=MachineLoad(),
            control="",
            last_heard_at=0.0,
        )

    @asynccontextmanager
    async def client(self, role: str = "client") -> AsyncIterator[Channel]:
        """A client's link."""
        channel = Channel(connect_unix(self.path), "slave")
        async with channel:
            await channel.dial(Dialler(role, "test", expect="slave"))  # type: ignore[arg-type]
            yield channel


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Port]:
    """A port that is served."""
    made = Port(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.control.run)
        yield made
        nursery.cancel_scope.cancel()


async def ask(channel: Channel, request: Request, timeout_s: float = 10) -> Message:
    """The answer to a request."""
    channel.send(request)
    with trio.fail_after(timeout_s):
        return await channel.receive()


async def test_only_the_farms_user_may_connect(port: Port) -> None:
    assert stat.S_IMODE(os.stat(port.path).st_mode) == 0o600


async def test_other_users_are_turned_away(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the file's mode would let them: the kernel says who calls."""
    someone = SimpleNamespace(size=12, unpack=lambda data: (1, 1 + os.geteuid(), 1))
    monkeypatch.setattr("drqueue.slave.control._CREDENTIALS", someone)
    with pytest.raises(HandshakeRejected, match="for root and the slave's own user") as no:
        async with port.client():
            pass
    assert (no.value.code, no.value.retry) == ("not-allowed", False)


async def test_a_slave_shows_itself(port: Port) -> None:
    async with port.client() as client:
        answer = await ask(client, GetSlave(rq=3))
        assert isinstance(answer, SlaveInfo)
        assert (answer.rq, answer.slave.name, answer.slave.state) == (3, "s", "unlinked")
        client.send(Beat(echo=True))
        with trio.fail_after(5):
            assert await client.receive() == Beat()


async def test_changes_go_through_the_core(port: Port) -> None:
    async with port.client() as client:
        request = SetLimits(rq=1, change=LimitsChange(enabled=False))
        client.send(request)
        with trio.fail_after(5):
            (asked,) = await port.inbox.take(5) or []
        assert isinstance(asked, Asked)
        assert asked.request == request
        asked.asker(Done(rq=1, count=1))  # type: ignore[operator]
        with trio.fail_after(5):
            assert await client.receive() == Done(rq=1, count=1)


async def test_limits_too_large_to_be_told_again_are_refused(port: Port) -> None:
    async with port.client() as client:
        pools = tuple(f"{n:04}{'x' * 96}" for n in range(200))
        answer = await ask(client, SetLimits(rq=1, change=LimitsChange(pools=pools)))
        assert isinstance(answer, Refusal)
        assert (answer.code, answer.text[:19]) == ("bad-limits", "the limits have 204")
        assert len(port.inbox) == 0


async def test_wrong_requests_and_roles_get_a_sentence(port: Port) -> None:
    async with port.client() as client:
        answer = await ask(client, FarmInfo(rq=8))
        assert isinstance(answer, Refusal)
        assert (answer.rq, answer.code) == (8, "bad-request")
        assert "FarmInfo" in answer.text
    with pytest.raises(HandshakeRejected, match="no port for a slave"):
        async with port.client("slave"):
            pass


async def test_nonsense_ends_that_link_only(port: Port) -> None:
    async with port.client() as good, port.client() as bad:
        bad._sock.send(b"\x00\x00\x00\x01\xc1")
        with trio.fail_after(5), pytest.raises(LinkClosed):
            await bad.receive()
        assert isinstance(await ask(good, GetSlave(rq=1)), SlaveInfo)


async def test_one_link_too_many_is_told_to_come_back(port: Port) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(MAX_CLIENTS):
            await stack.enter_async_context(port.client())
        with pytest.raises(HandshakeRejected) as no:
            async with port.client():
                pass
        assert (no.value.code, no.value.retry) == ("busy", True)
    with trio.fail_after(5):
        while port.control._clients:  # noqa: ASYNC110  (a count has no event)
            await trio.sleep(0.01)
    async with port.client():
        pass


# -- logs -------------------------------------------------------------------------------------------


async def test_a_log_is_read_in_pieces_to_its_end(port: Port) -> None:
    port.log.write_bytes(b"0123456789")
    port.over.add(KEY)
    async with port.client() as client:
        assert await ask(client, ReadLog(rq=1, key=KEY, limit=4)) == LogPart(
            rq=1, data=b"0123", next=4, size=10
        )
        part = await ask(client, ReadLog(rq=2, key=KEY, offset=4))
        assert part == LogPart(rq=2, data=b"456789", next=10, size=10, over=True)
        part = await ask(client, ReadLog(rq=3, key=KEY, offset=10))
        assert part == LogPart(rq=3, data=b"", next=10, size=10, over=True)


async def test_a_part_always_fits_into_a_packet(port: Port) -> None:
    port.log.write_bytes(b"x" * 1_000_000)
    async with port.client() as client:
        part = await ask(client, ReadLog(rq=1, key=KEY, limit=10_000_000))
        assert isinstance(part, LogPart)
        assert (len(part.data), part.next, part.over) == (PART_MAX, PART_MAX, False)


async def test_a_reader_waits_for_what_is_written_next(port: Port) -> None:
    port.log.write_bytes(b"one")
    async with port.client() as client:
        client.send(ReadLog(rq=1, key=KEY, offset=3, wait_s=30))
        assert isinstance(await ask(client, GetSlave(rq=2)), SlaveInfo)
        with port.log.open("ab") as file:
            file.write(b"two")
        with trio.fail_after(5):
            assert await client.receive() == LogPart(rq=1, data=b"two", next=6, size=6)


async def test_a_reader_that_waits_hears_of_the_end(port: Port) -> None:
    port.log.write_bytes(b"one")
    async with port.client() as client:
        client.send(ReadLog(rq=1, key=KEY, offset=3, wait_s=30))
        assert isinstance(await ask(client, GetSlave(rq=2)), SlaveInfo)
        port.over.add(KEY)
        with trio.fail_after(5):
            assert await client.receive() == LogPart(rq=1, data=b"", next=3, size=3, over=True)


async def test_a_reader_waits_no_longer_than_asked(port: Port) -> None:
    port.log.write_bytes(b"one")
    async with port.client() as client:
        part = await ask(client, ReadLog(rq=1, key=KEY, offset=3, wait_s=0.2), timeout_s=5)
        assert part == LogPart(rq=1, data=b"", next=3, size=3)


async def test_the_log_of_an_attempt_that_has_not_started_is_waited_for(port: Port) -> None:
    async with port.client() as client:
        assert await ask(client, ReadLog(rq=1, key=KEY)) == LogPart(rq=1, data=b"", next=0, size=0)
        client.send(ReadLog(rq=2, key=KEY, wait_s=30))
        assert isinstance(await ask(client, GetSlave(rq=3)), SlaveInfo)
        port.log.write_bytes(b"hello")
        with trio.fail_after(5):
            assert await client.receive() == LogPart(rq=2, data=b"hello", next=5, size=5)


async def test_a_log_that_never_was_is_refused(port: Port) -> None:
    port.over.add(KEY)
    async with port.client() as client:
        answer = await ask(client, ReadLog(rq=1, key=KEY))
        assert isinstance(answer, Refusal)
        assert (answer.code, "1/0/3/1" in answer.text) == ("no-log", True)


async def test_a_log_that_was_used_again_is_empty(port: Port) -> None:
    port.over.add(KEY)
    port.silent.add(KEY)
    async with port.client() as client:
        told = await ask(client, ReadLog(rq=1, key=KEY, offset=0))
        assert told == LogPart(rq=1, data=b"", next=0, size=0, over=True)


async def test_an_offset_past_the_end_goes_back_to_it(port: Port) -> None:
    port.log.write_bytes(b"one")
    async with port.client() as client:
        assert await ask(client, ReadLog(rq=1, key=KEY, offset=99)) == LogPart(rq=1, data=b"", next=3, size=3)


async def test_readers_of_one_link_are_bounded(port: Port) -> None:
    port.log.write_bytes(b"")
    async with port.client() as client:
        for number in range(WAITING_MAX):
            client.send(ReadLog(rq=number, key=KEY, wait_s=30))
        answer = await ask(client, ReadLog(rq=99, key=KEY))
        assert isinstance(answer, Refusal)
        assert (answer.rq, answer.code) == (99, "busy")
