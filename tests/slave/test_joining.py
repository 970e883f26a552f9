"""Joining by a line and by approval, against a master that answers by hand; what is kept meanwhile."""

import json
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from msgspec import structs

from drqueue.access import Access, AccessError, read_access, write_access
from drqueue.address import Address
from drqueue.channel import LinkClosed
from drqueue.proto.lines import Line, approval_code, encoded, secret_hash
from drqueue.proto.link_messages import Join, Rejected
from drqueue.slave import credentials
from drqueue.slave.credentials import Joining, read_joining, write_joining
from drqueue.slave.identity import Machine, load_or_create
from drqueue.slave.joining import Introduction, Joiner, JoinFailed, join
from tests.slave.scripted_master import SecureMaster

WHO = Introduction("id-1", "print", "n1", "test")
TOKEN = encoded(b"t" * 20)
PENDING = Rejected(code="pending", text="an admin must approve this node", retry=True)


@contextmanager
def a_master() -> Iterator[SecureMaster]:
    """A master that listens."""
    master = SecureMaster()
    try:
        yield master
    finally:
        master.close()


def a_line(master: SecureMaster, **fields: str) -> Line:
    """The line of a master."""
    return Line(
        **{
            "kind": "node",
            "host": "127.0.0.1",
            "port": master.port,
            "pin": master.pin,
            "token": TOKEN,
            **fields,
        }  # type: ignore[arg-type]
    )


def ways(folder: Path) -> list[Access]:
    """What is in the folder's access.json."""
    return read_access(str(folder / "access.json"))


class Run:
    """One run of the command, as a task."""

    def __init__(self, folder: Path, target: Line | Address) -> None:
        self.folder = folder
        self.target = target
        self.said: list[str] = []
        self.came: Access | JoinFailed | None = None
        self.over = trio.Event()

    async def run(self) -> None:
        try:
            self.came = await join(
                str(self.folder), self.target, WHO, self.said.append, ask_s=0.02, other_s=0.3
            )
        except JoinFailed as error:
            self.came = error
        self.over.set()

    async def way(self) -> Access:
        """What it joined as."""
        with trio.fail_after(10):
            await self.over.wait()
        assert isinstance(self.came, Access), self.came
        return self.came

    async def failure(self) -> JoinFailed:
        """Why it did not."""
        with trio.fail_after(10):
            await self.over.wait()
        assert isinstance(self.came, JoinFailed), self.came
        return self.came


async def test_a_line_is_traded_for_a_secret_of_ones_own(tmp_path: Path, nursery: trio.Nursery) -> None:
    with a_master() as master:
        run = Run(tmp_path, a_line(master))
        nursery.start_soon(run.run)
        asked = await master.asked(master.joined())
        way = await run.way()
    assert asked == Join(
        role="slave",
        secret_hash=secret_hash(way.secret),
        token=TOKEN,
        name="n1",
        identity="id-1",
        fingerprint="print",
        software="test",
    )
    assert ways(tmp_path) == [way]
    assert (way.host, way.port, way.pin) == ("127.0.0.1", master.port, master.pin)
    assert (way.farm, way.account, way.name, way.role) == ("farm-a", "acc", "n1", "node")
    assert way.certificate.startswith("-----BEGIN CERTIFICATE")
    assert len(way.secret) == 52
    assert stat.S_IMODE(os.stat(tmp_path / "access.json").st_mode) == 0o600
    assert not (tmp_path / "joining.json").exists()


