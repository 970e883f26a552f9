"""Who gets in at the master's door, over real sockets and real TLS, and what the audit is told."""

import logging
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from drqueue.access import read_access
from drqueue.channel import Channel
from drqueue.dialling import open_channel
from drqueue.engine import Inbox
from drqueue.master import door
from drqueue.master.certificate import make_certificate
from drqueue.master.core.events import Event
from drqueue.master.core.register import Register
from drqueue.master.door import Door
from drqueue.master.gate import Caller
from drqueue.proto.handshake import Answerer, HandshakeRejected
from drqueue.proto.lines import Line, account_id, approval_code, encoded, parse_line, secret_hash
from drqueue.proto.link_messages import (
    Hi,
    Join,
    Joined,
    NewSecret,
    Registered,
    Rejected,
    SecretTaken,
    TicketKey,
    Welcome,
)
from drqueue.proto.messages import (
    Accounts,
    AddLine,
    Done,
    Examine,
    Findings,
    GetTicket,
    ListAccounts,
    ListSlaves,
    Refusal,
    Slaves,
    TheLine,
    Ticket,
    WhoAmI,
    You,
)
from drqueue.proto.tickets import TicketError, check
from drqueue.tls import PinMismatch, pin_of_pem
from tests.builders import a_hello
from tests.master.guests import Guest, House, a_house, a_secret


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path / "state") as house:
        yield house


@pytest.fixture
async def admin(house: House) -> Guest:
    """Whoever runs the tests is the master's own user."""
    return await house.dial()


async def refused(house: House, line: Line, secret: str, role: Any = "client") -> HandshakeRejected:
    with pytest.raises(HandshakeRejected) as caught:
        await house.dial(role, pin=line.pin, secret=secret)
    return caught.value


def holders(house: House, text: str) -> list[str]:
    """The files of the master that hold it."""
    files = [file for file in Path(house.settings.state_dir).iterdir() if file.is_file()]
    return [file.name for file in files if text.encode() in file.read_bytes()]


# -- people ----------------------------------------------------------------------------------------


async def test_the_masters_own_user_is_an_admin(admin: Guest) -> None:
    you = await admin.ask(WhoAmI)
    assert isinstance(you, You)
    assert (you.role, you.account) == ("admin", "")
    assert you.peer.startswith("uid ")


async def test_a_line_makes_a_person_known_once(house: House, admin: Guest) -> None:
    line, secret = await admin.line("user", name="anna", role="artist"), a_secret()
    joined = await house.join(line, secret)
    assert isinstance(joined, Joined)
    assert (joined.name, joined.role, joined.account) == ("anna", "artist", account_id(secret_hash(secret)))
    assert (joined.certificate, joined.key) == ("", "")
    anna = await house.dial(pin=line.pin, secret=secret)
    you = await anna.ask(WhoAmI)
    assert (you.name, you.role, you.account, you.peer) == ("anna", "artist", joined.account, "127.0.0.1")
    # An answer that was lost on the way costs nothing; another's secret does not come in on it.
    assert await house.join(line, secret) == joined
    again = await house.join(line, a_secret())
    assert isinstance(again, Rejected)
    assert (again.code, again.retry) == ("bad-line", False)
    await admin.told("user anna: join")
    await admin.told("127.0.0.1", "join as user", "bad-line")
    assert isinstance(await anna.ask(AddLine, kind="user", name="eve", role="admin"), Refusal)
    await admin.told("anna", "add a line as an admin", "not-allowed")


async def test_a_line_of_yesterday_is_too_old(house: House, admin: Guest) -> None:
    line = await admin.line("user", name="anna", ttl_s=1)
    await trio.sleep(1.1)
    answer = await house.join(line, a_secret())
    assert isinstance(answer, Rejected)
    assert answer.code == "bad-line"


async def test_a_line_for_another_network_opens_nothing_here(house: House, admin: Guest) -> None:
    line = await admin.line("node", net="192.0.2.0/24")
    answer = await house.join(line, a_secret(), role="slave", name="n1")
    assert isinstance(answer, Rejected)
    assert answer.code == "wrong-net"
    line = await admin.line("node", net="127.0.0.0/8")
    assert isinstance(await house.join(line, a_secret(), role="slave", name="n1"), Joined)


