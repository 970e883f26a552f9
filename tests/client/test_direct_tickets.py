"""Slaves asked directly by tickets over TLS; through the master where that fails; nothing done twice."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from drqueue.client import (
    AsyncClient,
    DrQueueError,
    Finding,
    LimitsChange,
    MasterUnreachable,
    NoSuchSlave,
    NotAllowed,
    connect,
    direct,
)
from drqueue.client.direct import SlaveLinks
from drqueue.client.errors import Refused
from drqueue.proto import lines, messages
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Rejected
from drqueue.proto.model import SlaveLimits
from drqueue.tls import TlsSession
from tests import secured
from tests.client.peer import Peer, serving, slave_view, soon
from tests.client.secured_peer import SecuredPeer, keep, way_in

CHANGE = LimitsChange(enabled=True)
FOUND = (Finding(what="clock", state="ok", text="it goes"),)


class Farm:
    """A master and a slave by TLS. `tickets` are handed out in turn; the last one again and again."""

    def __init__(self) -> None:
        self.master = SecuredPeer()
        self.slave = SecuredPeer("slave")
        self.tickets = [b"ticket"]
        self.pin = secured.pin()
        self.control: str | None = None
        self.asked = 0
        self.master.on = {
            messages.GetTicket: self._ticket,
            messages.WhoAmI: lambda _, asked: messages.You(rq=asked.rq, name="anna", role="artist"),
            messages.SetLimits: lambda _, asked: messages.Done(rq=asked.rq, count=1, note="relayed"),
            messages.Examine: lambda _, asked: messages.Findings(rq=asked.rq, findings=()),
            messages.ReadLog: self._log,
            messages.FindLog: self._place,
        }
        self.slave.on = {
            messages.SetLimits: lambda _, asked: messages.Done(rq=asked.rq, count=1),
            messages.KillAttempts: lambda _, asked: messages.Done(rq=asked.rq, count=2),
            messages.Examine: lambda _, asked: messages.Findings(rq=asked.rq, findings=FOUND),
            messages.ReadLog: self._log,
        }

    def _ticket(self, _: Any, asked: messages.GetTicket) -> messages.Ticket:
        ticket = self.tickets[min(self.asked, len(self.tickets) - 1)]
        self.asked += 1
        control = self.slave.address if self.control is None else self.control
        return messages.Ticket(
            rq=asked.rq, slave=7, name=asked.slave, control=control, pin=self.pin, ticket=ticket
        )

    def _log(self, _: Any, asked: messages.ReadLog) -> messages.LogPart:
        data = b"all of it"[asked.offset :]
        return messages.LogPart(rq=asked.rq, data=data, next=9, size=9, over=True)

    def _place(self, _: Any, asked: messages.FindLog) -> messages.LogPlace:
        return messages.LogPlace(
            rq=asked.rq,
            key=AttemptKey(1, 0, 0, 1),
            number=1,
            slave="s7",
            control="10.9.9.9:2345",
            linked=True,
        )


@pytest.fixture
def farm() -> Farm:
    return Farm()


@asynccontextmanager
async def linked(farm: Farm, folder: Path) -> AsyncIterator[AsyncClient]:
    """A client of that farm, over the network."""
    async with serving(farm.master, farm.slave):
        env = keep(folder, way_in(farm.master.port))
        async with connect(farm.master.address, env=env) as client:
            yield client


async def test_a_slave_is_told_directly_with_the_ticket(farm: Farm, tmp_path: Path) -> None:
    """The link stands: a second request makes none, and the secret is nothing for a slave."""
    async with linked(farm, tmp_path) as client:
        assert (await soon(client.set_slave("s7", CHANGE))).note == ""
        assert (await soon(client.kill_attempts("s7", job=1))).count == 2
        assert await soon(client.examine("s7")) == FOUND
    assert farm.slave.kinds() == ["SetLimits", "KillAttempts", "Examine"]
    assert {message.slave for message in farm.slave.heard} == {""}  # type: ignore[attr-defined]
    (hi,) = farm.slave.greetings
    assert (hi.ticket, hi.secret, hi.role) == (b"ticket", "", "client")
    assert set(farm.master.kinds()) == {"GetTicket"}


async def test_logs_are_read_directly_too(farm: Farm, tmp_path: Path) -> None:
    async with linked(farm, tmp_path) as client:
        assert await soon(client.read_log(1, 1)) == b"all of it"
    assert set(farm.master.kinds()) == {"FindLog", "GetTicket"}
    assert farm.slave.kinds() == ["ReadLog"]


@pytest.mark.parametrize("code", ["old-ticket", "bad-ticket"])
async def test_a_ticket_that_got_old_is_renewed_once(farm: Farm, tmp_path: Path, code: str) -> None:
    farm.tickets = [b"old", b"new"]
    farm.slave.judge = lambda hi: Rejected(code=code, text="too old") if hi.ticket == b"old" else None
    async with linked(farm, tmp_path) as client:
        assert (await soon(client.set_slave("s7", CHANGE))).note == ""
    assert [hi.ticket for hi in farm.slave.greetings] == [b"old", b"new"]


async def test_where_no_ticket_is_good_the_master_passes_it_on(farm: Farm, tmp_path: Path) -> None:
    farm.slave.judge = lambda hi: Rejected(code="old-ticket", text="too old", retry=True)
    async with linked(farm, tmp_path) as client:
        assert (await soon(client.set_slave("s7", CHANGE))).note == "relayed"
    assert len(farm.slave.greetings) == 2
    assert farm.master.kinds() == ["GetTicket", "GetTicket", "SetLimits"]


@pytest.mark.parametrize("control", ["", "unix:/run/of/another/machine.sock", "no such:place"])
async def test_a_slave_without_a_port_is_told_through_the_master(
    farm: Farm, tmp_path: Path, control: str
) -> None:
    farm.control = control
    async with linked(farm, tmp_path) as client:
        assert (await soon(client.set_slave("s7", CHANGE))).note == "relayed"
        assert await soon(client.examine("s7")) == ()
    assert [each.slave for each in farm.master.heard if isinstance(each, messages.SetLimits)] == ["s7"]


async def test_a_unix_socket_of_this_machine_is_not_meant_by_a_master_elsewhere(
    farm: Farm, tmp_path: Path
) -> None:
    """Somebody listens here at the path that is the slave's there."""
    here = Peer(str(tmp_path / "control.sock"), "slave")
    farm.control = here.address
    async with serving(here), linked(farm, tmp_path) as client:
        assert (await soon(client.set_slave("s7", CHANGE))).note == "relayed"
    assert here.links == []