async def test_the_secret_is_on_the_disk_before_its_hash_is_told(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    """So that a crash between asking and the answer loses nothing: the same line then counts once."""
    with a_master() as master:
        run = Run(tmp_path, a_line(master))
        nursery.start_soon(run.run)
        first = await master.asked(None)
        kept = read_joining(str(tmp_path))
        assert kept is not None
        assert secret_hash(kept.secret) == first.secret_hash
        assert stat.S_IMODE(os.stat(tmp_path / "joining.json").st_mode) == 0o600
        failure = await run.failure()
        assert failure.status == 69
        again = Run(tmp_path, a_line(master))
        nursery.start_soon(again.run)
        second = await master.asked(master.joined())
        way = await again.way()
    assert (second.secret_hash, second.token) == (first.secret_hash, TOKEN)
    assert secret_hash(way.secret) == first.secret_hash


async def test_a_line_with_another_certificate_is_another_line(tmp_path: Path, nursery: trio.Nursery) -> None:
    """As of a farm that was set up anew: what was asked for with the former pin is given up."""
    with a_master() as master:
        old = Joining(host="127.0.0.1", port=master.port, pin=encoded(b"p" * 32), secret="s", token=TOKEN)
        write_joining(str(tmp_path), old)
        run = Run(tmp_path, a_line(master))
        nursery.start_soon(run.run)
        asked = await master.asked(master.joined())
        assert (await run.way()).pin == master.pin
    assert asked.secret_hash != secret_hash(old.secret)


async def test_another_line_gets_another_secret(tmp_path: Path, nursery: trio.Nursery) -> None:
    with a_master() as master:
        hashes = set()
        for n in range(2):
            run = Run(tmp_path, a_line(master, token=encoded(bytes([n]) * 20)))
            nursery.start_soon(run.run)
            hashes.add((await master.asked(None)).secret_hash)
            await run.failure()
    assert len(hashes) == 2


@pytest.mark.parametrize(("retry", "status"), [(False, 3), (True, 69)])
async def test_a_refusal_is_one_sentence(
    tmp_path: Path, nursery: trio.Nursery, retry: bool, status: int
) -> None:
    with a_master() as master:
        run = Run(tmp_path, a_line(master))
        nursery.start_soon(run.run)
        await master.asked(Rejected(code="bad-line", text="this line is too old", retry=retry))
        failure = await run.failure()
    assert failure.status == status
    assert "this line is too old" in str(failure)
    assert "\n" not in str(failure)
    assert ways(tmp_path) == []
    assert (tmp_path / "joining.json").exists() is retry


async def test_a_line_that_this_slave_used_up_is_known(tmp_path: Path, nursery: trio.Nursery) -> None:
    with a_master() as master:
        run = Run(tmp_path, a_line(master))
        nursery.start_soon(run.run)
        await master.asked(master.joined())
        way = await run.way()
        again = Run(tmp_path, a_line(master))
        nursery.start_soon(again.run)
        await master.asked(Rejected(code="bad-line", text="used up"))
        failure = await again.failure()
    assert str(failure).endswith(f"refuses: used up (this slave came in by it before, as {way.name})")
    assert ways(tmp_path) == [way]


async def test_another_certificate_is_told_nothing(tmp_path: Path, nursery: trio.Nursery) -> None:
    with a_master() as master:
        run = Run(tmp_path, a_line(master, pin=encoded(b"p" * 32)))
        nursery.start_soon(run.run)
        async with await master._accept() as channel:
            with pytest.raises(LinkClosed):
                await channel.first_message()
        failure = await run.failure()
    assert failure.status == 3
    assert "certificate" in str(failure)
    assert not (tmp_path / "joining.json").exists()


async def test_nobody_there_is_status_69(tmp_path: Path) -> None:
    with a_master() as master:
        line = a_line(master)
    with pytest.raises(
        JoinFailed, match=r"no master answers at 127\.0\.0\.1.*its admin sets `addr"
    ) as failure:
        await join(str(tmp_path), line, WHO, print)
    assert failure.value.status == 69
    with pytest.raises(JoinFailed, match=r"refused$") as failure:  # whoever typed the address knows it
        await join(str(tmp_path), Address("tcp", host="127.0.0.1", port=line.port), WHO, print)
    assert failure.value.status == 69
    assert not (tmp_path / "joining.json").exists()


async def test_asking_without_a_line_shows_the_code_until_it_is_approved(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    with a_master() as master:
        run = Run(tmp_path, master.address)
        nursery.start_soon(run.run)
        channel = await master._accept()  # it looks at the certificate first, and says nothing
        asked = [await master.asked(PENDING) for _ in range(3)]
        channel.close()
        await master.asked(master.joined())
        way = await run.way()
    assert {join.secret_hash for join in asked} == {secret_hash(way.secret)}
    assert {join.token for join in asked} == {""}
    assert way.pin == master.pin
    (said,) = run.said
    assert f"drqueue node approve {approval_code(master.pin, asked[0].secret_hash)}" in said


async def test_asking_goes_on_where_it_was_interrupted(tmp_path: Path, nursery: trio.Nursery) -> None:
    with a_master() as master:
        run = Run(tmp_path, master.address)
        with trio.CancelScope() as interrupt:
            async with trio.open_nursery() as inner:
                inner.start_soon(run.run)
                await _look_and_go(master)
                first = await master.asked(PENDING)
                interrupt.cancel()
        again = Run(tmp_path, master.address)
        nursery.start_soon(again.run)
        second = await master.asked(master.joined())
        await again.way()
    assert second.secret_hash == first.secret_hash


async def _look_and_go(master: SecureMaster) -> None:
    channel = await master._accept()
    channel.close()


async def test_whoever_waits_waits_for_a_master_that_restarts_too(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    with a_master() as master:
        run = Run(tmp_path, master.address)
        nursery.start_soon(run.run)
        await _look_and_go(master)
        await master.asked(PENDING)
        await master.asked(None)
        await master.asked(Rejected(code="busy", text="too busy", retry=True))
        await master.asked(master.joined())
        await run.way()
    assert len(run.said) == 3


async def test_a_refusal_ends_the_waiting_and_the_next_one_asks_with_another_secret(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    hashes = []
    with a_master() as master:
        for _ in range(2):
            run = Run(tmp_path, master.address)
            nursery.start_soon(run.run)
            await _look_and_go(master)
            await master.asked(PENDING)
            hashes.append((await master.asked(Rejected(code="rejected", text="no"))).secret_hash)
            assert (await run.failure()).status == 3
    assert hashes[0] != hashes[1]


async def test_two_do_not_ask_at_a_time(tmp_path: Path, nursery: trio.Nursery) -> None:
    with a_master() as master:
        run = Run(tmp_path, a_line(master))
        with credentials.joining_lock(str(tmp_path)) as mine:
            assert mine
            nursery.start_soon(run.run)
            assert (await run.failure()).status == 1
        with credentials.joining_lock(str(tmp_path)) as mine:
            assert mine


# -- the daemon --------------------------------------------------------------------------------------------


def asking(master: SecureMaster, folder: Path, token: str = "") -> Joining:
    """What an earlier command left behind."""
    kept = Joining(
        host="127.0.0.1", port=master.port, pin=master.pin, secret=credentials.new_secret(), token=token
    )
    write_joining(str(folder), kept)
    return kept


async def test_a_daemon_goes_on_asking_and_says_the_code_once(
    tmp_path: Path, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with a_master() as master:
        kept = asking(master, tmp_path)
        joiner = Joiner(str(tmp_path), lambda: WHO)
        for answer in (PENDING, PENDING, None, master.joined()):
            nursery.start_soon(joiner.look)
            asked = await master.asked(answer)
            assert asked.secret_hash == secret_hash(kept.secret)
            await _idle(tmp_path)
    assert [way.secret for way in ways(tmp_path)] == [kept.secret]
    assert read_joining(str(tmp_path)) is None
    code = approval_code(master.pin, secret_hash(kept.secret))
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if f"drqueue node approve {code}" in line]) == 1
    assert not any(kept.secret in line or "PRIVATE KEY" in line for line in lines)


async def _idle(folder: Path) -> None:
    """Return once nobody asks."""
    with trio.fail_after(5):
        while True:
            with credentials.joining_lock(str(folder)) as mine:
                if mine:
                    return
            await trio.sleep(0.005)


async def test_a_daemon_that_was_refused_asks_no_more(tmp_path: Path, nursery: trio.Nursery) -> None:
    with a_master() as master:
        asking(master, tmp_path)
        joiner = Joiner(str(tmp_path), lambda: WHO)
        nursery.start_soon(joiner.look)
        await master.asked(Rejected(code="rejected", text="an admin rejected this node"))
        await _idle(tmp_path)
        kept = read_joining(str(tmp_path))
        assert kept is not None
        assert kept.refused
        with trio.fail_after(5):
            await joiner.look()
        with pytest.raises(BlockingIOError):
            master._listener.accept()


async def test_a_daemon_leaves_the_command_alone(tmp_path: Path) -> None:
    with a_master() as master:
        asking(master, tmp_path)
        with credentials.joining_lock(str(tmp_path)), trio.fail_after(5):
            await Joiner(str(tmp_path), lambda: WHO).look()
        with pytest.raises(BlockingIOError):
            master._listener.accept()


# -- cloned disks ------------------------------------------------------------------------------------------


def an_access(**fields: object) -> Access:
    """A way in."""
    given = {"host": "10.0.0.1", "port": 1234, "pin": "p", "farm": "f", "account": "a", "name": "n1"}
    return Access(**{**given, "role": "node", "secret": "s1", **fields})  # type: ignore[arg-type]


def test_a_cloned_disk_sets_the_secret_aside_and_asks_with_one_of_its_own(tmp_path: Path) -> None:
    former = load_or_create(str(tmp_path), "n1", Machine("print"))
    write_access(str(tmp_path / "access.json"), [an_access(), an_access(host="old", secret="s2")])
    clone = load_or_create(str(tmp_path), "n1", Machine("other"))
    assert clone.cloned
    assert clone.id != former.id
    assert ways(tmp_path) == []
    assert read_access(str(tmp_path / "access.json.cloned"))[0].secret == "s1"
    kept = read_joining(str(tmp_path))
    assert kept is not None
    assert (kept.host, kept.port, kept.pin, kept.token) == ("10.0.0.1", 1234, "p", "")
    assert kept.secret not in ("s1", "s2")
    assert load_or_create(str(tmp_path), "n1", Machine("other")) == clone
    assert read_joining(str(tmp_path)) == kept


def test_a_clone_of_one_that_was_still_asking_asks_with_a_secret_of_its_own(tmp_path: Path) -> None:
    load_or_create(str(tmp_path), "n1", Machine("print"))
    kept = Joining(host="h", port=1, pin="p", secret="s", token="t", refused=True)
    write_joining(str(tmp_path), kept)
    load_or_create(str(tmp_path), "n1", Machine("other"))
    asks = read_joining(str(tmp_path))
    assert asks is not None
    assert asks.secret != "s"
    assert asks == structs.replace(kept, secret=asks.secret, refused=False)


def test_a_crash_between_both_steps_of_a_clone_gives_the_old_secret_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_or_create(str(tmp_path), "n1", Machine("print"))
    write_access(str(tmp_path / "access.json"), [an_access()])

    def power_cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("drqueue.slave.identity.save", power_cut)
        with pytest.raises(KeyboardInterrupt):
            load_or_create(str(tmp_path), "n1", Machine("other"))
    assert json.loads((tmp_path / "identity.json").read_text())["id"] == first.id
    assert ways(tmp_path) == []
    assert load_or_create(str(tmp_path), "n1", Machine("other")).id != first.id
    assert read_joining(str(tmp_path)) is not None


def test_damaged_files_of_a_clone_go_aside_too(tmp_path: Path) -> None:
    load_or_create(str(tmp_path), "n1", Machine("print"))
    (tmp_path / "access.json").write_text("{")
    (tmp_path / "access.json").chmod(0o600)
    load_or_create(str(tmp_path), "n1", Machine("other"))
    assert not (tmp_path / "access.json").exists()
    assert read_joining(str(tmp_path)) is None


# -- rotation ----------------------------------------------------------------------------------------------


def test_a_new_secret_stands_before_the_one_that_opened_the_link(tmp_path: Path) -> None:
    path, used, other = str(tmp_path / "access.json"), an_access(), an_access(host="b", farm="g")
    write_access(path, [other, used])
    told = credentials.rotate(str(tmp_path), used)
    new = ways(tmp_path)[1]
    assert [way.secret for way in ways(tmp_path)] == ["s1", new.secret, "s1"]
    assert told == secret_hash(new.secret)
    assert new.secret != "s1"
    assert structs.replace(new, secret="s1") == used
    # Asked again before it was ever shown: the same, for its hash may have been told.
    assert credentials.rotate(str(tmp_path), used) == told
    assert len(ways(tmp_path)) == 3
    assert credentials.accepted(str(tmp_path), used) == told
    assert len(ways(tmp_path)) == 3
    assert credentials.accepted(str(tmp_path), new) == ""
    assert ways(tmp_path) == [other, new]


@pytest.mark.parametrize("text", ['{"host": 5}', '{"\\udcff": "x"}', '{"host": "\\ud800"}'])
def test_what_is_damaged_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "joining.json").write_text(text)
    with pytest.raises(AccessError, match=r"joining.json is damaged: .*delete it"):
        read_joining(str(tmp_path))