async def test_who_shows_no_or_no_known_secret_is_told_so_and_audited(house: House, admin: Guest) -> None:
    line = await admin.line("user", name="anna")
    nothing = await refused(house, line, "")
    assert (nothing.code, nothing.retry) == ("no-account", False)
    assert "log in with a line" in nothing.text
    unknown = await refused(house, line, "x" * 50)
    assert unknown.code == "no-account"
    # Neither a line's token nor the hash of a secret is a secret.
    assert (await refused(house, line, line.token)).code == "no-account"
    (way,) = read_access(f"{house.settings.state_dir}/admin.json")
    assert (await refused(house, line, secret_hash(way.secret))).code == "no-account"
    await admin.told("link as a client", "no-account", "127.0.0.1")
    rows = [row for row in await admin.audit() if row.outcome == "no-account"]
    # The same within a minute is one row.
    assert len(rows) == 1
    assert rows[0].who == ""


async def test_what_is_no_tls_is_told_nothing_and_audited(house: House, admin: Guest) -> None:
    stream = await trio.open_tcp_stream(house.tcp.host, house.tcp.port)
    async with stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: farm\r\n\r\n")
        with trio.fail_after(20):
            answer = b"".join([part async for part in stream])
    assert len(answer) < 20
    row = await admin.told("open a link", "failed", "127.0.0.1")
    assert "TLS" in row.text


async def test_the_admin_of_the_first_start_comes_over_the_network(house: House) -> None:
    (way,) = read_access(f"{house.settings.state_dir}/admin.json")
    assert way.address == house.tcp
    guest = await house.dial(pin=way.pin, secret=way.secret)
    you = await guest.ask(WhoAmI)
    assert (you.name, you.role, you.account) == ("admin", "admin", way.account)
    rows = await guest.audit()
    assert rows[0].who == "the master"
    assert "admin.json" in rows[0].what


async def test_another_certificate_is_told_nothing(house: House, admin: Guest) -> None:
    other, _key = make_certificate("somebody else")
    with pytest.raises(PinMismatch):
        await open_channel(house.tcp, pin=pin_of_pem(other))


async def test_nobody_joins_over_the_unix_socket(house: House, admin: Guest) -> None:
    channel = await open_channel(house.unix)
    async with channel:
        channel.send(Join(role="client", secret_hash="a" * 64))
        with trio.fail_after(20):
            answer = await channel.receive()
    assert isinstance(answer, Rejected)
    assert answer.code == "not-allowed"
    await admin.told("join", "not-allowed", "uid ")


async def test_a_name_service_that_hangs_keeps_out_those_it_names_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The master's own user and root are known from the start; names last no time here."""
    monkeypatch.setattr(door, "_NAMES_S", 0.0)
    async with a_house(tmp_path / "state") as house:
        monkeypatch.setattr(door, "login_name", lambda _uid: time.sleep(30))
        (way,) = read_access(f"{house.settings.state_dir}/admin.json")
        for guest in (await house.dial(), await house.dial(pin=way.pin, secret=way.secret)):
            assert (await guest.ask(WhoAmI)).role == "admin"


