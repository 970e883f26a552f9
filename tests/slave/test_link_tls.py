"""The slave's link by TLS: which master it dials, what it shows there, and what happens to its secret."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from msgspec import structs

from drqueue.access import Access, AccessError, read_access, write_access
from drqueue.address import Address
from drqueue.channel import LinkClosed
from drqueue.proto.lines import encoded, secret_hash
from drqueue.proto.link_messages import NewSecret, SecretTaken, TicketKey
from drqueue.slave import credentials
from drqueue.slave.core.events import Heard, Linked, Unlinked
from drqueue.slave.link import Link
from drqueue.slave.routes import NotJoined, Routes
from tests.slave.scripted_master import ScriptedMaster, SecureMaster
from tests.slave.test_link import Rig

SECRET = encoded(b"s" * 32)


def an_access(master: SecureMaster, **fields: object) -> Access:
    """The way into a master's farm."""
    given = {"host": "127.0.0.1", "port": master.port, "pin": master.pin, "farm": master.farm}
    given |= {"account": "acc", "name": "n1", "role": "node", "secret": SECRET}
    return Access(**{**given, **fields})  # type: ignore[arg-type]


class Farm:
    """A slave's link, and the master that it should find."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.master = SecureMaster()
        self.rig = Rig(folder, [])

    def joined(self, *ways: Access) -> None:
        """Write these ways in."""
        write_access(str(self.folder / "access.json"), ways or [an_access(self.master)])

    def ways(self) -> list[Access]:
        """What access.json holds now."""
        return read_access(str(self.folder / "access.json"))

    def route(self, *addresses: Address, named: bool = False) -> None:
        """Dial these."""
        self.rig.link._routes = Routes(str(self.folder), addresses, named=named)

    @asynccontextmanager
    async def dialling(self) -> AsyncIterator[None]:
        """The slave dials meanwhile."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.rig.link.run)
            yield
            nursery.cancel_scope.cancel()


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    made = Farm(tmp_path)
    made.route()
    yield made
    made.master.close()


def lines(caplog: pytest.LogCaptureFixture, word: str) -> list[str]:
    """What was logged with a word in it."""
    return [record.getMessage() for record in caplog.records if word in record.getMessage()]


async def until_logged(caplog: pytest.LogCaptureFixture, word: str) -> None:
    """Return once that was logged."""
    with trio.fail_after(10):
        while not lines(caplog, word):  # noqa: ASYNC110  (a log has no event)
            await trio.sleep(0.01)