async def test_another_certificate_at_a_slaves_port_hears_no_ticket(farm: Farm, tmp_path: Path) -> None:
    farm.pin = lines.encoded(bytes(32))
    async with linked(farm, tmp_path) as client:
        assert (await soon(client.set_slave("s7", CHANGE))).note == "relayed"
    assert farm.slave.greetings == []


async def test_a_link_that_stands_leads_to_no_other_slave_at_its_address(farm: Farm, tmp_path: Path) -> None:
    """As where ports of several are passed on from one, or another machine has the address now."""
    async with linked(farm, tmp_path) as client:
        assert (await soon(client.set_slave("s7", CHANGE))).note == ""
        farm.pin = lines.encoded(bytes(32))
        assert (await soon(client.set_slave("s8", CHANGE))).note == "relayed"
    assert farm.slave.kinds() == ["SetLimits"]


async def test_a_port_that_is_mute_is_waited_for_once(
    farm: Farm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes links and says nothing; after a while it is tried again."""
    monkeypatch.setattr(direct, "CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        farm.control = f"127.0.0.1:{mute.getsockname()[1]}"
        mute.setblocking(False)

        def links() -> int:
            count = 0
            while True:
                try:
                    mute.accept()[0].close()
                except BlockingIOError:
                    return count
                count += 1

        async with linked(farm, tmp_path) as client:
            for _ in range(3):
                assert (await soon(client.set_slave("s7", CHANGE))).note == "relayed"
            assert links() == 1
            monkeypatch.setattr(direct, "AVOID_S", 0.0)
            client._slaves._avoided.clear()
            for _ in range(2):
                await soon(client.set_slave("s7", CHANGE))
            assert links() == 2


@pytest.mark.parametrize("silent_from", ["the connect", "TLS", "Hi"])
async def test_all_of_a_direct_try_has_one_time_limit(
    farm: Farm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent_from: str
) -> None:
    """Wherever packets begin to vanish, the master is asked after `CONNECT_S` in all."""

    async def vanish(*_: Any, **__: Any) -> None:
        await trio.sleep_forever()

    async def greet(channel: Any) -> bool:
        await channel.secure(TlsSession(secured.server(), server_side=True))
        await trio.sleep_forever()
        raise AssertionError("never")

    monkeypatch.setattr(direct, "CONNECT_S", 0.4)
    if silent_from == "Hi":
        monkeypatch.setattr(farm.slave, "greet", greet)
    elif silent_from == "TLS":
        monkeypatch.setattr(farm.slave, "greet", vanish)
    async with linked(farm, tmp_path) as client:
        if silent_from == "the connect":
            await soon(client.whoami())  # the master's own link stands
            monkeypatch.setattr(trio, "open_tcp_stream", vanish)
        began = trio.current_time()
        assert (await soon(client.set_slave("s7", CHANGE))).note == "relayed"
        assert 0.4 <= trio.current_time() - began < 4


async def test_a_port_is_left_alone_for_half_a_minute(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    dials: list[float] = []

    async def dial(*_: object, **__: object) -> None:
        dials.append(trio.current_time())
        await trio.sleep_forever()

    async def ticket(name: str) -> tuple[messages.Ticket, bool]:
        return messages.Ticket(rq=0, slave=1, name=name, control="h:1", pin="p", ticket=b"t"), False

    monkeypatch.setattr(direct, "dial", dial)
    async with trio.open_nursery() as nursery:
        links = SlaveLinks(ticket, nursery)
        began = trio.current_time()
        for _ in range(70):
            assert await links.to("s1") is None
            await trio.sleep(1)
    assert [round(at - began) for at in dials] == [0, 32, 64]


async def test_many_at_once_make_one_link(farm: Farm, tmp_path: Path) -> None:
    async with linked(farm, tmp_path) as client:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(client.set_slave, "s7", CHANGE)
    assert len(farm.slave.greetings) == 1
    assert len(farm.slave.heard) == 10


# -- what goes wrong in between ---------------------------------------------------------------------------


async def test_what_may_have_been_done_is_not_done_again(farm: Farm, tmp_path: Path) -> None:
    """The slave hears it and goes: neither it nor the master is told once more."""
    farm.slave.on[messages.SetLimits] = lambda channel, _: channel.close()
    async with linked(farm, tmp_path) as client:
        with pytest.raises(DrQueueError, match=r"link to slave s7 broke .*: look whether it was done"):
            await soon(client.set_slave("s7", CHANGE))
    assert farm.slave.kinds() == ["SetLimits"]
    assert farm.master.kinds() == ["GetTicket"]


async def test_what_changes_nothing_is_asked_of_the_master_then(farm: Farm, tmp_path: Path) -> None:
    farm.slave.on[messages.Examine] = lambda channel, _: channel.close()
    async with linked(farm, tmp_path) as client:
        assert await soon(client.examine("s7")) == ()
    assert farm.master.kinds() == ["GetTicket", "Examine"]


async def test_a_link_that_was_cut_is_made_anew(farm: Farm, tmp_path: Path) -> None:
    farm.tickets = [b"one", b"two"]
    async with linked(farm, tmp_path) as client:
        await soon(client.set_slave("s7", CHANGE))
        link = await soon(client.direct("s7"))
        for channel in farm.slave.links:
            channel.reject("old-ticket", "somebody was revoked", retry=True)
        while not link.over:
            await trio.lowlevel.checkpoint()
        await soon(client.set_slave("s7", CHANGE))
    assert [hi.ticket for hi in farm.slave.greetings] == [b"one", b"two"]


async def test_a_slaves_refusal_is_the_answer(farm: Farm, tmp_path: Path) -> None:
    """Whoever may not do it is not let through the back door."""
    farm.slave.on[messages.SetLimits] = lambda _, asked: messages.Refusal(
        rq=asked.rq, code="not-allowed", text="that takes a supervisor"
    )
    async with linked(farm, tmp_path) as client:
        with pytest.raises(NotAllowed, match="that takes a supervisor"):
            await soon(client.set_slave("s7", CHANGE))
    assert farm.master.kinds() == ["GetTicket"]


async def test_a_slave_that_there_is_not(farm: Farm, tmp_path: Path) -> None:
    farm.master.on[messages.GetTicket] = lambda _, asked: messages.Refusal(
        rq=asked.rq, code="no-such-slave", text="there is no slave s7"
    )
    async with linked(farm, tmp_path) as client:
        with pytest.raises(NoSuchSlave):
            await soon(client.set_slave("s7", CHANGE))
    assert farm.slave.links == []


async def test_without_a_ticket_the_master_says_what_is_wrong(farm: Farm, tmp_path: Path) -> None:
    farm.master.on[messages.GetTicket] = lambda _, asked: messages.Refusal(
        rq=asked.rq, code="not-linked", text="no key for it yet"
    )
    farm.master.on[messages.SetLimits] = lambda _, asked: messages.Refusal(
        rq=asked.rq, code="bad-limits", text="that cannot be"
    )
    async with linked(farm, tmp_path) as client:
        with pytest.raises(Refused, match="that cannot be"):
            await soon(client.set_slave("s7", CHANGE))


# -- on the machine of the slave --------------------------------------------------------------------------


async def test_a_slave_of_this_machine_is_told_without_a_master(tmp_path: Path) -> None:
    (tmp_path / "slave-s1").mkdir()
    slave = Peer(str(tmp_path / "slave-s1" / "control.sock"), "slave")
    slave.on[messages.SetLimits] = lambda _, asked: messages.Done(rq=asked.rq, count=1)
    slave.on[messages.GetSlave] = lambda _, asked: messages.SlaveInfo(
        rq=asked.rq, slave=slave_view("s1", limits=SlaveLimits(enabled=False))
    )
    env = {"DRQUEUE_STATE_DIR": str(tmp_path)}
    async with serving(slave), connect(f"unix:{tmp_path}/nobody.sock", env=env, lazily=True) as client:
        assert (await soon(client.set_slave("s1", CHANGE))).count == 1
        assert not (await soon(client.slave("s1"))).limits.enabled
        with pytest.raises(MasterUnreachable):
            await soon(client.set_slave("s2", CHANGE))
        with pytest.raises(MasterUnreachable):
            await soon(client.set_slave("../s1", CHANGE))