async def test_whom_the_kernel_cannot_name_is_nobody_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the master itself has the user id that stands for them all."""
    monkeypatch.setattr(door, "unmapped_uid", os.geteuid)
    async with a_house(tmp_path / "state", patient=False) as house:
        for role in ("client", "slave"):
            with pytest.raises(HandshakeRejected, match="nobody can tell who calls") as caught:
                await house.dial(role)
            assert (caught.value.code, caught.value.retry) == ("not-allowed", False)
        (way,) = read_access(f"{house.settings.state_dir}/admin.json")
        admin = await house.dial(pin=way.pin, secret=way.secret)
        assert (await admin.told("link as a client", "not-allowed")).who == ""


@pytest.mark.parametrize(
    ("uids", "found"),
    [
        ("         0          0 4294967295\n", -1),
        ("         0       1000          1\n", 65534),
        ("         0       1000          1\n         1     100000      65536\n", 65534),
        (None, -1),
    ],
)
def test_some_user_ids_may_be_unknown_where_the_master_runs(
    tmp_path: Path, uids: str | None, found: int
) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "sys/kernel/overflowuid").write_text("65534\n")
    if uids is not None:
        (tmp_path / "self/uid_map").write_text(uids)
    assert door.unmapped_uid(str(tmp_path)) == found


async def test_refusals_do_not_pile_up_while_nothing_can_be_written() -> None:
    """Whoever is refused waits for nobody: while a commit hangs, memory must not be theirs to fill."""
    inbox: Inbox[Event] = Inbox(limit=5)
    welcome = Answerer(Welcome(version=1), ("client", "slave"))
    judge = Door(welcome, Register, inbox, ())
    caller = Caller("tcp", "192.0.2.1")
    for number in range(20):
        one, two = socket.socketpair()
        async with Channel(one) as near, Channel(two):
            secret = "" if number % 2 else "wrong"
            assert await judge.enter(near, Hi(role="client", secret=secret), caller) is None
    assert len(inbox) == 5
    one, two = socket.socketpair()
    async with Channel(one) as near, Channel(two) as far:
        join = Join(role="slave", secret_hash=secret_hash(a_secret()), name="n" * 3000)
        assert await judge.join(near, join, caller), "which is held against nobody"
        answer = await far.receive()
    assert isinstance(answer, Rejected)
    assert (answer.code, answer.retry) == ("busy", True)
    assert len(inbox) == 5


async def test_a_client_of_a_protocol_to_come_is_told_so_before_its_secret_counts(house: House) -> None:
    (way,) = read_access(f"{house.settings.state_dir}/admin.json")
    async with await open_channel(house.tcp, pin=way.pin) as channel:
        channel.send(Hi(role="client", oldest=7, newest=9, software="drqueue 9"))
        with trio.fail_after(20):
            answer = await channel.receive()
    assert isinstance(answer, Rejected)
    assert (answer.code, answer.retry) == ("version", False)
    assert "upgrade the master" in answer.text
    await (await house.dial()).told("link", "version", "127.0.0.1")


# -- nodes -----------------------------------------------------------------------------------------


async def test_a_node_joins_by_line_and_works(house: House, admin: Guest) -> None:
    line, secret = await admin.line("node", name="n17"), a_secret()
    joined = await house.join(line, secret, role="slave", name="render-box", identity="i", fingerprint="f")
    assert isinstance(joined, Joined)
    assert (joined.name, joined.role) == ("n17", "node")
    assert "PRIVATE KEY" in joined.key
    pin = pin_of_pem(joined.certificate)
    # Asked once more (the answer was lost): the same account, and the certificate that counts is the newer.
    again = await house.join(line, secret, role="slave", name="render-box")
    assert isinstance(again, Joined)
    assert again.account == joined.account
    assert pin_of_pem(again.certificate) != pin
    slave = await house.dial("slave", pin=line.pin, secret=secret)
    slave.channel.send(a_hello("n17", control="127.0.0.1:2345"))
    assert (await slave.hear(Registered)).name == "n17"
    assert await slave.hear(TicketKey)
    slaves = await admin.ask(ListSlaves)
    assert isinstance(slaves, Slaves)
    assert [view.name for view in slaves.slaves] == ["n17"]
    await admin.told("node n17: join")


async def test_a_nodes_secret_opens_no_clients_link_and_a_persons_no_slaves(
    house: House, admin: Guest
) -> None:
    _slave, line, secret = await house.node(admin, "n1")
    error = await refused(house, line, secret)
    assert (error.code, error.retry) == ("not-allowed", False)
    assert "node n1" in error.text
    await admin.told("n1", "link as a client", "not-allowed")
    for_anna, hers = await admin.line("user", name="anna"), a_secret()
    assert isinstance(await house.join(for_anna, hers), Joined)
    error = await refused(house, line, hers, "slave")
    assert error.code == "not-allowed"
    await admin.told("anna", "link as a slave", "not-allowed")


async def test_a_node_without_a_line_waits_until_it_is_approved(house: House, admin: Guest) -> None:
    line, secret = await admin.line("node"), a_secret()
    first = await house.join(line, secret, role="slave", token="", name="lonely")
    assert isinstance(first, Rejected)
    assert (first.code, first.retry) == ("pending", True)
    code = approval_code(line.pin, secret_hash(secret))
    assert code in first.text
    waiting = await admin.ask(ListAccounts, kind="node", pending=True)
    assert isinstance(waiting, Accounts)
    assert [(view.name, view.code, view.peer) for view in waiting.accounts] == [("lonely", code, "127.0.0.1")]
    error = await refused(house, line, secret, "slave")
    assert (error.code, error.retry) == ("not-allowed", True)
    assert code in error.text
    assert isinstance(await admin.verb("node", code, "approve"), Done)
    joined = await house.join(line, secret, role="slave", token="", name="lonely")
    assert isinstance(joined, Joined)
    assert joined.certificate
    assert await house.dial("slave", pin=line.pin, secret=secret)


async def test_a_revoked_node_is_cut_and_comes_back_only_with_a_new_line(house: House, admin: Guest) -> None:
    slave, line, secret = await house.node(admin, "n1")
    slave.channel.send(a_hello("n1"))
    await slave.hear(Registered)
    assert isinstance(await admin.verb("node", "n1", "revoke"), Done)
    last = await slave.end()
    assert last is not None
    assert (last.code, last.retry) == ("revoked", False)
    assert (await refused(house, line, secret, "slave")).code == "no-account"
    assert isinstance(await house.join(line, secret, role="slave", name="n1"), Rejected)
    _again, _line, _secret = await house.node(admin, "n1")


async def test_a_new_secret_takes_the_place_of_the_old_once_it_is_shown(house: House, admin: Guest) -> None:
    slave, line, old = await house.node(admin, "n1")
    slave.channel.send(a_hello("n1"))
    await slave.hear(Registered)
    assert isinstance(await admin.verb("node", "n1", "rotate"), Done)
    await slave.hear(NewSecret)
    new = a_secret()
    slave.channel.send(SecretTaken(secret_hash=secret_hash(new)))
    await admin.told("n1", "secret")
    # Both are good until the new one is shown: the slave may be cut off at any moment.
    await house.dial("slave", pin=line.pin, secret=old)
    await house.dial("slave", pin=line.pin, secret=new)
    # What this asks comes after the news of that.
    assert isinstance(await admin.ask(WhoAmI), You)
    assert (await refused(house, line, old, "slave")).code == "no-account"


async def test_a_revoked_person_is_cut_at_once_wherever_they_are(house: House, admin: Guest) -> None:
    one = await house.person(admin, "anna", "artist")
    two = await house.person(admin, "anna", "artist")
    other = await house.person(admin, "ben", "artist")
    assert isinstance(await admin.verb("user", "anna", "revoke"), Done)
    for guest in (one, two):
        last = await guest.end()
        assert last is not None
        assert (last.code, last.retry) == ("not-allowed", False)
        assert "revoked" in last.text
    assert (await other.ask(WhoAmI)).name == "ben"
    await admin.told("user anna: revoke", "done")


async def test_a_rotated_login_ends_with_the_new_one(house: House, admin: Guest) -> None:
    anna = await house.person(admin, "anna", "artist")
    answer = await admin.verb("user", "anna", "rotate")
    assert isinstance(answer, TheLine)
    assert (await anna.ask(WhoAmI)).name == "anna"
    line, secret = parse_line(answer.line, "user"), a_secret()
    assert isinstance(await house.join(line, secret), Joined)
    assert (await anna.end()) is not None
    assert (await (await house.dial(pin=line.pin, secret=secret)).ask(WhoAmI)).name == "anna"


async def test_a_client_far_away_gets_a_ticket_for_a_node_that_has_a_port(house: House, admin: Guest) -> None:
    """With the certificate's pin that the master made for the node."""
    anna = await house.person(admin, "anna", "artist")
    line, secret = await admin.line("node", name="n1"), a_secret()
    joined = await house.join(line, secret, role="slave", name="n1")
    assert isinstance(joined, Joined)
    slave = await house.dial("slave", pin=line.pin, secret=secret)
    slave.channel.send(a_hello("n1", control="192.0.2.5:2345"))
    key = await slave.hear(TicketKey)
    ticket = await anna.ask(GetTicket, slave="n1")
    assert isinstance(ticket, Ticket)
    assert (ticket.control, ticket.pin) == ("192.0.2.5:2345", pin_of_pem(joined.certificate))
    claim = check(ticket.ticket, [key.key], ticket.slave, key.now)
    assert (claim.name, claim.role, claim.slave) == ("anna", "artist", ticket.slave)
    # Somebody is revoked: no ticket from before opens anything.
    await admin.verb("user", "anna", "revoke")
    newer = await slave.hear(TicketKey)
    assert newer.only
    with pytest.raises(TicketError):
        check(ticket.ticket, [newer.key], ticket.slave, newer.now)


async def test_the_master_is_examined_as_it_runs(house: House, admin: Guest) -> None:
    slave, _line, _secret = await house.node(admin, "n1")
    slave.channel.send(a_hello("n1"))
    await slave.hear(Registered)
    answer = await admin.ask(Examine)
    assert isinstance(answer, Findings)
    found = {finding.what: finding for finding in answer.findings}
    assert found["certificate"].state == "ok"
    assert found["state directory"].state == "ok"
    told = " ".join(map(str, answer.findings))
    assert str(house.tcp) in told
    assert "drqueue test" in told


# -- what is kept to itself ------------------------------------------------------------------------


async def test_no_secret_is_logged_kept_or_audited(
    house: House, admin: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    _slave, line, secret = await house.node(admin, "n1")
    await refused(house, line, secret)
    wrong = encoded(b"w" * 32)
    await refused(house, line, wrong)
    await house.join(line, wrong, role="slave", name="n1")
    rows = "".join(map(str, await admin.audit()))
    for telling in (line.token, secret, wrong):
        assert telling not in caplog.text
        assert telling not in rows
        assert holders(house, telling) == []