async def test_a_slave_that_joined_shows_its_secret(farm: Farm, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    farm.joined()
    async with farm.dialling(), farm.master.link() as link:
        assert await farm.rig.next() == Linked(1, "farm-a", 1)
        assert link.hi.secret == SECRET
        assert farm.rig.link.address == f"127.0.0.1:{farm.master.port}"
        assert farm.rig.link.own_host == "127.0.0.1"
        assert farm.rig.link.access == an_access(farm.master)
        farm.rig.link.say_hello(1, ())
        farm.rig.link.flush()
        await link.register()
    assert not lines(caplog, SECRET)


async def test_a_daemon_is_joined_while_it_runs(farm: Farm, caplog: pytest.LogCaptureFixture) -> None:
    """It says once that it waits, and how to join it."""
    farm.route(Address("unix", path=str(farm.folder / "nobody.sock")))
    async with farm.dialling():
        await until_logged(caplog, "drqueue-slave join LINE")
        farm.joined()
        async with farm.master.link(timeout_s=5):
            assert isinstance(await farm.rig.next(), Linked)
    assert len(lines(caplog, "waiting for one")) == 1


async def test_a_tcp_master_that_was_not_joined_is_said_once(
    farm: Farm, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.route(farm.master.address, named=True)
    farm.joined(an_access(farm.master, host="elsewhere"))
    tries = trio.Event()
    seen: list[float] = []

    async def pause(link: Link, seconds: float) -> None:
        seen.append(seconds)
        if len(seen) == 3:
            tries.set()
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(Link, "_pause", pause)
    async with farm.dialling():
        with trio.fail_after(5):
            await tries.wait()
    (said,) = lines(caplog, "not joined")
    assert f"not joined to {farm.master.address} (but to elsewhere:{farm.master.port})" in said
    assert "drqueue-slave join LINE" in said
    assert "address=" not in said, "none was dialled"


async def test_the_master_in_the_settings_is_dialled_not_the_one_joined_last(
    farm: Farm, tmp_path: Path
) -> None:
    named = ScriptedMaster(str(tmp_path / "m.sock"))
    farm.joined()
    farm.route(Address("unix", path=named.path), named=True)
    async with farm.dialling(), named.link() as link:
        assert link.hi.secret == ""
        assert farm.rig.link.access is None
    named.close()


async def test_a_farm_joined_earlier_is_not_tried_instead(farm: Farm) -> None:
    """The latest is silent: going over to the former one would stop what runs."""
    farm.joined(an_access(farm.master, host="latest", farm="b"), an_access(farm.master))
    assert [str(route.address) for route in farm.rig.link._routes.now()] == [f"latest:{farm.master.port}"]


async def test_another_certificate_is_said_loudly_and_never_linked(
    farm: Farm, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.joined(an_access(farm.master, pin=encoded(b"p" * 32)))
    pauses: list[float] = []

    async def pause(link: Link, seconds: float) -> None:
        pauses.append(seconds)
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(Link, "_pause", pause)
    async with farm.dialling():
        for _ in range(2):
            async with await farm.master._accept() as channel:
                with pytest.raises(LinkClosed):
                    await channel.first_message()
        await until_logged(caplog, "NOT LINKED")
    (record,) = [record for record in caplog.records if "NOT LINKED" in record.getMessage()]
    assert record.levelno == logging.ERROR
    assert pauses[0] == 30.0
    assert not len(farm.rig.inbox)


@pytest.mark.parametrize("code", ["no-account", "revoked", "not-allowed"])
async def test_a_revoked_slave_says_so_once_and_asks_calmly(
    farm: Farm, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    farm.joined()
    pauses: list[float] = []

    async def pause(link: Link, seconds: float) -> None:
        pauses.append(seconds)
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(Link, "_pause", pause)
    async with farm.dialling():
        for _ in range(3):
            await farm.master.turn_away(code, "this node was revoked")
        await until_logged(caplog, "was revoked")
    (said,) = lines(caplog, "was revoked")
    assert ("revoked; join again: drqueue-slave join LINE" in said) is (code != "not-allowed")
    assert set(pauses[:2]) == {30.0}


async def test_a_slave_that_joins_anew_changes_over(farm: Farm) -> None:
    other = SecureMaster(farm="farm-b")
    farm.joined()
    async with farm.dialling():
        async with farm.master.link():
            assert await farm.rig.next() == Linked(1, "farm-a", 1)
            farm.rig.link.look()
            farm.joined(an_access(other, account="new"), an_access(farm.master))
            farm.rig.link.look()
            assert await farm.rig.until(Unlinked) == Unlinked(1)
        async with other.link(timeout_s=5):
            assert await farm.rig.next() == Linked(2, "farm-b", 1)
    other.close()


async def test_a_local_link_stands_though_access_is_damaged(farm: Farm, tmp_path: Path) -> None:
    named = ScriptedMaster(str(tmp_path / "m.sock"))
    farm.route(Address("unix", path=named.path))
    async with farm.dialling(), named.link():
        assert isinstance(await farm.rig.next(), Linked)
        (tmp_path / "access.json").write_text("{")
        farm.rig.link.look()
        assert farm.rig.link.number == 1
    named.close()


def test_this_machines_master_is_dialled_though_access_is_damaged(farm: Farm) -> None:
    (farm.folder / "access.json").write_text("{")
    places = Address("unix", path="/a"), farm.master.address
    farm.route(*places, named=True)
    assert [route.address for route in farm.rig.link._routes.now()] == [places[0]]
    farm.route(*places)
    with pytest.raises(AccessError):
        farm.rig.link._routes.now()


def test_nowhere_to_dial_is_a_sentence(farm: Farm) -> None:
    farm.route(Address("tcp", host="farm", port=1234), named=True)
    with pytest.raises(NotJoined, match=r"^not joined to farm:1234: drqueue-slave join LINE$"):
        farm.rig.link._routes.now()


# -- rotation -----------------------------------------------------------------------------------------------


async def test_a_new_secret_is_kept_before_its_hash_is_told(farm: Farm) -> None:
    farm.joined()
    async with farm.dialling():
        async with farm.master.link() as link:
            await farm.rig.until(Linked)
            link.channel.send(NewSecret())
            taken = await link.hear(SecretTaken)
            assert isinstance(taken, SecretTaken)
            new, old = farm.ways()
            assert secret_hash(new.secret) == taken.secret_hash
            assert old.secret == SECRET
        # The next link shows the new one; once that is taken, the old one goes.
        async with farm.master.link() as link:
            await farm.rig.until(Linked)
            assert link.hi.secret == new.secret
            assert farm.ways() == [new]


async def test_a_new_secret_that_was_not_told_in_time_is_told_again(farm: Farm) -> None:
    """The slave died between keeping and telling: the old one still works, and the new one is told then."""
    farm.joined(structs.replace(an_access(farm.master), secret="new"), an_access(farm.master))
    async with farm.dialling():
        hi = await farm.master.turn_away("no-account")
        assert hi.secret == "new"
        async with farm.master.link() as link:
            assert link.hi.secret == SECRET
            await farm.rig.until(Linked)
            farm.rig.link.say_hello(1, ())
            farm.rig.link.flush()
            await link.register()
            assert await link.hear(SecretTaken) == SecretTaken(secret_hash=secret_hash("new"))
        assert [way.secret for way in farm.ways()] == ["new", SECRET]


async def test_an_older_secret_is_for_a_master_that_does_not_know_the_newer_one(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else it says no for is no reason to show the older one."""

    async def pause(link: Link, seconds: float) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(Link, "_pause", pause)
    farm.joined(structs.replace(an_access(farm.master), secret="new"), an_access(farm.master))
    async with farm.dialling():
        shown = [(await farm.master.turn_away("busy", retry=True)).secret for _ in range(2)]
    assert shown == ["new", "new"]


async def test_a_secret_that_cannot_be_kept_is_not_told(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    farm.joined()

    def full(*_: object) -> None:
        raise AccessError("no space left")

    async with farm.dialling(), farm.master.link() as link:
        await farm.rig.until(Linked)
        monkeypatch.setattr(credentials, "write_access", full)
        link.channel.send(NewSecret())
        await until_logged(caplog, "the old one stays")
        assert not link.channel.unread
    assert [way.secret for way in farm.ways()] == [SECRET]


async def test_ticket_keys_are_handed_on_with_their_farm(farm: Farm) -> None:
    farm.joined()
    got: list[tuple[TicketKey, str]] = []
    farm.rig.link.on_ticket_key = lambda key, of: got.append((key, of))
    async with farm.dialling(), farm.master.link() as link:
        await farm.rig.until(Linked)
        key = TicketKey(key=b"k" * 32, now=5.0)
        link.channel.send(key)
        await farm.rig.until(Heard)
    assert got == [(key, "farm-a")]
